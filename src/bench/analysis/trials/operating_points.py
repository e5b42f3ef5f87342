"""Compute the operating points of a setting under the roofline: FLOPs per byte moved, and the rate.

Bytes and FLOPs are those that the model requires (`bench.analysis.trials.roofline`), times are medians over the
measured calls: TTFT for the prefill, TPOT for a decoding step. A stage whose share of the device's rates was rejected
because it exceeds the device's maximum has no point: its ceiling is wrong.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from bench.results.record import Record

STAGES = ("prefill", "decode")


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Hold the point of one stage of one process."""

    stage: str  # one of STAGES
    flops_per_byte: float  # arithmetic intensity
    flops_per_s: float


def operating_points(record: Record) -> list[OperatingPoint]:
    """Return the points that a record supports, prefill first; [] without costs or times."""
    work = record.roofline
    if work is None:
        return []
    calls = record.calls("measurement")
    sides = (
        ("prefill", work.prefill_flops, work.prefill_bytes, [each.ttft_s for each in calls if each.token_times_s]),
        (
            "decode",
            work.decode_flops,
            work.decode_bytes,
            [each.tpot_s for each in calls if len(each.token_times_s) > 1],
        ),
    )
    found = []
    for stage, flops, moved_bytes, times_s in sides:
        time_s = statistics.median(times_s) if times_s else 0.0
        is_rejected = any(name.startswith(stage) for name in work.rejected)
        if not flops or not moved_bytes or time_s <= 0 or is_rejected:
            continue
        point = OperatingPoint(stage=stage, flops_per_byte=flops / moved_bytes, flops_per_s=flops / time_s)
        if math.isfinite(point.flops_per_byte) and math.isfinite(point.flops_per_s):
            found.append(point)
    return found
