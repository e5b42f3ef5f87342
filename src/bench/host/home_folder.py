"""The user's home folder, for users who have none as well.

A container that runs under an arbitrary user id may have neither HOME nor an entry in the passwd file. Python's
`Path.home()` then raises RuntimeError (on import of MLflow, for one), and libraries that use `os.path.expanduser` make
a folder named `~` in the current folder.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

from bench.rules import ConfigError

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


def unusable_cache(folder: Path, error: OSError) -> ConfigError:
    """Return the refusal of a shared compile cache whose folder cannot be written."""
    remedy = f"{folder} cannot be written ({error.strerror or error}); set XDG_CACHE_HOME to the path of a folder that "
    return ConfigError("compile.cache", "shared", remedy + "can, or leave compile.cache=fresh")


def _home() -> Path:
    return Path(os.environ.get("HOME") or _home_of_passwd() or NO_HOME)


def _home_of_passwd() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir or None
    except KeyError:
        return None
