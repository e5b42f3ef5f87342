"""The user's home folder: paths that are typed with `~`, and users who have no home folder.

A container that runs under an arbitrary user id may have neither HOME nor an entry in the passwd file. Python's
`Path.home()` then raises RuntimeError (on import of MLflow, for one), and libraries that use `os.path.expanduser` make
a folder named `~` in the current folder.

A shell replaces `~` only at the beginning of a word, so not in `key=~/file` nor in `--option=~/file`. bench replaces it
where a path is used, never in the config: a record keeps what was typed. Relative paths are not resolved here.
"""

from __future__ import annotations

import os
import pwd
import re
import tempfile
from pathlib import Path

# What stands before the path in an address of a file: sqlite:///PATH, sqlite+pysqlite:///PATH, file://PATH.
_ADDRESS = re.compile(r"(sqlite(?:\+\w+)?:///|file:(?://)?)(~.*)", re.DOTALL)
NO_HOME = "/dev/null"  # no folder: nobody can make anything in it, not even root


def ensure_home() -> None:
    """Set HOME to a path that can hold nothing where neither HOME nor the passwd file names one."""
    if "HOME" not in os.environ and _home_of_passwd() is None:
        os.environ["HOME"] = NO_HOME


def cache_home() -> Path:
    """Return where bench keeps what outlives a job; nobody has made it yet, and it may be read-only.

    XDG_CACHE_HOME counts where it is absolute: the XDG Base Directory Specification ignores a relative one.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else _home() / ".cache") / "bench"


def check_writable(folder: Path) -> None:
    """Make `folder` and write a file into it. Raises OSError where that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def expanded(text: str) -> str:
    """Replace a leading `~` or `~name` of a path or of a file's address by that user's home folder.

    Args:
        text: a path, an address such as sqlite:///~/x.db, or any other text.

    Returns:
        The text itself where it has no such beginning, or where that user has no home folder here.
    """
    if text.startswith("~"):
        return os.path.expanduser(text)  # noqa: PTH111 - pathlib raises where there is no home, and drops a last slash
    address = _ADDRESS.fullmatch(text)
    return address[1] + expanded(address[2]) if address else text


def _home() -> Path:
    return Path(os.environ.get("HOME") or _home_of_passwd() or NO_HOME)


def _home_of_passwd() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir or None
    except KeyError:
        return None
