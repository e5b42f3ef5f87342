"""Run each job in a process of its own while there is time, and check that its files can be read."""

from __future__ import annotations

import gzip
import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis.trials.summary import summarize
from bench.config.schema import BenchmarkConfig
from bench.jobs.job import new_record, run_job
from bench.jobs.reference import ensure_reference
from bench.report.text.format import one_line, reason
from bench.results.file_names import file_name
from bench.results.record import Record
from gpu_check.jobs import Job, Target, setting

# Kind of job → seconds that it is expected to take until one of its kind has been seen, and that it may take at most.
EXPECTED_S = {"plain": 20.0, "compiled": 60.0, "autotuned": 120.0}
LIMIT_S = {"plain": 90.0, "compiled": 180.0, "autotuned": 300.0}
LEAST_S = 5.0  # with less left, nothing is begun
MARGIN = 1.1  # on what a job of the same kind took


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a job."""

    job: Job
    record: Record | None = None  # None: not reached, or it could not even be started
    problem: str | None = None  # why there is no record
    took_s: float = 0.0
    reference_s: float = 0.0  # before that, for the reference run, where this job was the first to need it
    cut_off: bool = False  # ended by the end of the time for all jobs, not by its own limit
    reference_problem: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)  # file → what is wrong with it; "" when it is fine

    @property
    def status(self) -> str:
        """Return the record's status, or "not reached", or "crashed"."""
        if self.record is not None:
            return "not reached" if self.cut_off and self.record.status == "timeout" else self.record.status
        return "not reached" if self.problem is None else "crashed"

    @property
    def ok(self) -> bool:
        """Check whether the job has a record and is ok."""
        return self.status == "ok"

    @property
    def reason(self) -> str | None:
        """Return why the job is not ok, in one line; None if it is."""
        if self.ok:
            return None
        if self.record is not None:
            return reason(self.record)
        return self.problem or "no time was left for it"


class Clock:
    """Tracks the time that all jobs share, and how long jobs of each kind took."""

    def __init__(self, budget_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end_s = now() + budget_s
        self._seen_s: dict[str, float] = {}

    def left_s(self) -> float:
        """Return the seconds until the end."""
        return self._end_s - self._now()

    def expected_s(self, kind: str) -> float:
        """Return how long a job of this kind will take: the longest seen, with a margin, or a guess."""
        return MARGIN * self._seen_s[kind] if kind in self._seen_s else EXPECTED_S[kind]

    def fits(self, kind: str) -> bool:
        """Check whether a job of this kind is expected to end in time."""
        return self.left_s() >= max(LEAST_S, self.expected_s(kind))

    def timeout_s(self, kind: str) -> float:
        """Return how long a job of this kind may take."""
        return max(LEAST_S, min(LIMIT_S[kind], self.left_s()))

    def saw(self, kind: str, took_s: float) -> None:
        """Note how long a job of this kind took."""
        self._seen_s[kind] = max(took_s, self._seen_s.get(kind, 0.0))


def run_all(jobs: Sequence[Job], target: Target, clock: Clock, folder: Path) -> Iterator[Outcome]:
    """Run the jobs that fit, in order. The failure of one is its outcome and never ends the run."""
    done: set[str] = set()
    for number, job in enumerate(jobs):
        outcome = Outcome(job=job)
        # Without the code that it was to find, it compiles for itself.
        kind = "compiled" if job.finds is not None and job.finds not in done else job.kind
        if clock.fits(kind):
            own = folder / f"{number:02}_{file_name(job.name)}"
            try:
                own.mkdir(parents=True, exist_ok=True)
                outcome = run_one(job, kind, target, clock, own)
            except Exception as error:  # noqa: BLE001 - failure is data
                outcome = Outcome(job=job, problem=one_line(f"{type(error).__name__}: {error}"))
        if outcome.ok:
            done.add(job.name)
            clock.saw(kind, outcome.took_s)
        yield outcome


def run_one(job: Job, kind: str, target: Target, clock: Clock, folder: Path) -> Outcome:
    """Run one job, and the reference before it where there is none yet."""
    start = time.monotonic()
    config = setting(job, target, clock.timeout_s("plain"))
    reference = ensure_reference(config, folder.parent, None, lambda *_: None)
    began = time.monotonic()
    config.isolation.timeout_s = clock.timeout_s(kind)
    record = run_job(config, new_record(config, name=job.name), folder, lambda *_: None, reference.file)
    return Outcome(
        job=job,
        record=record,
        took_s=time.monotonic() - began,
        reference_s=began - start,
        cut_off=config.isolation.timeout_s < LIMIT_S[kind],
        reference_problem=reference.reason,
        artifacts=inspect_artifacts(folder, config) if job.profiled and record.status == "ok" else {},
    )


def e2e_s(outcome: Outcome | None) -> float | None:
    """Return the median E2E latency of a job that is ok."""
    if outcome is None or not outcome.ok or outcome.record is None:
        return None
    stats = summarize(outcome.record).e2e_s
    return stats.median if stats is not None else None


# ---- artifacts ----------------------------------------------------------------------------------------------------


def inspect_artifacts(folder: Path, config: BenchmarkConfig) -> dict[str, str]:
    """Return by file what is wrong with it; "" if it exists and can be read."""
    readers: dict[str, Callable[[Path], str]] = {"trace.json.gz": _trace, "operators.txt": _operators}
    if config.profile.memory_snapshot:
        readers["memory_snapshot.pickle"] = _snapshot
    on_gpu = config.device.startswith("cuda")
    found = {}
    for name, read in readers.items():
        try:
            problem = read(folder / name)
        except Exception as error:  # noqa: BLE001 - a broken file may raise anything
            problem = one_line(f"{type(error).__name__}: {error}")
        found[name] = problem
    if on_gpu and not found["trace.json.gz"] and "kernel" not in _categories(folder / "trace.json.gz"):
        found["trace.json.gz"] = "it holds no kernel of the GPU"
    return found


def _categories(path: Path) -> set[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return {str(each.get("cat")) for each in json.load(file)["traceEvents"]}


def _trace(path: Path) -> str:
    return "" if _categories(path) else "it holds no event"


def _operators(path: Path) -> str:
    return "" if "aten::" in path.read_text(encoding="utf-8") else "it names no operator"


def _snapshot(path: Path) -> str:
    with path.open("rb") as file:
        snapshot = pickle.load(file)  # noqa: S301 - our own job has just written it
    if not snapshot["segments"]:
        return "it holds no segment"
    return "" if any(snapshot["device_traces"]) else "it holds no allocation"
