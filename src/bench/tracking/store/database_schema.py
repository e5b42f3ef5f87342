"""Recognise a database of another MLflow version, and name the remedy.

MLflow refuses some of these databases, with a command that has a blank to fill in. Others, which lack a table, it
migrates when it opens them, without a message, and the MLflow that created them can then no longer open them. bench
opens neither: it first reads the schema version of every database, and leaves one of another version unchanged, with
one line that names both versions and the command to type. So two processes of bench never migrate a database at the
same time.

Not covered: a database server that only MLflow's own settings reach (`MLFLOW_MYSQL_SSL_CA` and the like), and a
tracking server, which manages its own database.
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
    """Check that a database file has this MLflow's schema, or no tables yet.

    Raises:
        SchemaError: it has another schema.
        sqlite3.Error: it is not a database, or cannot be read.
    """
    address = f"{database.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=2.0)) as connection:
        _check(revision_in(connection))


def check_schema_at(uri: str) -> None:
    """Check the same for a database server; MLflow reports one that cannot be queried."""
    _check(revision_at(uri))


def _check(found: str | None) -> None:
    if found is not None and (expected := newest_revision()) is not None and found != expected:
        raise SchemaError(found, expected)


def explain_schema(error: Exception, uri: str, command: str) -> tuple[str, str] | None:
    """Return reason and remedy if an error says that a database has another schema; else None.

    Args:
        error: a `SchemaError`, or MLflow's own.
        uri: the database's address; its credentials are left out of the command.
        command: the `mlflow` command to type.
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
