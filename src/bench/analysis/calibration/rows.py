"""Measure one row of the calibration: a property over many trials, and whether it meets its target.

A row is missed only if its 95 % bounds are entirely beyond the target: by chance, the measured rate of a correct
statistic is sometimes beyond its target, and more trials distinguish the two cases. If the rate is beyond the target
but the bounds are not, the row is "met (within noise)". If a property is measured in n rows, each of which may be
exactly at its target, one row in 40 would be missed by chance: there the deciding bounds have a confidence of
1 - 5 %/n (Bonferroni).
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

# The results of the trials of a row: whether an event occurred, or a number.
Trials = Sequence[bool] | npt.NDArray[np.bool_] | npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Define the target of a row."""

    value: float
    most: bool  # whether the value is the maximum; else it is the minimum
    unit: str = "%"  # "%": fractions, shown in percent; any other unit is shown unchanged

    def __str__(self) -> str:
        """Return the target as in "≤ 5 %"."""
        return f"{'≤' if self.most else '≥'} {self.show(self.value)}"

    def show(self, value: float) -> str:
        """Return a value in the target's unit."""
        return f"{100 * value:.3g} %" if self.unit == "%" else f"{value:.3g} {self.unit}"

    def holds(self, value: float) -> bool:
        """Check whether a value meets the target."""
        return value <= self.value if self.most else value >= self.value


@dataclass(frozen=True, kw_only=True)
class Case:
    """Define a row before it is measured."""

    name: str  # of the property
    case: str  # describes the series or sweeps of the trials
    target: Target
    run: Callable[[np.random.Generator, int], Trials]  # called with a seeded generator and the number of trials
    # Compare the absolute value of a mean of signed deviations with the target, as for a bias.
    signed: bool = False
    family: int = 1  # number of rows on the same property, for the correction of the deciding bounds
    times: int = 1  # factor on the number of trials, for rows that compute all trials at once


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold a measured property."""

    name: str
    case: str
    trials: int
    measured: float  # a rate, or a mean
    low: float  # 95 % bounds
    high: float
    target: Target
    verdict: str  # MET, WITHIN_NOISE or MISSED


def most(value: float, unit: str = "%") -> Target:
    """Return a target with a maximum."""
    return Target(value=value, most=True, unit=unit)


def least(value: float, unit: str = "%") -> Target:
    """Return a target with a minimum."""
    return Target(value=value, most=False, unit=unit)


def measure(case: Case, *, trials: int, seed: int) -> Row:
    """Run one case; its generator is seeded by its name, so that it is independent of other rows."""
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
    """Return the bounds of a rate for boolean results, else of a mean."""
    if found.dtype == np.bool_:
        return exact_bounds(int(np.sum(found)), len(found), confidence)
    return mean_bounds(found, confidence)


def judge(measured: float, low: float, high: float, target: Target, *, signed: bool = False) -> str:
    """Return MET, WITHIN_NOISE or MISSED."""
    if signed:
        measured, ends = abs(measured), (abs(low), abs(high))
        low, high = (0.0 if low <= 0 <= high else min(ends)), max(ends)
    if target.holds(measured):
        return MET
    return WITHIN_NOISE if target.holds(low) or target.holds(high) else MISSED


def exact_bounds(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return two-sided bounds of a probability (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high


def mean_bounds(values: npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return two-sided bounds of a mean by Student's t; with hundreds of trials, adequate for any distribution."""
    n, mean = len(values), float(np.mean(values))
    reach = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - reach, mean + reach
