"""Where the time of one trial went: disjoint parts in the order of the journey, and how much of it was not generate.

The parts come from the record's `phases_s`, whose keys overlap: `total` holds the child's whole time and
`batching_setup` lies within the validation. `wait` and `publish` lie before and after the span from `started_at_s` to
`ended_at_s`; `other` is what of that span no part covers, such as making the monitor ready and describing the machine.
A record that was made before a part was timed lacks it: what it took is in `other` then.

Not covered: the reference run, which is a record of its own, and the sweep's time between its trials.
"""

from __future__ import annotations

from bench.results.record import Record

# Part → the keys of `phases_s` that make it, in the order of the journey; `other` comes after all.
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
    """Return part → seconds, in the order of `NAMES`; parts that nobody timed are left out."""
    parts = {}
    for name, keys in PARTS.items():
        known = [record.phases_s[key] for key in keys if key in record.phases_s]
        if known:
            parts[name] = sum(known)
    if record.ended_at_s is not None:
        covered_s = sum(seconds for name, seconds in parts.items() if name not in OUTSIDE)
        # Two clocks: the parts of a span may come to some microseconds more than the span.
        parts[OTHER] = max(0.0, record.ended_at_s - record.started_at_s - covered_s)
    return parts


def until_ready_s(record: Record) -> float:
    """Seconds from the job's start until its process could begin, from where the starts of its calls are counted."""
    return sum(record.phases_s.get(name, 0.0) for name in ("start", "import"))


def in_generate_s(record: Record) -> float:
    """Return what the calls took, those of validation and warm-up among them."""
    return sum(call.e2e_s for call in record.iterations)


def outside_generate_s(record: Record) -> float | None:
    """All of a trial's time but its calls and its wait for others; None where its parts do not cover its calls."""
    own_s = [seconds for name, seconds in phases_of(record).items() if name != "wait"]
    outside_s = sum(own_s) - in_generate_s(record)
    return outside_s if own_s and outside_s >= 0 else None
