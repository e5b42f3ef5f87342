"""How small a difference these measurements can tell, and what would make it smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.settings import Setting

REPEATS = (3, 5, 10, 20)
DIFFERENCES = (0.01, 0.02, 0.05)


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """The noise of one metric, split; deviations are of log times, which for small ones are fractions of the time."""

    metric: str
    settings: int  # that were pooled
    processes: int  # of all of them
    repeats: int  # processes of a setting, the fewest among them
    calls: float  # measured calls of a process, on average
    process_sd: float  # between processes, beyond what their calls' noise explains; 0 where that explains all
    call_sd: float | None  # between the calls of a process; None for one call each
    median_noise: float | None  # standard error of a process's median through its calls' noise
    process_share: float  # of a median's variance, the part between processes
    detectable: dict[int, float]  # repeats → smallest difference found with 80 % power, as a fraction
    detectable_beyond: dict[int, float]  # the same for a verdict, which asks for a difference beyond the margin
    repeats_for: dict[float, int | None]  # difference → repeats that find it; None: more than 1,000
    process_cost_s: float | None  # a process until its first measured call
    call_cost_s: float | None  # a measured call
    best_calls: int | None  # measured calls of a process that give the most for the time; None where not known

    def advice(self) -> list[str]:
        """What the figures come to, in sentences."""
        raise NotImplementedError


def noise_floor(settings: Sequence[Setting], *, metric: str = "e2e", margin: float = 0.01) -> NoiseFloor | None:
    """The noise of these settings together; None where none has 3 processes."""
    raise NotImplementedError
