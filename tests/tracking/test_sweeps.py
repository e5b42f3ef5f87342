"""Sweeps that are resumed or killed, and trials that were tried again, in a real database."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.schema import SweepConfig
from bench.results.sweep_file import SweepInfo
from bench.tracking.publisher import Publisher
from bench.tracking.runs.run_owner import TAG as OWNER
from bench.tracking.runs.run_owner import own_tag
from bench.tracking.runs.sweep_run import begin_sweep, end_abandoned, end_sweep, ensure_sweep
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store, trials_filter
from factories import STARTED_AT_S, make_config, make_record

SWEEP = SweepInfo(
    sweep_id="",
    name="night",
    swept={"compile.mode": ["default"]},
    settings=["default"],
    started_at_s=STARTED_AT_S,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("started-in")


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return open_store(None, "bench", folder)


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> SweepInfo:
    """A sweep of the test's own: all of them share one database."""
    return dataclasses.replace(SWEEP, sweep_id=request.node.name)


def run_of(store: Store, run_id: str):
    return store.client.get_run(run_id)


# ---- resumed -----------------------------------------------------------------------------------------------------


def test_a_resumed_sweep_has_its_run_again_which_goes_on(store, sweep):
    run_id = begin_sweep(store, sweep, tags={})
    end_sweep(store, run_id, statuses=["failed"], ended_at_s=STARTED_AT_S + 9, interrupted=False)
    assert begin_sweep(store, sweep, tags={}) == run_id
    run = run_of(store, run_id)
    assert (run.info.status, run.data.tags["status"]) == ("RUNNING", "running")
    end_sweep(store, run_id, statuses=["ok"], ended_at_s=STARTED_AT_S + 99, interrupted=False)
    run = run_of(store, run_id)
    assert (run.info.status, run.info.end_time) == ("FINISHED", (STARTED_AT_S + 99) * 1000)


def test_what_changed_of_a_resumed_sweep_is_in_its_tags(store, sweep):
    run_id = begin_sweep(store, sweep, tags={"team": "x"})
    swept = {"compile.mode": ["default", "max-autotune"], "device": ["cpu"]}
    changed = dataclasses.replace(sweep, swept=swept, baseline="default")
    assert begin_sweep(store, changed, tags={"team": "y"}) == run_id
    data = run_of(store, run_id).data
    assert data.params == {"compile.mode": "default", "device": "cpu"}  # MLflow lets none change
    assert "- `compile.mode`: `default`, `max-autotune`" in data.tags["mlflow.note.content"]
    assert (data.tags["team"], data.tags["baseline"]) == ("y", "default")


def test_a_sweeps_run_that_is_looked_for_stays_ended(store, sweep):
    run_id = begin_sweep(store, sweep, tags={})
    end_sweep(store, run_id, statuses=["ok"], ended_at_s=STARTED_AT_S + 9, interrupted=False)
    run = ensure_sweep(store, sweep, tags={})
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")


def test_of_two_runs_made_in_the_same_moment_one_stays(store, sweep):
    own = {"kind": "sweep", "sweep_id": sweep.sweep_id}
    doubles = {store.create_run("night", STARTED_AT_S, own) for _ in range(3)}
    kept = ensure_sweep(store, sweep, tags={}).info.run_id
    assert kept in doubles
    assert [each.info.run_id for each in store.find_runs(sweep_id=sweep.sweep_id)] == [kept]


# ---- tried again -------------------------------------------------------------------------------------------------


def published(store: Store, folder: Path, **changes) -> str:
    return publish(store, make_record(**changes), folder, parent_run_id=None, tags={})


def trials(store: Store, sweep: SweepInfo) -> set[str]:
    runs = store.client.search_runs([store.experiment_id], trials_filter(sweep.sweep_id))
    return {each.info.run_id for each in runs}


def test_the_last_attempt_at_a_repeat_is_the_trial_and_the_others_are_superseded(store, sweep, tmp_path):
    first = published(store, tmp_path, sweep_id=sweep.sweep_id, status="failed")
    last = published(store, tmp_path, sweep_id=sweep.sweep_id, started_at_s=STARTED_AT_S + 100)
    other = published(store, tmp_path, sweep_id=sweep.sweep_id, repeat=2)
    assert trials(store, sweep) == {last, other}
    assert run_of(store, first).data.tags["kind"] == "superseded"


def test_an_attempt_that_is_published_late_does_not_take_the_place_of_a_later_one(store, sweep, tmp_path):
    last = published(store, tmp_path, sweep_id=sweep.sweep_id, started_at_s=STARTED_AT_S + 100)
    first = published(store, tmp_path, sweep_id=sweep.sweep_id, status="failed")
    assert trials(store, sweep) == {last}
    assert run_of(store, first).data.tags["kind"] == "superseded"


def test_the_arms_of_one_setting_do_not_supersede_each_other(store, sweep, tmp_path):
    runs = {
        published(
            store, tmp_path, sweep_id=sweep.sweep_id, requested=make_config(sweep=SweepConfig(label=arm)).to_dict()
        )
        for arm in ("a", "b")
    }
    assert len(runs) == 2
    assert trials(store, sweep) == runs
    tags = [run_of(store, each).data.tags for each in runs]
    assert {each["arm"] for each in tags} == {"a", "b"}
    assert {each["setting_id"] for each in tags} == {f"{make_record().trial_id}-{arm}" for arm in ("a", "b")}


# ---- killed ------------------------------------------------------------------------------------------------------

BEGIN_AND_BE_KILLED = """
import os, signal, sys
from pathlib import Path
from bench.tracking.publisher import Publisher
publisher = Publisher(uri=None, experiment="bench", tags={}, folder=Path(sys.argv[1]), warn=print)
publisher.begin_sweep(sweep_id=sys.argv[2], name="night", swept={}, settings=[], baseline=None)
os.kill(os.getpid(), signal.SIGKILL)
"""


def begin_and_be_killed(folder: Path, sweep_id: str) -> None:
    command = [sys.executable, "-c", BEGIN_AND_BE_KILLED, str(folder), sweep_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_what_a_killed_process_left_running_ends_as_killed_when_the_next_one_starts(store, folder, sweep, tmp_path):
    begin_and_be_killed(folder, sweep.sweep_id)
    published(store, tmp_path, sweep_id=sweep.sweep_id, started_at_s=4e9, ended_at_s=4e9 + 60)
    (run,) = store.find_runs(sweep_id=sweep.sweep_id, kind="sweep")
    assert run.info.status == "RUNNING"
    warnings: list[str] = []
    Publisher(uri=None, experiment="bench", tags={}, folder=folder, warn=warnings.append)
    assert warnings == []
    run = run_of(store, run.info.run_id)
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")
    assert run.info.end_time == (4e9 + 60) * 1000  # with its last trial


def test_a_run_that_was_killed_between_its_making_and_its_end_is_ended_too(store, folder, sweep):
    begin_and_be_killed(folder, sweep.sweep_id)
    (parent,) = store.find_runs(sweep_id=sweep.sweep_id)
    tags = {"kind": "trial", "sweep_id": sweep.sweep_id, OWNER: parent.data.tags[OWNER]}
    run_id = store.create_run("default", STARTED_AT_S, tags)
    assert end_abandoned(store) == 2
    assert run_of(store, run_id).info.status == "KILLED"


def test_the_runs_of_the_living_and_of_nobody_are_left_alone(store, sweep):
    ids = [store.create_run("x", STARTED_AT_S, {"kind": "sweep", OWNER: tag}) for tag in (own_tag(), "", "somebody")]
    ids.append(store.create_run("somebody's own", STARTED_AT_S, {}))
    assert end_abandoned(store) == 0
    assert {run_of(store, each).info.status for each in ids} == {"RUNNING"}


def test_a_resumed_sweep_goes_on_after_it_was_killed(store, folder, sweep):
    begin_and_be_killed(folder, sweep.sweep_id)
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=folder, warn=print)
    run_id = publisher.begin_sweep(sweep_id=sweep.sweep_id, name="night", swept={}, settings=[], baseline=None)
    assert [each.info.run_id for each in store.find_runs(sweep_id=sweep.sweep_id)] == [run_id]
    run = run_of(store, str(run_id))
    assert run.info.status == "RUNNING"
    assert f'"pid": {os.getpid()},' in run.data.tags[OWNER]
    publisher.end_sweep(run_id, [make_record(sweep_id=sweep.sweep_id)], interrupted=False)
    assert run_of(store, str(run_id)).info.status == "FINISHED"
