"""Update the addresses in a local database after its project folder was moved, renamed or copied.

MLflow stores absolute artifact addresses in the database: one per experiment, from which new runs derive theirs, and
one per run. bench stores artifacts in `mlartifacts` beside a local database. If that folder differs from the stored
one, the stored addresses are changed in the file itself, because MLflow has no call for that. Runs whose artifacts were
not moved keep their address, and so do experiments with a location that the user chose.

The files beside the records (`sweep.json`, `tracking.json`) also name the database, relative to their folder if both
are in the start folder: `address_now` finds the database after a move.

Nothing here imports MLflow.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.tracking.mlflow_internals import without_known_addresses
from bench.tracking.store.database import ANSWER_S, sqlite_file

ARTIFACTS = "mlartifacts"  # beside the database
CHOSEN = "bench.artifact_location"  # the tag of an experiment whose location is not the default
START_FOLDERS = ("multirun", "outputs")  # in the folder where the command was started


# ---- what the database says ------------------------------------------------------------------------------------------


def bring_along(database: Path) -> list[str]:
    """Update the artifact addresses in a database that was moved or copied.

    Args:
        database: MLflow's existing file; one without MLflow's tables is left unchanged.

    Returns:
        One line per previous location.

    Raises:
        sqlite3.Error: the file cannot be read or written.
    """
    with contextlib.closing(_connect(database, "ro")) as connection:
        if problem := without_known_addresses(connection):
            return [f"{database}: {problem}"]
    lines = []
    for old, folder in _former_places(database):
        count = _change(database, old, (database.parent / ARTIFACTS).as_uri())
        runs = f"{count} run{'' if count == 1 else 's'}"
        lines.append(
            f"{database} was moved or copied from {folder}: new artifacts, and those of {runs}, "
            f"are in {database.parent / ARTIFACTS}"
        )
    return lines


def artifacts_now(uri: str, artifact_uri: str) -> Path | None:
    """Return the folder of a run's artifacts after its database was moved; None if they did not move."""
    database, path = sqlite_file(uri), _path_of(artifact_uri)
    if database is None or path is None or ARTIFACTS not in path.parts:
        return None
    place = len(path.parts) - 1 - path.parts[::-1].index(ARTIFACTS)
    here = database.parent / ARTIFACTS / Path(*path.parts[place + 1 :])
    return here if here.is_dir() and not _is_same(here, path) else None


def _former_places(database: Path) -> list[tuple[str, Path]]:
    """Return the experiment locations beside the database's previous path, and the current folder."""
    with contextlib.closing(_connect(database, "ro")) as connection:
        try:
            query = "SELECT experiment_id, artifact_location FROM experiments WHERE artifact_location IS NOT NULL"
            found = {str(number): str(location) for number, location in connection.execute(query)}
            tagged = connection.execute("SELECT experiment_id FROM experiment_tags WHERE key = ?", (CHOSEN,))
            chosen = {str(number) for (number,) in tagged}
        except sqlite3.OperationalError:  # no tables yet
            return []
    here = database.parent / ARTIFACTS
    former = []
    for location in dict.fromkeys(each for number, each in found.items() if number not in chosen):
        path = _path_of(location)
        if path is None or path.name != ARTIFACTS or _is_same(path.parent, here.parent):
            continue
        was_made_there = found.get("0") == f"{location}/0"  # the default experiment of every database
        if was_made_there or not path.exists():
            former.append((location, path.parent))
    return former


def _change(database: Path, old: str, new: str) -> int:
    """Change all addresses in and below a location, except of unmoved artifacts; return the number of changed runs."""
    with contextlib.closing(_connect(database, "rw")) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        where = "= ? OR substr({0}, 1, ?) = ?"
        given = (old, len(old) + 1, f"{old}/")
        condition = "artifact_location " + where.format("artifact_location")
        connection.execute(
            f"UPDATE experiments SET artifact_location = ? || substr(artifact_location, ?) WHERE {condition}",  # noqa: S608
            (new, len(old) + 1, *given),
        )
        query = "SELECT run_uuid, artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?"
        runs = connection.execute(query, (len(old) + 1, f"{old}/")).fetchall()
        moved = [(new + uri[len(old) :], run) for run, uri in runs if not _stayed(uri, new + uri[len(old) :])]
        connection.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", moved)
    return len(moved)


def _stayed(old: str, new: str) -> bool:
    """Check whether a run's artifacts exist only in the previous location, as when only the database was copied."""
    before, now = _path_of(old), _path_of(new)
    return before is not None and before.exists() and not (now is not None and now.exists())


def _connect(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode={mode}", uri=True, timeout=ANSWER_S, isolation_level=None)


def _path_of(location: str) -> Path | None:
    """Return the path of a file URI or of a plain path; None for other addresses."""
    parts = urllib.parse.urlsplit(location)
    if parts.scheme == "file":
        return Path(urllib.parse.unquote(parts.path))
    return Path(location) if location.startswith("/") else None


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


# ---- what the files beside the records say ---------------------------------------------------------------------------


class GoneError(ValueError):
    """The database for these results cannot be found; the text is one line."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Name a store's address after a move."""

    uri: str
    note: str | None = None  # a line for the user; None: it is where the files say
    is_there: bool = True  # False: to be created in the start folder


def relative_database(uri: str | None, folder: Path, start: Path) -> str | None:
    """Return the path from a folder to a database if both are in the start folder and move together; else None."""
    database = sqlite_file(uri) if uri is not None else None
    if database is None or not (database.is_relative_to(start) and folder.is_relative_to(start)):
        return None
    return os.path.relpath(database, folder)


def way_to(uri: str, folder: Path) -> str | None:
    """Return the same path, with the start folder found by the names of folders."""
    start = start_of(folder)
    return None if start is None else relative_database(uri, folder, start)


def address_now(uri: str, folder: Path, relative: str | None, *, is_recorded: bool) -> Address:
    """Return the store that a folder's file names, after the folder was moved, renamed or copied.

    Args:
        uri: absolute, as the file names it.
        folder: the file's current folder; absolute.
        relative: the path from there to the database, as stored in the file.
        is_recorded: whether the file can hold that path; False: an older version wrote it.

    Raises:
        GoneError: the database is neither there nor in the corresponding place, and may not be created.
    """
    database = sqlite_file(uri)
    if database is None:
        return Address(uri=uri)
    here = _corresponding(database, folder, relative, is_recorded=is_recorded)
    if here is not None and (here == database or _is_same(here, database)):
        return Address(uri=uri, is_there=database.is_file())
    is_copy = relative is not None  # else the database elsewhere may be the intended one
    for candidate in (here, database) if is_copy else (database, here):
        if candidate is not None and candidate.is_file():
            if candidate == database:
                return Address(uri=uri)
            scheme = uri.partition("://")[0]
            note = f"the database {database} was moved or copied with its folder: it is {candidate} now"
            return Address(uri=f"{scheme}:///{candidate}", note=note)
    neither = f", nor is there one at {here}" if here is not None else ""
    raise GoneError(f"the database {database} is gone{neither}: name one: --tracking-uri sqlite:///{here or database}")


def _corresponding(database: Path, folder: Path, relative: str | None, *, is_recorded: bool) -> Path | None:
    if relative is not None:
        return Path(os.path.normpath(folder / relative))
    if is_recorded:
        return None
    start = start_of(folder)
    return None if start is None else start / database.name


def start_of(folder: Path) -> Path | None:
    """Return the start folder of a sweep or job, found by the names of the folders above it."""
    return next((each.parent for each in _and_above(folder) if each.name in START_FOLDERS), None)


def _and_above(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.parents
