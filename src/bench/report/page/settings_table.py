"""The page's table of settings, and what to mind in reading it.

The rows stand in the order of `bench.analysis.ranking`. A column of which nothing is known is left out, and a note says
why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from bench.analysis.ranking import MARKS
from bench.analysis.trials.summary import Summary, compiled_while_measured
from bench.report.measured import Measured, Read, median_of
from bench.report.page.content import Cell, Column, SettingRow, SettingsTable
from bench.report.text import unverified
from bench.report.text.format import UNDEFINED, bare, mebibytes, milliseconds, one_line, percent, run_title, significant
from bench.results.record import STATUSES

ROWS_SHOWN = 2000
NOTES_SHOWN = 12  # of one kind
NAMES_SHOWN = 6
Write = Callable[[float | None], str]


def _plain(name: str) -> Read:
    """Reads a figure of a summary that is one number."""

    def read(summary: Summary) -> float | None:
        value = getattr(summary, name)
        return None if value is None else float(value)

    return read


# Column, how the figure is read, how it is written; in the order of the headline metrics.
_FIGURES: tuple[tuple[Column, Read, Write], ...] = (
    (
        Column(header="E2E", unit="ms", meaning="call to return, median"),
        median_of(lambda each: each.e2e_s),
        milliseconds,
    ),
    (
        Column(header="TTFT", unit="ms", meaning="call to the first new token, median"),
        median_of(lambda each: each.ttft_s),
        milliseconds,
    ),
    (
        Column(header="ITL", unit="ms", meaning="gap between tokens, median"),
        median_of(lambda each: each.itl_s),
        milliseconds,
    ),
    (
        Column(header="TPOT", unit="ms", meaning="time per output token after the first, median"),
        median_of(lambda each: each.tpot_s),
        milliseconds,
    ),
    (
        Column(header="tok/s", unit="output", meaning="batch × new tokens over E2E, totals over totals"),
        _plain("output_tokens_per_s"),
        significant,
    ),
    (
        Column(header="tok/s", unit="decode", meaning="the same without each call's first token"),
        _plain("decode_tokens_per_s"),
        significant,
    ),
    (Column(header="Cold", unit="s", meaning="the first call of the process"), _plain("cold_start_s"), significant),
    (Column(header="Peak", unit="MiB", meaning="peak memory"), _plain("peak_bytes"), mebibytes),
    (
        Column(header="MBU", unit="%", meaning="share of the measured bandwidth in decoding"),
        _plain("decode_mbu"),
        percent,
    ),
    (Column(header="Energy", unit="J/token", meaning="of the measured calls"), _plain("joules_per_token"), significant),
)
MARK_WORDS = {"output": "output DIFFERS", "warm-up": "not warm", "unsteady": "unsteady"}
_MAY_BE_UNKNOWN = ("MBU", "Energy")  # on whole machines


def build_table(settings: Sequence[Measured], swept: Sequence[str]) -> SettingsTable:
    """The table.

    Args:
        settings: as typed.
        swept: override keys that stand as columns.
    """
    ordered = sorted(settings, key=lambda each: each.place)[:ROWS_SHOWN]
    columns = [Column(header="Status", meaning="how its jobs ended", is_number=False)]
    rows = [[_status(each)] for each in ordered]
    if any(len(each.records) > 1 for each in settings):
        columns.append(Column(header="Runs", meaning="processes behind the figures"))
        _add(rows, [Cell(text=_runs(each), value=float(each.processes)) for each in ordered])
    left_out = len(settings) - len(ordered)
    notes = [f"{left_out} more settings are not shown; --format csv has them all"] if left_out else []
    for column, read, write in _FIGURES:
        cells = [_figure(each, read, write, is_start=column.header == "Cold") for each in ordered]
        if column.header in _MAY_BE_UNKNOWN and all(cell.value is None for cell in cells):
            notes.append(f"{column.header} is not known{_why_unknown(settings, column.header)}")
            continue
        columns.append(column)
        _add(rows, cells)
        if column.header == "E2E":
            columns.append(Column(header="±", unit="%", meaning="half of the median's 95 % interval over the calls"))
            _add(rows, [Cell(text=percent(each.half_width), value=each.half_width) for each in ordered])
    columns += [
        Column(header="Steady", meaning="whether the measured calls were steady", is_number=False),
        Column(header="Output", meaning="whether tokens and logits are the reference's", is_number=False),
        Column(header="Graphs", meaning="that torch.compile made, as observed"),
        *(Column(header=one_line(key), meaning="swept", is_number=False) for key in swept),
    ]
    for row, each in zip(rows, ordered, strict=True):
        row += [_steady(each), _output(each), _graphs(each)]
        row += [Cell(text=one_line(bare(each.setting.swept.get(key, UNDEFINED)))) for key in swept]
    return SettingsTable(
        columns=columns,
        rows=[
            SettingRow(name=each.name, colour=each.colour, marks=list(_marks(each)), cells=cells)
            for each, cells in zip(ordered, rows, strict=True)
        ],
        notes=[*_notes(settings), *notes],
    )


def _add(rows: Sequence[list[Cell]], cells: Iterable[Cell]) -> None:
    for row, cell in zip(rows, cells, strict=True):
        row.append(cell)


# ---- cells ---------------------------------------------------------------------------------------------------------


def _status(setting: Measured) -> Cell:
    tone = {"ok": "good", "skipped": "doubt"}.get(setting.status, "bad")
    return Cell(text=setting.status, value=float(STATUSES.index(setting.status)), tone=tone)


def _runs(setting: Measured) -> str:
    whole = len(setting.records)
    return str(whole) if setting.processes == whole else f"{setting.processes} of {whole}"


def _figure(setting: Measured, read: Read, write: Write, *, is_start: bool) -> Cell:
    value = setting.figure(read)
    mark = " w" if is_start and setting.starts_warm else ""
    return Cell(text=write(value) + mark, value=value)


def _steady(setting: Measured) -> Cell:
    tone = "doubt" if setting.standing.has("unsteady") else ""
    return Cell(text=setting.steady, tone=tone)


def _output(setting: Measured) -> Cell:
    return Cell(text=setting.output, tone="bad" if setting.is_wrong else "")


def _graphs(setting: Measured) -> Cell:
    text = setting.graphs
    first = text.partition(" ")[0]
    return Cell(text=text, value=float(first) if first.isdecimal() else None)


def _marks(setting: Measured) -> Iterator[str]:
    if setting.is_lowest:
        yield "lowest median"
    for each in setting.standing.reasons:
        if each.kind in MARK_WORDS:
            yield f"{MARKS[each.kind]} {MARK_WORDS[each.kind]}"
    if setting.unverified:
        yield f"{unverified.MARK} {unverified.WORD}"


# ---- notes ---------------------------------------------------------------------------------------------------------


def _notes(settings: Sequence[Measured]) -> Iterator[str]:
    """What speaks against figures, and what they cannot tell; each kind cut to a length that one reads."""
    for kind in (_not_ranked(settings), _unverified(settings), _troubles(settings), _unequal(settings)):
        lines = list(kind)
        yield from lines[:NOTES_SHOWN]
        if len(lines) > NOTES_SHOWN:
            yield f"and {len(lines) - NOTES_SHOWN} more notes of this kind"


def _not_ranked(settings: Sequence[Measured]) -> Iterator[str]:
    for each in settings:
        if each.processes and not each.is_ranked:
            reasons = "; ".join(one_line(reason.text) for reason in each.standing.reasons)
            yield f"{each.name} is not ranked: {reasons}"


def _unverified(settings: Sequence[Measured]) -> list[str]:
    return unverified.notes([(each.name, each.unverified) for each in settings if each.processes])


def _troubles(settings: Sequence[Measured]) -> Iterator[str]:
    for record in (record for each in settings for record in each.setting.records):
        said = record.fidelity
        if said is not None and said.agrees is None and said.reason:
            yield f"{run_title(record)}: output not compared: {one_line(said.reason)}"
        if record.output is not None and not record.output.same_in_all_calls:
            yield f"{run_title(record)}: its calls put out different tokens"
        if count := compiled_while_measured(record):
            yield f"{run_title(record)}: compiled anew in {count} of {len(record.calls('measurement'))} measured calls"
        if record.neighbours is not None and record.neighbours.count:
            yield f"{run_title(record)}: {record.neighbours.count} other jobs of bench ran on its host meanwhile"


def _unequal(settings: Sequence[Measured]) -> Iterator[str]:
    if any(each.starts_warm for each in settings):
        yield "w: compiled code came from a cache, so the first call was no cold start"
    if any(each.compiles_itself for each in settings):
        yield "own: flex_attention compiles itself, compile.mode or not"
    caches: dict[str, list[str]] = {}
    for each in settings:
        seen = each.counted[0].observed
        if each.processes and seen is not None and seen.kv_cache:
            caches.setdefault(seen.kv_cache, []).append(each.name)
    if len(caches) > 1:
        kinds = "; ".join(f"{kind} in {_some(names)}" for kind, names in caches.items())
        yield f"KV caches differ: {kinds}. generation.kv_cache=static compares like with like"


def _why_unknown(settings: Sequence[Measured], header: str) -> str:
    records = [record for each in settings for record in each.setting.records]
    parts = [each.energy if header == "Energy" else each.roofline for each in records]
    reasons = dict.fromkeys(one_line(part.reason) for part in parts if part is not None and part.reason)
    return f": {next(iter(reasons))}" if reasons else ""


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
