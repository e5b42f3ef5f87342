"""Find the call from which on a process is on its final level.

The levels are those of the record's steadiness, found in warm-up and measurement together. Two rules are added here: a
call that compiled, captured a graph or made the allocator's reserve grow is not on the level yet, nor are slow calls at
its beginning that are too few for a separate level. The remaining calls are judged again by the same tests, so a last
segment that drifts or switches between levels does not count.

Not covered: whether another process would reach its level at the same call, and the validation call, which starts no
level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis.calls.events import disturbed_calls
from bench.analysis.calls.series import WINSOR_LIMIT, robust_sd
from bench.analysis.calls.steadiness import MIN_SEGMENT, SMALLEST_DIFFERENCE, judge_series
from bench.results.record import Iteration, Record, Segment


@dataclass(frozen=True, kw_only=True)
class SteadyPoint:
    """State the first call on the final level."""

    call: int  # its index in the job
    level_s: float  # the median E2E from there on
    certain: bool  # False: the calls from there on are too noisy or too few for the tests to find much


def steady_point(record: Record) -> SteadyPoint | None:
    """Return where a job's calls reach their final level; None if they never do, or if nothing was measured.

    It is also None if the rule of the warm-up was never met, or if the device was throttled meanwhile: such a level is
    not that of the setting.
    """
    seen = record.steadiness
    if seen is None or not seen.segments or seen.shape in (None, "no steady state"):
        return None
    if record.warmup_status == "not_converged" or "throttled" in seen.flags:
        return None
    compiled = record.observed.compile if record.observed is not None else None
    disturbed = disturbed_calls(record.iterations, compiled.events if compiled is not None else [])
    first = max(disturbed, default=-1) + 1
    calls = [each for each in record.iterations if each.index >= first and each.phase != "validation"]
    calls = _on_last_level(calls, seen.segments)
    if len(calls) < MIN_SEGMENT or calls[-1].phase != "measurement":
        return None
    times_s = [each.e2e_s for each in calls]
    judged = judge_series(times_s, first_index=calls[0].index)
    if judged.steady is False:
        return None
    return SteadyPoint(call=calls[0].index, level_s=float(np.median(times_s)), certain=judged.steady is True)


def _on_last_level(calls: Sequence[Iteration], segments: Sequence[Segment]) -> list[Iteration]:
    """Return the calls of the last segment and of earlier ones on the same level, without a slow beginning.

    A segment has at least MIN_SEGMENT calls, so two slow calls take the first call of the level into their segment:
    from a segment of exactly that length, the calls at its end that are on the level are added again.
    """
    last = segments[-1]
    position = len(segments) - 1
    while position > 0 and _is_on(segments[position - 1].median_s, last.median_s):
        position -= 1
    start = segments[position].start
    found = [each for each in calls if each.index >= start]
    if len(found) < MIN_SEGMENT:
        return []
    times_s = np.asarray([each.e2e_s for each in found])
    level_s, reach_s = float(np.median(times_s)), WINSOR_LIMIT * robust_sd(times_s)
    slow = [each.e2e_s - level_s > max(SMALLEST_DIFFERENCE * level_s, reach_s) for each in found]
    if slow[0]:
        return found[slow.index(False) :] if False in slow else []
    if position > 0 and segments[position - 1].calls == MIN_SEGMENT:
        for each in reversed([each for each in calls if segments[position - 1].start < each.index < start]):
            if not _is_on(each.e2e_s, level_s):
                break
            found.insert(0, each)
    return found


def _is_on(time_s: float, level_s: float) -> bool:
    return abs(time_s - level_s) <= SMALLEST_DIFFERENCE * level_s
