"""Paths as users type them: `~` and `~name` at the beginning mean a home folder.

A shell replaces them only at the beginning of a word, so not in `key=~/file` nor in `--option=~/file`. They are
replaced where a path is used, never in the config: a record keeps what was typed. Relative paths are not resolved here.
"""

from __future__ import annotations

import os
import re

# What stands before the path in an address of a file: sqlite:///PATH, sqlite+pysqlite:///PATH, file://PATH.
_ADDRESS = re.compile(r"(sqlite(?:\+\w+)?:///|file:(?://)?)(~.*)", re.DOTALL)


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
