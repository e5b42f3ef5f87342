"""Folders of compiled code: locked while a process uses one, and removed only when none does.

Each has a lock file, which also shows that bench made the folder: one without it belongs to another program, whatever
its name. The kernel releases a lock when its process ends, however it ends.
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
    """Make a new temporary folder; return it with its lock, which is held until it is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):
            lock = (folder / LOCK_NAME).open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            lock.close()
        # Another process has removed it as unused before it was locked.


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Make a folder that several processes use at once, and lock it, so that none of them removes it.

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
    """Return the lock of a shared folder; None on a file system without locks, where no folder is removed either."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it will contain code
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
    """Whether bench has made this folder for this user; not true for a link to one."""
    with contextlib.suppress(OSError):
        states = folder.lstat(), (folder / LOCK_NAME).lstat()
        is_made = stat.S_ISDIR(states[0].st_mode) and stat.S_ISREG(states[1].st_mode)
        return is_made and all(each.st_uid == os.getuid() for each in states)
    return False


def remove_unused(folder: Path) -> bool:
    """Remove a folder that bench has made and no process uses; return whether it was removed."""
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
    """Whether an open lock file is still the one in the folder."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK_NAME).stat())
    return False


def remove(folder: Path) -> None:
    """Remove a folder whose lock the caller holds: the lock last, so that remains are still recognised as bench's."""
    empty(folder)
    with contextlib.suppress(OSError):
        (folder / LOCK_NAME).unlink(missing_ok=True)
        folder.rmdir()


def empty(folder: Path) -> None:
    """Remove the contents of a folder whose lock the caller holds, except the lock."""
    with contextlib.suppress(OSError):
        for each in list(folder.iterdir()):
            if each.name == LOCK_NAME:
                continue
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    each.unlink()
