"""A database of another MLflow version: which one it is of, and what to do about it.

MLflow refuses some of them, with a command that has a blank to fill in. Others, those that lack a table, it changes
when it opens them, without a word, and the MLflow that made them can no longer open them. bench opens neither: it reads
the schema version of every database first, and leaves one of another version as it is, with one line that names both
versions and the command to type. So no two processes of bench change a database at the same time either.

Not covered: a database server that only MLflow's own settings reach (`MLFLOW_MYSQL_SSL_CA` and the like), and a
tracking server, which decides itself what it does to its database.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sqlite3
from pathlib import Path

from bench.host.secrets import without_credentials
from bench.tracking.mlflow_internals import (
    installed,
    is_older,
    newest_revision,
    release_after,
    release_of,
    revision_at,
    revision_in,
    schema_versions,
)


class SchemaError(Exception):
    """A database has another schema than this MLflow's."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"the database has schema version {found}, and MLflow {installed()} needs {expected}")


def check_schema(database: Path) -> None:
    """See whether a database file is of this MLflow's schema; one without tables may become it.

    Raises:
        SchemaError: it is not.
        sqlite3.Error: it is no database, or cannot be read.
    """
    address = f"{database.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=2.0)) as connection:
        _check(revision_in(connection))


def check_schema_at(uri: str) -> None:
    """The same for the address of a database server; one that cannot be asked is left to MLflow to complain of."""
    _check(revision_at(uri))


def _check(found: str | None) -> None:
    if found is not None and (expected := newest_revision()) is not None and found != expected:
        raise SchemaError(found, expected)


def explain_schema(error: Exception, uri: str, command: str) -> tuple[str, str] | None:
    """The reason and the remedy, where an error says that a database has another schema; else None.

    Args:
        error: a `SchemaError`, or MLflow's own.
        uri: the database's address; the command that is named has none of its credentials.
        command: `mlflow`, as one can type it.
    """
    if not isinstance(error, SchemaError):
        versions = schema_versions(str(error))
        if versions is None:
            return None
        error = SchemaError(*versions)
    address = without_credentials(uri)
    hidden = "" if address == uri else " (with its user and password)"
    return str(error), _remedy(error.found, f"{command} db upgrade {shlex.quote(address)}{hidden}")


def _remedy(found: str, upgrade: str) -> str:
    if re.fullmatch(r"v\d[\w.]*", found):  # Optuna counts its schema versions in a table of the same name
        return "it holds a study of Optuna: set tracking.uri or search.storage to another database"
    release, older = release_of(found), is_older(found)
    if older is False:
        if release is None:
            return "a newer MLflow has changed it: pip install --upgrade mlflow"
        return f"MLflow {release} has changed it: pip install 'mlflow>={release}'"
    after = None if release is not None else release_after(found)
    made = f"it is of MLflow {release}" if release else f"it is of an MLflow before {after}" if after else None
    warning = f"no MLflow before {installed()} can open it afterwards"
    if older:
        return f"{f'{made}: ' if made else ''}make a copy of it, for {warning}, then run {upgrade}"
    return (
        f"nothing tells which of the two is newer: make a copy of it, for {warning}, then run {upgrade}, "
        f"and where that knows no such version: pip install --upgrade mlflow"
    )
