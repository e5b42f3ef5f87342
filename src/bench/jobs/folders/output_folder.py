"""The output folder of a single run: whether it may be used, and what is removed from it when nothing was run.

An existing folder is used with everything in it. It is refused when a run would overwrite something in it, or would add
a record to a sweep. Hydra makes the folder and writes the composed config there before it calls the run, so the folder
is examined before Hydra runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from bench.config.rules import ConfigError
from bench.jobs.folders.created import CreatedFolders
from bench.jobs.folders.sweep_folder import is_record
from bench.results.file_names import (
    HYDRA_NAMES,
    LEFTOVERS_NAME,
    LOG_NAME,
    MARK_NAME,
    OTHER_CONFIG_FOLDER,
    PROFILE_NAMES,
    RECORD_NAME,
    REFERENCES,
    RESERVE_NAME,
    SIGTERM_NAME,
    SWEEP_NAME,
)
from bench.results.sweep_file import is_sweep_file

KEY = "hydra.run.dir"
# Names of the files that a run writes besides its record.
WRITTEN = (
    LOG_NAME,
    MARK_NAME,
    *PROFILE_NAMES,
    RESERVE_NAME,
    LEFTOVERS_NAME,
    SIGTERM_NAME,
    OTHER_CONFIG_FOLDER,
)


def why_taken(folder: Path) -> str | None:
    """Return why a single run may not use this folder, and what to do instead; None where it may."""
    for above in folder.parents:
        if is_sweep_file(above / SWEEP_NAME):
            return f"is in the folder of the sweep {above.name}; choose another folder, {_resumed(above)}"
    if is_sweep_file(folder / SWEEP_NAME) or _holds_jobs(folder):
        return f"holds a sweep; choose another folder, {_resumed(folder)}"
    if os.path.lexists(folder / RECORD_NAME):
        return f"holds the {RECORD_NAME} of an earlier run; choose another folder"
    if any(is_record(each) for each in folder.glob(f"{REFERENCES}/*/{RECORD_NAME}")):
        return f"holds {REFERENCES}/ of an earlier run; choose another folder"
    for name in WRITTEN:
        if os.path.lexists(folder / name):
            return f"holds {name}, which a run would overwrite; choose another folder, or move that"
    return None


def check_usable(folder: Path) -> None:
    """Refuse a folder that a single run may not use, before anything is made.

    Raises:
        ConfigError: it is taken (see `why_taken`), is no folder, or cannot be written.
    """
    try:
        if (reason := why_taken(folder)) is not None:
            raise ConfigError(KEY, folder, reason)
        there = folder
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            where = "is" if there == folder else f"is below {there}, which is"
            raise ConfigError(KEY, folder, f"{where} no folder; choose another one")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError(KEY, folder, f"{there} cannot be written; choose another folder")
    except OSError as error:
        raise _refused(folder, error) from error


@contextlib.contextmanager
def in_output_folder(folder: Path, *, typed: Path, config_folder: str | None) -> Iterator[None]:
    """Make and lock the folder of a single run; if nothing was run there, remove what was made.

    Args:
        folder: absolute.
        typed: the same as typed, which Hydra makes too: with ".." it may lead through other folders.
        config_folder: the name of the subfolder that Hydra will make; None: it makes none.

    Raises:
        ConfigError: the folder cannot be made, or another start uses it.
    """
    created = CreatedFolders()
    try:
        try:
            created.make(typed)
            created.make(folder)
        except OSError as error:
            raise _refused(folder, error) from error
        with _held(folder):
            if (reason := why_taken(folder)) is not None:  # used since it was examined
                raise ConfigError(KEY, folder, reason)
            before = (folder / REFERENCES).exists()
            try:
                yield
            finally:
                begun = any((folder / name).exists() for name in (RECORD_NAME, LOG_NAME))
                begun = begun or (folder / REFERENCES).exists() > before
                if config_folder is not None and not begun:
                    _remove_config(folder / config_folder)
    finally:
        created.remove_empty()


def free_config_folder(folder: Path, name: str | None) -> str | None:
    """Return the name of the subfolder that Hydra may write to: another one where the usual name is in use."""
    return OTHER_CONFIG_FOLDER if name is not None and os.path.lexists(folder / name) else name


def _holds_jobs(folder: Path) -> bool:
    """Whether folders in it hold records of a sweep whose plan is missing."""
    with contextlib.suppress(OSError):
        return any(is_record(each) and _sweep_of(each) is not None for each in folder.glob(f"*/{RECORD_NAME}"))
    return False


def _resumed(folder: Path) -> str:
    return f"or go on with the sweep: -m sweep.name={folder.name} sweep.resume=true"


def _sweep_of(record: Path) -> str | None:
    """Return the sweep that a record names; None for a single run."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        data = json.loads(record.read_text(encoding="utf-8"))
        return str(data["sweep_id"]) if isinstance(data, dict) and data.get("sweep_id") is not None else None
    return None


def _refused(folder: Path, error: OSError) -> ConfigError:
    where = error.filename or folder
    return ConfigError(KEY, folder, f"{where}: {error.strerror or error}; choose another folder")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock the folder itself, which leaves no file. ConfigError: another run has locked it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: two starts are not kept apart
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(KEY, folder, "another run is using it; choose another folder") from error
        yield
    finally:
        os.close(descriptor)


def _remove_config(folder: Path) -> None:
    """Remove the files that Hydra has written in this start, and their folder."""
    for name in HYDRA_NAMES:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
