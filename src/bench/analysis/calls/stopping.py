"""Decide when to stop warming up, and when to stop measuring.

Warm-up ends when the calls have become level. The causes of slow first calls are known from events (a compilation,
autotuning, a CUDA graph capture, growth of the allocator's reserve), so the statistics use only the calls after the
last event. The limits are one-sided: a series that still falls is not warm, but a slight rise is no reason to wait. A
low coefficient of variation does not show that warm-up has ended: permanent noise would never pass such a limit, and
a series with little noise may still fall (Barrett et al., OOPSLA 2017).

Measurement ends on the width of the median's interval, never on a difference: stopping when a comparison becomes
significant would report differences that do not exist.

A cap never allows fewer calls than a decision requires; a rule that reaches its cap says so, and the figures are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis.calls.series import median_interval, theil_sen_slope

LARGEST_GAIN = 0.02  # of the second half of the window over the first, as a fraction of the window's median
LARGEST_LOSS = 0.05
LARGEST_FALL = 0.02  # from the first to the last call of the window, along the Theil-Sen line
SLOW_CALL_S = 10.0  # from here on a window of SLOW_WINDOW calls is sufficient
SLOW_WINDOW = 5
# The warm-up may be this many times as long as the planned measurement. In calls and not in seconds: a single call of
# seconds among calls of milliseconds, from an unreported cause, would use up the time of all later calls.
PLANNED_SHARE = 3
# Twice TorchDynamo's own limit of recompilations (8): a disturbance of more calls than that will not end.
MOST_DISTURBED = 16


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Describe the end of a phase of calls."""

    status: str  # "converged" or "not_converged"
    reason: str  # one line


@dataclass(frozen=True, kw_only=True)
class WarmupRule:
    """Stop at the first call after which the last `window` calls are undisturbed and level.

    The counts and the time are those since the last disturbed call.
    """

    window: int = 8  # calls
    min_calls: int = 5
    max_calls: int = 50
    max_s: float = 120.0
    planned_calls: int | None = None  # of the measurement to come

    def decide(self, e2e_s: Sequence[float], disturbed: Collection[int]) -> Stop | None:
        """Decide whether the warm-up ends with the last of these calls; None: make one more.

        Args:
            e2e_s: of all warm-up calls so far.
            disturbed: positions among them of calls with an event that explains a slow call.
        """
        quiet = np.asarray(e2e_s[max(disturbed, default=-1) + 1 :], dtype=np.float64)
        if len(disturbed) > MOST_DISTURBED:
            what = "a compilation, graph capture or growth of memory"
            return Stop(status="not_converged", reason=f"{what} in {len(disturbed)} of {len(e2e_s)} calls")
        if not len(quiet):
            return None
        typical_s = float(np.median(quiet))
        window = min(self.window, SLOW_WINDOW) if typical_s > SLOW_CALL_S else self.window
        if len(quiet) < max(window, self.min_calls):
            return None
        gain, fall = levelness(quiet[-window:])
        seen = f"second half {_signed(-gain)}, along the line {_signed(-fall)}"
        if -LARGEST_LOSS <= gain <= LARGEST_GAIN and fall <= LARGEST_FALL:
            return Stop(status="converged", reason=f"the last {window} calls are level ({seen})")
        most = self.max_calls
        if self.planned_calls is not None:
            most = min(most, PLANNED_SHARE * self.planned_calls)
        spent_s = float(np.sum(quiet))
        if len(quiet) >= most:
            cap = f"{len(quiet)} calls"
        elif spent_s >= self.max_s:
            cap = f"{spent_s:.1f} s"
        else:
            return None
        return Stop(status="not_converged", reason=f"after {cap} the last {window} calls are not level ({seen})")


def levelness(window: np.ndarray) -> tuple[float, float]:
    """Return how much a window of calls still falls, as fractions of its median; negative if it rises.

    Returns:
        The first half's median minus the second half's, and the fall from the first to the last call along the
        Theil-Sen line.
    """
    half, median = len(window) // 2, float(np.median(window))
    gain = float(np.median(window[:half]) - np.median(window[-half:])) / median
    return gain, -theil_sen_slope(window) * (len(window) - 1) / median


def _signed(fraction: float) -> str:
    return f"{round(fraction, 3) + 0.0:+.1%}"  # + 0.0: no minus before a zero


@dataclass(frozen=True, kw_only=True)
class MeasurementRule:
    """Stop once the median's 95 % interval is narrow enough at two successive checks."""

    half_width: float = 0.01  # as a fraction of the median
    min_calls: int = 20
    max_calls: int = 100
    step: int = 5  # calls from one check to the next
    max_s: float = 300.0

    def decide(self, e2e_s: Sequence[float]) -> Stop | None:
        """Decide whether the measurement ends with the last of these calls; None: make one more."""
        n = len(e2e_s)
        is_look = n >= self.min_calls and (n - self.min_calls) % self.step == 0
        if not is_look and n < self.max_calls:
            return None
        width = relative_half_width(e2e_s)
        text = "unknown" if width is None else f"{width:.2%}"
        before = e2e_s[: n - self.step] if n - self.step >= self.min_calls else ()
        if self._is_narrow(width) and self._is_narrow(relative_half_width(before)):
            return Stop(status="converged", reason=f"the median is known to ±{text} after {n} calls")
        spent_s = sum(e2e_s)
        if n >= self.max_calls or spent_s >= self.max_s:
            cap = f"{n} calls" if n >= self.max_calls else f"{spent_s:.1f} s"
            wanted = f"±{self.half_width:.2%} at two looks in a row"
            return Stop(status="not_converged", reason=f"after {cap} the median is known to ±{text}, not to {wanted}")
        return None

    def _is_narrow(self, width: float | None) -> bool:
        return width is not None and width <= self.half_width


def relative_half_width(values: Sequence[float]) -> float | None:
    """Return half the median's 95 % interval as a fraction of the median; None if there is no interval."""
    interval = median_interval(values)
    median = float(np.median(values)) if len(values) else 0.0
    return (interval[1] - interval[0]) / 2 / median if interval is not None and median else None
