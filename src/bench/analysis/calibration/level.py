"""Define the rows on single series: false alarms on level series, detection of faults, coverage of intervals."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from bench.analysis.calibration import synthetic
from bench.analysis.calibration.rows import Case, least, most
from bench.analysis.calls.series import Array, median_interval
from bench.analysis.calls.steadiness import judge_series
from bench.analysis.trials.summary import stats

CALLS = 20
MOST_CALLS = 2000  # number of calls within which every quantile must be defined
Make = Callable[..., Array]


def cases() -> list[Case]:
    """Return all cases of this group."""
    return [*_left_alone(), *_found(), *_coverage(), *_quantiles()]


def _left_alone() -> list[Case]:
    families: list[tuple[str, Make, tuple[float, ...], float]] = [
        ("flat", synthetic.flat, (0.005, 0.01, 0.02), 0.03),
        ("5 % spikes", synthetic.spikes, (0.01, 0.02), 0.12),
        ("AR(0.3)", functools.partial(synthetic.autoregressive, rho=0.3), (0.01, 0.02), 0.15),
    ]
    return [
        Case(
            name="a level series called unsteady",
            case=f"{family}, CV {100 * cv:g} %",
            target=most(target),
            run=_unsteady(make, cv),
        )
        for family, make, cvs, target in families
        for cv in cvs
    ]


def _found() -> list[Case]:
    faults: list[tuple[str, Make]] = [
        ("5 % step", synthetic.step),
        ("5 % ramp", synthetic.ramp),
        ("10 % bimodal", synthetic.bimodal),
    ]
    for speed, periods in (("fast", (2.5, 5.0)), ("slow", (5.0, 20.0))):
        for form, square in (("smooth", False), ("square", True)):
            make = functools.partial(synthetic.cycle, periods=periods, square=square)
            faults.append((f"10 % {speed} {form} cycle", make))
    return [
        Case(
            name="an unsteady series found",
            case=f"{fault}, CV {100 * cv:g} %",
            target=least(0.98),
            run=_unsteady(make, cv),
        )
        for fault, make in faults
        for cv in (0.002, 0.01)
    ]


def _unsteady(make: Make, cv: float) -> Callable[[np.random.Generator, int], list[bool]]:
    def run(rng: np.random.Generator, trials: int) -> list[bool]:
        return [judge_series(each.tolist()).steady is False for each in make(rng, trials, CALLS, cv=cv)]

    return run


def _coverage() -> list[Case]:
    return [
        Case(
            name="the median's interval holds the median",
            case=f"{'independent' if rho == 0 else f'AR({rho:g})'}, n = {n}",
            target=least(target),
            run=functools.partial(_covered, n=n, rho=rho),
        )
        for rho, target in ((0.0, 0.92), (0.3, 0.92), (0.6, 0.90))
        for n in (20, 50)
    ]


def _covered(rng: np.random.Generator, trials: int, *, n: int, rho: float) -> list[bool]:
    intervals = map(median_interval, synthetic.autoregressive(rng, trials, n, cv=0.01, rho=rho))
    return [each is not None and each[0] <= 1 <= each[1] for each in intervals]


def _quantiles() -> list[Case]:
    """Check that the slowest call exceeds each given quantile: both ends of its 95 % interval must exist."""
    return [
        Case(
            name=f"the slowest call lies beyond the {field}",
            case="n = the fewest that give one",
            target=least(0.97),
            run=functools.partial(_beyond, field=field, quantile=quantile),
        )
        for field, quantile in (("p90", 0.90), ("p95", 0.95), ("p99", 0.99))
    ]


def _beyond(rng: np.random.Generator, trials: int, *, field: str, quantile: float) -> list[bool]:
    n = next(n for n in range(1, MOST_CALLS) if getattr(stats([1.0] * n), field) is not None)
    true = 1 + 0.01 * float(ndtri(quantile))
    return [bool(each.max() >= true) for each in synthetic.flat(rng, trials, n, cv=0.01)]
