"""One row of the calibration: a property, how it came out over many trials, and whether that meets its target.

A row is missed only when its 95 % bounds lie wholly beyond the target: chance alone puts the rate of a sound statistic
beyond its target now and then, and more trials tell the two apart. Where the rate is beyond and the bounds are not,
the row says "met (within noise)". Of a property that is measured in n rows, each of which may be exactly on the target,
one row in 40 would be missed by chance: there the bounds that decide have a confidence of 1 - 5 %/n (Bonferroni).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, stdtrit  # type: ignore[import-untyped]

CONFIDENCE = 0.95
MET, WITHIN_NOISE, MISSED = "met", "met (within noise)", "MISSED"

# What one trial of a row comes to: whether something happened, or a number.
Trials = Sequence[bool] | npt.NDArray[np.bool_] | npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row must hold."""

    value: float
    most: bool  # whether the value is the most allowed; else it is the least
    unit: str = "%"  # "%": fractions, shown in percent; anything else is shown as it is

    def __str__(self) -> str:
        """As in "≤ 5 %"."""
        return f"{'≤' if self.most else '≥'} {self.show(self.value)}"

    def show(self, value: float) -> str:
        """A value in the target's unit."""
        return f"{100 * value:.3g} %" if self.unit == "%" else f"{value:.3g} {self.unit}"

    def holds(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value <= self.value if self.most else value >= self.value


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row before it is measured."""

    name: str  # of the property
    case: str  # of the series or sweeps that it is measured on
    target: Target
    run: Callable[[np.random.Generator, int], Trials]  # with a seeded generator and the number of trials
    # The distance from 0 of a mean of signed deviations is what counts, as for a bias.
    signed: bool = False
    family: int = 1  # rows that measure the same property, over which the bounds that decide are corrected
    times: int = 1  # so many times the trials: where all of them are computed at once


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured property."""

    name: str
    case: str
    trials: int
    measured: float  # a rate, or a mean
    low: float  # 95 % bounds
    high: float
    target: Target
    verdict: str  # MET, WITHIN_NOISE or MISSED


def most(value: float, unit: str = "%") -> Target:
    """A target not to be exceeded."""
    return Target(value=value, most=True, unit=unit)


def least(value: float, unit: str = "%") -> Target:
    """A target to be reached."""
    return Target(value=value, most=False, unit=unit)


def measure(case: Case, *, trials: int, seed: int) -> Row:
    """Run one case; its generator is seeded by its own name, so no other row changes it."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{case.name}|{case.case}".encode())])
    found = np.asarray(case.run(rng, trials * case.times))
    measured, (low, high) = float(np.mean(found)), _bounds(found, CONFIDENCE)
    deciding = _bounds(found, 1 - (1 - CONFIDENCE) / case.family)
    verdict = judge(measured, *deciding, case.target, signed=case.signed)
    return Row(
        name=case.name,
        case=case.case,
        trials=len(found),
        measured=measured,
        low=low,
        high=high,
        target=case.target,
        verdict=verdict,
    )


def _bounds(found: npt.NDArray[Any], confidence: float) -> tuple[float, float]:
    """Of a rate, where something happened or did not; else of a mean."""
    if found.dtype == np.bool_:
        return exact_bounds(int(np.sum(found)), len(found), confidence)
    return mean_bounds(found, confidence)


def judge(measured: float, low: float, high: float, target: Target, *, signed: bool = False) -> str:
    """Whether the target is met, met but for chance, or missed."""
    if signed:
        measured, ends = abs(measured), (abs(low), abs(high))
        low, high = (0.0 if low <= 0 <= high else min(ends)), max(ends)
    if target.holds(measured):
        return MET
    return WITHIN_NOISE if target.holds(low) or target.holds(high) else MISSED


def exact_bounds(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided bounds of a probability (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high


def mean_bounds(values: npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided bounds of a mean, by Student's t; of trials by the hundred, whatever their distribution."""
    n, mean = len(values), float(np.mean(values))
    reach = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - reach, mean + reach
