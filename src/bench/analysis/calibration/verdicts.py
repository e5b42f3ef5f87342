"""Define the rows on comparisons: identical settings must not differ, and a shift must be detected.

The rows on pairs of correlated settings compute all trials at once (`Intervals`), with the functions that
`bench.analysis.comparison.effect` itself uses; a test compares the two.

The rule that one process per setting gives no verdict has no rate; the tests of `bench.analysis.comparison` check it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri  # type: ignore[import-untyped]

from bench.analysis import comparison
from bench.analysis.calibration import synthetic
from bench.analysis.calibration.rows import Case, least, most
from bench.analysis.calls.series import Array, median_rank
from bench.analysis.comparison import MARGIN, Effect
from bench.analysis.settings import Process, noise_of_median

CV = 0.01  # of the calls
SETTINGS = 12
TIMES = 10  # factor on the number of trials in rows that compute all trials at once
REPEATS = (3, 5, 8)
CORRELATIONS = (-0.6, 0.0, 0.5, 0.8)  # of the two processes of a block
WINNER = ("faster", "slower")
Make = Callable[[np.random.Generator, int], Array]


def cases() -> list[Case]:
    """Return all cases of this group."""
    return [*_pairs(), *_correlated(), *_sweeps(), *_shifts(), *_drifts()]


def _pairs() -> list[Case]:
    found = []
    for sd in (0.0, 0.002, 0.01, 0.02):
        for repeats in (3, 5):
            where, make = f"process SD {100 * sd:g} %, R = {repeats}", _making(2, repeats, sd)
            found += [
                Case(name="identical settings differ", case=where, target=most(0.05), run=_differing(make)),
                Case(name="one of two identical settings wins", case=where, target=most(0.015), run=_judged(make)),
            ]
    return found


def _sweeps() -> list[Case]:
    return [
        Case(
            name=f"one of {SETTINGS} identical settings wins or loses",
            case=f"process SD {100 * sd:g} %, R = {repeats}",
            target=most(0.05),
            run=_judged(_making(SETTINGS, repeats, sd)),
        )
        for sd, repeats in ((0.002, 5), (0.01, 3), (0.01, 5), (0.02, 5))
    ]


def _correlated() -> list[Case]:
    """Return the cases with any correlation within blocks, including settings with different standard deviations."""
    spreads = [(f"process SD {100 * sd:g} %", (sd, sd)) for sd in (0.002, 0.01, 0.02)]
    spreads.append(("process SD 1 % against 10 %", (0.01, 0.1)))
    where = [(*spread, repeats, rho) for spread in spreads for repeats in REPEATS for rho in CORRELATIONS]
    return [
        Case(
            name="identical settings differ",
            case=f"{spread}, R = {repeats}, correlation in blocks {rho:g}",
            target=most(0.05),
            run=_differing_pair(repeats=repeats, process_sds=sds, rho=rho),
            family=len(where),
            times=TIMES,
        )
        for spread, sds, repeats, rho in where
    ]


def _shifts() -> list[Case]:
    """Return the cases with a shift; the targets are those of a process SD of 1 %, which 0.2 % meets as well."""
    found = []
    for sd in (0.002, 0.01):
        for repeats, differing, slower in ((3, 0.45, 0.24), (5, 0.90, 0.60), (8, 0.99, 0.88)):
            where = f"process SD {100 * sd:g} %, R = {repeats}"
            about = {"repeats": repeats, "process_sds": (sd, sd), "shift": 0.03}
            for name, least_rate, run in (
                ("a shift of 3 % found", differing, _differing_pair(**about)),
                ("a shift of 3 % called slower", slower, _slower_pair(**about)),
            ):
                found.append(Case(name=name, case=where, target=least(least_rate), run=run, times=TIMES))
    return found


def _drifts() -> list[Case]:
    """Return the cases with a drift over 60 processes, in blocks with random order."""
    found = []
    for sd in (0.002, 0.01):
        where, make = f"{SETTINGS} settings, process SD {100 * sd:g} %, R = 5", _making(SETTINGS, 5, sd, drift=0.04)
        found += [
            Case(name="a pair differs under a drift of 4 %", case=where, target=most(0.06), run=_differing(make)),
            Case(name="a false verdict under a drift of 4 %", case=where, target=most(0.06), run=_judged(make)),
        ]
    return found


def _making(settings: int, repeats: int, process_sd: float, *, shift: float = 0.0, drift: float = 0.0) -> Make:
    return functools.partial(
        synthetic.sweeps, settings=settings, repeats=repeats, process_sd=process_sd, cv=CV, shift=shift, drift=drift
    )


def _differing(make: Make) -> Callable[[np.random.Generator, int], list[bool]]:
    """Check whether the 95 % interval of the ratio of the last setting to the first excludes 1."""

    def run(rng: np.random.Generator, trials: int) -> list[bool]:
        found = [effects(sweep[[0, -1]])[0] for sweep in make(rng, trials)]
        return [each.low is not None and each.high is not None and not each.low <= 1 <= each.high for each in found]

    return run


def _judged(make: Make, *, words: Sequence[str] = WINNER) -> Callable[[np.random.Generator, int], list[bool]]:
    """Check whether any setting, compared with the first, gets one of these verdicts; all are one family."""

    def run(rng: np.random.Generator, trials: int) -> list[bool]:
        judged = (comparison.verdicts(effects(sweep)) for sweep in make(rng, trials))
        return [any(each.word in words for each in verdicts) for verdicts in judged]

    return run


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Hold the paired intervals of many trials, on the log scale."""

    difference: Array
    reach: Array

    @property
    def differ(self) -> npt.NDArray[np.bool_]:
        """Check whether the interval excludes zero."""
        return np.abs(self.difference) > self.reach

    @property
    def slower(self) -> npt.NDArray[np.bool_]:
        """Check whether the second setting has the verdict "slower": the interval is beyond the margin."""
        return self.difference - self.reach > math.log1p(MARGIN)


def intervals(pairs: Array) -> Intervals:
    """Compare the second setting with the first in each trial, as `comparison.effect` does for one trial.

    Args:
        pairs: trials × 2 × repeats × calls.
    """
    medians = np.log(np.median(pairs, axis=-1))
    differences = medians[:, 1] - medians[:, 0]
    repeats = pairs.shape[-2]
    of_sides = comparison.error_of_calls(_noises_of_medians(pairs), repeats)
    error = comparison.paired_error(differences, np.hypot(of_sides[:, 0], of_sides[:, 1]))
    return Intervals(difference=differences.mean(axis=-1), reach=comparison.reach_of(error, repeats - 1))


def _noises_of_medians(times: Array) -> Array:
    """Compute `settings.noise_of_median` over the last axis, for at least 6 calls that are not all equal."""
    logs = np.log(times)
    n = logs.shape[-1]
    rank = median_rank(n)
    assert rank is not None
    ordered = np.sort(logs, axis=-1)
    error = (ordered[..., n - rank] - ordered[..., rank - 1]) / (-2 * float(ndtri(bdtr(rank - 1, n, 0.5))))
    centred = logs - logs.mean(axis=-1, keepdims=True)
    plain = np.sum(centred[..., 1:] * centred[..., :-1], axis=-1) / np.sum(centred**2, axis=-1)
    rho = np.clip(plain + (1 + 3 * plain) / n, 0.0, 1.0)
    independent = np.maximum(1.0, n * (1 - rho) / (1 + rho))
    return np.asarray(error * np.sqrt(n / independent), dtype=np.float64)


def _pairs_of(rng: np.random.Generator, trials: int, **about: Any) -> Intervals:
    return intervals(synthetic.correlated_pairs(rng, trials, cv=CV, **about))


def _differing_pair(**about: Any) -> Callable[[np.random.Generator, int], npt.NDArray[np.bool_]]:
    """Check whether the 95 % interval of a pair excludes 1; `about` is passed to `synthetic.correlated_pairs`."""
    return lambda rng, trials: _pairs_of(rng, trials, **about).differ


def _slower_pair(**about: Any) -> Callable[[np.random.Generator, int], npt.NDArray[np.bool_]]:
    """Check whether the second setting of a pair has the verdict "slower"."""
    return lambda rng, trials: _pairs_of(rng, trials, **about).slower


def effects(sweep: Array) -> list[Effect]:
    """Return the effect of each setting of one sweep (settings × repeats × calls) relative to the first."""
    first, *others = [processes(setting) for setting in sweep]
    return [each for other in others if (each := comparison.effect(first, other)) is not None]


def processes(setting: Array) -> list[Process]:
    """Return one process per repeat, from its calls."""
    return [
        Process(repeat=repeat, median_s=median, noise=noise_of_median(calls))
        for repeat, (median, calls) in enumerate(
            zip(np.median(setting, axis=-1).tolist(), setting.tolist(), strict=True), start=1
        )
    ]
