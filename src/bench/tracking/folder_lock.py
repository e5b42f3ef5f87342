"""Lock a folder so that one process at a time publishes its contents: the job that has just ended, or `bench sync`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bench.tracking.store.errors import TrackingError

NAME = ".tracking.lock"


class LockedError(TrackingError):
    """Another process holds the lock."""


@contextlib.contextmanager
def folder_lock(folder: Path, timeout_s: float) -> Iterator[None]:
    """Hold the folder's lock; continue without it if the folder is read-only or its file system has no locks.

    Raises:
        LockedError: another process held it all the time.
    """
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise LockedError(f"another process has been publishing {folder} for {timeout_s:g} s; try again") from error
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()
