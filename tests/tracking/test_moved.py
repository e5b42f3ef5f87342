"""A project folder that was moved, renamed or copied: results go to where the database is now, and nowhere else."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from bench.cli import sync
from bench.results.record import Record
from bench.tracking.fetch import fetch_sweep
from bench.tracking.publish_mark import read_mark
from bench.tracking.store import relocated
from bench.tracking.store.destination import ARTIFACTS_VARIABLE
from bench.tracking.store.found_store import find_store
from bench.tracking.store.opening import open_store
from conftest import run_bench

SHORT = [
    "warmup.iterations=1", "measurement.iterations=2", "monitor.enabled=false", "fidelity.reference=none",
    "workload.sequence_length=8", "workload.num_tokens_to_generate=4",
]  # fmt: skip
SWEEP = ["-m", "workload.batch_size=1,2", "sweep.name=night", *SHORT]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", ARTIFACTS_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The path of a start folder with a finished sweep, which is no longer there; and a copy of it, for tests to copy."""
    old = tmp_path_factory.mktemp("before") / "old"
    old.mkdir()
    done = run_bench(*SWEEP, folder=old)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = old.parent / "kept"
    old.rename(kept)
    return old, kept


@pytest.fixture
def old(kept: tuple[Path, Path]) -> Iterator[Path]:
    """The path that the folder had; what a test lets come there is removed."""
    yield kept[0]
    shutil.rmtree(kept[0], ignore_errors=True)


@pytest.fixture
def new(kept: tuple[Path, Path], tmp_path: Path) -> Path:
    """The same folder after a move, in a place whose name no URI takes as it is."""
    return Path(shutil.copytree(kept[1], tmp_path / "new place #2"))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file below a folder, with its size and when it was written."""
    return {
        str(each.relative_to(folder)): (each.stat().st_size, each.stat().st_mtime_ns)
        for each in folder.rglob("*")
        if each.is_file()
    }


def artifacts(start: Path) -> dict[str, str]:
    """Run id → artifact URI, of all trials."""
    with closing(sqlite3.connect(start / "mlflow.db")) as connection:
        return dict(connection.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall())


def locations(start: Path) -> set[str]:
    with closing(sqlite3.connect(start / "mlflow.db")) as connection:
        return {each for (each,) in connection.execute("SELECT artifact_location FROM experiments")}


def is_readable(start: Path) -> bool:
    """Whether MLflow itself, and thus its UI, finds the record of every trial."""
    client = MlflowClient(f"sqlite:///{start}/mlflow.db")
    runs = client.search_runs(["1"], "tags.kind = 'trial'")
    return all("record.json" in [file.path for file in client.list_artifacts(run.info.run_id)] for run in runs)


def test_a_run_in_a_moved_folder_keeps_its_artifacts_there(old: Path, new: Path) -> None:
    done = run_bench(*SHORT, folder=new)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"was moved or copied from {old}: " in done.stdout
    assert not old.exists()
    assert set(locations(new)) == {(new / "mlartifacts").as_uri(), (new / "mlartifacts/0").as_uri()}
    assert all(uri.startswith((new / "mlartifacts").as_uri()) for uri in artifacts(new).values())
    assert is_readable(new)


def test_a_sweep_in_a_moved_folder_is_resumed_there_from_disk_and_from_mlflow(old: Path, new: Path) -> None:
    (lost,) = (new / "multirun/night").glob("*batch_size=1")
    shutil.rmtree(lost)
    before = artifacts(new)
    done = run_bench(*SWEEP, "workload.batch_size=1,2,3", "sweep.resume=true", folder=new)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 records of night-" in done.stdout
    assert "2 of 3 jobs are done" in done.stdout
    assert not old.exists()
    assert len(artifacts(new)) == len(before) + 1
    assert is_readable(new)
    plan = json.loads((new / "multirun/night/sweep.json").read_text())
    assert plan["tracking"]["uri"] == f"sqlite:///{new}/mlflow.db"


def test_sync_finds_the_moved_database_says_so_once_and_publishes_nothing_twice(old: Path, new: Path, capsys) -> None:
    assert sync.main([str(new / "multirun/night")]) == 0
    told = capsys.readouterr()
    assert told.out == "published 0, already there 2, failed 0\n"
    assert (
        told.err.count(f"the database {old}/mlflow.db was moved or copied with its folder: it is {new}/mlflow.db") == 1
    )
    assert not old.exists()
    for job in (new / "multirun/night").glob("*/record.json"):
        assert read_mark(job.parent).uri == f"sqlite:///{new}/mlflow.db"
    assert sync.main([str(new / "multirun/night")]) == 0
    assert capsys.readouterr().err == ""


def test_sync_publishes_what_was_missing_into_the_moved_database(old: Path, new: Path) -> None:
    (job,) = (new / "multirun/night").glob("*batch_size=1")
    (job / "tracking.json").unlink()
    client = MlflowClient(f"sqlite:///{new}/mlflow.db")
    (run,) = [each for each in client.search_runs(["1"]) if each.data.params.get("workload.batch_size") == "1"]
    client.delete_run(run.info.run_id)
    assert sync.main([str(new / "multirun/night")]) == 0
    assert not old.exists()
    (run,) = [each for each in client.search_runs(["1"]) if each.data.params.get("workload.batch_size") == "1"]
    assert run.info.artifact_uri.startswith((new / "mlartifacts").as_uri())


@pytest.mark.parametrize("is_old_version", [False, True])
def test_sync_makes_no_database_outside_of_the_start_folder(
    old: Path, new: Path, capsys, monkeypatch, is_old_version: bool
) -> None:
    """Neither where it was nor where the command is given; one line says what to type."""
    (new / "mlflow.db").unlink()
    elsewhere = new.parent / "elsewhere"
    elsewhere.mkdir()
    sweep = Path(shutil.move(new / "multirun/night", elsewhere / "night"))
    if is_old_version:
        forget_the_way(sweep)
    monkeypatch.chdir(elsewhere)
    assert sync.main([str(sweep)]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert f"the database {old}/mlflow.db is gone" in told.err
    assert "--tracking-uri sqlite:///" in told.err
    assert not old.exists()
    assert [each.name for each in elsewhere.iterdir()] == ["night"]
    assert not list(new.parent.rglob("mlflow.db"))


def forget_the_way(sweep: Path) -> None:
    """As an older version left it: its files do not say how the database lies to them."""
    for file in [sweep / "sweep.json", *sweep.rglob("tracking.json")]:
        data = json.loads(file.read_text())
        data.pop("database", None)
        data.get("tracking", {}).pop("database", None)
        file.write_text(json.dumps(data))


def test_a_folder_of_an_older_version_is_found_by_the_names_of_its_folders(old: Path, new: Path, capsys) -> None:
    forget_the_way(new / "multirun/night")
    assert sync.main([str(new / "multirun/night")]) == 0
    assert f"it is {new}/mlflow.db now" in capsys.readouterr().err
    assert not old.exists()


def test_sync_makes_the_database_of_the_start_folder_again(old: Path, new: Path) -> None:
    """The files name this very place: nothing was moved, the database alone is gone."""
    for file in [new / "multirun/night/sweep.json", *new.rglob("tracking.json")]:
        file.write_text(file.read_text().replace(str(old), str(new)))
    (new / "mlflow.db").unlink()
    assert sync.main([str(new / "multirun/night"), "--all"]) == 0
    assert len(artifacts(new)) == 3
    assert not old.exists()


def test_a_copy_leaves_the_original_alone(kept: tuple[Path, Path], old: Path, new: Path) -> None:
    shutil.copytree(kept[1], old)
    before = state(old)
    assert sync.main([str(new / "multirun/night")]) == 0
    done = run_bench(*SWEEP, "workload.batch_size=1,2,3", "sweep.resume=true", folder=new)
    assert done.returncode == 0, done.stdout + done.stderr
    assert state(old) == before
    assert is_readable(new)
    assert len(artifacts(new)) == 4


def test_a_database_that_was_copied_alone_still_leads_to_the_artifacts(
    kept: tuple[Path, Path], old: Path, tmp_path
) -> None:
    shutil.copytree(kept[1], old)
    shutil.copy(old / "mlflow.db", tmp_path / "mlflow.db")
    open_store(None, "bench", tmp_path)
    assert all(uri.startswith((old / "mlartifacts").as_uri()) for uri in artifacts(tmp_path).values())
    assert (tmp_path / "mlartifacts").as_uri() in locations(tmp_path)
    assert is_readable(tmp_path)


def test_reading_a_moved_database_changes_nothing_in_it(old: Path, new: Path) -> None:
    sweep_id = json.loads((new / "multirun/night/sweep.json").read_text())["sweep_id"]
    before = (new / "mlflow.db").read_bytes()
    found = fetch_sweep(None, sweep_id, new)
    assert [record.status for record in found.records] == ["ok", "ok"]
    assert found.left_out == []
    assert (new / "mlflow.db").read_bytes() == before
    assert not old.exists()


def test_the_ui_shows_the_database_that_was_moved_with_the_sweep(old: Path, new: Path) -> None:
    found = find_store(new / "multirun/night")
    assert found is not None
    assert found.uri == f"sqlite:///{new}/mlflow.db"
    assert not old.exists()


def test_a_folder_that_is_reached_by_a_link_is_not_taken_for_a_moved_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    open_store(f"sqlite:///{link}/mlflow.db", "bench", tmp_path)
    before = locations(real)
    assert open_store(f"sqlite:///{real}/mlflow.db", "bench", tmp_path).notes == ()
    assert locations(real) == before


def test_a_location_that_somebody_chose_stays(tmp_path: Path) -> None:
    """Even one of the name that bench would have given it, and whether or not it is there."""
    chosen = tmp_path / "disk" / relocated.ARTIFACTS
    (tmp_path / "start").mkdir()
    open_store(None, "bench", tmp_path / "start", artifact_location=str(chosen))
    (tmp_path / "start").rename(tmp_path / "new")
    store = open_store(None, "bench", tmp_path / "new")
    assert store.client.get_experiment(store.experiment_id).artifact_location == chosen.as_uri()


def test_a_database_of_somebody_elses_keeps_its_location(tmp_path: Path) -> None:
    """Made by MLflow's own commands, in a folder that is there."""
    store = open_store(None, "bench", tmp_path)
    theirs = tmp_path / "theirs" / relocated.ARTIFACTS
    theirs.mkdir(parents=True)
    store.client.create_experiment("theirs", theirs.as_uri())
    again = open_store(None, "theirs", tmp_path)
    assert again.notes == ()
    assert again.client.get_experiment_by_name("theirs").artifact_location == theirs.as_uri()


def test_a_single_run_is_found_again_as_well(kept: tuple[Path, Path], old: Path, tmp_path: Path, job_on_disk) -> None:
    """Its mark alone names the database."""
    start = Path(shutil.copytree(kept[1], tmp_path / "start"))
    record, job = job_on_disk(start / "outputs/one", sweep_id=None)
    assert isinstance(record, Record)
    assert sync.main([str(job), "--tracking-uri", f"sqlite:///{start}/mlflow.db"]) == 0
    assert read_mark(job).database == "../../mlflow.db"
    start.rename(tmp_path / "renamed")
    assert sync.main([str(tmp_path / "renamed/outputs/one")]) == 0
    assert not start.exists()
    assert read_mark(tmp_path / "renamed/outputs/one").uri == f"sqlite:///{tmp_path}/renamed/mlflow.db"
