"""Collect the evidence for and against a check, and decide between pass, fail and unknown."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results.record import Record
from gpu_check.jobs import Job, Target
from gpu_check.nvml import Gpu
from gpu_check.running import Outcome


@dataclass(frozen=True, kw_only=True)
class Run:
    """The input of all checks."""

    outcomes: list[Outcome]
    target: Target
    gpu: Gpu

    @property
    def ok(self) -> list[tuple[Job, Record]]:
        """Return the jobs that are ok, with their records."""
        return [(each.job, each.record) for each in self.outcomes if each.ok and each.record is not None]

    def of(self, name: str) -> Outcome | None:
        """Return the outcome of one job."""
        return next((each for each in self.outcomes if each.job.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    verdict: str  # pass, fail, unknown
    detail: str


class Judge:
    """Collects the evidence for and against one check."""

    def __init__(self) -> None:
        self.seen: list[str] = []  # evidence for it
        self.against: list[str] = []
        self.unknown: list[str] = []

    def check(self, who: str, holds: bool | None, what: str) -> None:
        """Add one observation: whether the check holds for `who` (None: unknown), and what was seen."""
        {True: self.seen, False: self.against, None: self.unknown}[holds].append(f"{who}: {what}" if what else who)

    def verdict(self, name: str) -> Check:
        """Return fail if anything contradicts the check, unknown if nothing confirms it, else pass."""
        total = len(self.seen) + len(self.against) + len(self.unknown)
        if self.against:
            verdict, lists = "fail", [self.against]
        elif self.seen:
            verdict, lists = "pass", [self.seen, [f"unknown: {each}" for each in self.unknown]]
        else:
            verdict, lists = "unknown", [self.unknown]
        said = [each for those in lists for each in those]
        if not said:
            return Check(name=name, verdict=verdict, detail="nothing to judge it by")
        return Check(name=name, verdict=verdict, detail=f"{len(lists[0])} of {total}: {'; '.join(said)}")
