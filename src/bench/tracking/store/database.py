"""Find, check and create MLflow's local database file.

MLflow creates a database by running all migrations of its history, which takes a second or two. This can be done in
advance in a temporary folder, from which the file is then copied to its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.host.atomic_files import keep_mode, make_beside
from bench.tracking.mlflow_internals import create_tables

ANSWER_S = 2.0  # for another process to release a database
ROOM_BYTES = 1 << 20  # the size of some jobs' records
PROBE = "bench_writes_here"  # the table that is created and rolled back


@dataclass(frozen=True)
class Template:
    """Hold an empty database with all tables, for one location, in a folder that is removed with this object."""

    folder: tempfile.TemporaryDirectory[str]
    artifacts: Path  # that it names

    @property
    def file(self) -> Path:
        """Return the path of the file."""
        return Path(self.folder.name) / "mlflow.db"


def make_template(artifacts: Path) -> Template:
    """Create an empty database that names this folder for artifacts. Raises MLflow's exceptions."""
    template = Template(tempfile.TemporaryDirectory(prefix="bench-mlflow-", ignore_cleanup_errors=True), artifacts)
    create_tables(template.file, artifacts)
    return template


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of an absolute SQLite address; None for any other address."""
    scheme, _, rest = uri.partition("://")
    return Path(rest.removeprefix("/")) if scheme.partition("+")[0] == "sqlite" else None


def make_database(database: Path, artifacts: Path, template: Template | None = None) -> None:
    """Create the database with all tables if it is missing. The caller holds the lock.

    It is created under another name and moved when complete: a process killed while MLflow creates the tables (Ctrl-C
    in the very first run) would otherwise leave a file that MLflow cannot open again.
    """
    database = Path(os.path.realpath(database))  # a link stays a link
    if not database.exists() or database.stat().st_size == 0:
        descriptor, unfinished = make_beside(database)  # SQLite would use mode 0644, whatever the umask
        os.close(descriptor)
        try:
            keep_mode(database, unfinished)
            check_writable(unfinished, ANSWER_S, room_bytes=ROOM_BYTES)
            if template is not None and template.artifacts == artifacts:
                shutil.copyfile(template.file, unfinished)
            else:
                create_tables(unfinished, artifacts)
            _put_in_place(unfinished, database)
        finally:
            _remove(unfinished)


def _put_in_place(unfinished: Path, database: Path) -> None:
    """Give the new database its name, unless another program has created one meanwhile."""
    try:
        os.link(unfinished, database)
    except FileExistsError:
        if database.stat().st_size == 0:
            unfinished.replace(database)
    except OSError:  # a file system without hard links
        unfinished.replace(database)


def check_writable(database: Path, timeout_s: float, *, room_bytes: int = 0) -> None:
    """Write to a database and roll back: MLflow retries for more than a minute to open an unusable file.

    SQLite opens a read-only file and begins a transaction without an error; only the write itself fails.

    Args:
        database: an SQLite file.
        timeout_s: for another process to release it.
        room_bytes: free space required on its disk.

    Raises:
        sqlite3.Error: it cannot be written; with SQLite's text and the file or folder that is read-only.
        OSError: it is not a file.
    """
    if database.exists() and not database.is_file():
        raise OSError(f"{database} is no file")
    address = f"{database.as_uri()}?mode=rw"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=timeout_s, isolation_level=None)) as one:
            one.execute("BEGIN IMMEDIATE")
            one.execute(f"CREATE TABLE {PROBE} (content BLOB)")
            one.execute("ROLLBACK")
        if room_bytes:
            _check_room(database, room_bytes)
    except sqlite3.OperationalError as error:
        raise type(error)(f"{error}{_refusing(database)}") from error


def _check_room(database: Path, size: int) -> None:
    """Reserve so many bytes beside a database, as a transaction's journal does. OperationalError without space."""
    try:
        with tempfile.TemporaryFile(dir=database.parent) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise sqlite3.OperationalError(f"database or disk is full: {error.strerror}") from error


def _refusing(database: Path) -> str:
    """Return which of a database's file and folder are read-only for this process, to add to SQLite's reason."""
    names = {"the file": database, "its folder": database.parent}
    refusing = [
        what for what, path in names.items() if path.exists() and not os.access(path, os.W_OK, effective_ids=True)
    ]
    return f" ({' and '.join(refusing)} may only be read)" if refusing else ""


def _remove(database: Path) -> None:
    """Remove a database that this process created, with SQLite's files beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
