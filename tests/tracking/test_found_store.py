"""Which store the results below a folder are shown from; nothing here needs MLflow."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.tracking.publish_mark import Mark, write_mark
from bench.tracking.store.found_store import Found, find_store


def sweep(folder: Path, uri: str | None, at_s: int) -> None:
    folder.mkdir(parents=True)
    file = folder / "sweep.json"
    file.write_text(json.dumps({"sweep_id": folder.name, "tracking": {"uri": uri, "experiment": "nights"}}))
    os.utime(file, (at_s, at_s))


def single(folder: Path, uri: str | None, at_s: int) -> None:
    folder.mkdir(parents=True)
    write_mark(folder, Mark(published=True, uri=uri, experiment="bench", record_key="k"))
    os.utime(folder / "tracking.json", (at_s, at_s))


@pytest.fixture
def database(tmp_path: Path) -> str:
    (tmp_path / "elsewhere.db").touch()
    return f"sqlite:///{tmp_path}/elsewhere.db"


def test_the_latest_sweep_says_where(tmp_path, database):
    sweep(tmp_path / "multirun" / "old", "http://host:5000", 1)
    sweep(tmp_path / "multirun" / "new", database, 2)
    assert find_store(tmp_path) == Found(uri=database, sweep_id="new", experiment="nights")
    assert find_store(tmp_path / "multirun" / "old") == Found(
        uri="http://host:5000", sweep_id="old", experiment="nights"
    )


def test_a_single_run_that_is_later_says_where(tmp_path, database):
    sweep(tmp_path / "multirun" / "old", "http://host:5000", 1)
    single(tmp_path / "outputs" / "new", database, 2)
    assert find_store(tmp_path) == Found(uri=database, experiment="bench")


def test_jobs_of_a_sweep_say_nothing_beside_it(tmp_path, database):
    sweep(tmp_path / "multirun" / "night", database, 1)
    single(tmp_path / "multirun" / "night" / "0_eager", "http://host:5000", 2)
    found = find_store(tmp_path)
    assert found is not None
    assert found.uri == database


def test_a_sweep_without_tracking_and_one_whose_database_is_gone_are_passed_over(tmp_path, database):
    sweep(tmp_path / "multirun" / "oldest", database, 1)
    sweep(tmp_path / "multirun" / "moved", "sqlite:////nowhere/mlflow.db", 2)
    sweep(tmp_path / "multirun" / "off", None, 3)
    found = find_store(tmp_path)
    assert found is not None
    assert found.sweep_id == "oldest"


def test_where_nothing_says_where_the_folders_own_database_is_it(tmp_path):
    (tmp_path / "mlflow.db").touch()
    sweep(tmp_path / "kept" / "moved", "sqlite:////nowhere/mlflow.db", 2)
    assert find_store(tmp_path) == Found(uri=f"sqlite:///{tmp_path}/mlflow.db")


def test_a_database_that_was_moved_with_the_sweep_is_found(tmp_path):
    (tmp_path / "mlflow.db").touch()
    sweep(tmp_path / "multirun" / "moved", "sqlite:////nowhere/mlflow.db", 2)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert find_store(tmp_path) == Found(uri=uri, sweep_id="moved", experiment="nights")


def test_where_no_file_says_where_mlflows_variable_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5999")
    (tmp_path / "mlflow.db").touch()
    assert find_store(tmp_path) == Found(uri="http://localhost:5999")
    sweep(tmp_path / "multirun" / "night", f"sqlite:///{tmp_path}/mlflow.db", 2)
    assert find_store(tmp_path).uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_files_that_cannot_be_read_say_nothing(tmp_path):
    for name in ("sweep.json", "tracking.json"):
        (tmp_path / name[:3]).mkdir()
        (tmp_path / name[:3] / name).write_text("{not json")
    assert find_store(tmp_path) is None
