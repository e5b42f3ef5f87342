"""Create, reopen and end a sweep's own run in MLflow, in which the runs of its trials are nested.

It is RUNNING while the sweep runs. `end_abandoned` later ends the runs of a killed process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from bench.results.record import STATUSES
from bench.results.sweep_file import SweepInfo
from bench.tracking.runs.description import TAG as NOTE
from bench.tracking.runs.description import roomy
from bench.tracking.runs.run_owner import TAG as OWNER
from bench.tracking.runs.run_owner import is_gone, own_tag
from bench.tracking.runs.tags import SOURCE, user_tag
from bench.tracking.runs.trial_run import PARENT, RUN_STATUS, param_name
from bench.tracking.store.errors import explained
from bench.tracking.store.store import COMPLETE, LAYOUT, TAG_LENGTH, THIS_LAYOUT, Store

PLAN = "sweep.md"  # among the files of a sweep's run: its keys and their values
NAME = "sweep_name"  # the run's own name may be changed in the UI
UNVERIFIED_COUNT = "n_unverified"  # the number of trials with the tag `unverified`; missing if there was never one


def begin_sweep(store: Store, sweep: SweepInfo, *, tags: dict[str, str]) -> str:
    """Create the run of a starting sweep, or reopen its existing one; return its id.

    Args:
        store: where to.
        sweep: a resumed sweep with the same id keeps its run; its changes are written to tags, but a param keeps its
            first value, because MLflow lets none change.
        tags: the user's own.
    """
    run = _sweep_run(store, sweep, tags)
    run_id = str(run.info.run_id)
    resumed = {}
    if run.info.status != "RUNNING":
        store.reopen_run(run_id)
        resumed = {"status": "running"}
        if UNVERIFIED_COUNT in run.data.tags:
            resumed[UNVERIFIED_COUNT] = "0"  # until it ends again
    _describe(store, run, sweep, tags | resumed)
    return run_id


def upload_plan(store: Store, run_id: str, sweep: SweepInfo) -> None:
    """Upload the sweep's swept keys and values to its run."""
    store.upload_texts(run_id, {PLAN: _note(sweep) + "\n"})


def ensure_sweep(store: Store, sweep: SweepInfo, *, tags: dict[str, str]) -> Any:
    """Return the run of a sweep; create it if it is missing because the server was down at its start."""
    run = _sweep_run(store, sweep, tags)
    if not is_described(run):
        _describe(store, run, sweep, tags)
    return run


def is_described(run: Any) -> bool:
    """Check whether a sweep's run is fully described; a run just created or left by a killed process is not."""
    return NAME in run.data.tags


def answer_sweep(store: Store, run_id: str, answer: str) -> None:
    """Write a sweep's answer above the rest of its run's description, in place of an earlier one.

    If both are longer than MLflow allows, the answer is cut at the end of a line.
    """
    with explained(store.uri, "look at a run"):
        tags = store.client.get_run(run_id).data.tags
    swept = _heading(tags.get("sweep_id", ""))
    _, found, listed = tags.get(NOTE, "").rpartition(swept)
    below = f"\n\n{found}{listed}" if found else ""
    store.log(run_id, tags={NOTE: _cut(roomy(answer.strip()), max(TAG_LENGTH - len(below), TAG_LENGTH // 2)) + below})


def gather_sweep(store: Store, sweep_id: str) -> str | None:
    """Return the one run of a sweep, with all of its trials nested in it; None if it has none.

    Jobs on several machines that find no run at the same moment may each create one, and nest a trial in one that
    another job deletes.
    """
    runs = store.find_runs(sweep_id=sweep_id, kind="sweep")
    if not runs:
        return None
    run_id = str(store.keep_one(runs).info.run_id)
    for trial in store.find_runs(sweep_id=sweep_id, kind="trial"):
        if trial.data.tags.get(PARENT) != run_id:
            store.log(trial.info.run_id, tags={PARENT: run_id})
    return run_id


def end_sweep(
    store: Store,
    run_id: str,
    *,
    statuses: Sequence[str],
    ended_at_s: float,
    interrupted: bool,
    unverified: int | None = None,
) -> None:
    """End a sweep's run.

    Args:
        store: where to.
        run_id: what `begin_sweep` returned.
        statuses: of the jobs that left a record.
        ended_at_s: Unix time.
        interrupted: whether the user stopped it.
        unverified: how many of the records are; None: none, and the run has no such metric.
    """
    failed = any(status not in ("ok", "skipped") for status in statuses)
    status = "interrupted" if interrupted else "failed" if failed else "ok"
    store.end_run(run_id, RUN_STATUS.get(status, "FAILED"), ended_at_s)
    counts = {f"n_{each}": str(statuses.count(each)) for each in STATUSES}
    if unverified is not None:
        counts[UNVERIFIED_COUNT] = str(unverified)
    store.log(run_id, tags={"status": status, "n_jobs": str(len(statuses)), **counts})


def end_abandoned(store: Store) -> int:
    """End, as killed, the runs that ended processes of this machine left RUNNING; return their number.

    Runs of running processes, of other machines and without an owner are left unchanged.
    """
    gone = [run for run in store.running() if is_gone(run.data.tags.get(OWNER))]
    for run in gone:
        tags = run.data.tags
        if tags.get("kind") != "sweep":
            store.end_run(run.info.run_id, "KILLED", run.info.start_time / 1000)
            continue
        trials = store.find_runs(sweep_id=tags.get("sweep_id", ""), kind="trial")
        # The time of its end is unknown: not before the end of its last trial.
        ended_at_ms = max([run.info.start_time, *(each.info.end_time or 0 for each in trials)])
        store.end_run(run.info.run_id, "KILLED", ended_at_ms / 1000)
        store.log(run.info.run_id, tags={"status": "interrupted"})
    return len(gone)


def _sweep_run(store: Store, sweep: SweepInfo, tags: dict[str, str]) -> Any:
    own = {"kind": "sweep", "sweep_id": sweep.sweep_id}
    more = tags | {OWNER: own_tag()} | SOURCE | user_tag()
    return store.sole_run(own, name=sweep.name, started_at_s=sweep.started_at_s or time.time(), tags=more)


def _describe(store: Store, run: Any, sweep: SweepInfo, tags: dict[str, str]) -> None:
    params = {param_name(key): ",".join(values) for key, values in sweep.swept.items()}
    own = {
        "kind": "sweep",
        "sweep_id": sweep.sweep_id,
        NAME: sweep.name,
        OWNER: own_tag(),
        NOTE: _note(sweep),
    }
    if sweep.settings:
        own["settings"] = json.dumps(sweep.settings, ensure_ascii=False)
    if sweep.baseline:
        own["baseline"] = sweep.baseline
    store.log(
        str(run.info.run_id),
        params={name: value for name, value in params.items() if name not in run.data.params},
        tags={**tags, **own},
    )


def _note(sweep: SweepInfo) -> str:
    lines = [f"- `{key}`: {', '.join(f'`{value}`' for value in values)}" for key, values in sweep.swept.items()]
    return "\n".join([_heading(sweep.sweep_id), "", *lines])


def _heading(sweep_id: str) -> str:
    return f"Sweep `{sweep_id}`"


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    whole, _, _ = text[: length - 2].rpartition("\n")
    return f"{whole or text[: length - 2]}\n…"


def is_owned_by_the_living(run: Any) -> bool:
    """Check whether a run belongs to another process that has not certainly ended."""
    owner = run.data.tags.get(OWNER)
    return owner is not None and owner != own_tag() and not is_gone(owner)


def is_complete(run: Any) -> bool:
    """Check whether a run holds its whole record."""
    return COMPLETE in run.data.tags


def is_current(run: Any) -> bool:
    """Check whether a version with the same layout published the run."""
    return is_complete(run) and run.data.tags.get(LAYOUT) == THIS_LAYOUT
