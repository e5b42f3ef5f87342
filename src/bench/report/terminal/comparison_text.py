"""Write a comparison in words and tables: as text for a terminal, and as Markdown.

Both, and the page, have the same content (`sections`); reasons come from ``bench.analysis`` and are shown unchanged.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.analysis.break_even import CALLS, BreakEven
from bench.analysis.comparison import Comparison, Effect
from bench.analysis.noise_floor import NoiseFloor
from bench.analysis.settings import Difference
from bench.report.comparison import ComparisonReport, Row, SlowerCheck
from bench.report.text import unverified
from bench.report.text.format import UNDEFINED, milliseconds, one_line, percent, plural, significant
from bench.report.text.layout import NARROWEST_NAME, grid, narrowed, natural_width, print_at, print_paragraph, width_of
from bench.report.text.section import LEFT, Section
from bench.report.text.section import to_markdown as section_to_markdown

METRIC_NAMES = {"e2e": "E2E", "ttft": "TTFT", "itl": "ITL", "tpot": "TPOT"}
VERDICT_STYLES = {"faster": "green", "slower": "red", "inconclusive": "yellow"}
EXPENDABLE = ("ratio", "p", "steady", "tokens")  # left out in this order if the console is too narrow for all
DIGITS, MOST_DIGITS = 4, 12  # significant digits of a time; more if the quotient must give the ratio


# ---- text --------------------------------------------------------------------------------------------------------


def print_comparison(
    console: Console, report: ComparisonReport, *, check: SlowerCheck | None = None, width: int | None = None
) -> None:
    """Print the whole report; nothing for a sweep without results.

    Args:
        console: the output.
        report: the report to print.
        check: the result for the reader's own limit, printed after the table.
        width: in cells; None: the width of the terminal, and elsewhere 100.
    """
    width = width or width_of(console)
    for number, section in enumerate(sections(report, check)):
        if number:
            print_at(console, Text(), width)
        if section.title:
            print_paragraph(console, Text(section.title, style="bold"), width)
        if section.columns:
            _print_table(console, section, width)
        for line in section.lines:
            print_paragraph(console, Text(line), width)


def _print_table(console: Console, section: Section, width: int) -> None:
    """Print the table; if it does not fit, with narrower gaps, then wrapped names, then fewer columns."""
    (first, names), *others = section.columns.items()
    columns = dict(others)
    layout = functools.partial(_layout, first)
    table = layout(names, columns, gap=2)
    if natural_width(console, table) > width:
        table = layout(names, columns)
    if natural_width(console, table) > width:
        table = narrowed(console, width, names=names, columns=columns, expendable=EXPENDABLE, layout=layout)
    print_at(console, table, width)


def _layout(first: str, names: Sequence[str], columns: Mapping[str, Sequence[str]], *, gap: int = 1) -> Table:
    table = grid(gap=gap)
    table.add_column(Text(first), overflow="fold", min_width=NARROWEST_NAME)
    for header in columns:
        table.add_column(Text(header), justify="left" if header in LEFT else "right", no_wrap=True, overflow="fold")
    for cells in zip(names, *columns.values(), strict=True):
        table.add_row(*(Text(cell, style=VERDICT_STYLES.get(cell, "")) for cell in cells))
    return table


# ---- sections ----------------------------------------------------------------------------------------------------


def sections(report: ComparisonReport, check: SlowerCheck | None = None) -> Iterator[Section]:
    """Return all sections in order, in words shared by text and Markdown; sections without content are left out."""
    if report.comparisons:
        yield Section(title=_headline(report), columns=_comparison_columns(report))
    comparisons = report.comparisons
    lines = [*_legend(report), *_reasons(comparisons), *_named(comparisons), *_unverified(report), *_missing(report)]
    if lines:
        yield Section(lines=lines)
    if check is not None and (lines := list(_check_lines(check))):
        yield Section(lines=lines)
    if report.break_evens:
        title = "Break-even of compilation: calls until it has paid; ×N: speed-up over N calls, the start included"
        lines = [_break_even_line(each) for each in report.break_evens]
        yield Section(title=title, columns=_break_even_columns(report.break_evens), lines=lines)
    if (floor := report.noise_floor) is not None:
        yield Section(title=_noise_title(floor), columns=_noise_columns(floor), lines=floor.advice())


def _headline(report: ComparisonReport) -> str:
    comparisons = report.comparisons
    metric = METRIC_NAMES[report.metric]
    if report.before is not None:
        first, second = report.sources if len(report.sources) == 2 else ("before", "after")
        compared = f"{metric}: {second} against {first}, the baseline"
    else:
        baselines = list(dict.fromkeys(each.baseline for each in comparisons))
        whom = one_line(baselines[0]) if len(baselines) == 1 else "the baseline of each"
        compared = f"{metric} of {plural(len(comparisons), 'setting')} against {whom}"
    effects = [each.effect for each in comparisons if each.effect is not None]
    counts = sorted({each.processes for each in effects})
    each_side = "no processes" if not counts else plural(counts[-1], "process", "processes")
    if len(counts) > 1:
        each_side = f"{counts[0]} to {each_side}"
    pairing = "paired by block" if any(each.paired for each in effects) else "not paired"
    tested = sum(each.verdict.p is not None for each in comparisons)
    correction = f", Holm-corrected for {tested} comparisons" if tested > 1 else ""
    return f"{compared}; margin ±{report.margin * 100:g} %, {each_side} a side, {pairing}{correction}"


def _comparison_columns(report: ComparisonReport) -> dict[str, list[str]]:
    """Return each baseline, and below it the settings compared with it; with an empty row between groups.

    The baseline has its own column if a ratio was computed from other processes than those of the baseline's row: by
    block, a setting that lost a repeat is compared only with the other repeats of the baseline.
    """
    groups: dict[str, list[Comparison]] = {}
    for each in report.comparisons:
        groups.setdefault(each.baseline_id, []).append(each)
    after = {row.setting_id: row for row in report.settings}
    before = after if report.before is None else {row.setting_id: row for row in report.before}
    metric = METRIC_NAMES[report.metric]
    digits = _digits(report.comparisons)
    headers = (
        "setting", f"{metric} ms", f"baseline {metric} ms", "ratio", "change %", "95 % interval", "p", "verdict",
        "steady",
    )  # fmt: skip
    sides = dict(_sides(report))
    old, new = ("", "") if report.before is None else sides
    rows: list[tuple[str, ...]] = []
    for baseline_id, group in groups.items():
        if rows and report.before is None:
            rows.append(("",) * len(headers))
        first, row = group[0], before[baseline_id]
        time = milliseconds(row.geometric_mean_s, digits)
        rows.append((_marked(row) + old, time, "", "1", "", "", "", "baseline", first.steady[0]))
        rows += [_comparison_cells(each, after[each.setting_id], new, digits) for each in group]
    columns = {header: [row[place] for row in rows] for place, header in enumerate(headers)}
    if _is_one_baseline_each(report.comparisons, before):
        del columns[headers[2]]
    return columns


def _is_one_baseline_each(comparisons: Sequence[Comparison], before: Mapping[str, Row]) -> bool:
    """Tell whether each ratio uses all processes of its baseline; the baseline's row then shows the time used."""
    found = [(each.effect, before[each.baseline_id].geometric_mean_s) for each in comparisons if each.effect]
    return all(
        own_s is not None and math.isclose(each.baseline_geometric_mean_s, own_s, rel_tol=1e-9) for each, own_s in found
    )


def _digits(comparisons: Sequence[Comparison]) -> int:
    """Return the number of significant digits for which printed times give the printed ratios as quotients."""
    effects = [each.effect for each in comparisons if each.effect is not None]
    return next(
        (digits for digits in range(DIGITS, MOST_DIGITS) if all(_divides(each, digits) for each in effects)),
        MOST_DIGITS,
    )


def _divides(effect: Effect, digits: int) -> bool:
    shown = [milliseconds(each, digits) for each in (effect.geometric_mean_s, effect.baseline_geometric_mean_s)]
    if UNDEFINED in shown or float(shown[1]) == 0:
        return True
    quotient = float(shown[0]) / float(shown[1])
    return (significant(quotient), _change(quotient)) == (significant(effect.ratio), _change(effect.ratio))


def _marked(row: Row) -> str:
    """Return a setting's name, with the mark if its evidence is incomplete."""
    return f"{one_line(row.name)} {unverified.MARK}" if row.unverified else one_line(row.name)


def _comparison_cells(comparison: Comparison, row: Row, side: str, digits: int) -> tuple[str, ...]:
    """Return one row; `side` follows the name."""
    found, verdict = comparison.effect, comparison.verdict
    ratio, low, high = (found.ratio, found.low, found.high) if found is not None else (None, None, None)
    return (
        _marked(row) + side,
        milliseconds(row.geometric_mean_s if found is None else found.geometric_mean_s, digits),
        milliseconds(None if found is None else found.baseline_geometric_mean_s, digits),
        significant(ratio),
        _change(ratio),
        UNDEFINED if low is None or high is None else f"{_change(low)} … {_change(high)}",
        _p(verdict.p),
        verdict.word,
        comparison.steady[1],
    )


def _legend(report: ComparisonReport) -> Iterator[str]:
    """Name the statistic in the column of times; for one process each it is the median of its calls."""
    if any(each.effect is not None and each.effect.processes > 1 for each in report.comparisons):
        yield (
            f"{METRIC_NAMES[report.metric]} ms: geometric mean of the processes' medians; ratio: the setting's over "
            f"the baseline's"
        )


def _reasons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Say why verdicts are inconclusive; settings that share a reason share a line."""
    shared: dict[str, list[str]] = {}
    for each in comparisons:
        if each.verdict.word == "inconclusive":
            reason = one_line(each.verdict.reason or "no reason is known")
            shared.setdefault(reason, []).append(one_line(each.setting))
    return (f"{', '.join(names)}: inconclusive: {reason}" for reason, names in shared.items())


def _named(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Name the differences of two sides apart from the setting."""
    shared: dict[tuple[str, str, str, bool], list[str]] = {}
    for each in comparisons:
        for found in each.differences:
            shared.setdefault(_told(found), []).append(one_line(each.setting))
    for (key, ours, theirs, bars), names in shared.items():
        consequence = " (no verdict)" if bars else ""
        yield f"{', '.join(names)}: {key} differs: {ours}, in the baseline {theirs}{consequence}"


def _told(found: Difference) -> tuple[str, str, str, bool]:
    return one_line(found.key), one_line(found.b), one_line(found.a), found.bars


def _unverified(report: ComparisonReport) -> Iterator[str]:
    """Say which sides have the mark *unverified*, and why; settings without any figure are not mentioned."""
    rows = [(f"{one_line(row.name)}{side}", row) for side, rows in _sides(report) for row in rows if row.processes]
    yield from unverified.notes([(name, row.unverified) for name, row in rows])


def _sides(report: ComparisonReport) -> list[tuple[str, list[Row]]]:
    """Return each suffix of a name, and the settings that have it."""
    if report.before is None:
        return [("", report.settings)]
    return [(" (before)", report.before), (" (after)", report.settings)]


def _missing(report: ComparisonReport) -> Iterator[str]:
    """Return repeats without a result, and settings that are in no comparison."""
    for side, rows in _sides(report):
        for row in rows:
            if row.lost and row.processes:  # for a setting without any process, that is already the reason
                ends = ", ".join(f"{count} {status}" for status, count in row.lost.items())
                reason = f": {one_line(row.lost_reason)}" if row.lost_reason else ""
                yield f"{one_line(row.name)}{side}: repeats without a result: {ends}{reason}"
    if report.comparisons and report.unmatched:
        names = ", ".join(map(one_line, report.unmatched))
        yield f"compared with nothing: {names}"


def _check_lines(check: SlowerCheck) -> Iterator[str]:
    if check.limit is not None:
        limit = f"{check.limit * 100:g} %"
        if check.slower:
            yield f"SLOWER by {limit} or more: {_listed(check.slower)}"
        else:
            yield f"no setting was found to be slower by {limit} or more"
    for each in check.broken:
        yield f"CANNOT BE COMPARED: {one_line(each.setting)}: {one_line(each.reason)}"
    if check.limit is None:
        return
    if check.ruled_out:
        yield f"not slower by {limit} or more, though inconclusive: {_listed(check.ruled_out)}"
    if check.undecided:
        yield f"cannot tell whether slower by {limit} or more: {_listed(check.undecided)}"


def _break_even_columns(found: Sequence[BreakEven]) -> dict[str, list[str]]:
    columns = {
        "compiled": [one_line(each.setting) for each in found],
        "cache": [each.cache for each in found],
        "calls": [significant(each.calls, 3) for each in found],
        "95 % interval": [_calls_interval(each) for each in found],
        "tokens": [significant(each.tokens, 3) for each in found],
    }
    for calls in CALLS:
        columns[f"×{calls}"] = [significant(each.speedup.get(calls), 3) for each in found]
    return columns | {"status": [each.status for each in found]}


def _calls_interval(found: BreakEven) -> str:
    if found.calls_low is None:
        return UNDEFINED
    low = significant(found.calls_low, 3)
    return f"{low} or more" if found.calls_high is None else f"{low} … {significant(found.calls_high, 3)}"


def _break_even_line(found: BreakEven) -> str:
    """Describe the parts of a break-even point."""
    start = f"starting takes {significant(found.excess_s, 3)} s more than {one_line(found.uncompiled)}"
    call = f"each call saves {significant(found.saved_s * 1e3, 3)} ms"
    if found.saved_s < 0:
        call = f"each call costs {significant(-found.saved_s * 1e3, 3)} ms more"
    reason = f"; {one_line(found.reason)}" if found.reason else ""
    mixed = f"; {plural(found.mixed, 'process', 'processes')} with a mixed cache not counted" if found.mixed else ""
    return f"{one_line(found.setting)} ({found.cache}): {start}, {call}{reason}{mixed}"


def _noise_title(floor: NoiseFloor) -> str:
    of = f"{plural(floor.processes, 'process', 'processes')} of {plural(floor.settings, 'setting')}"
    calls = "" if floor.call_sd is None else f", calls by {percent(floor.call_sd)} %"
    deviations = f"processes differ by {percent(floor.process_sd)} %{calls} (standard deviations)"
    return f"Noise floor of {METRIC_NAMES[floor.metric]} ({of}): {deviations}"


def _noise_columns(floor: NoiseFloor) -> dict[str, list[str]]:
    """Return the differences that each number of repeats finds with 80 % power, with the present R marked."""
    repeats = sorted(floor.detectable)
    return {
        "repeats": [f"{each} (here)" if each == floor.repeats else str(each) for each in repeats],
        "difference with 80 % power, %": [percent(floor.detectable[each]) for each in repeats],
        "for a verdict %": [percent(floor.detectable_beyond.get(each)) for each in repeats],
    }


def _change(ratio: float | None) -> str:
    """Write a ratio as a signed number of percent: two decimals up to 10 %, one up to 100 %."""
    if ratio is None or not math.isfinite(ratio):
        return UNDEFINED
    value = round((ratio - 1) * 100, 2)
    digits = f"{value:+.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"
    return digits.replace("-", "\N{MINUS SIGN}")


def _p(value: float | None) -> str:
    if value is None:
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(one_line, names))


# ---- Markdown ----------------------------------------------------------------------------------------------------


def to_markdown(report: ComparisonReport, *, check: SlowerCheck | None = None) -> str:
    """Return the same as the text, as paragraphs, lists and tables that GitHub renders."""
    text = section_to_markdown(sections(report, check))
    return f"{text}\n" if text else ""
