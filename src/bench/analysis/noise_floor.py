"""Estimate the smallest difference that these measurements can detect, and how to reduce it.

The variance of a process's log median has two parts: the variance between processes of one setting, and the uncertainty
of one process's median due to its calls. The second is known from the calls; the first is the rest of the variance
between medians (method of moments), so it is 0 if the calls explain all of it. Effects that repeats share block by
block, such as drift, count as a difference of processes here. Several settings are pooled with their degrees of
freedom; an A/A sweep, one setting under two labels, is the cleanest case.

The detectable difference is that of the test of ``bench.analysis.comparison``: within one sweep the paired t test with
R - 1 degrees of freedom, between two sweeps Welch's with 2 (R - 1), both at a level of 5 %. It assumes that blocks
share nothing; if a block's processes are positively correlated, the paired test finds smaller differences. The best
number of calls per process is Kalibera and Jones' optimum ("Rigorous benchmarking in reasonable time", ISMM 2013).

The calls' part is overestimated, by a quarter of its variance for 20 normal calls per process and by more for fewer
(see ``noise_of_median``), and the processes' part is underestimated by as much. Their sum, from which the detectable
difference follows, is unbiased, unless the calls' part alone exceeds the total.

Not covered: noise that all processes share, such as that between sweeps on different days, and the uncertainty of these
figures: from three processes a standard deviation is known only to within a factor of about two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped]

from bench.analysis.calls.series import lag1_autocorrelation
from bench.analysis.comparison import FEWEST_PROCESSES, LEVEL, MARGIN
from bench.analysis.settings import Setting, call_times, noise_of_median, processes
from bench.analysis.trials.phases import until_ready_s
from bench.results.record import Record

REPEATS = (3, 5, 10, 20)
DIFFERENCES = (0.01, 0.02, 0.05)
POWER = 0.8
MOST_REPEATS = 1000
_SMALL_PART = 0.1  # share of a variance that is too small to reduce


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Hold the noise of one metric by part; deviations are of log times, which are fractions of the time if small."""

    metric: str
    margin: float  # used by `detectable_beyond`, as a fraction
    paired: bool  # the test: paired within one sweep, else Welch's
    settings: int  # that were pooled
    processes: int  # of all of them
    repeats: int  # processes per setting, the smallest number
    calls: float  # measured calls per process, on average
    process_sd: float  # between processes, beyond their calls' noise; 0 if that noise explains all
    call_sd: float | None  # between the calls of a process; None for one call each
    median_noise: float | None  # standard error of a process's median due to its calls' noise
    process_share: float | None  # of a median's variance, the part between processes; None if nothing varies
    detectable: dict[int, float]  # repeats → difference detected with 80 % power, as a fraction
    detectable_beyond: dict[int, float]  # the same for a verdict, which requires a difference beyond the margin
    repeats_for: dict[float, int | None]  # difference → repeats that it needs for 80 % power; None: more than 1,000
    process_cost_s: float | None  # a process until its first measured call, including its start and imports
    call_cost_s: float | None  # from one measured call to the next
    best_calls: int | None  # most time-efficient number of measured calls per process; None if not known

    def advice(self) -> list[str]:
        """State the figures in lines; the first names the difference that the present repeats can detect."""
        found, verdict = self.detectable[self.repeats], self.detectable_beyond[self.repeats]
        power = f"With {self.repeats} repeats, 80 % power needs a difference of {_percent(found)}"
        lines = [f"{power}; a verdict beyond {_percent(self.margin)} needs {_percent(verdict)}"]
        reached = [(each, needed) for each, needed in self.repeats_for.items() if needed is not None]
        if reached:
            wishes = ", ".join(f"{_percent(each)} needs {needed} repeats" for each, needed in reached)
            lines.append(f"For 80 % power a difference of {wishes}")
        if self.process_share is not None:
            lines.append(self._where())
        if self.best_calls is not None:
            calls = "1 measured call" if self.best_calls == 1 else f"{self.best_calls} measured calls"
            costs = f"{self.process_cost_s:.3g} s for a process, {self.call_cost_s:.3g} s for a call"
            lines.append(f"{calls} per process would be the most efficient ({costs}); there were {self.calls:g}")
        return lines

    def _where(self) -> str:
        """Say which part of the noise dominates, and what to do about it."""
        assert self.process_share is not None
        split = f"{_percent(self.process_share)} of the variance of a process's median is between processes"
        if self.process_share >= 1 - _SMALL_PART:
            return f"{split}: only more repeats help, more calls do not"
        if self.process_share <= _SMALL_PART:
            return f"{split}: more measured calls help as much as more repeats"
        return f"{split}, the rest between the calls of one: more repeats help, more measured calls a little"


def noise_floor(
    settings: Sequence[Setting], *, metric: str = "e2e", margin: float = MARGIN, paired: bool = True
) -> NoiseFloor | None:
    """Pool the noise of these settings; those with fewer than 3 processes do not count. None if no others exist.

    Args:
        settings: of one sweep, or one alone.
        metric: one of METRICS.
        margin: the difference that a verdict must exceed, as a fraction.
        paired: whether the settings are compared by block, as in one sweep.
    """
    groups = []
    for setting in settings:
        found = processes(setting, metric)
        if len(found) >= FEWEST_PROCESSES:
            logs = np.log([each.median_s for each in found.values()])
            groups.append((logs, [each for each in setting.records if each.repeat in found]))
    if not groups:
        return None
    every = [record for _, records in groups for record in records]
    freedom = sum(len(logs) - 1 for logs, _ in groups)
    total = sum(float(np.sum((logs - np.mean(logs)) ** 2)) for logs, _ in groups) / freedom
    by_calls, per_call = _calls_part([_positive(record, metric) for record in every])
    between = max(0.0, total - (by_calls or 0.0))
    whole = between + (by_calls or 0.0)
    at_hand = min(len(logs) for logs, _ in groups)
    detectable = {each: _detectable(whole, each, paired=paired) for each in sorted({*REPEATS, at_hand})}
    process_cost_s, call_cost_s = _costs(every)
    return NoiseFloor(
        metric=metric,
        margin=margin,
        paired=paired,
        settings=len(groups),
        processes=len(every),
        repeats=at_hand,
        calls=sum(len(record.calls("measurement")) for record in every) / len(every),
        process_sd=math.sqrt(between),
        call_sd=_call_sd([_positive(record, metric) for record in every]),
        median_noise=None if by_calls is None else math.sqrt(by_calls),
        process_share=between / whole if whole > 0 else None,
        detectable={each: math.expm1(found) for each, found in detectable.items()},
        detectable_beyond={each: math.expm1(found + math.log1p(margin)) for each, found in detectable.items()},
        repeats_for={each: _repeats_for(whole, math.log1p(each), paired=paired) for each in DIFFERENCES},
        process_cost_s=process_cost_s,
        call_cost_s=call_cost_s,
        best_calls=_best_calls(process_cost_s, call_cost_s, per_call, between),
    )


def detectable_errors(repeats: int, *, paired: bool = True) -> float:
    """Return the true difference, in standard errors, that a t test at 5 % finds with 80 % power.

    The noncentrality δ with P(T' > t) = 0.8, for noncentral t and t the two-sided quantile at 5 %; the other tail is
    negligible. Found by bisection, to 1e-9.

    Args:
        repeats: processes per side.
        paired: repeats - 1 degrees of freedom; else 2 (repeats - 1).
    """
    freedom = (repeats - 1) * (1 if paired else 2)
    quantile = float(stdtrit(freedom, 1 - LEVEL / 2))
    low, high = 0.0, 4 * quantile + 4
    while high - low > 1e-9:
        middle = (low + high) / 2
        if float(nctdtr(freedom, middle, quantile)) > 1 - POWER:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _positive(record: Record, metric: str) -> list[float]:
    """Return a process's calls; times of 0 have no logarithm."""
    return [each for each in call_times(record, metric) if each > 0]


def _calls_part(series: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Return the variance of a process's log median due to its calls, and the part that one call would have.

    The correlation of successive calls is estimated from all processes together: from one process it is too uncertain,
    and because only a positive one counts, its errors would not cancel.
    """
    found = [lag1_autocorrelation(np.log(times)) for times in series if len(times) > 1]
    known = [each for each in found if each is not None]
    correlation = sum(known) / len(known) if known else 0.0
    noises = [(noise_of_median(times, correlation=correlation), len(times)) for times in series]
    squares = [(noise**2, calls) for noise, calls in noises if noise is not None]
    return _mean([square for square, _ in squares]), _mean([square * calls for square, calls in squares])


def _detectable(variance: float, repeats: int, *, paired: bool) -> float:
    """Return the smallest detectable difference of two settings' log medians; `variance` is that of one process."""
    return detectable_errors(repeats, paired=paired) * math.sqrt(2 * variance / repeats)


def _repeats_for(variance: float, wanted: float, *, paired: bool) -> int | None:
    """Return the fewest repeats, at least 3, that find a difference on the log scale; None above MOST_REPEATS."""
    low, high = FEWEST_PROCESSES, MOST_REPEATS
    if _detectable(variance, high, paired=paired) > wanted:
        return None
    while low < high:
        middle = (low + high) // 2
        if _detectable(variance, middle, paired=paired) <= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def _best_calls(
    process_cost_s: float | None, call_cost_s: float | None, per_call: float | None, between: float
) -> int | None:
    """Return √(process cost / call cost × call variance / process variance), rounded up.

    None if any of them is unknown or 0.
    """
    if not process_cost_s or not call_cost_s or not per_call or between <= 0:
        return None
    return max(1, math.ceil(math.sqrt(process_cost_s / call_cost_s * per_call / between)))


def _costs(records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Return means over processes: seconds until the first measured call, and from one measured call to the next."""
    starts, calls = [], []
    for record in records:
        measured = record.calls("measurement")
        starts.append(until_ready_s(record) + measured[0].start_s)
        calls.append((measured[-1].start_s + measured[-1].e2e_s - measured[0].start_s) / len(measured))
    return _mean(starts), _mean(calls)


def _call_sd(series: Sequence[Sequence[float]]) -> float | None:
    """Return the SD of the log times of one process's calls, pooled over processes; None if none has two calls."""
    logs = [np.log(times) for times in series if len(times) > 1]
    freedom = sum(len(each) - 1 for each in logs)
    return math.sqrt(sum(float(np.sum((each - np.mean(each)) ** 2)) for each in logs) / freedom) if freedom else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(fraction: float) -> str:
    """Write a fraction as percent with two significant digits, never in exponents."""
    return f"{float(f'{fraction * 100:.2g}'):g} %"
