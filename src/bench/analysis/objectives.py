"""Give a search the values of a trial's objectives, or the reason why it has none; find the best trials.

A trial without values is pruned, and its reason begins with its kind: the job's status, `not warm`, `output differs` or
`no value`. `bench.analysis.ranking` decides the reason. A wrong output prunes a trial at any speed, and so does a
warm-up that did not converge, because its figures belong to another state. An unsteady trial keeps its values: the
search uses them, but such a trial is never called best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.analysis.ranking import standing_of
from bench.analysis.trials.headline import headline
from bench.analysis.trials.summary import summarize
from bench.results.record import Record


def objectives_of(record: Record, names: Sequence[str]) -> dict[str, float] | str:
    """Give each objective's value in full precision, or in one line the reason why this trial has no values.

    Args:
        record: of a job with any status.
        names: of headline metrics, as in `bench.config.schema.OBJECTIVES`.
    """
    standing = standing_of([record])
    if standing.has("status"):
        message = record.error.message if record.error is not None else f"ended in {record.stage or 'no known stage'}"
        return _one_line(f"{record.status}: {message}")
    if standing.has("output"):
        reason = record.fidelity.reason if record.fidelity is not None else None
        return _one_line(f"output differs: {reason or 'from the reference'}")
    if standing.has("warm-up"):
        return _one_line(f"not warm: {record.warmup_stop or 'the warm-up did not converge'}")
    figures = headline(record, summarize(record))
    values = {}
    for name in names:
        value = figures[name]
        if value is None or not math.isfinite(value):
            return f"no value: this job cannot tell {name}"
        values[name] = value
    return values


def pareto_front(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Return the positions of the points that no other point dominates, in order; equal points are all included.

    One dominates another when it is at least as good in every objective and better in one. With a single objective
    these are the points with the best value.

    Args:
        values: of each point, one for each objective.
        directions: `minimize` or `maximize`, one for each objective.
    """
    signs = [-1.0 if each == "maximize" else 1.0 for each in directions]
    costs = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in values]
    return [
        position
        for position, own in enumerate(costs)
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in costs)
    ]


def order_of(values: Mapping[str, float], goals: Mapping[str, str]) -> tuple[float, ...]:
    """Return a key that sorts the best first, by the first objective, then the second."""
    return tuple(-values[name] if goal == "maximize" else values[name] for name, goal in goals.items())


def _one_line(text: str) -> str:
    return " ".join(text.split())
