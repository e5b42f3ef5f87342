"""Restore records that are only in MLflow: write them into the sweep's folder before a resume, or when it ends."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from bench.config.schema import BenchmarkConfig
from bench.jobs.planning.plan import Plan
from bench.jobs.planning.resume import Found
from bench.orchestration.job_run import open_publisher
from bench.orchestration.publish_target import written_down
from bench.results.sweep_file import SweepFile
from bench.tracking.store.destination import Destination


def bring_back(
    console: Console, config: BenchmarkConfig, plan: Plan, found: Found, folder: Path, *, destination: Destination
) -> bool:
    """Fetch the records that the folder lacks; return whether it holds more than before.

    MLflow is queried only if a job of the plan has no record on disk. The sweep is the one in the folder, or else the
    latest one that was published under this name; it keeps its id and its run.

    Args:
        console: for a line about restored records, and lines about records that were not restored.
        config: for keys of the whole sweep.
        plan: all jobs, under the names of their folders.
        found: the contents of the folder.
        folder: the sweep's folder.
        destination: where the sweep is published.
    """
    places = {job.key: job.folder for job in plan.jobs}
    have = {past.key for past in found.past}
    if places.keys() <= have or not (found.sweep_id or config.sweep.name):
        return False
    publisher = open_publisher(config, console, destination)
    if publisher is None:
        return False
    restored = publisher.restore(folder, name=config.sweep.name, sweep_id=found.sweep_id, have=have, places=places)
    for line in restored.lines:
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if restored.folders:
        text = f"{len(restored.folders)} records of {restored.sweep_id} come back from MLflow"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if restored.sweep_id is None or found.file is not None:
        return bool(restored.folders)
    now_s = time.time()
    SweepFile(
        sweep_id=restored.sweep_id,
        name=config.sweep.name or restored.sweep_id,
        parent_run_id=restored.parent_run_id,
        started_at_s=restored.started_at_s or now_s,
        launched_at_s=now_s,
        settings=plan.settings,
        baseline=plan.baseline,
        swept=plan.swept(),
        tracking=written_down(config, publisher, folder),
        jobs=plan.jobs,
    ).write(folder)
    return True
