"""What a job must know about its sweep, on whatever machine it runs.

It is passed in an environment variable that every launcher sets (`hydra.job.env_set`), so a job does not need the
folder where the sweep was started.
"""

from __future__ import annotations

import dataclasses
import json
import urllib.parse

from bench.jobs.planning.plan import Plan
from bench.results.json_dataclasses import load
from bench.results.sweep_file import Job, SweepFile

VARIABLE = "BENCH_ASSIGNMENT"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """One job of a sweep, and its position there."""

    sweep_id: str
    parent_run_id: str | None  # in MLflow
    job: Job
    jobs: int  # of the whole sweep; of a search, its upper bound
    to_run: int  # of those, in this start
    behind: int  # jobs of this start that run before it
    launched_at_s: float  # Unix time of this start
    is_compared: bool  # whether the sweep has several settings
    is_local: bool  # whether it runs in the process that started the sweep
    tracking_uri: str | None = None  # where the sweep is published, without credentials; None: nowhere
    experiment: str | None = None
    experiment_id: str | None = None  # if the user gave an id
    artifact_location: str | None = None  # of an experiment that must be made

    def to_text(self) -> str:
        """Return one word without quotes, blanks or characters with a meaning for Hydra."""
        return urllib.parse.quote(json.dumps(dataclasses.asdict(self)), safe="")

    @classmethod
    def from_text(cls, text: str) -> Assignment:
        """Return the assignment from `to_text`. ValueError for any other text."""
        try:
            return load(cls, json.loads(urllib.parse.unquote(text)), VARIABLE)
        except TypeError as error:
            raise ValueError(str(error)) from error


def assign(plan: Plan, file: SweepFile, *, is_local: bool) -> dict[int, Assignment]:
    """Return job number → assignment, for all jobs that are to be run."""
    to_run = plan.to_run()
    is_compared = file.trials is not None or len({each.trial_id for each in plan.jobs}) > 1
    return {
        job.number: Assignment(
            sweep_id=file.sweep_id,
            parent_run_id=file.parent_run_id,
            job=job,
            jobs=file.trials or len(plan.jobs),
            to_run=len(to_run),
            behind=behind,
            launched_at_s=file.launched_at_s,
            is_compared=is_compared,
            is_local=is_local,
            tracking_uri=file.tracking.get("uri"),
            experiment=file.tracking.get("experiment"),
            experiment_id=file.tracking.get("experiment_id"),
            artifact_location=file.tracking.get("artifact_location"),
        )
        for behind, job in enumerate(to_run)
    }
