"""What lies below a folder, to compare before and after: nothing of the user's may change in the least."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[str, bytes, int]]:
    """Path → type, content (a link's target) and time of the last change in ns, of a folder and all below it."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            kind, content = "link", os.fsencode(path.readlink())
        elif stat.S_ISDIR(state.st_mode):
            kind, content = "folder", b""
        else:
            kind, content = "file", path.read_bytes()
        found[str(path.relative_to(folder))] = (kind, content, state.st_mtime_ns)
    return found


def contents(folder: Path) -> dict[str, tuple[str, bytes]]:
    """The same without the times, and without the folder itself: for one in which something is added."""
    return {name: (kind, content) for name, (kind, content, _) in snapshot(folder).items() if name != "."}
