"""The state of a Git checkout: its commit, and whether and how it differs from that.

Git is run such that it writes nothing to the repository. If it fails or does not answer in time, the state is unknown.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 1.0
LONG_TIMEOUT_S = 5.0  # for a checkout of PyTorch's size that is not in the kernel's cache
# No lock in the repository, and no process that continues to watch it.
QUIETLY = ("--no-optional-locks", "-c", "core.fsmonitor=false")
STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=dirty")
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set below a Git hook, and name another repository
# Fields before the path in a line of `git status --porcelain=v2` (git-status(1)), by the letter that it begins with.
FIELDS = {"1": 8, "2": 9, "u": 10}


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The state of a checkout that a package is imported from."""

    commit: str | None  # None before the first
    # A digest of the differences from the commit, with untracked files of the package; None: there are none.
    changes: str | None


def git_state(folder: Path = Path()) -> dict[str, Any] | None:
    """Return the commit of ``folder``, and whether tracked files differ from it; None outside of a repository."""
    status = _git(folder, *STATUS, timeout_s=TIMEOUT_S)
    if status is None:
        return None
    lines = status.decode(errors="replace").splitlines()
    return {"commit": _commit(lines), "dirty": any(not line.startswith("#") for line in lines)}


def checkout_of(file: Path) -> Checkout | None:
    """Return the checkout that a package's file belongs to; None where no repository tracks the file.

    A package that is installed into an ignored folder of a repository has none.
    """
    folder = file.parent
    tracked = _git(folder, "ls-files", "--full-name", "-z", "--", file.name, timeout_s=LONG_TIMEOUT_S)
    if not tracked:
        return None
    below_top = Path(tracked.decode(errors="surrogateescape").rstrip("\0"))
    top = folder.joinpath(*[".."] * (len(below_top.parts) - 1))
    status = _git(folder, *STATUS, "-z", timeout_s=LONG_TIMEOUT_S)
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".", timeout_s=LONG_TIMEOUT_S)
    if status is None or new is None:
        return None
    lines = [each for each in status.decode(errors="surrogateescape").split("\0") if each]
    untracked = [folder / each for each in new.decode(errors="surrogateescape").split("\0") if each.endswith(".py")]
    return Checkout(commit=_commit(lines), changes=_digest(lines, top, untracked))


def _commit(lines: list[str]) -> str | None:
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    return commits[0] if commits and commits[0] != "(initial)" else None


def _digest(lines: list[str], top: Path, untracked: list[Path]) -> str | None:
    """Return a digest of the differences from the commit: which files, how, and their contents."""
    changed = [line for line in lines if not line.startswith("#")]
    if not changed and not untracked:
        return None
    found = hashlib.sha256()
    paths = [top / line.split(" ", FIELDS[line[0]])[-1] for line in changed if line[0] in FIELDS and line[1:2] == " "]
    for text in (*changed, *map(str, untracked)):
        found.update(text.encode(errors="surrogateescape") + b"\0")
    for path in (*paths, *untracked):
        try:
            found.update(path.read_bytes())
        except OSError:  # deleted, or a submodule
            found.update(b"\0")
    return found.hexdigest()[:12]


def _git(folder: Path, *arguments: str, timeout_s: float) -> bytes | None:
    """Run Git in a folder and return its output; None where it fails or is not installed."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        ended = subprocess.run(  # noqa: S603  # fixed arguments, no shell
            [git, *QUIETLY, *arguments],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name not in ELSEWHERE},
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout if ended.returncode == 0 else None
