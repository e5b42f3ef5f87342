"""After how many calls a compiled setting has earned back what its compilation took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.analysis.settings import Setting

CALLS = (10, 100, 1000)
STATUSES = ("established", "not established", "never", "descriptive")


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """A compiled setting beside the same one uncompiled; one each for processes with a cold and a warm compile cache.

    `S(N)`, the speed-up over a process of N calls, is N t_u / (C + N t_c): above 1 compilation has paid.
    """

    setting: str
    setting_id: str
    uncompiled: str
    uncompiled_id: str
    cache: str  # "cold" or "warm": what the compiled processes found on disk
    processes: int  # pairs by block; or, unpaired, compiled ones
    uncompiled_processes: int
    paired: bool
    mixed: int  # further compiled processes that found only some of their code, counted nowhere
    excess_s: float  # C: what starting up took beyond the uncompiled one's
    saved_s: float  # t_u - t_c, of one call
    calls: float | None  # N* = C / (t_u - t_c), 0 where C <= 0; None where nothing is saved
    calls_low: float | None  # 95 % interval; None where there is none
    calls_high: float | None  # None: no upper end
    tokens: float | None  # calls × batch size × new tokens, at this shape
    speedup: dict[int, float] = field(default_factory=dict)  # N of CALLS → S(N)
    speedup_low: dict[int, float] = field(default_factory=dict)  # 95 % interval; empty from fewer than 2 processes
    speedup_high: dict[int, float] = field(default_factory=dict)
    status: str  # one of STATUSES
    reason: str | None  # why the status is not "established"


def break_evens(settings: Sequence[Setting]) -> list[BreakEven]:
    """For each compiled setting with an uncompiled one that is equal in all else."""
    raise NotImplementedError
