"""Print the closing table of a sweep.

It shows one row per setting, in the order and with the marks of `bench.analysis.ranking`; it does not judge. What makes
rows incomparable (another workload, model or device, another kind of KV cache) is named below the table. Verdicts need
several processes per setting: `bench.report.comparison` shows them.

A figure of several repeats is the median over the ok processes of each one's own figure.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.analysis.code_sources import unusual_sources
from bench.analysis.ranking import FAIR_ON_RATE, LOWEST, MARKS, differing_keys
from bench.analysis.settings import asked
from bench.report.quantities import (
    COLD_START,
    E2E,
    E2E_HALF_WIDTH,
    ITL,
    MBU,
    OUTPUT_THROUGHPUT,
    PEAK_MEMORY,
    TTFT,
)
from bench.report.setting_notes import SAME_CACHE, compilation_notes, kv_caches, process_notes
from bench.report.setting_view import SettingView, setting_views
from bench.report.text import unverified
from bench.report.text.format import (
    FAILURE_STYLE,
    UNDEFINED,
    listed,
    one_line,
    plural,
    reason,
    run_title,
    status_style,
)
from bench.report.text.layout import NARROWEST_NAME, grid, narrowed, natural_width, print_at, print_paragraph, width_of
from bench.results.record import Record

# Left out in this order if the console is too narrow for all.
EXPENDABLE = (
    "MBU %", "peak MiB", "ITL ms", "warm-up", "graphs", "cold s", "TTFT ms", "±%", "steady", "output", "runs", "tok/s"
)  # fmt: skip
FIGURES = {
    "E2E ms": E2E,
    "±%": E2E_HALF_WIDTH,
    "TTFT ms": TTFT,
    "ITL ms": ITL,
    "tok/s": OUTPUT_THROUGHPUT,
    "cold s": COLD_START,
    "peak MiB": PEAK_MEMORY,
    "MBU %": MBU,
}


def print_table(console: Console, records: Sequence[Record]) -> None:
    """Print the settings in the order of the ranking, the reasons of failures, and notes on the figures."""
    if not records:
        return
    settings = sorted(setting_views(records), key=lambda each: each.place)
    ok = [each for each in settings if each.is_ok]
    ranked = [each for each in ok if each.is_ranked]
    differing = differing_keys([each.setting for each in ok])
    width = width_of(console)

    print_at(console, _fitting(console, settings, width), width)
    trials = [each for each in records if each.kind != "reference"]
    reasons = [Text.assemble((run_title(each), "bold"), f": {reason(each)}") for each in trials if each.status != "ok"]
    notes = [Text(each) for each in (*_lowest_note(ranked), *_comparability_notes(ok, differing))]
    marks = [Text(each) for each in _trust_notes(trials, settings)]
    for paragraph in filter(None, (reasons, marks, notes)):
        print_at(console, Text(), width)
        for text in paragraph:
            print_paragraph(console, text, width)


# ---- rows --------------------------------------------------------------------------------------------------------


def _columns(settings: Sequence[SettingView]) -> dict[str, list[Text]]:
    """Return header → cells of every column after the name."""
    columns = {"status": [Text(each.status, style=status_style(each.status)) for each in settings]}
    if any(len(each.records) > 1 for each in settings):
        columns["runs"] = [Text(_runs(each)) for each in settings]
    for header, quantity in FIGURES.items():
        columns[header] = [Text(each.text(quantity)) for each in settings]
    if any(record.steadiness is not None for each in settings for record in each.counted):
        columns["steady"] = [Text(each.steady) for each in settings]
    if any(asked(record, "warmup.policy") == "auto" for each in settings for record in each.counted):
        columns["warm-up"] = [Text(_warmup_calls(each)) for each in settings]
    columns["cold s"] = [
        Text(f"{cell.plain} w" if each.starts_warm else cell.plain)
        for each, cell in zip(settings, columns["cold s"], strict=True)
    ]
    if all(cell.plain == UNDEFINED for cell in columns["MBU %"]):
        del columns["MBU %"]
    if any(record.fidelity is not None for each in settings for record in each.counted):
        styles = [FAILURE_STYLE if each.is_wrong else "" for each in settings]
        columns["output"] = [Text(each.output, style=style) for each, style in zip(settings, styles, strict=True)]
    columns["graphs"] = [Text(each.graphs) for each in settings]
    return columns


def _runs(setting: SettingView) -> str:
    """Say how many processes the figures are from, and how many there were."""
    counted, whole = len(setting.counted), len(setting.records)
    return str(counted) if counted == whole else f"{counted} of {whole}"


def _warmup_calls(setting: SettingView) -> str:
    """Say how many warm-up calls its processes made: a range if they differ."""
    counts = sorted({len(each.calls("warmup")) for each in setting.counted})
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"
    return f"{text} {MARKS['warm-up']}" if setting.standing.has("warm-up") else text


# ---- layout ------------------------------------------------------------------------------------------------------


def _fitting(console: Console, settings: Sequence[SettingView], width: int) -> Table:
    """Return the widest layout that fits: headers in two lines, then narrower gaps, wrapped names, fewer columns."""
    columns = _columns(settings)
    names = [" ".join([each.name, *_marks(each)]) for each in settings]
    for two_lines, gap in ((False, 2), (True, 2), (True, 1)):
        table = _layout(names, columns, two_lines=two_lines, gap=gap)
        if natural_width(console, table) <= width:
            return table
    layout = functools.partial(_layout, two_lines=True, gap=1)
    return narrowed(console, width, names=names, columns=columns, expendable=EXPENDABLE, layout=layout)


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


def _marks(setting: SettingView) -> list[str]:
    return [LOWEST] * setting.is_lowest + list(setting.standing.marks)


def _lowest_note(ranked: Sequence[SettingView]) -> Iterable[str]:
    """Explain the mark of the lowest median; it is no verdict, for any number of processes."""
    if not any(each.is_lowest for each in ranked):
        return
    fewest, most = min(each.processes for each in ranked), max(each.processes for each in ranked)
    if most == 1:
        yield f"{LOWEST} lowest median of one process each: descriptive, not a verdict"
    else:
        processes = str(most) if fewest == most else f"{fewest} to {most}"
        yield f"{LOWEST} lowest median over {processes} processes; no verdict on the difference"


def _trust_notes(records: Sequence[Record], settings: Sequence[SettingView]) -> Iterable[str]:
    """Name doubts about the figures of jobs that are ok."""
    for each in records:
        if each.status == "ok":
            yield from process_notes(each)
    yield from _not_ranked_notes(settings)
    yield from unverified.notes([(each.name, each.unverified) for each in settings if each.status == "ok"])
    yield from _neighbour_notes(records)
    yield from _source_notes(records)
    yield from compilation_notes(settings)


def _neighbour_notes(records: Sequence[Record]) -> Iterable[str]:
    """Say which jobs shared their host with others, and why that is not known of some."""
    seen = [(each, each.neighbours) for each in records if each.neighbours is not None]
    beside = [f"{run_title(each)} ({found.count})" for each, found in seen if found.count]
    if beside:
        yield f"{plural(len(beside), 'job')} had neighbours on the same host (how many): {listed(beside)}"
    for why in dict.fromkeys(found.unknown for _, found in seen if found.unknown):
        yield f"jobs of this host were neither counted nor kept apart: {one_line(why)}"


def _source_notes(records: Sequence[Record]) -> Iterable[str]:
    """Name libraries that differ from those installed by pip: a line per copy."""
    jobs: dict[str, list[str]] = {}
    for each in records:
        for library, words in unusual_sources(each).items():
            jobs.setdefault(f"{library} {one_line(words)}", []).append(run_title(each))
    for text, titles in jobs.items():
        yield f"imported: {text}" + ("" if len(titles) == len(records) else f" in {listed(titles)}")


def _not_ranked_notes(settings: Sequence[SettingView]) -> Iterable[str]:
    for setting in settings:
        for each in setting.standing.reasons if setting.status == "ok" else ():
            yield f"{MARKS[each.kind]} {setting.name} is not ranked: {one_line(each.text)}".lstrip()


def _comparability_notes(ok: Sequence[SettingView], differing: Sequence[str]) -> Iterable[str]:
    if differing:
        advice = "compare tok/s, not E2E" if set(differing) <= FAIR_ON_RATE else "not comparable on E2E"
        yield f"settings differ in {', '.join(differing)}: {advice}"
    caches = kv_caches(ok)
    # A user who chose both kinds knows it; "auto" chooses without the user.
    chosen = {asked(each.counted[0], "generation.kv_cache") for each in ok}
    if len(caches) > 1 and chosen != {"dynamic", "static"}:
        kinds = "; ".join(f"{kind.removesuffix('Cache').lower()} in {listed(names)}" for kind, names in caches.items())
        yield f"note: KV caches differ: {kinds}. {SAME_CACHE}"
