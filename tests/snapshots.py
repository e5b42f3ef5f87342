"""Snapshots of a folder, to check that no file of the user changes at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[str, bytes, int]]:
    """Map each path of a folder and below to its type, content (a link's target) and modification time in ns."""
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
    """Return the snapshot without times and without the folder itself, for folders in which files are added."""
    return {name: (kind, content) for name, (kind, content, _) in snapshot(folder).items() if name != "."}
