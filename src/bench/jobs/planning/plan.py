"""Plan a sweep: make its jobs from its points, with their order and names.

Repeats come in blocks. Each block has every setting once, in an order of its own, so that a slow drift of the machine
affects all settings alike. A setting given twice is one setting, unless `sweep.label` gives it two labels: then it is
compared with itself.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence

from bench.config.baseline import find_baselines
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, SweepConfig
from bench.results.file_names import file_name
from bench.results.sweep_file import Job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of a sweep, as typed and as understood."""

    overrides: tuple[str, ...]  # all of them, for the launcher
    swept: dict[str, str]  # only those with more than one value in this sweep
    config: BenchmarkConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole sweep before anything runs."""

    sweep_id: str
    jobs: list[Job]
    points: list[Point]  # the point of each job
    duplicates: int  # points left out because they repeat another
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
        distinct.setdefault((point.config.trial_id(), point.config.sweep.label), point)
    settings = [(trial_id, point) for (trial_id, _), point in distinct.items()]
    names = [short_name(point.swept) for _, point in settings]
    find_baselines([(name, point.swept) for name, (_, point) in zip(names, settings, strict=True)], sweep.baseline)
    check_size(len(settings) * sweep.repeats, sweep.max_jobs)
    shuffle = random.Random(sweep.seed)  # noqa: S311 - a reproducible order, not a secret
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
                arm=point.config.sweep.label,
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
