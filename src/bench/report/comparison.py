"""The report of one sweep, or of one beside another: everything that a comparison comes to, also as plain values.

Nothing is judged here but one thing, which concerns a limit of the reader's own: whether a setting got slower by more
than they allow (`check_slower`). Effects, verdicts, break-even points and the noise floor come from
``bench.analysis``; ``bench.report.comparison_text`` puts them into words.

Not covered: where the records come from, and what a program does with the outcome.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.analysis.break_even import BreakEven, break_evens
from bench.analysis.comparison import MARGIN, Comparison, compare, compare_sweeps
from bench.analysis.noise_floor import NoiseFloor, noise_floor
from bench.analysis.settings import Setting, processes, settings_of
from bench.record import Record, Unverified

SCHEMA_VERSION = 1  # of to_json


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting by itself."""

    name: str
    setting_id: str
    median_s: float | None  # median over processes of each one's own median; None where none came through
    processes: int
    lost: dict[str, int]  # status → repeats that ended so
    lost_reason: str | None
    steady: tuple[int, int]  # processes judged steady, and all
    unverified: list[Unverified] = field(default_factory=list)  # what the evidence of its processes could not see


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """All that is to be said of one sweep, or of one sweep after another."""

    metric: str  # one of METRICS
    margin: float  # the difference that matters, as a fraction
    settings: list[Row]  # of the sweep; of two, those of the second
    before: list[Row] | None = None  # of two sweeps, the settings of the first; None for one
    comparisons: list[Comparison]
    break_evens: list[BreakEven]
    noise_floor: NoiseFloor | None  # None below three processes
    sources: tuple[str, ...] = ()  # where the records came from; of two sweeps the first is the baseline

    @property
    def unmatched(self) -> list[str]:
        """Settings that stand in no comparison: without a baseline, or in one of two sweeps alone."""
        sides = {each.setting_id for each in self.comparisons}, {each.baseline_id for each in self.comparisons}
        if self.before is None:
            return [row.name for row in self.settings if row.setting_id not in sides[0] | sides[1]]
        after = [f"{row.name} (only after)" for row in self.settings if row.setting_id not in sides[0]]
        return [f"{row.name} (only before)" for row in self.before if row.setting_id not in sides[1]] + after


@dataclass(frozen=True, kw_only=True)
class SlowerCheck:
    """Which settings are slower than a reader allows. The names are of settings, each in one list at most."""

    limit: float  # as a fraction: 0.03 allows all below 3 %
    slower: list[str]  # verdict "slower", by the limit or more: the check fails
    ruled_out: list[str]  # inconclusive, but its interval ends below the limit
    undecided: list[str]  # inconclusive, and as far as one can tell possibly slower by the limit or more


# ---- building ----------------------------------------------------------------------------------------------------


def build_report_of_records(
    records: Sequence[Record],
    *,
    typed: Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str = "e2e",
    margin: float = MARGIN,
) -> ComparisonReport:
    """The report of one sweep, straight from its records.

    Args:
        records: of every job that left one, whatever its status.
        typed: the names of the settings in the order in which they were typed, the first of which is the baseline
            where none is named; None: the order of the records.
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
        sources: where the records came from.

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
        noise_floor=noise_floor([*before, *after], metric=metric, margin=margin),
        sources=sources,
    )


def in_order(settings: Sequence[Setting], typed: Sequence[str] | None) -> list[Setting]:
    """The settings as they were typed; those that are not among `typed` come last, in the order they have."""
    if typed is None:
        return list(settings)
    places = {name: place for place, name in reversed(list(enumerate(typed)))}
    return sorted(settings, key=lambda each: places.get(each.name, len(places)))


def check_slower(report: ComparisonReport, limit: float) -> SlowerCheck:
    """Which settings are slower by `limit` (a fraction) or more, and which may be, for all that one can tell.

    An interval rules something out only where a verdict was possible: not below three processes, and not where what is
    compared differs in more than the setting, or cannot be trusted.
    """
    slower: list[str] = []
    ruled_out: list[str] = []
    undecided: list[str] = []
    for each in report.comparisons:
        found, word = each.effect, each.verdict.word
        if word == "slower" and found is not None and found.ratio >= 1 + limit:
            slower.append(each.setting)
        elif word == "inconclusive":
            judged = found is not None and each.verdict.p is not None
            high = found.high if judged and found is not None else None
            (ruled_out if high is not None and high < 1 + limit else undecided).append(each.setting)
    return SlowerCheck(limit=limit, slower=slower, ruled_out=ruled_out, undecided=undecided)


def _row(setting: Setting, metric: str) -> Row:
    medians_s = [each.median_s for each in processes(setting, metric).values()]
    return Row(
        name=setting.name,
        setting_id=setting.setting_id,
        median_s=statistics.median(medians_s) if medians_s else None,
        processes=len(medians_s),
        lost=setting.lost,
        lost_reason=setting.lost_reason,
        steady=setting.steady,
        unverified=setting.unverified,
    )


# ---- plain values ------------------------------------------------------------------------------------------------


def to_json(report: ComparisonReport, *, check: SlowerCheck | None = None) -> dict[str, Any]:
    """The report as plain values in full precision: seconds, fractions, and None for what is not known.

    The keys are the fields of the dataclasses, so of `ComparisonReport` at the top; beside them stand

    - ``schema_version``: 1; it counts up when a key changes its meaning or goes;
    - ``unmatched``: settings that stand in no comparison;
    - in each of ``comparisons``: ``median_s`` and ``baseline_median_s``, medians over processes;
    - in ``noise_floor``: ``advice``, sentences;
    - ``slower_check``: a `SlowerCheck`, None where no limit was given.

    Numbers that are keys (repeats, calls, differences) are strings, as JSON wants them.
    """
    after = {row.setting_id: row.median_s for row in report.settings}
    before = after if report.before is None else {row.setting_id: row.median_s for row in report.before}
    comparisons = [
        {
            **_plain(each),
            "median_s": after.get(each.setting_id),
            "baseline_median_s": before.get(each.baseline_id),
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
    """Dataclasses as dictionaries, keys as strings, and None for a float that JSON has no word for."""
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
