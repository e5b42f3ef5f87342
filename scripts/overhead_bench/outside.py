"""Measure the seconds of a small sweep outside of generate: in total, between two calls, and around a job.

The sweep has four settings, two of them compiled; compilation happens within the first call and counts as generate.
Seconds outside are the wall time of the command minus the E2E of all calls in its records, including the reference run:
to the closing table, when the answer is shown, and to the end of the command, when the report is written and
published. Loading, the evidence call, the comparison with the reference and MLflow count as outside.

    between calls   from the end of a measured call to the start of the next one, within a job
    per job         from a job's start (its record's started_at_s) to the next job's, minus loading and calls: the
                    start of its process, the evidence, the comparison with the reference, the record, publishing it,
                    its line. For the last job, to its record's end: later time belongs to no job
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results.record import Record
from overhead_bench import running
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result, percentile

TITLE = "seconds outside of generate in a small sweep"
EXISTING_S, NEW_S = 5.0, 8.0
GAP_MS = 2.0
JOB_S = 0.5
SWEEP = (
    "attention=eager,sdpa",
    "compile=off,default",
    "warmup.iterations=3",
    "measurement.iterations=10",
    "workload.sequence_length=64",
    "workload.num_tokens_to_generate=32",
)
QUICK = (*SWEEP[:1], "compile=off", *SWEEP[2:])


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Hold one sweep."""

    to_table_s: float
    to_end_s: float
    records: list[Record]

    @property
    def calls_s(self) -> float:
        """Return the seconds within generate."""
        return running.calls_s(self.records)


def measure(options: Options) -> Result:
    """Measure sweeps with a new and with an existing database, in turns."""
    found: dict[str, list[Sweep]] = {"new": [], "existing": []}
    for number in range(1 if options.quick else min(options.repeats, 3)):
        folder = options.folder / str(number)
        for database, sweeps in found.items():  # the first sweep of a folder creates it
            sweeps.append(_run(folder, database, options))
    every = [each for sweeps in found.values() for each in sweeps]
    gaps = [_gaps_ms(each.records) for each in every]
    jobs = [value for each in every for value in per_job_s(running.trials(each.records))]
    figures = [
        *_outside("existing", found["existing"], EXISTING_S),
        *_outside("new", found["new"], NEW_S),
        Figure(
            name="between measured calls: all", unit="ms", values=[gap for each in gaps for gap in each], at_most=GAP_MS
        ),
        Figure(
            name="between measured calls: 95th percentile",
            unit="ms",
            values=[percentile(each, 95) for each in gaps],
            at_most=GAP_MS,
        ),
        Figure(name="per job, beyond loading and calls", unit="s", values=jobs, at_most=JOB_S),
        *_stages([each for one in every for each in running.trials(one.records)]),
    ]
    notes = ["between calls: the 95th percentile is one a sweep"]
    return Result(figures=figures, notes=notes + running.waited_note([each for one in every for each in one.records]))


def _outside(database: str, sweeps: Sequence[Sweep], at_most: float) -> list[Figure]:
    name = f"{database} database: outside, to the "
    to_table = [each.to_table_s - each.calls_s for each in sweeps]
    to_end = [each.to_end_s - each.calls_s for each in sweeps]
    return [
        Figure(name=f"{name}table", unit="s", values=to_table, at_most=at_most),
        Figure(name=f"{name}end", unit="s", values=to_end, at_most=at_most),
        Figure(name=f"{database} database: within calls", unit="s", values=[each.calls_s for each in sweeps]),
    ]


def _run(folder: Path, name: str, options: Options) -> Sweep:
    """Run one sweep; return the times from start to table and to end. Raises NotMeasuredError if it fails."""
    folder.mkdir(exist_ok=True)
    settings = QUICK if options.quick else SWEEP
    command = running.bench("-m", f"sweep.name={name}", f"device={options.device}", *settings)
    to_table_s, last = None, ""
    begun_s = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - this project's own command
        command, cwd=folder, env=running.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            if to_table_s is None and is_header(line):
                to_table_s = time.perf_counter() - begun_s
        process.wait()
        to_end_s = time.perf_counter() - begun_s
    if process.returncode or to_table_s is None:
        raise NotMeasuredError(f"the sweep ended with status {process.returncode}: {last}")
    return Sweep(to_table_s=to_table_s, to_end_s=to_end_s, records=running.records(folder / "multirun" / name))


def is_header(line: str) -> bool:
    """Tell whether a line is the header of the closing table."""
    return line.split()[:2] == ["setting", "status"]


def _gaps_ms(records: Sequence[Record]) -> list[float]:
    return [1000 * gap for each in records for gap in running.gaps_s(each.calls("measurement"))]


def per_job_s(trials: Sequence[Record]) -> list[float]:
    """Return the seconds of each job beyond loading and calls; the jobs in the order of their start."""
    ends = [each.started_at_s for each in trials[1:]] + [trials[-1].ended_at_s or trials[-1].started_at_s]
    return [
        end_s - each.started_at_s - each.phases_s["load"] - running.calls_s([each])
        for each, end_s in zip(trials, ends, strict=True)
    ]


def _stages(trials: Sequence[Record]) -> list[Figure]:
    """Return how the seconds of a job are spent, as far as the records tell."""
    names = ("start", "import", "evidence", "fidelity", "roofline")
    return [
        Figure(
            name=f"  of a job: {name}",
            unit="s",
            values=[each.phases_s[name] for each in trials if name in each.phases_s],
        )
        for name in names
        if any(name in each.phases_s for each in trials)
    ]
