"""Show one line at once on a terminal, while libraries are loaded for seconds, and erase it before anything else.

Only a command that measures waits so long. What is asked for a program to read (`--cfg`, `--help`), a pipe, a log of CI
and a terminal that cannot erase get no such line.

Imported before anything else of bench: nothing may be imported here that takes time.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

TEXT = " Loading libraries ..."
ERASE = "\r\x1b[K"  # to the first column, and erase the line (ECMA-48)
# Flags of commands that measure; with any other one something is only shown.
OF_RUNS = ("-m", "--multirun", "-r", "--run", "-cd", "--config-dir", "-cn", "--config-name", "-cp", "--config-path")

_shown: list[bool] = []  # whether the line stands on the terminal


def show(arguments: Sequence[str]) -> None:
    """Show the line, where a command with these arguments will load what measures, and somebody watches."""
    flags = [each.partition("=")[0] for each in arguments if each.startswith("-")]
    if not all(each in OF_RUNS for each in flags) or not _can_erase():
        return
    with contextlib.suppress(OSError, ValueError):  # a terminal that is gone: the command says so, or goes on without
        sys.stdout.write(TEXT)
        sys.stdout.flush()
        _shown.append(True)


def erase() -> None:
    """Erase the line, where it still stands: to be called before anything is written to the terminal."""
    if not _shown:
        return
    _shown.clear()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(ERASE)
        sys.stdout.flush()


def _can_erase() -> bool:
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")  # as rich has it
    try:
        return not in_ci and not is_dumb and sys.stdout.isatty()
    except (AttributeError, ValueError):  # no standard output, or one that is closed
        return False
