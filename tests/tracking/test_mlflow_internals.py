"""What is not part of MLflow's public interface, removed one at a time: every record is published all the same."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from bench.cli import sync
from bench.cli.ui import _answers
from bench.compat.private_name import PrivateName, entries
from bench.tracking import mlflow_internals
from bench.tracking.fetch import fetch_sweep
from bench.tracking.mlflow_internals import REVISIONS, PrivateFormat, formats
from bench.tracking.pages.links import LOCAL_UI
from bench.tracking.publish_mark import read_mark
from bench.tracking.publisher import Publisher
from bench.tracking.store.database import make_database
from bench.tracking.store.database_schema import check_schema
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store
from bench.tracking.store.relocated import bring_along
from bench.tracking.store.store import Store
from factories import make_record

ENTRIES: dict[str, PrivateName | PrivateFormat] = {**entries(mlflow_internals), **formats(mlflow_internals)}


def remove(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let an entry be one that this MLflow has no more, of a release of which nothing is known."""
    entry = ENTRIES[name]
    gone = {"where": "mlflow.gone:name"} if isinstance(entry, PrivateName) else {"gone_in": "0"}
    monkeypatch.setattr(mlflow_internals, name, dataclasses.replace(entry, **gone))
    monkeypatch.setattr(mlflow_internals, "REVISIONS", {})


def swept(start: Path, sweep_id: str, warnings: list[str]) -> Publisher:
    """A sweep of two trials, published from its beginning to its end."""
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=warnings.append)
    keys = {"compile.mode": ["default"]}
    run_id = publisher.begin_sweep(sweep_id=sweep_id, name="s", swept=keys, settings=[], baseline=None)
    records = [make_record(sweep_id=sweep_id, repeat=number, started_at_s=9.0 + number) for number in (1, 2)]
    for record in records:
        folder = start / "multirun" / sweep_id / str(record.repeat)
        folder.mkdir(parents=True)
        record.write(folder)
        assert publisher.publish(record, folder, run_id)
    assert publisher.end_sweep(run_id, records, interrupted=False)
    assert publisher.conclude(run_id, tables={"t.json": {"a": [1]}}, answer="none")
    return publisher


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ENTRIES)
def test_without_it_a_sweep_is_published_and_read_back(name, start, store, monkeypatch, capsys) -> None:
    remove(monkeypatch, name)
    warnings: list[str] = []
    publisher = swept(start, name, warnings)
    runs = store.find_runs(kind="trial", sweep_id=name)
    assert [each.data.metrics["e2e_ms"] > 0 for each in runs] == [True, True]
    assert all("\n" not in each for each in warnings)
    # One line where something that a user sees is missing, and the entry's own words in it.
    shown = {"SAVED_VIEW": 1, "ADDRESSES": 1}
    assert len(warnings) == shown.get(name, 0)
    assert all(ENTRIES[name].lost in each for each in warnings)
    links = publisher.ways_on(name)
    assert [each for each in links if "None" in each] == []
    assert len(fetch_sweep(f"sqlite:///{start}/mlflow.db", name, start).records) == 2
    assert sync.main(["--all", str(start / "multirun" / name)]) == 0, capsys.readouterr().err
    mark = read_mark(start / "multirun" / name / "1")
    assert mark is not None
    assert mark.published


def test_without_saved_views_catching_up_ends_the_sweeps_run_and_says_so_once(
    start, store, monkeypatch, sweep_on_disk, capsys
) -> None:
    folder = sweep_on_disk(start, sweep_id="caught up")[0][1].parent
    remove(monkeypatch, "SAVED_VIEW")
    assert sync.main([str(folder)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"bench.tracking.sync: {mlflow_internals.SAVED_VIEW.unseen()}"]
    (run,) = store.find_runs(kind="sweep", sweep_id="caught up")
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_every_entry_is_here_and_says_what_is_lost(entry) -> None:
    assert entry.is_here()
    assert entry.lost
    assert entry.unseen().endswith(f": {entry.lost}")
    assert [entry.since, entry.until] == ["3.10.0", "3.18.0"]


# ---- databases ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unknown_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release of MLflow that is not among the known ones."""
    monkeypatch.setattr(mlflow_internals, "REVISIONS", {})


def head() -> str:
    return ScriptDirectory.from_config(ENTRIES["ALEMBIC_CONFIG"].get()(db_url="")).get_current_head()


def test_the_schema_version_of_the_installed_release_is_the_one_that_is_listed() -> None:
    assert REVISIONS.get(mlflow_internals.installed(), head()) == head()


def test_another_release_is_asked_for_its_schema_version(unknown_release) -> None:
    assert mlflow_internals.newest_revision() == head()


def test_without_its_migrations_a_new_database_tells_the_schema_version(unknown_release, monkeypatch) -> None:
    monkeypatch.setattr(
        mlflow_internals, "ALEMBIC_CONFIG", dataclasses.replace(mlflow_internals.ALEMBIC_CONFIG, where="no:a")
    )
    assert mlflow_internals.newest_revision() == head()
    assert mlflow_internals.is_older("400f98739977") is None  # nothing tells


def test_where_nothing_tells_the_schema_version_a_database_is_opened(
    start, store, unknown_release, monkeypatch
) -> None:
    monkeypatch.setattr(mlflow_internals, "newest_revision", lambda: None)
    check_schema(start / "mlflow.db")
    assert open_store(None, "bench", start).experiment_id == store.experiment_id


def test_a_database_that_is_made_by_another_process_can_be_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mlflow_internals, "SQL_STORE", dataclasses.replace(mlflow_internals.SQL_STORE, where="no:name"))
    made = open_store(None, "bench", tmp_path)
    assert (
        made.artifacts == f"{(tmp_path / 'mlartifacts').as_uri()}/{made.experiment_id}"
        or made.artifacts == (tmp_path / "mlartifacts").as_uri()
    )
    assert made.running() == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_database_that_no_process_can_make_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mlflow_internals, "SQL_STORE", dataclasses.replace(mlflow_internals.SQL_STORE, where="no:name"))
    monkeypatch.setattr(mlflow_internals.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="status 1"):
        make_database(tmp_path / "mlflow.db", tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def changed(made: Path, place: Path, statement: str) -> Path:
    database = place / "mlflow.db"
    database.write_bytes(made.read_bytes())
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute(statement)
        connection.commit()
    return database


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE runs RENAME COLUMN artifact_uri TO place",
        "ALTER TABLE experiments RENAME COLUMN artifact_location TO place",
        "ALTER TABLE experiment_tags RENAME TO labels",
    ],
)
def test_a_moved_database_with_other_columns_is_left_as_it_is_with_one_line(store, start, tmp_path, statement) -> None:
    database = changed(start / "mlflow.db", tmp_path, statement)
    before = database.read_bytes()
    (line,) = bring_along(database)
    assert line == f"{database}: {mlflow_internals.ADDRESSES.unseen()}"
    assert database.read_bytes() == before


def test_a_database_whose_runs_are_in_another_table_is_not_taken_for_an_empty_one(store, start, tmp_path) -> None:
    database = changed(start / "mlflow.db", tmp_path, "ALTER TABLE runs RENAME TO trials")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert mlflow_internals.number_of_runs(connection) is None
    with pytest.raises(TrackingError, match="cannot be read") as error:  # in MLflow's words
        fetch_sweep(f"sqlite:///{database}", "s", tmp_path)
    assert "\n" not in str(error.value)


# ---- pages -------------------------------------------------------------------------------------------------------


def links_without(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    from bench.tracking.pages.links import Fastest, sweep_links

    remove(monkeypatch, name)
    place = Store(uri="sqlite:////x/mlflow.db", experiment_id="7", experiment="bench", client=None)
    return sweep_links(place, sweep_id="s", view="ab12", fastest=Fastest(run_ids=["a", "b"], of=2))


def test_without_saved_views_the_table_is_found_by_its_filter(monkeypatch) -> None:
    table, *_ = links_without(monkeypatch, "SAVED_VIEW")
    assert "searchFilter=tags.sweep_id%20%3D%20%27s%27" in table
    assert "viewStateShareKey" not in table


def test_without_that_page_the_link_leads_to_the_start_page_and_a_line_says_so(monkeypatch) -> None:
    table, *_, note = links_without(monkeypatch, "RUNS_PAGE")
    assert table == f"  table: {LOCAL_UI}"
    assert note == f"   note: {mlflow_internals.RUNS_PAGE.unseen()}"


def test_without_a_page_of_runs_side_by_side_there_is_no_link_and_a_line_says_so(monkeypatch) -> None:
    lines = links_without(monkeypatch, "COMPARE_PAGE")
    assert [each for each in lines if each.startswith("compare:")] == []
    assert lines[-1] == f"   note: {mlflow_internals.COMPARE_PAGE.unseen()}"


@pytest.mark.parametrize(("status", "is_answer"), [(404, True), (503, False)])
def test_a_server_without_the_path_health_answers(status, is_answer, monkeypatch) -> None:
    def refuse(address: str, **_: Any) -> None:
        raise urllib.error.HTTPError(address, status, "", None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert _answers(LOCAL_UI) is is_answer
