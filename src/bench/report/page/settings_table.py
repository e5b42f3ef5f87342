"""Build the page's table of settings, and the notes for reading it.

The rows have the order of `bench.analysis.ranking`. A column without known values is left out, and a note says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.analysis.ranking import MARKS
from bench.report.page.content import Cell, Column, SettingRow, SettingsTable
from bench.report.quantities import (
    COLD_START,
    DECODE_THROUGHPUT,
    E2E,
    E2E_HALF_WIDTH,
    ENERGY,
    ITL,
    MBU,
    OUTPUT_THROUGHPUT,
    PEAK_MEMORY,
    TPOT,
    TTFT,
    Quantity,
)
from bench.report.setting_notes import SAME_CACHE, compilation_notes, kv_caches, process_notes
from bench.report.setting_view import SettingView
from bench.report.text import unverified
from bench.report.text.format import UNDEFINED, bare, listed, one_line, run_title
from bench.results.record import STATUSES

ROWS_SHOWN = 2000
NOTES_SHOWN = 12  # of one kind
NAMES_SHOWN = 6
# In the order of the headline metrics.
_FIGURES: tuple[tuple[Column, Quantity], ...] = (
    (Column(header="E2E", unit="ms", meaning="call to return, median"), E2E),
    (Column(header="±", unit="%", meaning="half of the median's 95 % interval over the calls"), E2E_HALF_WIDTH),
    (Column(header="TTFT", unit="ms", meaning="call to the first new token, median"), TTFT),
    (Column(header="ITL", unit="ms", meaning="gap between tokens, median"), ITL),
    (Column(header="TPOT", unit="ms", meaning="time per output token after the first, median"), TPOT),
    (
        Column(header="tok/s", unit="output", meaning="batch × new tokens over E2E, totals over totals"),
        OUTPUT_THROUGHPUT,
    ),
    (Column(header="tok/s", unit="decode", meaning="the same without each call's first token"), DECODE_THROUGHPUT),
    (Column(header="Cold", unit="s", meaning="the first call of the process"), COLD_START),
    (Column(header="Peak", unit="MiB", meaning="peak memory"), PEAK_MEMORY),
    (Column(header="MBU", unit="%", meaning="share of the measured bandwidth in decoding"), MBU),
    (Column(header="Energy", unit="J/token", meaning="of the measured calls"), ENERGY),
)
MARK_WORDS = {"output": "output DIFFERS", "warm-up": "not warm", "unsteady": "unsteady"}
_MAY_BE_UNKNOWN = ("MBU", "Energy")  # on whole machines


def build_table(settings: Sequence[SettingView], swept: Sequence[str]) -> SettingsTable:
    """Return the table.

    Args:
        settings: as typed.
        swept: override keys shown as columns.
    """
    ordered = sorted(settings, key=lambda each: each.place)[:ROWS_SHOWN]
    columns = [Column(header="Status", meaning="how its jobs ended", is_number=False)]
    rows = [[_status(each)] for each in ordered]
    if any(len(each.records) > 1 for each in settings):
        columns.append(Column(header="Runs", meaning="processes behind the figures"))
        _add(rows, [Cell(text=_runs(each), value=float(each.processes)) for each in ordered])
    left_out = len(settings) - len(ordered)
    notes = [f"{left_out} more settings are not shown; --format csv has them all"] if left_out else []
    for column, quantity in _FIGURES:
        cells = [_figure(each, quantity) for each in ordered]
        if column.header in _MAY_BE_UNKNOWN and all(cell.value is None for cell in cells):
            notes.append(f"{column.header} is not known{_why_unknown(settings, column.header)}")
            continue
        columns.append(column)
        _add(rows, cells)
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


def _status(setting: SettingView) -> Cell:
    tone = {"ok": "good", "skipped": "doubt"}.get(setting.status, "bad")
    return Cell(text=setting.status, value=float(STATUSES.index(setting.status)), tone=tone)


def _runs(setting: SettingView) -> str:
    whole = len(setting.records)
    return str(whole) if setting.processes == whole else f"{setting.processes} of {whole}"


def _figure(setting: SettingView, quantity: Quantity) -> Cell:
    value = setting.figure(quantity)
    mark = " w" if quantity is COLD_START and setting.starts_warm else ""
    return Cell(text=quantity.write(value) + mark, value=None if value is None else float(value))


def _steady(setting: SettingView) -> Cell:
    tone = "doubt" if setting.standing.has("unsteady") else ""
    return Cell(text=setting.steady, tone=tone)


def _output(setting: SettingView) -> Cell:
    return Cell(text=setting.output, tone="bad" if setting.is_wrong else "")


def _graphs(setting: SettingView) -> Cell:
    text = setting.graphs
    first = text.partition(" ")[0]
    return Cell(text=text, value=float(first) if first.isdecimal() else None)


def _marks(setting: SettingView) -> Iterator[str]:
    if setting.is_lowest:
        yield "lowest median"
    for each in setting.standing.reasons:
        if each.kind in MARK_WORDS:
            yield f"{MARKS[each.kind]} {MARK_WORDS[each.kind]}"
    if setting.unverified:
        yield f"{unverified.MARK} {unverified.WORD}"


# ---- notes ---------------------------------------------------------------------------------------------------------


def _notes(settings: Sequence[SettingView]) -> Iterator[str]:
    """Name doubts about the figures, and their limits; each kind is cut to a readable length."""
    for kind in (_not_ranked(settings), _unverified(settings), _troubles(settings), _unequal(settings)):
        lines = list(kind)
        yield from lines[:NOTES_SHOWN]
        if len(lines) > NOTES_SHOWN:
            yield f"and {len(lines) - NOTES_SHOWN} more notes of this kind"


def _not_ranked(settings: Sequence[SettingView]) -> Iterator[str]:
    for each in settings:
        if each.processes and not each.is_ranked:
            reasons = "; ".join(one_line(reason.text) for reason in each.standing.reasons)
            yield f"{each.name} is not ranked: {reasons}"


def _unverified(settings: Sequence[SettingView]) -> list[str]:
    return unverified.notes([(each.name, each.unverified) for each in settings if each.processes])


def _troubles(settings: Sequence[SettingView]) -> Iterator[str]:
    for record in (record for each in settings for record in each.setting.records):
        yield from process_notes(record)
        if record.neighbours is not None and record.neighbours.count:
            yield f"{run_title(record)}: {record.neighbours.count} other jobs of bench ran on its host meanwhile"


def _unequal(settings: Sequence[SettingView]) -> Iterator[str]:
    yield from compilation_notes(settings)
    if len(caches := kv_caches(settings)) > 1:
        kinds = "; ".join(f"{kind} in {listed(names, NAMES_SHOWN)}" for kind, names in caches.items())
        yield f"KV caches differ: {kinds}. {SAME_CACHE}"


def _why_unknown(settings: Sequence[SettingView], header: str) -> str:
    records = [record for each in settings for record in each.setting.records]
    parts = [each.energy if header == "Energy" else each.roofline for each in records]
    reasons = dict.fromkeys(one_line(part.reason) for part in parts if part is not None and part.reason)
    return f": {next(iter(reasons))}" if reasons else ""
