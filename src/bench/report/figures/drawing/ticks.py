"""Choose the ticks of an axis and their labels: plain numbers, seven at most, on either kind of scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_TICKS = 7
LOG_FROM = 8.0  # of largest to smallest: below it, a linear scale shows everything
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k"))
# Beyond these limits a value is meaningless, and a scale with it would fail.
_SMALLEST, _LARGEST = 1e-12, 1e18


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Hold the range of one axis and its ticks."""

    low: float
    high: float
    is_log: bool
    ticks: list[float]

    @property
    def labels(self) -> list[str]:
        """Return the labels of the ticks."""
        return [tick_label(each) for each in self.ticks]

    @property
    def words(self) -> str:
        """Return the suffix of an axis's name."""
        return ", log scale" if self.is_log else ""


def scale_for(values: Iterable[float], *, is_log: bool | None = None, from_zero: bool = False) -> Scale:
    """Return a scale with margins around the values.

    Args:
        values: at least one; on a log scale values that are not positive are left out.
        is_log: None: log if the values are far enough apart and all are positive.
        from_zero: whether a linear scale begins at 0.
    """
    known = [min(max(each, -_LARGEST), _LARGEST) for each in values if math.isfinite(each)]
    if is_log is None:
        is_log = min(known) > 0 and max(known) / min(known) >= LOG_FROM
    if is_log:
        positive = [max(each, _SMALLEST) for each in known if each > 0] or [1.0]
        pad = max((max(positive) / min(positive)) ** 0.06, 1.1)
        low, high = min(positive) / pad, max(positive) * pad
        return Scale(low=low, high=high, is_log=True, ticks=_log_ticks(low, high))
    low, high = min(known), max(known)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = (0.0 if from_zero and low >= 0 else low - pad), high + pad
    return Scale(low=low, high=high, is_log=False, ticks=_linear_ticks(low, high))


def count_ticks(last: int) -> list[float]:
    """Return whole numbers from 0 to `last`."""
    if last < MOST_TICKS:
        return [float(each) for each in range(last + 1)]
    return [each for each in _linear_ticks(0, last) if each == int(each)]


def tick_label(value: float) -> str:
    """Write a number as short as possible: 0.02, 150, 20k, 1M."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            unit = 1e3 if prefix == "k" else size
            return f"{value / unit:.4g}{prefix}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / (MOST_TICKS - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(each * size for each in _STEPS if each * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = _within([10.0**power * step for power in decades for step in steps], low, high)
        if len(ticks) <= MOST_TICKS:
            break
    ticks = ticks[:: math.ceil(len(ticks) / MOST_TICKS)]
    return ticks if len(ticks) > 1 else _linear_ticks(low, high)


def _within(values: Sequence[float], low: float, high: float) -> list[float]:
    return [each for each in values if low <= each <= high]
