"""Folders of compiled code: locked by whoever uses one, and removed only when nobody does.

Each holds a lock file, which also tells that bench has made the folder: one without it is somebody else's, whatever its
name. The kernel lets go of a lock when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX = "bench-compile-"  # of temporary ones
LOCK_NAME = ".in-use"


def make_temporary() -> tuple[Path, IO[bytes]]:
    """Make a new folder in the one for temporary files; returns it with its lock, which is held until it is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):
            lock = (folder / LOCK_NAME).open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            lock.close()
        # Another process took it for a stale one before it was locked.


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Make a folder that several processes use at once, and hold it, so that none of them removes it.

    Raises:
        OSError: it cannot be made.
    """
    lock = _share(folder)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _share(folder: Path) -> IO[bytes] | None:
    """The lock of a shared folder; None on a file system without locks, on which none is removed either."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what lies there is code
        try:
            lock = (folder / LOCK_NAME).open("ab")
        except FileNotFoundError:  # removed meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError:
            lock.close()
            return None
        if _is_there(folder, lock):
            return lock
        lock.close()  # it was removed before it was locked


def is_own(folder: Path) -> bool:
    """Whether it is a folder that bench has made for this user; a link to one is none."""
    with contextlib.suppress(OSError):
        states = folder.lstat(), (folder / LOCK_NAME).lstat()
        is_made = stat.S_ISDIR(states[0].st_mode) and stat.S_ISREG(states[1].st_mode)
        return is_made and all(each.st_uid == os.getuid() for each in states)
    return False


def remove_unused(folder: Path) -> bool:
    """Remove a folder that bench has made and nobody uses; whether it was one."""
    if not is_own(folder):
        return False
    with contextlib.suppress(OSError), (folder / LOCK_NAME).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_there(folder, lock):  # another process has removed it
            return False
        remove(folder)
        return True
    return False


def _is_there(folder: Path, lock: IO[bytes]) -> bool:
    """Whether an open lock is still the one that the folder holds."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK_NAME).stat())
    return False


def remove(folder: Path) -> None:
    """Remove a folder whose lock the caller holds: the lock last, so that a rest can be told from other folders."""
    empty(folder)
    with contextlib.suppress(OSError):
        (folder / LOCK_NAME).unlink(missing_ok=True)
        folder.rmdir()


def empty(folder: Path) -> None:
    """Remove all that lies in a folder whose lock the caller holds, but the lock."""
    with contextlib.suppress(OSError):
        for each in list(folder.iterdir()):
            if each.name == LOCK_NAME:
                continue
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    each.unlink()
