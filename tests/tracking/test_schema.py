"""A database that another MLflow made is left as it is, with one line: its version, ours, and what to type."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from bench.tracking.store import TrackingError, look_ahead, open_store

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


def test_the_look_ahead_leaves_another_schema_alone(database) -> None:
    content = change(database, f"UPDATE alembic_version SET version_num = '{OLDER}'", "DROP TABLE webhooks")
    with pytest.raises(TrackingError, match="db upgrade"):
        look_ahead(None, database.parent)
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
