"""Outputs of a job beyond its measurement: a profile, a memory snapshot, a comparison with the reference.

Their keys are not part of the trial id, because the measured calls are the same without them. A resumed sweep that asks
for more outputs than before runs those jobs again that lack one; a sweep that asks for fewer keeps what it has. The
other keys outside of the trial id (`sweep`, `search`, `tracking`, `isolation`) add nothing to a record.
"""

from __future__ import annotations

import dataclasses

from bench.config.schema import BenchmarkConfig
from bench.results.record import Record

SNAPSHOT_KEY = "profile.memory_snapshot"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """The further outputs of one job."""

    profiled_tokens: int = 0  # 0: no profile
    memory_snapshot: bool = False
    compared: bool = False  # with a reference; also where the record says why that could not be done
    refused_for: str | None = None  # of a job that was skipped: the key of an output that this machine cannot give

    @classmethod
    def of(cls, record: Record) -> Outputs:
        """Return the outputs of a finished job: an `ok` record has all that were asked for."""
        profile = record.requested.get("profile")
        asked = profile if isinstance(profile, dict) else {}
        tokens, snapshot = asked.get("num_tokens"), asked.get("memory_snapshot")
        because = record.error.message if record.status == "skipped" and record.error is not None else ""
        return cls(
            profiled_tokens=tokens if isinstance(tokens, int) else 0,
            memory_snapshot=snapshot is True,
            compared=record.fidelity is not None,
            refused_for=SNAPSHOT_KEY if because.startswith(f"{SNAPSHOT_KEY}=") else None,
        )

    def missing(self, config: BenchmarkConfig, status: str) -> str | None:
        """Return which of the outputs asked for now a finished job lacks, in a few words; None when it has all.

        `fidelity.reference=auto` does not require a comparison: it is made where a job runs anyway.

        Args:
            config: the config of this start.
            status: the job's. A skipped job has no outputs, and another run would not have any either, unless it was
                skipped for an output that is no longer asked for.
        """
        if status == "skipped":
            dropped = self.refused_for == SNAPSHOT_KEY and not config.profile.memory_snapshot
            return f"skipped for {SNAPSHOT_KEY}=true" if dropped else None
        lacks = []
        if config.profile.num_tokens > self.profiled_tokens:
            has = f"a profile of {self.profiled_tokens} tokens only" if self.profiled_tokens else "no profile"
            lacks.append(has)
        if config.profile.memory_snapshot and not self.memory_snapshot:
            lacks.append("no memory snapshot")
        if config.fidelity.reference == "eager" and not self.compared:
            lacks.append("not compared with a reference")
        return ", ".join(lacks) or None
