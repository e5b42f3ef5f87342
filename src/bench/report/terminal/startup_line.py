"""Show one line at once on a terminal while libraries load for seconds, and erase it before other output.

Only a command that measures waits so long. Commands with other output (`--cfg`, `--help`), pipes, logs of CI and
terminals that cannot erase get no such line.

It is imported before anything else of bench, so it must not import slow modules.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

TEXT = " Loading libraries ..."
ERASE = "\r\x1b[K"  # move to the first column, and erase the line (ECMA-48)
# Flags of commands that measure; with any other flag the command only shows something.
OF_RUNS = ("-m", "--multirun", "-r", "--run", "-cd", "--config-dir", "-cn", "--config-name", "-cp", "--config-path")

_shown: list[bool] = []  # whether the line is on the terminal


def show(arguments: Sequence[str]) -> None:
    """Show the line if a command with these arguments will load the measuring libraries and output is a terminal."""
    flags = [each.partition("=")[0] for each in arguments if each.startswith("-")]
    if not all(each in OF_RUNS for each in flags) or not _can_erase():
        return
    with contextlib.suppress(OSError, ValueError):  # closed terminal: the command reports it or continues
        sys.stdout.write(TEXT)
        sys.stdout.flush()
        _shown.append(True)


def erase() -> None:
    """Erase the line if it is still shown; call this before anything is written to the terminal."""
    if not _shown:
        return
    _shown.clear()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(ERASE)
        sys.stdout.flush()


def _can_erase() -> bool:
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")  # as in rich
    try:
        return not in_ci and not is_dumb and sys.stdout.isatty()
    except (AttributeError, ValueError):  # no standard output, or one that is closed
        return False
