"""Return a run's record to Python code, with headline figures and a short form for a notebook."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

from bench.analysis.ranking import standing_of
from bench.analysis.settings import ending_of, title_of
from bench.analysis.trials.headline import headline
from bench.analysis.trials.summary import summarize
from bench.results.record import Record

LONGEST_REASON = 100  # characters, in the short form


class Result(Record):
    """The record of a run, which is written and read like any other."""

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the record itself where it is a result, else a result with the same fields."""
        if isinstance(record, cls):
            return record
        return cls(**{each.name: getattr(record, each.name) for each in dataclasses.fields(record)})

    def summary(self) -> dict[str, Any]:
        """Return the headline figures as plain values.

        Returns:
            `name` and `status`; `ranked`, `marks` and `reason`, as the table and the report show them; the headline
            metrics under the names that they have in MLflow and in `bench.load_records`, with the unit in the name
            (`e2e_ms`, `tok_per_s`, `cold_s`, `peak_mib`); `steady` and `fidelity` as True or False; `unverified`, the
            parts of the request that no evidence could see. What is not known is None.
        """
        standing = standing_of([self])
        figures: dict[str, Any] = dict(headline(self, summarize(self)))
        for name in ("steady", "fidelity"):
            figures[name] = None if figures[name] is None else bool(figures[name])
        return {
            "name": title(self),
            "status": self.status,
            "ranked": standing.is_ranked,
            "marks": standing.marks,
            "reason": "; ".join(each.text for each in standing.reasons) or None,
            **figures,
            "unverified": "; ".join(f"{each.key}: {each.reason}" for each in self.unverified) or None,
        }

    def __repr__(self) -> str:
        """Return name, status, median E2E and marks in one line."""
        return f"<{type(self).__name__} {title(self)}: {_state(self)}>"


def title(record: Record) -> str:
    """Return the setting's name in one line; for a single run, which has none, its model's."""
    return " ".join(title_of(record).split())


def milliseconds(duration_s: float) -> str:
    """Return a duration as a number of milliseconds with four significant digits, never in exponents."""
    value_ms = duration_s * 1e3
    decimals = 3 - math.floor(math.log10(value_ms)) if value_ms > 0 else 0
    return f"{value_ms:.{min(max(decimals, 0), 6)}f}"


def _state(record: Record) -> str:
    if record.status != "ok":
        reason = ending_of(record)
        return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} …"
    e2e_s, marks = summarize(record).e2e_s, standing_of([record]).marks
    if e2e_s is None:
        return "ok, no measured call"
    calls = "1 call" if e2e_s.n == 1 else f"{e2e_s.n} calls"
    marked = f", marks {marks}" if marks else ""
    return f"ok, median E2E {milliseconds(e2e_s.median)} ms of {calls}{marked}"
