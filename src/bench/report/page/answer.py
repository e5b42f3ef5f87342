"""Answer a sweep in a few sentences: the best setting, its advantage, the certainty, and the cost.

A setting is called faster only on a verdict of ``bench.analysis.comparison``; without one the answer names the lowest
median, which is descriptive. A setting that is not ranked (`bench.analysis.ranking`) is never called best, however low
its median. Settings with different work, models or devices are not compared: each group of comparable ones has its own
answer.

Not covered: a reader's goals other than speed. The answer shows the cost (cold start, memory, energy, output) with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.analysis.comparison import Comparison
from bench.analysis.ranking import FAIR_ON_RATE, shown_work
from bench.report.comparison import ComparisonReport
from bench.report.page.unranked import (
    NAMES_SHOWN,
    differing_between,
    doubts,
    groups_of,
    not_judged,
    not_ranked,
    unlike_processes,
    why_no_verdict,
)
from bench.report.quantities import COLD_START, E2E, E2E_HALF_WIDTH, ENERGY, OUTPUT_THROUGHPUT, PEAK_MEMORY, TTFT
from bench.report.setting_view import SettingView
from bench.report.text import markdown
from bench.report.text.format import listed, one_line, percent, plural, significant
from bench.report.text.remedy import remedy

KINDS = ("verdict", "no verdict", "alone", "nothing", "several")
GROUPS_SHOWN = 6
REASONS_SHOWN = 3
UNSTABLE = "The completed runs were too unstable to compare."
ALL_DIFFER = "The output of every completed setting differs from the reference's."
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Hold one large figure."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Hold the answer of a sweep."""

    kind: str  # one of KINDS
    headline: str  # one line
    sentences: list[str]
    setting: str | None = None  # the setting of the figures
    tiles: list[Tile] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)  # omissions, and cautions for the reader
    groups: list[Answer] = field(default_factory=list)  # for kind "several": one per group of comparable settings


def build_answer(
    settings: Sequence[SettingView],
    report: ComparisonReport | None,
    *,
    jobs: int | None = None,
) -> Answer:
    """Return the answer of one sweep.

    Args:
        settings: all settings of the sweep, as typed.
        report: their comparison on E2E; None if the baseline left no record.
        jobs: number that the sweep planned; None if not known.
    """
    records = sum(len(each.records) for each in settings)
    missing = [f"{jobs - records} of {jobs} jobs left no record"] if jobs is not None and jobs > records else []
    alive = [each for each in settings if each.setting.records]
    if not alive:
        return _nothing(settings, missing)
    groups = groups_of(alive)
    answer = _of_group(alive, report) if len(groups) == 1 else _of_several(groups, report)
    dead = [each for each in settings if not each.setting.records]
    return Answer(**vars(answer) | {"cautions": [*answer.cautions, *_came_to_nothing(dead, len(settings)), *missing]})


def to_markdown(answer: Answer) -> str:
    """Return the answer as Markdown: its headline, sentences, figures and cautions."""
    parts = [f"**{markdown.escaped(answer.headline)}**", *map(markdown.escaped, answer.sentences)]
    if answer.tiles:
        columns = {f"{tile.label} {tile.unit}".strip(): [tile.value, tile.note] for tile in answer.tiles}
        parts.append(markdown.table(columns))
    parts += [to_markdown(each).rstrip() for each in answer.groups]
    if answer.cautions:
        parts.append(markdown.bullets(answer.cautions))
    return "\n\n".join(parts) + "\n"


# ---- nothing, and several ------------------------------------------------------------------------------------------


def _nothing(settings: Sequence[SettingView], missing: list[str]) -> Answer:
    """Return the answer if no job is ok: how the jobs ended."""
    if not settings:
        return Answer(kind="nothing", headline="Nothing was measured: no job left a record", sentences=missing)
    records = [record for each in settings for record in each.records]
    ends = ", ".join(f"{count} {status}" for status, count in Counter(each.status for each in records).most_common())
    reasons = Counter(one_line(each.setting.lost_reason or each.status) for each in settings).most_common()
    lines = [f"{reason} ({plural(count, 'setting')})" for reason, count in reasons[:REASONS_SHOWN]]
    if len(reasons) > REASONS_SHOWN:
        lines.append(f"and {len(reasons) - REASONS_SHOWN} other reasons, below")
    return Answer(
        kind="nothing",
        headline="No setting came through",
        sentences=[f"{plural(len(records), 'job')}: {ends}.", *lines],
        cautions=missing,
    )


def _of_several(groups: Sequence[Sequence[SettingView]], report: ComparisonReport | None) -> Answer:
    differing = differing_between(groups)
    sentences = [f"They differ in {listed(differing)}, so E2E is compared within each of {len(groups)} groups only."]
    if set(differing) <= FAIR_ON_RATE:
        rated = [each for group in groups for each in group if each.is_ranked]
        rates = [(rate, each) for each in rated if (rate := each.figure(OUTPUT_THROUGHPUT)) is not None]
        if rates:
            rate, highest = max(rates, key=lambda pair: pair[0])
            sentences.append(
                f"Output throughput stays comparable: it is highest with {highest.name}, {significant(rate)} tok/s "
                f"(descriptive, not a verdict)."
            )
    answers = []
    for group in groups[:GROUPS_SHOWN]:
        of = ", ".join(f"{key}={shown_work(group[0].setting, key)}" for key in differing)
        answer = _of_group(group, report)
        answers.append(Answer(**vars(answer) | {"headline": f"{one_line(of)}: {answer.headline}"}))
    more = [f"{len(groups) - GROUPS_SHOWN} more groups are in the table"] if len(groups) > GROUPS_SHOWN else []
    return Answer(
        kind="several",
        headline="The settings are not all comparable",
        sentences=sentences,
        cautions=more,
        groups=answers,
    )


def _came_to_nothing(dead: Sequence[SettingView], of: int) -> list[str]:
    if not dead:
        return []
    ends = ", ".join(f"{count} {status}" for status, count in Counter(each.status for each in dead).most_common())
    return [f"{len(dead)} of {plural(of, 'setting')} came to nothing: {ends}; the reasons are below"]


# ---- settings that are comparable ----------------------------------------------------------------------------------


def _of_group(settings: Sequence[SettingView], report: ComparisonReport | None) -> Answer:
    answer = _of_comparable(settings, report)
    return Answer(**vars(answer) | {"cautions": [*answer.cautions, *unlike_processes(settings)]})


def _of_comparable(settings: Sequence[SettingView], report: ComparisonReport | None) -> Answer:
    ranked = sorted((each for each in settings if each.is_ranked), key=lambda each: each.place)
    left_out = not_ranked([each for each in settings if not each.is_ranked])
    if not ranked:
        return Answer(
            kind="no verdict",
            headline="No setting can be called fastest",
            sentences=[_why_none(settings)],
            cautions=left_out,
        )
    ids = {each.setting.setting_id for each in settings}
    comparisons = [each for each in report.comparisons if each.setting_id in ids] if report is not None else []
    if len(settings) == 1:
        return _alone(ranked[0])
    if report is not None and any(each.verdict.p is not None for each in comparisons):
        return _judged(ranked, comparisons, report, left_out)
    return _descriptive(ranked, settings, comparisons, left_out)


def _why_none(settings: Sequence[SettingView]) -> str:
    """Say why none is ranked, and what to do; the cautions give each reason in full."""
    kinds = {each.standing.reasons[0].kind for each in settings}
    why = ALL_DIFFER if kinds == {"output"} else UNSTABLE
    return f"{why} {remedy([each.standing for each in settings], [each for one in settings for each in one.records])}"


def _alone(only: SettingView) -> Answer:
    return _featuring(
        only,
        kind="alone",
        headline=f"{only.name}: {only.text(E2E)} ms a call",
        sentences=["One setting, and nothing to compare it with."],
        cautions=doubts(only),
    )


def _descriptive(
    ranked: Sequence[SettingView],
    settings: Sequence[SettingView],
    comparisons: Sequence[Comparison],
    left_out: list[str],
) -> Answer:
    """Return the lowest median if no verdict was possible."""
    lowest = ranked[0]
    if len(ranked) == 1:
        headline = f"Only {lowest.name} can be ranked: {lowest.text(E2E)} ms a call"
        sentences = []
    else:
        headline = f"Lowest median, no verdict: {lowest.name}"
        sentences = [f"{_median(lowest)}, {_below(lowest, ranked[1])}."]
    return _featuring(
        lowest,
        kind="no verdict",
        headline=headline,
        sentences=[*sentences, why_no_verdict(settings, comparisons)],
        cautions=[*left_out, *doubts(lowest)],
    )


def _judged(
    ranked: Sequence[SettingView], comparisons: Sequence[Comparison], report: ComparisonReport, left_out: list[str]
) -> Answer:
    """Return the result of the verdicts, at least one; a setting without a verdict may be faster than all."""
    judged = [each for each in comparisons if each.verdict.p is not None]
    unjudged = not_judged(ranked, comparisons)
    left_out = [*left_out, *unjudged]
    if len({each.baseline_id for each in judged}) > 1:
        return _by_baseline(ranked, judged, left_out)
    by_id = {each.setting.setting_id: each for each in ranked}
    # In the order of the ranking: of several faster settings, the first in the table is named.
    verdicts = {each.setting_id: each for each in judged if each.verdict.word == "faster"}
    faster = [verdicts[setting_id] for setting_id in by_id if setting_id in verdicts]
    if faster:
        tested = sum(each.verdict.p is not None for each in report.comparisons)
        return _with_winner(by_id[faster[0].setting_id], faster, tested, left_out)
    featured = by_id.get(judged[0].baseline_id, ranked[0])
    headline, sentences = _without_winner(ranked, judged, report, is_complete=not unjudged)
    return _featuring(
        featured, kind="verdict", headline=headline, sentences=sentences, cautions=[*left_out, *doubts(featured)]
    )


def _without_winner(
    ranked: Sequence[SettingView], judged: Sequence[Comparison], report: ComparisonReport, *, is_complete: bool
) -> tuple[str, list[str]]:
    """Return headline and sentences if no setting is shown to be faster than the baseline.

    Args:
        ranked: by E2E.
        judged: the comparisons with a verdict.
        report: of these comparisons.
        is_complete: whether every ranked setting has a verdict; only then may the baseline be called the fastest.
    """
    baseline = one_line(judged[0].baseline)
    counts = Counter(each.verdict.word for each in judged)
    if is_complete and counts["slower"] == len(judged):
        nearest = min(judged, key=_ratio)
        others = "The other one is" if len(judged) == 1 else f"Each of the {len(judged)} others is"
        return (
            f"{baseline} is the fastest",
            [f"{others} slower; the nearest, {one_line(nearest.setting)}, by {_more(nearest)}."],
        )
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    sentences = [f"Of {plural(len(judged), 'setting')} compared with it: {words}."]
    if is_complete and not counts["inconclusive"]:
        return f"No setting is faster than {baseline}", sentences
    if (lowest := ranked[0]).setting.setting_id != judged[0].baseline_id:
        own = [each for each in judged if each.setting_id == lowest.setting.setting_id]
        seen = f" ({_signed_interval(own[0])})" if own else ""
        sentences.append(f"The lowest median is that of {lowest.name}{seen}, which is no verdict.")
    if counts["inconclusive"] and report.noise_floor is not None:
        sentences.append(f"{report.noise_floor.advice()[0]}.")
    return f"No setting was found to be faster than {baseline}", sentences


def _by_baseline(ranked: Sequence[SettingView], judged: Sequence[Comparison], left_out: list[str]) -> Answer:
    """Return the answer for settings with separate baselines: verdicts on pairs, and none on the best of all."""
    counts = Counter(each.verdict.word for each in judged)
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    told = [each for each in sorted(judged, key=_ratio) if each.verdict.word in ("faster", "slower")]
    sentences = [f"Of {plural(len(judged), 'setting')}, each compared with a baseline of its own: {words}."]
    for each in told[:NAMES_SHOWN]:
        change = _less(each) if each.verdict.word == "faster" else f"{_more(each)} more than {one_line(each.baseline)}"
        sentences.append(f"{one_line(each.setting)} takes {change}.")
    if len(told) > NAMES_SHOWN:
        sentences.append(f"{len(told) - NAMES_SHOWN} more verdicts are below.")
    sentences.append(
        f"Which of all is fastest was not judged: the lowest median is that of {ranked[0].name} "
        f"({ranked[0].text(E2E)} ms); name one setting as the baseline to judge the others by it."
    )
    return _featuring(
        ranked[0],
        kind="verdict",
        headline=f"{counts['faster']} of {plural(len(judged), 'setting')} "
        f"{'is' if counts['faster'] == 1 else 'are'} faster than the baseline",
        sentences=sentences,
        cautions=[*left_out, *doubts(ranked[0])],
    )


def _with_winner(best: SettingView, faster: Sequence[Comparison], tested: int, left_out: list[str]) -> Answer:
    """Return the fastest of the settings found faster; `tested` counts the tests of the whole sweep."""
    first, rivals = faster[0], [one_line(each.setting) for each in faster[1:]]
    assert first.effect is not None
    correction = f", Holm-corrected for {tested} comparisons" if tested > 1 else ""
    p = "p < 0.001" if (first.verdict.p or 0) < 0.001 else f"p = {first.verdict.p:.2g}"
    sentences = [
        f"A call takes {_less(first)}; {first.effect.processes} processes a side, {p}{correction}.",
    ]
    if rivals:
        are = "is" if len(rivals) == 1 else "are"
        sentences.append(
            f"{listed(rivals)} {are} faster than {one_line(first.baseline)}, too: which of them is fastest is not "
            f"judged here, and sweep.baseline (or bench compare --baseline) set to {best.name} judges it."
        )
    return _featuring(
        best,
        kind="verdict",
        headline=f"{best.name} is faster than {one_line(first.baseline)}",
        sentences=sentences,
        cautions=[*left_out, *doubts(best)],
    )


# ---- the price -----------------------------------------------------------------------------------------------------


def _featuring(setting: SettingView, *, kind: str, headline: str, sentences: list[str], cautions: list[str]) -> Answer:
    """Return an answer with the figures of one setting, and its cost in a sentence."""
    return Answer(
        kind=kind,
        headline=headline,
        sentences=[*sentences, _price(setting)],
        setting=setting.name,
        tiles=_tiles(setting),
        cautions=cautions,
    )


def _price(setting: SettingView) -> str:
    energy = setting.figure(ENERGY)
    parts = [
        f"{_start(setting)} {setting.text(COLD_START)} s",
        f"peak memory {setting.text(PEAK_MEMORY)} MiB",
        "energy not known" if energy is None else f"{significant(energy)} J a token",
        f"output {_output_words(setting)}",
    ]
    return f"{setting.name}: {', '.join(parts)}."


def _tiles(setting: SettingView) -> list[Tile]:
    calls = sorted({summary.e2e_s.n for summary in setting.summaries if summary.e2e_s is not None})
    each = "" if not calls else f"{calls[0]} calls" if len(calls) == 1 else f"{calls[0]} to {calls[-1]} calls"
    e2e = f"median over {setting.processes} processes" if setting.processes > 1 else f"median of {each}"
    if setting.figure(E2E_HALF_WIDTH) is not None and setting.processes == 1:
        e2e += f", ±{setting.text(E2E_HALF_WIDTH)} %"
    energy = setting.figure(ENERGY)
    return [
        Tile(label="E2E", value=setting.text(E2E), unit="ms", note=e2e),
        Tile(label="Throughput", value=setting.text(OUTPUT_THROUGHPUT), unit="tok/s", note="output"),
        Tile(label="TTFT", value=setting.text(TTFT), unit="ms", note="to the first token"),
        Tile(label="Cold start", value=setting.text(COLD_START), unit="s", note=_start_note(setting)),
        Tile(label="Peak memory", value=setting.text(PEAK_MEMORY), unit="MiB", note=_memory_note(setting)),
        Tile(
            label="Energy",
            value=setting.text(ENERGY),
            unit="J/token" if energy is not None else "",
            note=_energy_note(setting) if energy is None else "of the measured calls",
        ),
        Tile(label="Output", value=setting.output, note=_output_words(setting)),
    ]


def _start(setting: SettingView) -> str:
    return "first call (from a warm compile cache)" if setting.starts_warm else "cold start"


def _start_note(setting: SettingView) -> str:
    return "from a compile cache" if setting.starts_warm else "the first call"


def _energy_note(setting: SettingView) -> str:
    known = [each.energy for each in setting.counted if each.energy is not None]
    return "no counter on this machine" if known and known[0].source is None else "not known"


def _memory_note(setting: SettingView) -> str:
    observed = setting.counted[0].observed
    return "of the GPU" if observed is not None and observed.device.startswith("cuda") else "of the process"


def _output_words(setting: SettingView) -> str:
    return "as the reference's" if setting.output == "same" else "not compared with a reference"


# ---- words ---------------------------------------------------------------------------------------------------------


def _median(setting: SettingView) -> str:
    over = f" over {setting.processes} processes" if setting.processes > 1 else ""
    return f"Median E2E{over} {setting.text(E2E)} ms"


def _below(lowest: SettingView, other: SettingView) -> str:
    if not lowest.e2e_s or not other.e2e_s or lowest.e2e_s == other.e2e_s:
        return f"the same as {other.name}"
    share = 1 - lowest.e2e_s / other.e2e_s
    return f"{percent(share)} % below the next, {other.name} ({other.text(E2E)} ms)"


def _ratio(comparison: Comparison) -> float:
    return comparison.effect.ratio if comparison.effect is not None else float("inf")


def _less(comparison: Comparison) -> str:
    """Say how much less time a faster setting takes: `40.2 % less time than eager (95 % interval 35.1 to 45.0 %)`."""
    found = comparison.effect
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    less, least, most = (percent(1 - each, 3) for each in (found.ratio, found.high, found.low))
    return f"{less} % less time than with {one_line(comparison.baseline)} (95 % interval {least} to {most} %)"


def _more(comparison: Comparison) -> str:
    found = comparison.effect
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    more, least, most = (percent(each - 1, 3) for each in (found.ratio, found.low, found.high))
    return f"{more} % (95 % interval {least} to {most} %)"


def _signed_interval(comparison: Comparison) -> str:
    found = comparison.effect
    if found is None or found.low is None or found.high is None:
        return "without an interval"
    return f"95 % interval of the change {_signed(found.low - 1)} … {_signed(found.high - 1)} %"


def _signed(fraction: float) -> str:
    return ("+" if fraction >= 0 else MINUS) + percent(abs(fraction), 3)
