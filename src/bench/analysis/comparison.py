"""Whether one setting is faster than another, judged from processes and not from calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.settings import Difference, Process, Setting

MARGIN = 0.01
LEVEL = 0.05
FEWEST_PROCESSES = 3  # of each side, for a verdict
WORDS = ("faster", "slower", "equivalent", "inconclusive")


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The ratio of b's time to a's (the baseline's): below 1 b is faster."""

    ratio: float
    low: float | None  # 95 % interval; None from one process each
    high: float | None
    processes: int  # pairs; or, unpaired, processes of the side that has fewer
    left_out: int  # blocks in which one side has no result
    paired: bool
    p: float | None  # two-sided, of no difference
    p_beyond: float | None  # of a difference within the margin: 2 × the smaller one-sided p, at most 1
    inside: bool | None  # whether the whole interval lies within the margin


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of b beside its baseline."""

    word: str  # one of WORDS
    p: float | None  # p_beyond after Holm's correction
    reason: str | None  # why it is inconclusive


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One setting beside its baseline."""

    setting: str
    baseline: str
    setting_id: str
    baseline_id: str
    metric: str  # one of METRICS
    effect: Effect | None  # None where a side has no process that came through
    verdict: Verdict
    differences: list[Difference]
    steady: tuple[str, str]  # of the baseline and of the setting, as in "4 of 5"


def effect(
    a: Sequence[Process | None], b: Sequence[Process | None], *, paired: bool = True, margin: float = MARGIN
) -> Effect | None:
    """Compare b with a, the baseline; None where no process is left of a side.

    Args:
        a: its processes; paired: aligned with `b` by block, None for a block without result.
        b: likewise.
        paired: whether position i of both ran in the same block of one sweep.
        margin: the difference that matters, as a fraction: within log(1 + margin) either way is equivalent.
    """
    raise NotImplementedError


def verdicts(effects: Sequence[Effect | None], *, margin: float = MARGIN) -> list[Verdict]:
    """A verdict for each effect, Holm-corrected over all that can have one."""
    raise NotImplementedError


def compare(
    settings: Sequence[Setting], *, baseline: str | None = None, metric: str = "e2e", margin: float = MARGIN
) -> list[Comparison]:
    """Each setting of a sweep beside its baseline; those without one are left out.

    Raises:
        ConfigError: `baseline` is no setting and no swept value.
    """
    raise NotImplementedError


def compare_sweeps(
    before: Sequence[Setting], after: Sequence[Setting], *, metric: str = "e2e", margin: float = MARGIN
) -> list[Comparison]:
    """The settings of `after` beside the same ones of `before`, unpaired; two lone settings are compared as they are."""
    raise NotImplementedError
