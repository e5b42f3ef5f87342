"""Files that other processes read while they are written."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never half of one, even after a loss of power.

    A new file has the mode that the umask allows; one that takes the place of another keeps that one's mode.

    Raises:
        OSError: the file cannot be written; the old one stands, and nothing is left beside it.
    """
    descriptor, temporary = make_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        keep_mode(path, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_named(path: Path, content: str | bytes) -> None:
    """Write a file whose path the user has given, over what is there: whole, through a link, with the mode that it has.

    A pipe, a device or an open file (`/dev/stdout`) is written to as it is.

    Raises:
        OSError: the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with contextlib.suppress(FileNotFoundError):
        is_regular = stat.S_ISREG(path.stat().st_mode)
        if not is_regular or os.fspath(path.absolute()).startswith(("/dev/", "/proc/")):
            with path.open("wb") as file:
                file.write(data)
            return
    write_whole(Path(os.path.realpath(path)), data)


def make_beside(path: Path) -> tuple[int, Path]:
    """Make an empty file in the folder of `path`, to be moved there; returns its open descriptor and its path.

    Its mode follows the umask. That of `tempfile.mkstemp` does not: its files can be read by their owner only.

    Raises:
        OSError: the folder cannot be written.
    """
    while True:
        # Of a long name the beginning is enough, for a name has 255 bytes at most.
        name = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix[:20]}")
        with contextlib.suppress(FileExistsError):
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666), name


def keep_mode(old: Path, new: Path) -> None:
    """Give a file the mode of the one whose place it takes; where there is none, the umask has decided."""
    with contextlib.suppress(FileNotFoundError):
        new.chmod(stat.S_IMODE(old.stat().st_mode))
