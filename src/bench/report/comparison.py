"""Build the report of one sweep, or of two: all results of a comparison, also as plain values.

Effects, verdicts, break-even points and the noise floor come from ``bench.analysis``;
``bench.report.terminal.comparison_text`` puts them into words. This module judges only for a regression gate
(`check_slower`): whether a setting is slower than the reader allows, and whether each setting can still be compared.

Not covered: the source of the records, and the actions of a program on the outcome.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.analysis.break_even import BreakEven, break_evens
from bench.analysis.comparison import MARGIN, TOKENS_KEY, Comparison, compare, compare_sweeps
from bench.analysis.noise_floor import NoiseFloor, noise_floor
from bench.analysis.ranking import standing_of_setting
from bench.analysis.settings import Setting, processes, settings_of, steady_words
from bench.results.record import Record, Unverified

SCHEMA_VERSION = 2  # of to_json
REFERENCE = "fidelity.reference=eager"  # also compares the output of a single setting


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one setting by itself."""

    name: str
    setting_id: str
    median_s: float | None  # median over processes of their medians; None if no process is ok
    geometric_mean_s: float | None  # of the same medians of processes; None as above
    processes: int  # with a time of this metric
    ok: int  # processes that are ok
    lost: dict[str, int]  # status → repeats that ended so
    lost_reason: str | None
    steady: dict[str, int]  # processes by the word of `bench.analysis.settings.steady_words`: yes, no, noisy, few, –
    wrong_output: str | None = None  # how its output differs from the reference's; None if it does not
    agrees: bool = False  # whether the output of all its processes was compared with a reference's and agrees
    unverified: list[Unverified] = field(default_factory=list)  # not confirmed by the evidence of its processes


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """Hold all results of one sweep, or of one sweep compared with another."""

    metric: str  # one of METRICS
    margin: float  # the difference that matters, as a fraction
    settings: list[Row]  # of the sweep; for two, those of the second
    before: list[Row] | None = None  # of two sweeps, the settings of the first; None for one
    comparisons: list[Comparison]
    break_evens: list[BreakEven]
    noise_floor: NoiseFloor | None  # None below three processes
    sources: tuple[str, ...] = ()  # sources of the records; of two sweeps the first is the baseline

    @property
    def unmatched(self) -> list[str]:
        """Return settings that are in no comparison: without a baseline, or in only one of two sweeps."""
        sides = {each.setting_id for each in self.comparisons}, {each.baseline_id for each in self.comparisons}
        if self.before is None:
            return [row.name for row in self.settings if row.setting_id not in sides[0] | sides[1]]
        after = [f"{row.name} (only after)" for row in self.settings if row.setting_id not in sides[0]]
        return [f"{row.name} (only before)" for row in self.only_before] + after

    @property
    def only_before(self) -> list[Row]:
        """Return, of two sweeps, the settings that the second one lacks."""
        compared = {each.baseline_id for each in self.comparisons}
        return [row for row in self.before or () if row.setting_id not in compared]


@dataclass(frozen=True, kw_only=True)
class BrokenSetting:
    """Hold a setting that worked before and cannot be compared any more."""

    setting: str
    reason: str  # in one line


@dataclass(frozen=True, kw_only=True)
class SlowerCheck:
    """Hold the result of a regression gate. The names are of settings, each in one list at most."""

    limit: float | None  # as a fraction: 0.03 allows all below 3 %; None: being slower is no failure
    slower: list[str]  # verdict "slower", by the limit or more: the check fails
    ruled_out: list[str]  # inconclusive, but its interval ends below the limit
    undecided: list[str]  # inconclusive, and possibly slower by the limit or more
    broken: list[BrokenSetting] = field(default_factory=list)  # failed, vanished, other output, incomparable


# ---- building ----------------------------------------------------------------------------------------------------


def build_report_of_records(
    records: Sequence[Record],
    *,
    typed: Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str = "e2e",
    margin: float = MARGIN,
) -> ComparisonReport:
    """Return the report of one sweep, directly from its records.

    Args:
        records: of every job that left one, with any status.
        typed: the names of the settings in the order in which they were typed; the first is the baseline if none is
            named; None: the order of the records.
        baseline: as in `build_report`, like all that follow.
        metric: one of METRICS.
        margin: the difference that matters, as a fraction.

    Raises:
        ConfigError: `baseline` names nothing.
    """
    return build_report(in_order(settings_of(records), typed), baseline=baseline, metric=metric, margin=margin)


def build_report(
    settings: Sequence[Setting],
    *,
    baseline: str | None = None,
    metric: str = "e2e",
    margin: float = MARGIN,
    sources: tuple[str, ...] = (),
) -> ComparisonReport:
    """Compare each setting of a sweep with its baseline.

    Args:
        settings: in the order in which they were typed.
        baseline: a setting's name or `key=value`, as in `sweep.baseline`; None: the first.
        metric: one of METRICS.
        margin: the difference that matters, as a fraction.
        sources: of the records.

    Raises:
        ConfigError: `baseline` names nothing.
    """
    return ComparisonReport(
        metric=metric,
        margin=margin,
        settings=[_row(each, metric) for each in settings],
        comparisons=compare(settings, baseline=baseline, metric=metric, margin=margin),
        break_evens=break_evens(settings),
        noise_floor=noise_floor(settings, metric=metric, margin=margin),
        sources=sources,
    )


def build_report_of_two(
    before: Sequence[Setting],
    after: Sequence[Setting],
    *,
    metric: str = "e2e",
    margin: float = MARGIN,
    sources: tuple[str, ...] = (),
) -> ComparisonReport:
    """Compare the settings of one sweep with the same ones of another, the baseline.

    The break-even points are those of the second sweep; the noise floor is of both together.
    """
    return ComparisonReport(
        metric=metric,
        margin=margin,
        settings=[_row(each, metric) for each in after],
        before=[_row(each, metric) for each in before],
        comparisons=compare_sweeps(before, after, metric=metric, margin=margin),
        break_evens=break_evens(after),
        noise_floor=noise_floor([*before, *after], metric=metric, margin=margin, paired=False),
        sources=sources,
    )


def in_order(settings: Sequence[Setting], typed: Sequence[str] | None) -> list[Setting]:
    """Return the settings as they were typed; those not in `typed` come last, in their present order."""
    if typed is None:
        return list(settings)
    places = {name: place for place, name in reversed(list(enumerate(typed)))}
    return sorted(settings, key=lambda each: places.get(each.name, len(places)))


def check_slower(report: ComparisonReport, limit: float | None) -> SlowerCheck:
    """Find settings that are slower by `limit` (a fraction) or more, may be slower, or cannot be compared any more.

    An interval rules something out only if a verdict was possible: not below three processes, and not if the sides
    differ in more than the setting, or are unreliable.

    Args:
        report: of one sweep, or of two.
        limit: None if being slower is no failure; no setting is in `slower` or `ruled_out` then.
    """
    broken = list(_broken(report))
    done = {each.setting for each in broken}
    slower: list[str] = []
    ruled_out: list[str] = []
    undecided: list[str] = []
    for each in report.comparisons:
        found, word = each.effect, each.verdict.word
        if word == "slower" and found is not None and limit is not None and found.ratio >= 1 + limit:
            slower.append(each.setting)
            broken = [one for one in broken if one.setting != each.setting]
        elif word == "inconclusive" and each.setting not in done:
            judged = found is not None and each.verdict.p is not None and limit is not None
            high = found.high if judged and found is not None else None
            (ruled_out if high is not None and high < 1 + (limit or 0.0) else undecided).append(each.setting)
    if report.before is None:
        undecided += report.unmatched  # without a baseline they have no result
    return SlowerCheck(limit=limit, slower=slower, ruled_out=ruled_out, undecided=undecided, broken=broken)


def _broken(report: ComparisonReport) -> Iterator[BrokenSetting]:
    """Return settings that worked before (in one sweep: should work beside their baseline) and cannot be compared now.

    A setting that did not work before is not included: nothing got worse.
    """
    after = {row.setting_id: row for row in report.settings}
    before = after if report.before is None else {row.setting_id: row for row in report.before}
    for each in report.comparisons:
        old, new = before[each.baseline_id], after[each.setting_id]
        if report.before is not None and not old.processes:
            continue
        if (reason := _breakage(old, new, each, is_one_sweep=report.before is None)) is not None:
            yield BrokenSetting(setting=each.setting, reason=reason)
    for row in report.only_before:
        if row.processes:
            yield BrokenSetting(setting=row.name, reason=f"is not in {_after(report)}")


def _breakage(old: Row, new: Row, compared: Comparison, *, is_one_sweep: bool) -> str | None:
    """Say why one setting cannot be compared with its baseline; None if it can, or was never expected to."""
    if (failed := _failed(new, is_one_sweep=is_one_sweep)) is not None:
        return failed
    if new.wrong_output is not None and (is_one_sweep or old.wrong_output is None):
        return new.wrong_output
    if is_one_sweep and (of_baseline := _failed(old, is_one_sweep=True) or old.wrong_output) is not None:
        return f"its baseline {compared.baseline}: {of_baseline}"
    if barring := [one for one in compared.differences if one.bars]:
        return "not comparable: " + "; ".join(f"{one.key} is {one.b}, in the baseline {one.a}" for one in barring)
    changed = [one for one in compared.differences if one.key == TOKENS_KEY]
    if changed and not new.agrees:
        return f"its generated tokens changed ({changed[0].b}) and no reference run confirms them: set {REFERENCE}"
    return None


def _failed(row: Row, *, is_one_sweep: bool) -> str | None:
    """Say which repeats are not ok; in one sweep a skipped setting cannot run on this machine, which is no failure."""
    failed = {status: count for status, count in row.lost.items() if not is_one_sweep or status != "skipped"}
    if not failed:
        return None
    ends = ", ".join(f"{count} {status}" for status, count in failed.items())
    reason = f": {row.lost_reason}" if row.lost_reason else ""
    return f"{ends} of {sum(row.lost.values()) + row.ok} repeats{reason}"


def _after(report: ComparisonReport) -> str:
    return report.sources[1] if len(report.sources) == 2 else "the second sweep"


def _row(setting: Setting, metric: str) -> Row:
    medians_s = [each.median_s for each in processes(setting, metric).values()]
    reasons = standing_of_setting(setting).reasons if setting.records else ()
    return Row(
        name=setting.name,
        setting_id=setting.setting_id,
        median_s=statistics.median(medians_s) if medians_s else None,
        geometric_mean_s=statistics.geometric_mean(medians_s) if medians_s else None,
        processes=len(medians_s),
        ok=len(setting.records),
        lost=setting.lost,
        lost_reason=setting.lost_reason,
        steady=dict(Counter(steady_words([each]) for each in setting.records)),
        wrong_output=next((each.text for each in reasons if each.kind == "output"), None),
        agrees=bool(setting.records) and all(_agrees(each) for each in setting.records),
        unverified=setting.unverified,
    )


def _agrees(record: Record) -> bool:
    return record.fidelity is not None and record.fidelity.agrees is True


# ---- plain values ------------------------------------------------------------------------------------------------


def to_json(report: ComparisonReport, *, check: SlowerCheck | None = None) -> dict[str, Any]:
    """Return the report as plain values in full precision: seconds, fractions, and None for unknown values.

    The keys are the fields of the dataclasses, at the top those of `ComparisonReport`; in addition there are

    - ``schema_version``: 2; it increases when a key changes its meaning or is removed;
    - ``unmatched``: settings that are in no comparison;
    - in each of ``comparisons``: ``geometric_mean_s`` and ``baseline_geometric_mean_s``, whose quotient is the ratio;
    - in ``noise_floor``: ``advice``, sentences;
    - ``slower_check``: a `SlowerCheck`, None if no gate was requested.

    Numbers that are keys (repeats, calls, differences) are strings, as JSON requires.
    """
    comparisons = [
        {
            **_plain(each),
            "geometric_mean_s": None if each.effect is None else each.effect.geometric_mean_s,
            "baseline_geometric_mean_s": None if each.effect is None else each.effect.baseline_geometric_mean_s,
        }
        for each in report.comparisons
    ]
    floor = report.noise_floor
    return {
        "schema_version": SCHEMA_VERSION,
        **_plain(report),
        "comparisons": comparisons,
        "unmatched": report.unmatched,
        "noise_floor": None if floor is None else {**_plain(floor), "advice": floor.advice()},
        "slower_check": _plain(check),
    }


def _plain(value: Any) -> Any:
    """Return dataclasses as dictionaries, keys as strings, and None for a float that JSON cannot represent."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _ if dataclasses.is_dataclass(value):
            return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return value
