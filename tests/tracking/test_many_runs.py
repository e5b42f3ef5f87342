"""More runs than MLflow gives at once: nobody who looks for them sees the first thousand only."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pytest

from bench.results.sweep_file import SweepInfo
from bench.tracking.pages.latest_sweep import pages as pages_of_latest
from bench.tracking.restore import Wanted, find
from bench.tracking.runs.run_owner import TAG as OWNER
from bench.tracking.runs.sweep_run import begin_sweep, end_abandoned, gather_sweep
from bench.tracking.runs.trial_run import PARENT, publish
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store, runs_where, trials_filter
from factories import STARTED_AT_S, make_record

MANY = 1200  # more than a page of MLflow's has


def add_runs(store: Store, number: int, status: str = "FINISHED", **tags: str) -> None:
    """Put runs into the database itself, each a second newer than the one before."""
    database = store.uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for index in range(number):
            run_id = f"{tags['sweep_id']}{index:028d}"[-32:]
            connection.execute(
                "INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, end_time, lifecycle_stage, "
                "artifact_uri, source_type, source_name, entry_point_name, user_id, source_version) "
                "VALUES (?, 'x', ?, ?, ?, ?, 'active', ?, 'LOCAL', '', '', 'me', '')",
                (run_id, int(store.experiment_id), status, index * 1000, index * 1000, f"{store.artifacts}/{run_id}"),
            )
            own = {**tags, "record_key": f"{tags['sweep_id']}/{index}", "setting_id": f"{index}", "repeat": "1"}
            rows = [(name, value, run_id) for name, value in own.items()]
            connection.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", rows)
        connection.commit()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(None, "bench", tmp_path)


def test_all_runs_of_a_large_sweep_are_found(store) -> None:
    add_runs(store, MANY, sweep_id="a", kind="trial")
    assert len(store.find_runs(sweep_id="a", kind="trial")) == MANY
    assert len(store.find_runs()) == MANY
    assert len(runs_where(store.client, [store.experiment_id], trials_filter("a"))) == MANY


def test_all_trials_of_a_large_sweep_are_nested_in_its_run(store) -> None:
    add_runs(store, MANY, sweep_id="a", kind="trial")
    sweep = SweepInfo(sweep_id="a", name="a", started_at_s=STARTED_AT_S)
    parent = begin_sweep(store, sweep, tags={})
    with contextlib.closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as connection:
        # All but the last in order have the parent already, so that only one has to be written.
        rows = [(PARENT, parent, run.info.run_id) for run in store.find_runs(kind="trial")[:-1]]
        connection.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", rows)
        connection.commit()
    assert gather_sweep(store, "a") == parent
    assert {run.data.tags.get(PARENT) for run in store.find_runs(kind="trial")} == {parent}


def test_a_record_beyond_the_thousandth_is_restored(store, tmp_path) -> None:
    record = make_record(sweep_id="a", name="looked-for", started_at_s=1.0, ended_at_s=99.0)
    record.write(tmp_path)
    publish(store, record, tmp_path, parent_run_id=None, tags={})  # the oldest of all, so the last that MLflow lists
    add_runs(store, MANY, sweep_id="a", kind="trial")
    with contextlib.closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE runs SET start_time = start_time + 1000000 WHERE name = 'x'")
        connection.commit()
    have = [(f"{index}", 1) for index in range(MANY)]
    found = find(store, Wanted(name=None, sweep_id="a", have=have), until_s=time.monotonic() + 60)
    assert [each.name for each, _ in found.jobs] == ["looked-for"]


def test_every_run_that_the_dead_left_running_is_ended(store) -> None:
    gone = json.loads('{"host": "", "pid": 1}')
    add_runs(store, MANY, "RUNNING", sweep_id="a", kind="trial", **{OWNER: json.dumps(gone)})
    assert len(store.running()) == MANY
    assert end_abandoned(store) == 0  # of another machine, for all that is known


def test_the_latest_sweep_is_found_among_many_experiments(tmp_path) -> None:
    store = open_store(None, "bench", tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        rows = [(f"e{index}", "active", index, index) for index in range(MANY)]
        connection.executemany(
            "INSERT INTO experiments (name, lifecycle_stage, creation_time, last_update_time) VALUES (?, ?, ?, ?)", rows
        )
        connection.execute("UPDATE experiments SET last_update_time = -1 WHERE name = 'bench'")
        connection.commit()
    begin_sweep(store, SweepInfo(sweep_id="a", name="the night", started_at_s=STARTED_AT_S), tags={})
    assert pages_of_latest(store.uri, sweep_id="a", experiment=None)[0] == "  sweep: the night"
