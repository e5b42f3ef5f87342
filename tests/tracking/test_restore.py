"""Sweeps that go on without their folder, by what MLflow holds of them."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

import faults
from bench.cli.sync import main as sync
from bench.results.record import Record
from bench.tracking.publish_mark import read_mark, record_key
from bench.tracking.publisher import Publisher
from bench.tracking.restore import Restored, Wanted, find, put_back
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import COMPLETE, Store
from conftest import run_bench
from factories import STARTED_AT_S, make_record

_sweeps = itertools.count(1)

# ---- the whole command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory):
    """A sweep of which one job failed; the same on a machine without its folder, and there once more."""
    folder = tmp_path_factory.mktemp("restored")
    model = faults.make_model(folder / "model")
    command = ["-m", *faults.arguments(model), "workload.batch_size=1,2,3", "sweep.name=night"]
    faults.plant(model, {2: ("plain_exception", 2)})
    runs = [run_bench(*command, folder=folder)]
    (folder / "multirun").rename(folder / "elsewhere")
    before = trials(folder)
    faults.plant(model, {})
    runs += [run_bench(*command, "sweep.resume=true", folder=folder)]
    after = trials(folder)
    shutil.copytree(folder / "multirun", folder / "second")
    shutil.rmtree(folder / "multirun/night")
    runs += [run_bench(*command, "sweep.resume=true", folder=folder)]
    for each, status in zip(runs, (1, 0, 0), strict=True):
        assert each.returncode == status, each.stdout + each.stderr
    return folder, runs, before, after


def trials(folder: Path, kind: str = "trial") -> list:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("bench")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")


def records(folder: Path) -> dict[int, Record]:
    """Batch size → the record of its job."""
    found = [Record.read(path) for path in folder.glob("night/*/record.json")]
    return {each.requested["workload"]["batch_size"]: each for each in found}


def plan_of(folder: Path) -> dict:
    return json.loads((folder / "night/sweep.json").read_text())


@pytest.mark.slow
def test_only_what_failed_runs_again(course):
    folder, (_, again, _), _, _ = course
    first, second = records(folder / "elsewhere"), records(folder / "second")
    assert {size: record.status for size, record in first.items()} == {1: "ok", 2: "failed", 3: "ok"}
    assert {size: record.status for size, record in second.items()} == {1: "ok", 2: "ok", 3: "ok"}
    assert (second[1], second[3]) == (first[1], first[3])
    (aside,) = (folder / "second").glob("night/earlier/*/record.json")
    assert Record.read(aside) == first[2]
    assert "3 records of night-" in again.stdout
    assert "2 of 3 jobs are done" in again.stdout


@pytest.mark.slow
def test_it_is_the_same_sweep_with_the_same_run(course):
    folder, _, _, _ = course
    first, second = plan_of(folder / "elsewhere"), plan_of(folder / "second")
    for key in ("sweep_id", "parent_run_id"):
        assert first[key] == second[key]
    assert second["started_at_s"] == pytest.approx(first["started_at_s"], abs=60)
    (parent,) = trials(folder, "sweep")
    assert (parent.info.run_id, parent.info.status) == (first["parent_run_id"], "FINISHED")
    assert {parent.data.tags[each] for each in ("n_ok", "n_failed")} == {"3", "0"}


@pytest.mark.slow
def test_mlflow_has_each_record_once(course):
    folder, _, before, after = course
    unchanged = {run.info.run_id for run in before if run.data.tags["status"] == "ok"}
    assert unchanged < {run.info.run_id for run in after}
    assert (len(before), len(after), len(trials(folder, "superseded"))) == (3, 3, 1)
    assert {run.data.tags["status"] for run in after} == {"ok"}


@pytest.mark.slow
def test_the_jobs_are_marked_as_published_and_catching_up_finds_nothing_to_do(course, capsys):
    folder, _, _, after = course
    for path in (folder / "second").glob("night/*/record.json"):
        mark = read_mark(path.parent)
        assert mark is not None
        assert (mark.published, mark.record_key) == (True, record_key(Record.read(path)))
        assert mark.run_id in {run.info.run_id for run in after}
    assert sync([str(folder / "multirun")]) == 0
    assert capsys.readouterr().out == "published 0, already there 3, failed 0\n"


@pytest.mark.slow
def test_the_table_is_whole(course):
    _, (_, again, once_more), _, _ = course
    for each in (again, once_more):
        _, _, table = each.stdout.partition("setting")
        rows = [line.split()[0] for line in table.splitlines() if line.startswith("batch_size=")]
        assert sorted(rows) == ["batch_size=1", "batch_size=2", "batch_size=3"], each.stdout


@pytest.mark.slow
def test_when_all_is_in_mlflow_nothing_runs(course):
    folder, (*_, once_more), _, after = course
    assert "3 of 3 jobs are done" in once_more.stdout
    assert records(folder / "multirun") == records(folder / "second")
    assert {run.info.run_id for run in trials(folder)} == {run.info.run_id for run in after}


@pytest.mark.slow
def test_without_mlflow_the_sweep_begins_with_what_the_disk_has(tmp_path):
    model = faults.make_model(tmp_path / "model")
    few = [*faults.arguments(model), "workload.batch_size=1,2", "sweep.name=night", "sweep.resume=true"]
    done = run_bench("-m", *few, "tracking.uri=http://127.0.0.1:9", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [each for each in done.stdout.splitlines() if "comes back from MLflow" in each]
    assert "cannot be reached" in line
    assert sorted(records(tmp_path / "multirun")) == [1, 2]


# ---- what comes back ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the database lies that all of these tests share."""
    return tmp_path_factory.mktemp("started-in")


@pytest.fixture(scope="module")
def store(start: Path) -> Store:
    return open_store(None, "bench", start)


@pytest.fixture
def publisher(start: Path, store: Store, patient) -> Publisher:
    lines: list[str] = []
    made = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=lines.append)
    assert lines == []
    return made


@pytest.fixture
def name() -> str:
    """A sweep's, of the test's own."""
    return f"night{next(_sweeps)}"


@pytest.fixture
def publish_sweep(publisher: Publisher, name: str, tmp_path: Path):
    """Publish a sweep from a folder that is gone afterwards; returns its records."""

    def publish(sweep_id: str, jobs: int = 2) -> list[Record]:
        told = {"name": name, "swept": {}, "settings": [], "baseline": None}
        parent = publisher.begin_sweep(sweep_id=sweep_id, **told)
        written = []
        for number in range(jobs):
            job = tmp_path / "elsewhere" / str(number)
            job.mkdir(parents=True)
            record = make_record(
                sweep_id=sweep_id, repeat=number + 1, name="default", started_at_s=STARTED_AT_S + 100 * number
            )
            record.write(job)
            assert publisher.publish(record, job, parent)
            written.append(record)
        shutil.rmtree(tmp_path / "elsewhere")
        return written

    return publish


@pytest.fixture
def bring_back(publisher: Publisher, name: str, tmp_path: Path):
    """Bring the records of that sweep back into the folder `back`."""

    def restore(**changes) -> Restored:
        return publisher.restore(
            tmp_path / "back", **{"name": name, "sweep_id": None, "have": (), "places": {}} | changes
        )

    return restore


def test_records_come_back_into_the_folders_of_the_plan(publish_sweep, bring_back, name):
    one, two = publish_sweep(f"{name}-1")
    place = {(two.setting_id, 2): "7_default_r2"}
    restored = bring_back(places=place)
    assert restored.sweep_id == f"{name}-1"
    assert [each.name for each in restored.folders] == ["default_r1", "7_default_r2"]
    assert [Record.read(each) for each in restored.folders] == [one, two]


def test_what_lies_on_disk_counts_and_a_second_call_brings_only_what_came_since(publish_sweep, bring_back, name):
    one, two = publish_sweep(f"{name}-1")
    have = {(one.setting_id, 1)}
    restored = bring_back(have=have)
    assert [Record.read(each) for each in restored.folders] == [two]
    places = {(two.setting_id, 2): restored.folders[0].name}
    assert bring_back(have=have, places=places).folders == []
    assert bring_back(have=have | {(two.setting_id, 2)}).folders == []


def test_of_two_sweeps_of_one_name_the_last_goes_on_and_that_is_said(publish_sweep, bring_back, name):
    publish_sweep(f"{name}-1")
    time.sleep(0.01)  # MLflow keeps milliseconds
    publish_sweep(f"{name}-2", jobs=1)
    restored = bring_back()
    assert (restored.sweep_id, len(restored.folders)) == (f"{name}-2", 1)
    (line,) = [each for each in restored.lines if "are named" in each]
    assert line == f"2 sweeps in MLflow are named {name}: the last one, {name}-2, goes on, not {name}-1"


def test_a_folder_that_knows_its_sweep_gets_that_one(publish_sweep, bring_back, name):
    publish_sweep(f"{name}-1")
    publish_sweep(f"{name}-2")
    restored = bring_back(sweep_id=f"{name}-1")
    assert {Record.read(each).sweep_id for each in restored.folders} == {f"{name}-1"}


def test_a_sweep_that_was_renamed_in_the_ui_is_still_found(publish_sweep, bring_back, store, name):
    publish_sweep(f"{name}-1")
    (run,) = store.find_runs(kind="sweep", sweep_id=f"{name}-1")
    store.client.update_run(run.info.run_id, name="the good one")
    assert bring_back().parent_run_id == run.info.run_id


def test_a_sweep_published_before_names_were_tags_is_found_by_its_runs_name(publish_sweep, bring_back, store, name):
    publish_sweep(f"{name}-1")
    (run,) = store.find_runs(kind="sweep", sweep_id=f"{name}-1")
    store.client.delete_tag(run.info.run_id, "sweep_name")
    assert bring_back().sweep_id == f"{name}-1"


def test_a_name_that_mlflow_does_not_know_brings_nothing(publish_sweep, bring_back, name, tmp_path):
    publish_sweep(f"{name}-1")
    assert bring_back(name="other") == Restored()
    assert not (tmp_path / "back").exists()


def test_a_record_that_came_to_mlflow_in_part_is_published_again(publish_sweep, bring_back, store, start, name):
    one, _ = publish_sweep(f"{name}-1")
    (run,) = store.find_runs(record_key=record_key(one))
    store.client.delete_tag(run.info.run_id, COMPLETE)
    folders = bring_back().folders
    assert [read_mark(each) is None for each in folders] == [True, False]
    other = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=print)
    assert other.publish_missing(folders, None) == 0
    assert len(store.find_runs(kind="trial", sweep_id=f"{name}-1")) == 2
    assert store.client.get_run(run.info.run_id).data.tags[COMPLETE] == "yes"


def test_a_record_that_cannot_be_read_is_named_and_the_others_come(publish_sweep, bring_back, store, name, tmp_path):
    one, two = publish_sweep(f"{name}-1")
    (run,) = store.find_runs(record_key=record_key(one))
    (tmp_path / "record.json").write_text("{}")
    store.upload(run.info.run_id, tmp_path / "record.json", None)
    restored = bring_back()
    assert [Record.read(each) for each in restored.folders] == [two]
    (line,) = [each for each in restored.lines if each.startswith("not brought back")]
    assert "not a record" in line


def test_a_sweep_that_has_not_ended_is_named(publish_sweep, bring_back, store, name):
    publish_sweep(f"{name}-1")
    (run,) = store.find_runs(kind="sweep", sweep_id=f"{name}-1")
    owner = json.dumps({"host": "another-machine", "pid": 1})
    store.client.set_tag(run.info.run_id, "owner", owner)
    (line,) = bring_back().lines
    assert line.startswith(f"{name}-1 has not ended in MLflow")


def test_what_takes_too_long_is_left_and_counted(publish_sweep, store, name, tmp_path):
    publish_sweep(f"{name}-1")
    lying = find(store, Wanted(name=name, sweep_id=None), until_s=0.0)
    assert (lying.jobs, lying.lines) == ([], ["2 records are left in MLflow: it takes too long to read them"])
    assert put_back(store, lying, tmp_path / "back", places={}).folders == []


def test_a_folder_that_cannot_be_written_is_one_line(publish_sweep, bring_back, name, tmp_path):
    publish_sweep(f"{name}-1")
    (tmp_path / "back").write_text("a file")
    (line,) = bring_back().lines
    assert "cannot be brought back" in line
