"""From the points of a sweep to its jobs: which, in what order, under which names.

Repeats come in blocks: each block holds every setting once, in an order of its own, so that a slow drift of the
machine meets all settings alike. The same setting twice is one setting, unless `sweep.arm` gives it two labels: then it
is compared with itself.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config.baseline import find_baselines
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, SweepConfig
from bench.host.atomic_files import write_whole
from bench.host.secrets import scrub
from bench.results.json_dataclasses import load

FILE_NAME = "sweep.json"
SCHEMA_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of a sweep, as typed and as understood."""

    overrides: tuple[str, ...]  # all of them, for the launcher
    swept: dict[str, str]  # only those with more than one value in this sweep
    config: BenchmarkConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One process to come: a setting and which repeat of it."""

    number: int  # position in the order, from 0; Hydra's job number
    repeat: int  # from 1
    trial_id: str
    name: str  # the swept values, short
    swept: dict[str, str]
    folder: str  # below the sweep's folder
    arm: str | None = None
    done: bool = False  # when this plan was made: its record lies in the folder

    @property
    def setting_id(self) -> str:
        """As `Record.setting_id`."""
        return f"{self.trial_id}-{self.arm}" if self.arm else self.trial_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole sweep before anything runs."""

    sweep_id: str
    jobs: list[Job]
    points: list[Point]  # the point of each job
    duplicates: int  # points that were left out because they repeat another
    settings: list[str]  # their names, as typed
    baseline: str | None  # as asked for; it names one of them

    def to_run(self) -> list[Job]:
        """The jobs without a finished record, in order."""
        return [job for job in self.jobs if not job.done]

    def swept(self) -> dict[str, list[str]]:
        """Override key → the values that it takes in this sweep, in order."""
        values: dict[str, dict[str, None]] = {}  # as sets that keep their order: there may be thousands
        for job in self.jobs:
            for key, value in job.swept.items():
                values.setdefault(key, {})[value] = None
        return {key: list(each) for key, each in values.items()}


def make_plan(points: Sequence[Point], sweep: SweepConfig, sweep_id: str) -> Plan:
    """Drop duplicate settings, repeat and order the rest, and name each job.

    Raises:
        ConfigError: `sweep.baseline` is none of the settings, or there are more jobs than `sweep.max_jobs`.
    """
    distinct: dict[tuple[str, str | None], Point] = {}
    for point in points:
        distinct.setdefault((point.config.trial_id(), point.config.sweep.arm), point)
    settings = [(trial_id, point) for (trial_id, _), point in distinct.items()]
    names = [short_name(point.swept) for _, point in settings]
    find_baselines([(name, point.swept) for name, (_, point) in zip(names, settings, strict=True)], sweep.baseline)
    check_size(len(settings) * sweep.repeats, sweep.max_jobs)
    shuffle = random.Random(sweep.seed)  # noqa: S311 - an order that can be had again, not a secret
    ordered: list[tuple[int, str, Point]] = []
    for repeat in range(1, sweep.repeats + 1):
        block = shuffle.sample(settings, len(settings)) if sweep.order == "shuffled" else settings
        ordered += [(repeat, trial_id, point) for trial_id, point in block]
    width = len(str(len(ordered) - 1))
    jobs = []
    for number, (repeat, trial_id, point) in enumerate(ordered):
        name = short_name(point.swept)
        parts = [f"{number:0{width}}", name, f"r{repeat}" if sweep.repeats > 1 else ""]
        jobs.append(
            Job(
                number=number,
                repeat=repeat,
                trial_id=trial_id,
                name=name,
                swept=point.swept,
                folder=file_name("_".join(part for part in parts if part)),
                arm=point.config.sweep.arm,
            )
        )
    return Plan(
        sweep_id=sweep_id,
        jobs=jobs,
        points=[point for _, _, point in ordered],
        duplicates=len(points) - len(settings),
        settings=names,
        baseline=sweep.baseline,
    )


def check_size(jobs: int, max_jobs: int) -> None:
    """Refuse a sweep of more jobs than the user has confirmed. Raises ConfigError."""
    if jobs > max_jobs:
        raise ConfigError("sweep.max_jobs", max_jobs, f"this sweep has {jobs} jobs; sweep.max_jobs={jobs} runs them")


def short_name(swept: dict[str, str]) -> str:
    """The swept values in one line: words by themselves, numbers and the like with the last part of their key."""
    parts = []
    for key, value in swept.items():
        plain = value.strip("'\"")
        is_word = re.search(r"[A-Za-z]", plain) and plain.lower() not in ("null", "true", "false")
        parts.append(plain if is_word else f"{key.rsplit('.', 1)[-1]}={plain}")
    return " ".join(parts)


def file_name(text: str) -> str:
    """The text in letters that every file system takes, at most 100 of them."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text)[:100].strip("-.") or "job"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepFile:
    """`sweep.json`: what each job, a later resumption, and who publishes or compares afterwards must know."""

    schema_version: int = SCHEMA_VERSION
    sweep_id: str
    name: str  # of its run in MLflow
    parent_run_id: str | None = None  # in MLflow; None: not published
    started_at_s: float  # Unix time of the first start
    launched_at_s: float  # of the latest one
    settings: list[str]  # their names, as typed
    baseline: str | None = None
    swept: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    tracking: dict[str, Any] = dataclasses.field(default_factory=dict)  # uri without credentials, experiment, tags
    jobs: list[Job]
    kept: list[str] = dataclasses.field(default_factory=list)  # folders of finished jobs that are none of these now
    trials: int | None = None  # of a search, how many jobs it may come to; None: all jobs are here

    def write(self, folder: Path) -> None:
        """Write it whole; on resumption over the one before."""
        write_whole(folder / FILE_NAME, scrub(json.dumps(dataclasses.asdict(self), indent=1)))

    @classmethod
    def read(cls, folder: Path) -> SweepFile:
        """Read it from a sweep's folder. OSError when there is none, ValueError when it cannot be used."""
        path = folder / FILE_NAME
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair can be read, but not written
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            shown = ascii(version)[:60]
            raise ValueError(f"{path}: schema version {shown}; this version of bench reads {SCHEMA_VERSION}")
        try:
            found = load(cls, data, "sweep")
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
        for each in found.jobs:  # none outside of this folder
            if each.folder != file_name(each.folder) or each.number < 0 or each.repeat < 1:
                job = f"number {each.number}, repeat {each.repeat}, folder {ascii(each.folder)[:60]}"
                raise ValueError(f"{path}: a job that cannot be: {job}")
        return found
