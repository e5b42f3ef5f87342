"""Rows on comparisons: identical settings must not differ, and a shift must be found.

That one process each names no winner is a rule and has no rate: the tests of `bench.analysis.comparison` hold it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from bench.analysis import comparison, synthetic
from bench.analysis.calibration.rows import Case, least, most
from bench.analysis.comparison import Effect
from bench.analysis.series import Array
from bench.analysis.settings import Process, noise_of_median

CV = 0.01  # of the calls
SETTINGS = 12
WINNER = ("faster", "slower")
Make = Callable[[np.random.Generator, int], Array]


def cases() -> list[Case]:
    """All rows of this group."""
    return [*_pairs(), *_sweeps(), *_shifts(), *_drifts()]


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


def _shifts() -> list[Case]:
    found = []
    for sd in (0.002, 0.01):
        where, make = f"process SD {100 * sd:g} %, R = 5", _making(2, 5, sd, shift=0.03)
        found += [
            Case(name="a shift of 3 % found", case=where, target=least(0.95), run=_differing(make)),
            Case(
                name="a shift of 3 % called slower",
                case=where,
                target=least(0.70),
                run=_judged(make, words=("slower",)),
            ),
        ]
    return found


def _drifts() -> list[Case]:
    """Over 60 processes in blocks, each in a random order."""
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
    """Whether the 95 % interval of the last setting over the first leaves out 1."""

    def run(rng: np.random.Generator, trials: int) -> list[bool]:
        found = [effects(sweep[[0, -1]])[0] for sweep in make(rng, trials)]
        return [each.low is not None and each.high is not None and not each.low <= 1 <= each.high for each in found]

    return run


def _judged(make: Make, *, words: Sequence[str] = WINNER) -> Callable[[np.random.Generator, int], list[bool]]:
    """Whether one of the words is said of any setting beside the first, all of them one family."""

    def run(rng: np.random.Generator, trials: int) -> list[bool]:
        judged = (comparison.verdicts(effects(sweep)) for sweep in make(rng, trials))
        return [any(each.word in words for each in verdicts) for verdicts in judged]

    return run


def effects(sweep: Array) -> list[Effect]:
    """Each setting of one sweep (settings × repeats × calls) beside the first."""
    first, *others = [processes(setting) for setting in sweep]
    return [each for other in others if (each := comparison.effect(first, other)) is not None]


def processes(setting: Array) -> list[Process]:
    """One for each repeat, from its calls."""
    return [
        Process(repeat=repeat, median_s=median, noise=noise_of_median(calls))
        for repeat, (median, calls) in enumerate(
            zip(np.median(setting, axis=-1).tolist(), setting.tolist(), strict=True), start=1
        )
    ]
