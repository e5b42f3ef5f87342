"""Folders that one start has made: it may remove these, and no others."""

from __future__ import annotations

import contextlib
from pathlib import Path


class CreatedFolders:
    """Makes folders with their parents and remembers each one that was not there before."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def make(self, folder: Path) -> None:
        """Make a folder and the parents that are missing.

        Raises:
            OSError: it cannot be made, or is a file; parents that were made are remembered.
        """
        path, missing = folder.absolute(), []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for each in reversed(missing):
            try:
                each.mkdir()
            except FileExistsError:  # made by another process meanwhile, or reached through "..": not ours
                if not each.is_dir():
                    raise
            else:
                self._made.append(each)

    def remove_empty(self) -> None:
        """Remove those of the folders made here that are empty; nothing else, and never a file."""
        for each in reversed(self._made):
            with contextlib.suppress(OSError):
                each.rmdir()
