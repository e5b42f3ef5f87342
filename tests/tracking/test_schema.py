"""A database that another MLflow made is left as it is, with one line: its version, ours, and what to type."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

from bench.cli import sync, ui
from bench.tracking import mlflow_internals
from bench.tracking.fetch import fetch_sweep
from bench.tracking.mlflow_internals import REVISIONS, installed
from bench.tracking.publisher import Publisher
from bench.tracking.store import opening, reachable
from bench.tracking.store.database_schema import SchemaError, explain_schema
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store, prepare_store

OLDER = "400f98739977"  # of MLflow 2.x
CURRENT = "SELECT version_num FROM alembic_version"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("made")
    open_store(None, "bench", folder)
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def database(made: bytes, tmp_path: Path) -> Path:
    place = tmp_path / "a place"
    place.mkdir()
    (place / "mlflow.db").write_bytes(made)
    return place / "mlflow.db"


def change(database: Path, *statements: str) -> bytes:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for each in statements:
            connection.execute(each)
        connection.commit()
    return database.read_bytes()


def refused(database: Path) -> str:
    with pytest.raises(TrackingError) as error:
        open_store(None, "bench", database.parent)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("statements", [(), ("DROP TABLE webhooks",)], ids=["all tables", "a table less"])
def test_an_older_schema_is_one_line_with_both_versions_and_the_command(database, statements) -> None:
    newest = change(database) and sqlite3.connect(database).execute(CURRENT).fetchone()[0]
    content = change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'", *statements)
    line = refused(database)
    assert f"the database has schema version {OLDER}, and MLflow {metadata.version('mlflow')} needs {newest}" in line
    assert f"db upgrade {shlex.quote(f'sqlite:///{database}')}" in line
    assert database.read_bytes() == content


def test_a_newer_schema_asks_for_a_newer_mlflow(database) -> None:
    content = change(database, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    line = refused(database)
    assert "schema version fedcba987654" in line
    assert "pip install --upgrade mlflow" in line
    assert "db upgrade" not in line
    assert database.read_bytes() == content


@pytest.mark.parametrize("release", ["3.10.0", "3.16.1", "9.9.9"])
def test_the_line_names_the_release_that_a_schema_version_is_of(database, release, monkeypatch) -> None:
    known = REVISIONS | {"9.9.9": "abcdef012345"}
    if release == installed():
        pytest.skip("it is the installed one")
    monkeypatch.setattr(mlflow_internals, "REVISIONS", known)
    content = change(database, f"UPDATE alembic_version SET version_num = '{known[release]}'")
    minor = release.rpartition(".")[0]
    if Version(release) < Version(installed()):
        copy = f"make a copy of it, for no MLflow before {installed()} can open it afterwards, then run "
        assert f"it is of MLflow {minor}: {copy}" in refused(database)
    else:
        assert f"MLflow {minor} has changed it: pip install 'mlflow>={minor}'" in refused(database)
    assert database.read_bytes() == content


def test_a_schema_version_before_the_known_ones_is_of_an_mlflow_before_the_first(database) -> None:
    change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'")
    assert "it is of an MLflow before 3.10: make a copy of it" in refused(database)


def test_where_nothing_tells_which_is_newer_both_commands_are_named(database, monkeypatch) -> None:
    monkeypatch.setattr(
        mlflow_internals, "ALEMBIC_CONFIG", dataclasses.replace(mlflow_internals.ALEMBIC_CONFIG, where="no:name")
    )
    change(database, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    line = refused(database)
    assert f"db upgrade {shlex.quote(f'sqlite:///{database}')}" in line
    assert "pip install --upgrade mlflow" in line


def test_a_database_with_a_study_of_optuna_is_told_from_one_of_another_mlflow(tmp_path) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.create_study(storage=f"sqlite:///{tmp_path}/mlflow.db")
    content = (tmp_path / "mlflow.db").read_bytes()
    line = refused(tmp_path / "mlflow.db")
    assert "it holds a study of Optuna: set tracking.uri or search.storage to another database" in line
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_the_ui_refuses_another_schema_in_one_line(database, capsys) -> None:
    content = change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'", "DROP TABLE webhooks")
    assert ui.main([str(database.parent)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot be shown: the database has schema version {OLDER}" in line
    assert f"db upgrade {shlex.quote(f'sqlite:///{database}')}" in line
    assert database.read_bytes() == content


def test_reading_a_sweep_leaves_another_schema_alone(database) -> None:
    make_a_run = "INSERT INTO runs (run_uuid, name, status, lifecycle_stage) VALUES ('a', 'a', 'FINISHED', 'active')"
    older = f"UPDATE alembic_version SET version_num = '{OLDER}'"
    content = change(database, make_a_run, older, "DROP TABLE webhooks")
    with pytest.raises(TrackingError, match="cannot be read: the database has schema version") as error:
        fetch_sweep(f"sqlite:///{database}", "night", database.parent)
    assert f"db upgrade {shlex.quote(f'sqlite:///{database}')}" in str(error.value)
    assert database.read_bytes() == content


def test_catching_up_leaves_another_schema_alone_and_keeps_the_records(database, sweep_on_disk, capsys) -> None:
    content = change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'", "DROP TABLE webhooks")
    jobs = sweep_on_disk(database.parent)
    assert sync.main([str(database.parent)]) == 1
    out, err = capsys.readouterr()
    assert out == "published 0, already there 0, failed 3\n"
    (line,) = err.splitlines()
    assert f"db upgrade {shlex.quote(f'sqlite:///{database}')}" in line
    assert database.read_bytes() == content
    assert all((folder / "record.json").is_file() for _, folder in jobs)


def test_a_sweep_says_it_once_and_how_its_records_are_published_later(database, sweep_on_disk) -> None:
    content = change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'", "DROP TABLE webhooks")
    jobs, warnings = sweep_on_disk(database.parent), []
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=database.parent, warn=warnings.append)
    assert publisher.begin_sweep(sweep_id="night-1", name="s", swept={}, settings=[], baseline=None) is None
    assert [publisher.publish(record, folder) for record, folder in jobs] == [False] * 3
    assert publisher.publish_missing([folder for _, folder in jobs], None) == 3
    assert not publisher.end_sweep(None, [record for record, _ in jobs], interrupted=False)
    (line,) = warnings
    assert "db upgrade" in line
    assert publisher.unpublished is not None
    assert publisher.unpublished.startswith("3 records are not published; later: python -m bench.tracking.sync ")
    assert database.read_bytes() == content


def test_the_command_has_no_password_and_says_that_it_needs_one() -> None:
    uri = "postgresql://me:hunter22@host/mlflow"
    found = explain_schema(SchemaError(REVISIONS["3.10.0"], REVISIONS["3.11.1"]), uri, "mlflow")
    assert found is not None
    assert found[1].endswith("then run mlflow db upgrade postgresql://host/mlflow (with its user and password)")


@pytest.mark.parametrize("version", [OLDER, "fedcba987654"])
def test_the_database_of_a_server_is_asked_before_mlflow_opens_it(version, tmp_path, monkeypatch) -> None:
    """With an SQLite file in its place: what is asked is the same."""
    with contextlib.closing(sqlite3.connect(tmp_path / "server.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        connection.commit()
    content = (tmp_path / "server.db").read_bytes()
    address = f"sqlite:///{tmp_path}/server.db"
    for module in (opening, reachable):
        monkeypatch.setattr(module, "sqlite_file", lambda _: None)
    monkeypatch.setattr(opening, "_lock_file", lambda _: tmp_path / "lock")
    with pytest.raises(TrackingError, match=f"schema version {version}"):
        open_store(address, "bench", tmp_path)
    assert (tmp_path / "server.db").read_bytes() == content


def test_preparing_leaves_another_schema_alone(database) -> None:
    content = change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'", "DROP TABLE webhooks")
    with pytest.raises(TrackingError, match="db upgrade"):
        prepare_store(None, database.parent)
    assert database.read_bytes() == content


@pytest.mark.slow
def test_the_command_that_is_named_makes_the_database_usable(tmp_path) -> None:
    """With a database that really is of an older schema: MLflow's own tables, as they were."""
    from alembic import command as alembic
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    address = f"sqlite:///{tmp_path}/mlflow.db"
    engine = create_engine(address)
    Base.metadata.create_all(engine)
    engine.dispose()
    alembic.upgrade(_get_alembic_config(address), OLDER)
    line = refused(tmp_path / "mlflow.db")
    typed = line.partition("then run ")[2].partition(", or set")[0]
    subprocess.run(shlex.split(typed), check=True, capture_output=True, timeout=300)
    assert open_store(None, "bench", tmp_path).running() == []
