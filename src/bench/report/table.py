"""The closing table of a sweep, and the list of jobs of a dry run.

It shows one row a setting and orders the rows; it does not judge. The setting with the lowest median is marked as
just that; one that did not stay on a level, one whose output differs from the reference's, one whose warm-up did not
converge, which comes after all that did, and one whose evidence could not see all carry marks of their own; and what
makes rows incomparable (another workload, model or device, another kind of KV cache) is named below the table. Verdicts
need several processes a setting: ``bench.report.comparison`` shows them.

A figure of several repeats is the median over the processes that came through of each one's own figure.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.analysis.code_sources import pool_ids, pool_marks, unusual_sources
from bench.analysis.settings import MODEL_KEYS, asked, steady_words, unverified_in
from bench.analysis.summary import Stats, Summary, compiled_while_measured, summarize
from bench.record import STATUSES, Record, Unverified
from bench.report import unverified
from bench.report.compiled import compiles_itself, graphs_words, starts_warm
from bench.report.format import (
    FAILURE_STYLE,
    UNDEFINED,
    is_wrong,
    mebibytes,
    milliseconds,
    one_line,
    percent,
    reason,
    run_title,
    significant,
    status_style,
    title,
)
from bench.report.layout import PLAIN_WIDTH, grid, is_watched, natural_width, print_at

NARROWEST_NAME = 14
# Left out in this order where the console is too narrow for all.
EXPENDABLE = (
    "MBU %", "peak MiB", "ITL ms", "warm-up", "graphs", "cold s", "TTFT ms", "±%", "steady", "output", "runs", "tok/s"
)  # fmt: skip
# Marks behind a setting's name, which stay whatever column is left out; each is explained below the table.
LOWEST, UNSTEADY, WRONG, NOT_WARM, UNVERIFIED = "*", "!", "≠", "~", unverified.MARK
NAMES_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row: all runs of one trial, and the figures of those that count (the ok ones, or all where none is)."""

    name: str
    status: str
    runs: int
    counted: list[Record]
    summaries: list[Summary]

    def figure(self, read: Callable[[Summary], float | None]) -> float | None:
        """The median over processes of one figure; None when no process has it."""
        values = [value for value in map(read, self.summaries) if value is not None]
        return statistics.median(values) if values else None

    @property
    def e2e_s(self) -> float | None:
        """The headline, which orders the rows."""
        return self.figure(lambda summary: _median(summary.e2e_s))

    @property
    def graphs(self) -> str:
        """As `bench.report.compiled` writes them."""
        return graphs_words(self.counted)

    @property
    def compiles_itself(self) -> bool:
        """Whether graphs were made although none were asked for."""
        return compiles_itself(self.counted)

    @property
    def is_wrong(self) -> bool:
        """Whether any of its processes put out something else than the reference."""
        return any(is_wrong(each) for each in self.counted)

    @property
    def output(self) -> Text:
        """How the output compares with the reference's."""
        if self.is_wrong:
            return Text("DIFFERS", style=FAILURE_STYLE)
        same = all(each.fidelity is not None and each.fidelity.agrees for each in self.counted)
        return Text("same" if same else UNDEFINED)

    @property
    def is_unsteady(self) -> bool:
        """Whether at least half of its processes left their level while they were measured."""
        left = sum(each.steadiness is not None and each.steadiness.steady is False for each in self.counted)
        return 2 * left >= len(self.counted) and left > 0

    @property
    def steady(self) -> str:
        """In one word whether its processes stayed on one level, or how many of them did."""
        return steady_words(self.counted)

    @property
    def is_warm(self) -> bool:
        """Whether the warm-up did its work in more than half of its processes."""
        return 2 * sum(each.warmup_status == "not_converged" for each in self.counted) < len(self.counted)

    @property
    def warmup_calls(self) -> str:
        """How many warm-up calls its processes made: the range where they differ."""
        counts = sorted({len(each.calls("warmup")) for each in self.counted})
        text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"
        return text if self.is_warm else f"{text} {NOT_WARM}"

    @property
    def starts_warm(self) -> bool:
        """Whether the first call was no cold start."""
        return starts_warm(self.counted)

    @property
    def unverified(self) -> list[Unverified]:
        """What its evidence could not see."""
        return unverified_in(self.counted)


def print_table(console: Console, records: Sequence[Record]) -> None:
    """The table of all settings, fastest first, then why others have no figures, then what to mind in reading it.

    A setting whose warm-up did not converge is not ranked: it stands below those whose did. Nor is one marked as the
    lowest that did not stay on one level, or whose output differs.
    """
    if not records:
        return
    settings = _settings(records)
    ranked = [each for each in settings if each.status == "ok" and each.e2e_s is not None and each.is_warm]
    differing = _differing(ranked)
    trusted = [each for each in ranked if not each.is_wrong and not each.is_unsteady]
    lowest = _lowest(trusted) if not differing else []
    width = console.width if is_watched(console) else PLAIN_WIDTH

    print_at(console, _fitting(console, settings, lowest, width), width)
    reasons = [Text.assemble((run_title(each), "bold"), f": {reason(each)}") for each in records if each.status != "ok"]
    notes = [Text(each) for each in (*_mark_note(lowest, ranked), *_comparability_notes(ranked, differing))]
    marks = [Text(each) for each in _trust_notes(records, settings)]
    for paragraph in filter(None, (reasons, marks, notes)):
        print_at(console, Text(), width)
        for text in paragraph:
            first, *rest = text.wrap(console, width - 2)
            print_at(console, Text("\n  ").join([first, *rest]), width)


# ---- rows --------------------------------------------------------------------------------------------------------


def _settings(records: Sequence[Record]) -> list[Setting]:
    """One row for each setting: the ok ones by E2E, then the others in the order of their statuses."""
    groups: dict[str, list[Record]] = {}
    for record, pool in zip(records, pool_ids(records), strict=True):
        groups.setdefault(pool, []).append(record)
    settings, marks = [], pool_marks(records)
    for pool, group in groups.items():
        counted = [each for each in group if each.status == "ok"] or group
        worst = max((each.status for each in counted), key=STATUSES.index)
        summaries = [summarize(each) for each in counted]
        settings.append(
            Setting(
                name=title(group[0]) + marks[pool], status=worst, runs=len(group), counted=counted, summaries=summaries
            )
        )
    return sorted(
        settings,
        key=lambda each: (
            STATUSES.index(each.status),
            not each.is_warm,
            float("inf") if each.e2e_s is None else each.e2e_s,
        ),
    )


def _median(stats: Stats | None) -> float | None:
    return stats.median if stats else None


def _half_width(stats: Stats | None) -> float | None:
    """Half the rank interval of the median, as a fraction of the median."""
    if stats is None or stats.median_low is None or stats.median_high is None or not stats.median:
        return None
    return (stats.median_high - stats.median_low) / 2 / stats.median


def _columns(settings: Sequence[Setting]) -> dict[str, list[Text]]:
    """Header → cells of every column after the name."""
    figures: dict[str, tuple[Callable[[Summary], float | None], Callable[[float | None], str]]] = {
        "E2E ms": (lambda summary: _median(summary.e2e_s), milliseconds),
        "±%": (lambda summary: _half_width(summary.e2e_s), percent),
        "TTFT ms": (lambda summary: _median(summary.ttft_s), milliseconds),
        "ITL ms": (lambda summary: _median(summary.itl_s), milliseconds),
        "tok/s": (lambda summary: summary.output_tokens_per_s, significant),
        "cold s": (lambda summary: summary.cold_start_s, significant),
        "peak MiB": (lambda summary: summary.peak_bytes, mebibytes),
        "MBU %": (lambda summary: summary.decode_mbu, percent),
    }
    columns = {"status": [Text(each.status, style=status_style(each.status)) for each in settings]}
    if any(each.runs > 1 for each in settings):
        columns["runs"] = [Text(_runs(each)) for each in settings]
    for header, (read, write) in figures.items():
        columns[header] = [Text(write(each.figure(read))) for each in settings]
    if any(record.steadiness is not None for each in settings for record in each.counted):
        columns["steady"] = [Text(each.steady) for each in settings]
    if any(asked(record, "warmup.policy") == "auto" for each in settings for record in each.counted):
        columns["warm-up"] = [Text(each.warmup_calls) for each in settings]
    columns["cold s"] = [
        Text(f"{cell.plain} w" if each.starts_warm else cell.plain)
        for each, cell in zip(settings, columns["cold s"], strict=True)
    ]
    if all(cell.plain == UNDEFINED for cell in columns["MBU %"]):
        del columns["MBU %"]
    if any(record.fidelity is not None for each in settings for record in each.counted):
        columns["output"] = [each.output for each in settings]
    columns["graphs"] = [Text(each.graphs) for each in settings]
    return columns


def _runs(setting: Setting) -> str:
    """How many processes stand behind the figures, and of how many."""
    counted = len(setting.counted)
    return str(counted) if counted == setting.runs else f"{counted} of {setting.runs}"


# ---- layout ------------------------------------------------------------------------------------------------------


def _fitting(console: Console, settings: Sequence[Setting], lowest: Sequence[Setting], width: int) -> Table:
    """The most generous layout that fits: headers in two lines, then narrower gaps, names wrapped, fewer columns."""
    columns = _columns(settings)
    names = [" ".join([each.name, *_marks(each, lowest)]) for each in settings]
    for two_lines, gap in ((False, 2), (True, 2), (True, 1)):
        table = _layout(names, columns, two_lines=two_lines, gap=gap)
        if natural_width(console, table) <= width:
            return table
    for header in (None, *EXPENDABLE):
        columns.pop(header or "", None)
        spare = width - natural_width(console, _layout([""] * len(names), columns, two_lines=True, gap=1))
        if spare >= 0:
            break
    # textwrap breaks names at spaces and hyphens, rich would break them anywhere.
    wrapped = [textwrap.fill(each, NARROWEST_NAME + max(spare, 0)) for each in names]
    return _layout(wrapped, columns, two_lines=True, gap=1)


def _layout(names: Sequence[str], columns: dict[str, list[Text]], *, two_lines: bool, gap: int) -> Table:
    table = grid(gap=gap)
    table.add_column("setting", overflow="fold", min_width=NARROWEST_NAME)
    for header in columns:
        text = Text(header.replace(" ", "\n") if two_lines else header)
        table.add_column(text, no_wrap=True, justify="left" if header == "status" else "right")
    for row, name in enumerate(names):
        table.add_row(Text(name), *(cells[row] for cells in columns.values()))
    return table


# ---- notes -------------------------------------------------------------------------------------------------------


def _lowest(ranked: Sequence[Setting]) -> list[Setting]:
    """The setting with the lowest median (all of them where several have it); none where there is no other."""
    if len(ranked) < 2:
        return []
    minimum = min(each.e2e_s for each in ranked if each.e2e_s is not None)
    return [each for each in ranked if each.e2e_s == minimum]


def _marks(setting: Setting, lowest: Sequence[Setting]) -> list[str]:
    if setting.status != "ok":  # says itself what is wrong, and ranks nowhere
        return []
    found = {
        UNSTEADY: setting.is_unsteady,
        WRONG: setting.is_wrong,
        NOT_WARM: not setting.is_warm,
        UNVERIFIED: bool(setting.unverified),
    }
    return [LOWEST] * (setting in lowest) + [mark for mark, is_due in found.items() if is_due]


def _mark_note(lowest: Sequence[Setting], ranked: Sequence[Setting]) -> Iterable[str]:
    """What the mark of the lowest median means; it is no verdict, whatever the number of processes."""
    if not lowest:
        return
    fewest, most = min(len(each.counted) for each in ranked), max(len(each.counted) for each in ranked)
    if most == 1:
        yield f"{LOWEST} lowest median of one process each: descriptive, not a verdict"
    else:
        processes = str(most) if fewest == most else f"{fewest} to {most}"
        yield f"{LOWEST} lowest median over {processes} processes; no verdict on the difference"


def _flags(setting: Setting) -> str:
    """What was found in how many of its processes."""
    found = [flag for each in setting.counted if each.steadiness is not None for flag in each.steadiness.flags]
    processes = len(setting.counted)
    if processes == 1:
        return ", ".join(found)
    return ", ".join(f"{flag} in {found.count(flag)} of {processes} processes" for flag in dict.fromkeys(found))


def _trust_notes(records: Sequence[Record], settings: Sequence[Setting]) -> Iterable[str]:
    """What speaks against a figure although its job came through."""
    for each in records:
        if each.status != "ok":
            continue
        if is_wrong(each) and each.fidelity is not None:
            yield f"{WRONG} {run_title(each)}: output DIFFERS from the reference: {each.fidelity.reason}"
        elif each.fidelity is not None and each.fidelity.agrees is None:
            yield f"{run_title(each)}: output not compared: {each.fidelity.reason}"
        if each.output is not None and not each.output.same_in_all_calls:
            yield f"{run_title(each)}: its calls put out different tokens"
        if count := compiled_while_measured(each):
            yield f"{run_title(each)}: compiled anew in {count} of {len(each.calls('measurement'))} measured calls"
    yield from _steadiness_notes(settings)
    yield from unverified.notes([(each.name, each.unverified) for each in settings if each.status == "ok"])
    yield from _neighbour_notes(records)
    yield from _source_notes(records)
    if any(each.starts_warm for each in settings):
        yield "w: compiled code came from a cache, so the first call was no cold start"
    if any(each.compiles_itself for each in settings):
        yield "own: flex_attention compiles itself, compile.mode or not"


def _neighbour_notes(records: Sequence[Record]) -> Iterable[str]:
    """Which jobs shared their host with others, and why that is not known."""
    seen = [(each, each.neighbours) for each in records if each.neighbours is not None]
    beside = [f"{run_title(each)} ({found.count})" for each, found in seen if found.count]
    if beside:
        jobs = "1 job had" if len(beside) == 1 else f"{len(beside)} jobs had"
        yield f"{jobs} neighbours on the same host (how many): {_some(beside)}"
    for why in dict.fromkeys(found.unknown for _, found in seen if found.unknown):
        yield f"jobs of this host were neither counted nor kept apart: {one_line(why)}"


def _source_notes(records: Sequence[Record]) -> Iterable[str]:
    """Which libraries were not those that pip installed: a line for each copy."""
    jobs: dict[str, list[str]] = {}
    for each in records:
        for library, words in unusual_sources(each).items():
            jobs.setdefault(f"{library} {one_line(words)}", []).append(run_title(each))
    for text, titles in jobs.items():
        yield f"imported: {text}" + ("" if len(titles) == len(records) else f" in {_some(titles)}")


def _steadiness_notes(settings: Sequence[Setting]) -> Iterable[str]:
    for setting in settings:
        if setting.status == "ok" and setting.is_unsteady:
            yield f"{UNSTEADY} {setting.name} did not stay on one level: {_flags(setting)}"
    for setting in settings:
        if setting.status == "ok" and not setting.is_warm:
            stops = [each.warmup_stop for each in setting.counted if each.warmup_status == "not_converged"]
            yield f"{NOT_WARM} {setting.name} is not ranked, its warm-up did not converge: {stops[0]}"


def _comparability_notes(ranked: Sequence[Setting], differing: Sequence[str]) -> Iterable[str]:
    if differing:
        # Only where more tokens are made does the rate stay fair; other prompts or models are other work altogether.
        fair = set(differing) <= {"workload.batch_size", "workload.num_tokens_to_generate"}
        advice = "compare tok/s, not E2E" if fair else "not comparable on E2E"
        yield f"settings differ in {', '.join(differing)}: {advice}"
    caches: dict[str, list[str]] = {}
    for each in ranked:
        observed = each.counted[0].observed
        if observed and observed.kv_cache:
            caches.setdefault(observed.kv_cache.removesuffix("Cache").lower(), []).append(each.name)
    # Who chose both kinds by hand knows; "auto" chooses by itself.
    chosen = {asked(each.counted[0], "generation.kv_cache") for each in ranked}
    if len(caches) > 1 and chosen != {"dynamic", "static"}:
        kinds = "; ".join(f"{kind} in {_some(names)}" for kind, names in caches.items())
        yield f"note: KV caches differ: {kinds}. generation.kv_cache=static compares like with like"


def _differing(ranked: Sequence[Setting]) -> list[str]:
    """What differs between settings that must not differ for their E2E to be compared."""
    values: dict[str, set[str]] = {}
    for each in ranked:
        record = each.counted[0]
        workload = [f"workload.{name}" for name in record.requested.get("workload", {})]
        for key in (*workload, *MODEL_KEYS):
            values.setdefault(key, set()).add(repr(asked(record, key)))
        if record.observed:
            values.setdefault("device", set()).add(record.observed.device_name)
    return [key for key, different in values.items() if len(different) > 1]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
