"""The database file that MLflow keeps on this machine: where it is, whether it can be written, how it comes to be.

MLflow makes a new one by running all migrations of its history, which takes a second or two; that can be done ahead, in
a folder of its own, and the file is then copied to its place.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 2.0  # for another process to let go of a database


@dataclass(frozen=True)
class Template:
    """An empty database with all tables, for one place; its folder goes when nobody refers to it any more."""

    folder: tempfile.TemporaryDirectory[str]
    artifacts: Path  # that it names

    @property
    def file(self) -> Path:
        """Where it lies."""
        return Path(self.folder.name) / "mlflow.db"


def make_template(artifacts: Path) -> Template:
    """Make an empty database that names this folder for artifacts. Raises what MLflow raises."""
    template = Template(tempfile.TemporaryDirectory(prefix="bench-mlflow-", ignore_cleanup_errors=True), artifacts)
    _create_tables(template.file, artifacts)
    return template


def sqlite_file(uri: str) -> Path | None:
    """The database file of an absolute SQLite address; None for any other address."""
    scheme, _, rest = uri.partition("://")
    return Path(rest.removeprefix("/")) if scheme.partition("+")[0] == "sqlite" else None


def make_database(database: Path, artifacts: Path, template: Template | None = None) -> None:
    """Make sure that there is a database with all tables. The caller holds the lock.

    It is made under another name and moved when complete: a process killed while MLflow creates the tables, Ctrl-C
    in the first run of all, would leave a file behind that MLflow never opens again.
    """
    if not database.exists() or database.stat().st_size == 0:
        unfinished = database.with_name(f"{database.name}.new")
        _remove(unfinished)
        try:
            check_writable(unfinished, ANSWER_S, mode="rwc")
            if template is not None and template.artifacts == artifacts:
                shutil.copyfile(template.file, unfinished)
            else:
                _create_tables(unfinished, artifacts)
            unfinished.replace(database)
        finally:
            _remove(unfinished)


def _create_tables(database: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415 - slow, and seldom needed

    # No other connection than this one may be left when the file gets its name.
    SqlAlchemyStore(f"sqlite:///{database}", artifacts.as_uri()).engine.dispose()


def check_writable(database: Path, timeout_s: float, mode: str = "rw") -> None:
    """Fail at once and with SQLite's own words: MLflow tries for more than a minute to open a file it cannot."""
    address = f"{database.as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=timeout_s, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _remove(database: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
