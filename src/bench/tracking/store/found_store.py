"""Find the store of the latest sweep or run below a folder, as its files name it.

Not covered: credentials, which no file holds; a server takes them from the environment
(`bench.tracking.store.errors.LOGIN`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.results.file_names import MARK_NAME, SWEEP_NAME, WITHOUT_TRIALS
from bench.results.sweep_file import read_sweep
from bench.tracking.publish_mark import read_mark
from bench.tracking.store.destination import URI_VARIABLE, absolute_address, decide
from bench.tracking.store.relocated import GoneError, address_now

DATABASE_NAME = "mlflow.db"
DEPTH = 4  # of folders below the given one


@dataclass(frozen=True, kw_only=True)
class Found:
    """Name a store, and the sweep by which it was found."""

    uri: str  # absolute
    sweep_id: str | None = None  # None: a single run's, or only the database is there
    experiment: str | None = None


def find_store(folder: Path) -> Found | None:
    """Return the store of the latest sweep or run in or below a folder, else its mlflow.db; None without any.

    Missing databases are ignored; one that was moved with its folder is found in its new place. If no file names a
    store, MLflow's variable does.

    Raises:
        AddressError: that variable is not a valid address.
    """
    told = sorted(_told(folder, DEPTH), key=lambda each: each[0], reverse=True)
    for _, found in told:
        if not found.uri.startswith("sqlite:///") or Path(found.uri.removeprefix("sqlite:///")).is_file():
            return found
    chosen = decide(uri=None, experiment=None)
    if chosen.uri is not None:
        uri = absolute_address(chosen.uri, folder.absolute(), URI_VARIABLE)
        return Found(uri=uri, experiment=chosen.experiment if chosen.experiment_from else None)
    database = folder.absolute() / DATABASE_NAME
    return Found(uri=f"sqlite:///{database}") if database.is_file() else None


def _told(folder: Path, depth: int) -> Iterator[tuple[float, Found]]:
    """Yield the time and content of the file of each sweep, and of each run outside a sweep."""
    try:
        inside = list(folder.iterdir())
    except OSError:
        return
    names = {each.name: each for each in inside}
    if SWEEP_NAME in names:
        sweep = read_sweep(folder)
        if sweep is not None and sweep.uri is not None:
            uri = _now(sweep.uri, folder, sweep.database, is_recorded=sweep.tells_database)
            found = Found(uri=uri, sweep_id=sweep.sweep_id, experiment=sweep.experiment)
            yield _written_s(names[SWEEP_NAME]), found
        return
    if MARK_NAME in names and (mark := read_mark(folder)) is not None and mark.uri is not None:
        uri = _now(mark.uri, folder, mark.database, is_recorded=mark.database is not None)
        yield _written_s(names[MARK_NAME]), Found(uri=uri, experiment=mark.experiment)
    for each in inside if depth > 0 else []:
        if (
            each.name not in WITHOUT_TRIALS
            and not each.name.startswith(".")
            and each.is_dir()
            and not each.is_symlink()
        ):
            yield from _told(each, depth - 1)


def _now(uri: str, folder: Path, relative: str | None, *, is_recorded: bool) -> str:
    try:
        return address_now(uri, folder, relative, is_recorded=is_recorded).uri
    except GoneError:
        return uri


def _written_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
