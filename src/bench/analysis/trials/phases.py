"""Divide the time of one trial into disjoint parts in order, and compute the time outside of generate.

The parts come from the record's `phases_s`, whose keys overlap: `total` is the child's whole time and
`batching_setup` is within the validation. `wait` and `publish` are before and after the span from `started_at_s` to
`ended_at_s`; `other` is the rest of that span, such as the preparation of the monitor and the description of the
machine. A record of a version that did not time a part lacks it: its time is then in `other`.

Not covered: the reference run, which has its own record, and the sweep's time between its trials.
"""

from __future__ import annotations

from bench.results.record import Record

# Part → its keys of `phases_s`, in chronological order; `other` comes last.
PARTS: dict[str, tuple[str, ...]] = {
    "wait": ("wait",),
    "start": ("start",),
    "import": ("import",),
    "load": ("load",),
    "validation": ("validation",),
    "warmup": ("warmup",),
    "measurement": ("measurement",),
    "evidence": ("evidence", "fidelity", "roofline", "profile"),
    "publish": ("publish",),
}
OTHER = "other"
OUTSIDE = ("wait", "publish")  # of the span from start to end
NAMES = (*PARTS, OTHER)


def phases_of(record: Record) -> dict[str, float]:
    """Return part → seconds, in the order of `NAMES`; parts without times are left out."""
    parts = {}
    for name, keys in PARTS.items():
        known = [record.phases_s[key] for key in keys if key in record.phases_s]
        if known:
            parts[name] = sum(known)
    if record.ended_at_s is not None:
        covered_s = sum(seconds for name, seconds in parts.items() if name not in OUTSIDE)
        # Two clocks: the sum of the parts may exceed the span by some microseconds.
        parts[OTHER] = max(0.0, record.ended_at_s - record.started_at_s - covered_s)
    return parts


def until_ready_s(record: Record) -> float:
    """Return seconds from the job's start until its process could begin, the origin of its calls' start times."""
    return sum(record.phases_s.get(name, 0.0) for name in ("start", "import"))


def in_generate_s(record: Record) -> float:
    """Return the seconds of all calls, including validation and warm-up."""
    return sum(call.e2e_s for call in record.iterations)


def outside_generate_s(record: Record) -> float | None:
    """Return a trial's time without its calls and its wait for others; None if its parts do not cover its calls."""
    own_s = [seconds for name, seconds in phases_of(record).items() if name != "wait"]
    outside_s = sum(own_s) - in_generate_s(record)
    return outside_s if own_s and outside_s >= 0 else None
