"""Do the dry run: print each job with its id, its state (done, to run, would be skipped), and its estimated time."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.config.schema import BenchmarkConfig
from bench.jobs.planning.fingerprint import fingerprint
from bench.jobs.planning.history import History, read_history
from bench.jobs.planning.limits import foreseen_limit
from bench.jobs.planning.resume import Resumption
from bench.report.terminal.dry_run_table import PlannedJob, print_plan
from bench.results.sweep_file import Job


def print_plan_of(console: Console, left: Resumption, folder: Path) -> None:
    """Print a sweep's jobs in order. Nothing is made or changed."""
    history = read_history([folder.parent, Path("outputs")], fingerprint())
    pairs = zip(left.plan.jobs, left.plan.points, strict=True)
    print_plan(console, [_row(job, point.config, left, history) for job, point in pairs])
    if left.changed:
        text = f"the environment has changed ({'; '.join(left.changed)}): what ran in the former one would run again"
        console.print(text, markup=False, soft_wrap=True)
    if left.kept:
        console.print(f"{len(left.kept)} finished jobs are none of these points", markup=False)


def print_single_plan(console: Console, config: BenchmarkConfig, trial_id: str, folder: Path) -> None:
    """Print the one job of a single run."""
    history = read_history([Path("multirun"), folder.parent], fingerprint())
    estimate_s, known = history.estimate_s(config, trial_id)
    row = PlannedJob(
        number=0,
        name=str(config.model.id),
        trial_id=trial_id,
        folder=str(folder),
        state=_limit(history, config, trial_id) or "to run",
        estimate_s=estimate_s,
        known=known,
    )
    print_plan(console, [row])


def _row(job: Job, config: BenchmarkConfig, left: Resumption, history: History) -> PlannedJob:
    past = left.again.get(job.number)
    limit = _limit(history, config, job.trial_id)
    state = limit or ("to run" if past is None else f"again: {left.lacking.get(job.number, past.status)}")
    estimate_s, known = history.estimate_s(config, job.trial_id)
    will_run = not job.done and limit is None
    return PlannedJob(
        number=job.number,
        name=job.name + (f" r{job.repeat}" if config.sweep.repeats > 1 else ""),
        trial_id=job.trial_id,
        folder=job.folder,
        state="done" if job.done else state,
        estimate_s=estimate_s if will_run else 0.0,
        known=known or not will_run,
    )


def _limit(history: History, config: BenchmarkConfig, trial_id: str) -> str | None:
    """Return why a job would be skipped, from an earlier record or the installed libraries; None if unknown."""
    reason = history.limits.get(trial_id) or foreseen_limit(config)
    return None if reason is None else f"would be skipped: {reason}"
