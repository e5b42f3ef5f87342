"""Say what to type so that settings can be ranked, if none of a sweep or a search is.

`bench.analysis.ranking` decides which setting is not ranked, and why; this module turns that into an instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.ranking import Standing
from bench.analysis.settings import asked
from bench.results.record import Record

# Key → the value for which a rule decides the number of calls, and how to type it.
POLICIES = {"warmup.policy": ("auto", "warmup=auto"), "measurement.policy": ("adaptive", "measurement=adaptive")}
LIMITS = ("warmup.max_iterations", "measurement.max_iterations")
QUIETER = "a quieter machine helps more"


def remedy(standings: Iterable[Standing], records: Sequence[Record], *, verb: str = "Run") -> str:
    """Return in one sentence what would make unranked settings ranked; "" if another run would not.

    Args:
        standings: of the settings that are not ranked.
        records: of their processes, which contain the former requests.
        verb: the action to repeat.
    """
    kinds = {reason.kind for each in standings for reason in each.reasons}
    if kinds & {"warm-up", "unsteady"}:
        lacking = [
            typed
            for key, (value, typed) in POLICIES.items()
            if any(asked(each, key) != value for each in records if each.status == "ok")
        ]
        if lacking:
            return f"{verb} again with {' '.join(lacking)}; {QUIETER}."
        return f"{verb} again on a quieter machine, or with higher {' and '.join(LIMITS)}."
    if "output" in kinds:
        return "The report says how far the outputs differ; leave these settings out, or correct what they compute."
    if "no calls" in kinds:
        return f"{verb} again with measurement.iterations=20."
    return ""
