"""A sweep's records as they come back from a real MLflow database, and from addresses where there is none."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sqlite3
import tempfile
from pathlib import Path

import pytest

from bench.results.record import Failure, Record
from bench.tracking.fetch import FetchedSweep, fetch_sweep
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import STARTED_AT_S, make_record

_sweeps = itertools.count(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("started-in")


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return open_store(None, "bench", folder)


@pytest.fixture
def sweep_id() -> str:
    """A sweep of the test's own: all of them share one database."""
    return f"sweep-{next(_sweeps)}"


def job(sweep_id: str, repeat: int = 1, **changes: object) -> Record:
    fields = {"sweep_id": sweep_id, "repeat": repeat, "started_at_s": STARTED_AT_S + 100 * repeat}
    return make_record(**fields | changes)


def published(store: Store, record: Record, folder: Path) -> str:
    """Publish a record with its file, as a job does; returns the run's id."""
    folder.mkdir(exist_ok=True)
    record.write(folder)
    return publish(store, record, folder, parent_run_id=None, tags={})


def begun(store: Store, sweep_id: str, **tags: str) -> str:
    """Make a sweep's own run, each later than the last."""
    own = {"kind": "sweep", "sweep_id": sweep_id}
    return store.create_run("night", STARTED_AT_S + 1000 * next(_sweeps), own | tags)


def error_of(uri: str | None, sweep_id: str, folder: Path) -> str:
    """The one line that it ends with."""
    with pytest.raises(TrackingError) as caught:
        fetch_sweep(uri, sweep_id, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- what comes back ---------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(store, sweep_id, folder, tmp_path):
    record = job(sweep_id)
    published(store, record, tmp_path)
    assert fetch_sweep(None, sweep_id, folder).records == [record]


def test_records_come_in_the_order_of_their_start(store, sweep_id, folder, tmp_path):
    for repeat in (2, 3, 1):
        published(store, job(sweep_id, repeat), tmp_path / str(repeat))
    assert [each.repeat for each in fetch_sweep(None, sweep_id, folder).records] == [1, 2, 3]


def test_a_failed_job_comes_back_with_its_status(store, sweep_id, folder, tmp_path):
    error = Failure(type="RuntimeError", message="no such layer")
    published(store, job(sweep_id, status="failed", error=error, iterations=[]), tmp_path)
    assert [each.status for each in fetch_sweep(None, sweep_id, folder).records] == ["failed"]


def test_runs_of_other_sweeps_stay_away(store, sweep_id, folder, tmp_path):
    published(store, job(sweep_id), tmp_path / "mine")
    published(store, job(f"{sweep_id}-other"), tmp_path / "other")
    assert {each.sweep_id for each in fetch_sweep(None, sweep_id, folder).records} == {sweep_id}


def test_every_experiment_is_searched(store, sweep_id, folder, tmp_path):
    published(store, job(sweep_id, 1), tmp_path / "1")
    published(open_store(None, "another", folder), job(sweep_id, 2), tmp_path / "2")
    assert len(fetch_sweep(None, sweep_id, folder).records) == 2


def test_a_record_published_to_two_experiments_counts_once(store, sweep_id, folder, tmp_path):
    published(store, job(sweep_id), tmp_path)
    published(open_store(None, "another", folder), job(sweep_id), tmp_path)
    assert len(fetch_sweep(None, sweep_id, folder).records) == 1


def test_a_deleted_run_is_gone(store, sweep_id, folder, tmp_path):
    published(store, job(sweep_id, 1), tmp_path / "1")
    store.client.delete_run(published(store, job(sweep_id, 2), tmp_path / "2"))
    assert [each.repeat for each in fetch_sweep(None, sweep_id, folder).records] == [1]


def test_more_runs_than_one_page_come_back(store, sweep_id, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.tracking.store.store.PAGE", 2)
    for repeat in range(1, 6):
        published(store, job(sweep_id, repeat), tmp_path / str(repeat))
    assert len(fetch_sweep(None, sweep_id, folder).records) == 5


def test_a_relative_address_counts_from_the_folder(store, sweep_id, folder, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    published(store, job(sweep_id), tmp_path)
    assert len(fetch_sweep("sqlite:///mlflow.db", sweep_id, folder).records) == 1


# ---- what the sweep declares -------------------------------------------------------------------------------------


def test_a_sweeps_run_tells_baseline_and_settings(store, sweep_id, folder, tmp_path):
    begun(store, sweep_id, baseline="sdpa", settings=json.dumps(["eager", "sdpa"]))
    published(store, job(sweep_id), tmp_path)
    found = fetch_sweep(None, sweep_id, folder)
    assert (found.baseline, found.settings) == ("sdpa", ["eager", "sdpa"])


def test_a_sweep_that_declares_nothing_has_none(store, sweep_id, folder, tmp_path):
    begun(store, sweep_id)
    published(store, job(sweep_id), tmp_path)
    found = fetch_sweep(None, sweep_id, folder)
    assert (found.baseline, found.settings) == (None, None)


@pytest.mark.parametrize("text", ['["eager", "sd', "eager", "[1, 2]", '{"eager": 1}'])
def test_settings_that_are_no_list_of_names_are_none(store, sweep_id, folder, tmp_path, text):
    begun(store, sweep_id, settings=text)
    published(store, job(sweep_id), tmp_path)
    assert fetch_sweep(None, sweep_id, folder).settings is None


# ---- what is left out --------------------------------------------------------------------------------------------


def written_as_version(version: int, store: Store, record: Record, folder: Path) -> None:
    run_id = published(store, record, folder)
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))
    store.upload(run_id, path, None)


def test_a_record_of_another_schema_version_is_named_and_left_out(store, sweep_id, folder, tmp_path):
    published(store, job(sweep_id, 1, name="eager"), tmp_path / "1")
    written_as_version(1, store, job(sweep_id, 2, name="sdpa"), tmp_path / "2")
    found = fetch_sweep(None, sweep_id, folder)
    assert [each.name for each in found.records] == ["eager"]
    assert len(found.left_out) == 1
    assert "sdpa" in found.left_out[0]
    assert ": schema version 1; this version" in found.left_out[0]
    assert tempfile.gettempdir() not in found.left_out[0]


def test_a_run_without_its_artifact_is_named_and_left_out(store, sweep_id, folder, tmp_path):
    published(store, job(sweep_id, 1), tmp_path / "1")
    (tmp_path / "bare").mkdir()
    bare = publish(store, job(sweep_id, 2), tmp_path / "bare", parent_run_id=None, tags={})
    found = fetch_sweep(None, sweep_id, folder)
    assert len(found.records) == 1
    assert len(found.left_out) == 1
    assert bare in found.left_out[0]


def test_a_sweep_without_any_readable_record_is_an_error_with_the_first_reason(store, sweep_id, folder, tmp_path):
    written_as_version(1, store, job(sweep_id), tmp_path)
    text = error_of(None, sweep_id, folder)
    assert text.startswith(f"none of the records of sweep {sweep_id} can be read: ")
    assert "schema version 1" in text


# ---- what is not there -------------------------------------------------------------------------------------------


def test_an_unknown_sweep_names_the_newest_five(store, folder):
    ids = [f"known-{number}" for number in range(6)]
    for each in ids:
        begun(store, each)
    text = error_of(None, "nothing-of-the-kind", folder)
    assert "has no sweep nothing-of-the-kind: the newest are known-5, known-4, known-3, known-2, known-1;" in text


def test_a_sweep_with_a_run_but_without_trials_is_told_apart(store, sweep_id, folder):
    begun(store, sweep_id)
    assert f"has no trials of sweep {sweep_id}" in error_of(None, sweep_id, folder)


def test_an_id_with_quotes_finds_nothing_and_breaks_nothing(store, folder):
    assert "has no sweep it's;" in error_of(None, "it's", folder).replace(": the newest are", ";")


def test_a_missing_database_is_an_error_and_is_not_made(tmp_path):
    text = error_of(None, "night", tmp_path)
    assert text == f"no MLflow database at {tmp_path}/mlflow.db: give its address with --tracking-uri"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database at all, but text"])
def test_a_file_that_is_no_mlflow_database_stays_as_it_is(tmp_path, content):
    database = tmp_path / "mlflow.db"
    database.write_bytes(content)
    assert "cannot be read as an MLflow database" in error_of(None, "night", tmp_path)
    assert database.read_bytes() == content


def test_a_database_without_experiments_gets_none(tmp_path):
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    assert "holds no runs" in error_of(None, "night", tmp_path)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "sqlite:///"])
def test_an_address_that_cannot_be_used_names_the_option(tmp_path, uri):
    assert f"--tracking-uri={uri}" in error_of(uri, "night", tmp_path)


def test_a_server_that_does_not_answer_is_one_line_without_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    text = error_of("http://me:secret@127.0.0.1:9", "night", tmp_path)
    assert text.startswith("MLflow at http://127.0.0.1:9 cannot be read: ")
    assert "secret" not in text
    assert text.endswith("--tracking-uri")


def test_reading_leaves_nothing_behind(store, sweep_id, folder, tmp_path, monkeypatch):
    published(store, job(sweep_id), tmp_path / "job")
    for name in ("elsewhere", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = {path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))}
    fetch_sweep(None, sweep_id, folder)
    assert {path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))} == before
    assert [*(tmp_path / "elsewhere").iterdir(), *(tmp_path / "temporary").iterdir()] == []


def test_what_was_fetched_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FetchedSweep(records=[]).baseline = "sdpa"
