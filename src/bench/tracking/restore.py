"""Restore a sweep's records from MLflow into its folder, to resume it where that folder is missing.

A sweep is found by its id, or by its name: the latest one of that name. Only trials without a record in the folder are
restored, because files on disk take precedence; each as its record.json and a mark that it is published, so that
nothing is published twice. A job's other files stay in MLflow.

Not covered: reference runs, which are not published and run again; and sweep.json, which the plan writes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results.file_names import RECORD_NAME
from bench.results.record import Record
from bench.tracking.fetch import newest, read_record
from bench.tracking.publish_mark import Mark, record_key, write_mark
from bench.tracking.runs.sweep_run import NAME, is_complete, is_owned_by_the_living
from bench.tracking.store.errors import TrackingError, explained
from bench.tracking.store.reachable import check_answers
from bench.tracking.store.relocated import way_to
from bench.tracking.store.store import Store, runs_where, tags_filter, trials_filter

Slot = tuple[str, int]  # of a job in its sweep: setting id and repeat


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Name the records to restore."""

    name: str | None  # the sweep's name, used if its id is unknown
    sweep_id: str | None
    have: Collection[Slot] = ()  # jobs with a record on disk, which are not restored


@dataclass(frozen=True, kw_only=True)
class Lying:
    """Hold what was found in MLflow."""

    sweep_id: str | None = None  # None: there is no such sweep
    parent_run_id: str | None = None
    started_at_s: float | None = None  # Unix time of the sweep's first start
    jobs: list[tuple[Record, Any]] = field(default_factory=list)  # each with its run
    lines: list[str] = field(default_factory=list)  # to say to the user


@dataclass(frozen=True, kw_only=True)
class Restored:
    """Name what was restored."""

    sweep_id: str | None = None  # None: MLflow has no such sweep, or did not answer
    parent_run_id: str | None = None  # the sweep's own run
    started_at_s: float | None = None  # Unix time of the sweep's first start
    folders: list[Path] = field(default_factory=list)  # of the jobs whose records were restored
    lines: list[str] = field(default_factory=list)  # to say to the user


def find(store: Store, wanted: Wanted, *, until_s: float) -> Lying:
    """Read the wanted records without writing anything.

    Args:
        store: the source; only its experiment is searched.
        wanted: which.
        until_s: on the monotonic clock; records not read by then are counted and left out.

    Raises:
        TrackingError: MLflow does not answer.
    """
    run, lines = _sweep_run(store, wanted)
    sweep_id = wanted.sweep_id or (run.data.tags.get("sweep_id") if run is not None else None)
    if sweep_id is None:
        return Lying()
    with explained(store.uri, "look for a sweep's trials"):
        trials = newest(runs_where(store.client, [store.experiment_id], trials_filter(sweep_id)))
    missing = [each for each in trials if _slot_of(each) not in wanted.have]
    if run is not None and missing and run.info.status == "RUNNING" and is_owned_by_the_living(run):
        lines.append(f"{sweep_id} has not ended in MLflow: if it still runs elsewhere, jobs may be measured twice")
    jobs: list[tuple[Record, Any]] = []
    for number, each in enumerate(missing):
        if time.monotonic() > until_s:
            lines.append(f"{len(missing) - number} records are left in MLflow: it takes too long to read them")
            break
        try:
            record = read_record(store.client, store.uri, each)
        except TrackingError as error:
            check_answers(store.uri)  # the next one would fail as well
            lines.append(f"not brought back: {error}")
            continue
        if (record.kind, record.sweep_id) == ("trial", sweep_id):
            jobs.append((record, each))
    return Lying(
        sweep_id=sweep_id,
        parent_run_id=str(run.info.run_id) if run is not None else None,
        started_at_s=run.info.start_time / 1000 if run is not None else None,
        jobs=jobs,
        lines=lines,
    )


def put_back(store: Store, lying: Lying, folder: Path, *, places: Mapping[Slot, str]) -> Restored:
    """Write records into the folders of their jobs, creating them; an existing record is kept.

    Args:
        store: where they come from.
        lying: what `find` has found.
        folder: the sweep's.
        places: the names of jobs' folders in the plan; other folders are named after the setting.

    Raises:
        OSError: the folder cannot be written.
    """
    folders, seen = [], set()
    for record, run in sorted(lying.jobs, key=lambda each: each[0].started_at_s):
        slot = (record.setting_id, record.repeat)
        job = folder / places[slot] if slot in places else _free(folder, record)
        if slot in seen or (job / RECORD_NAME).exists():
            continue
        seen.add(slot)
        job.mkdir(parents=True, exist_ok=True)
        record.write(job)
        folders.append(job)
        if is_complete(run):  # else it is published again, over the incomplete run
            key = record_key(record)
            own = {"uri": store.address, "experiment": store.experiment, "run_id": str(run.info.run_id)}
            own |= {"database": way} if (way := way_to(store.address, job)) is not None else {}
            write_mark(job, Mark(published=True, record_key=key, **own))
    return Restored(
        sweep_id=lying.sweep_id,
        parent_run_id=lying.parent_run_id,
        started_at_s=lying.started_at_s,
        folders=folders,
        lines=lying.lines,
    )


def _sweep_run(store: Store, wanted: Wanted) -> tuple[Any, list[str]]:
    """Return the sweep's own run, None without one, and lines about others of its name."""
    if wanted.sweep_id is not None:
        return next(iter(_sweeps(store, {"sweep_id": wanted.sweep_id})), None), []
    if wanted.name is None:
        return None, []
    # Earlier versions had no tag for the name of a sweep, only the run's name.
    runs = _sweeps(store, {NAME: wanted.name}) or _sweeps(store, {"mlflow.runName": wanted.name})
    ids = list(dict.fromkeys(str(each.data.tags.get("sweep_id")) for each in runs))
    if len(ids) < 2:
        return next(iter(runs), None), []
    others = f"not {', '.join(ids[1:4])}" + (" …" if len(ids) > 4 else "")
    return runs[0], [f"{len(ids)} sweeps in MLflow are named {wanted.name}: the last one, {ids[0]}, goes on, {others}"]


def _sweeps(store: Store, tags: Mapping[str, str]) -> Sequence[Any]:
    """Return the runs of sweeps with these tags, newest first."""
    with explained(store.uri, "look for a sweep"):
        return runs_where(store.client, [store.experiment_id], tags_filter({"kind": "sweep", **tags}))


def _slot_of(run: Any) -> Slot | None:
    setting_id, repeat = run.data.tags.get("setting_id"), run.data.tags.get("repeat", "")
    return (setting_id, int(repeat)) if setting_id is not None and repeat.isdecimal() else None


def _free(folder: Path, record: Record) -> Path:
    """Return a new folder for a job that is not in the plan."""
    words = re.sub(r"[^A-Za-z0-9._=-]+", "-", f"{record.name}_r{record.repeat}")[:100].strip("-.")
    job, number = folder / (words or "job"), 2
    while job.exists():
        job, number = folder / f"{words or 'job'}-{number}", number + 1
    return job
