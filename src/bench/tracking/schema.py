"""A database of another MLflow version: which one it is of, and what to do about it.

MLflow refuses some of them, with a command that has a blank to fill in, and changes others without a word, so that the
MLflow which made them can open them no more. Here each is left as it is.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Any

_OTHER_SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+), but expected (\w+)\)")


class SchemaError(Exception):
    """A database has another schema than this MLflow's."""


def check_schema(database: Path) -> None:
    """See whether a database file is of this MLflow's schema; one without tables may become it.

    Raises:
        SchemaError: it is not.
        sqlite3.Error: it is no database, or cannot be read.
    """
    address = f"{database.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=2.0)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return
            raise
    if row is not None and row[0] != (expected := _newest_revision()):
        raise SchemaError(f"out-of-date database schema (found version {row[0]}, but expected {expected})")


def explain_schema(text: str, address: str, command: str) -> tuple[str, str] | None:
    """The reason and the remedy, where an error says that a database has another schema; else None.

    Args:
        text: the error's, `SchemaError`'s or MLflow's own.
        address: the database's, without credentials.
        command: `mlflow`, as one can type it.
    """
    found = _OTHER_SCHEMA.search(text)
    if found is None:
        return None
    has, needs = found.groups()
    version = metadata.version("mlflow")
    reason = f"the database has schema version {has}, and MLflow {version} needs {needs}"
    if _is_older(has):
        return reason, f"make a copy of it, then run {command} db upgrade {shlex.quote(address)}"
    return reason, "a newer MLflow has changed it: pip install --upgrade mlflow"


@functools.cache
def _newest_revision() -> str | None:
    return str(_history().get_current_head())


def _is_older(revision: str) -> bool:
    """Whether this MLflow knows the revision, and so can go on from it."""
    with contextlib.suppress(Exception):  # alembic's, for one that it does not know
        return _history().get_revision(revision) is not None
    return False


def _history() -> Any:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - MLflow has imported it by then
    from mlflow.store.db.utils import _get_alembic_config  # noqa: PLC0415

    return ScriptDirectory.from_config(_get_alembic_config(db_url=""))
