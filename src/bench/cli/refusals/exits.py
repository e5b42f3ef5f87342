"""End a command that is refused or cannot continue: print one line on standard error, and set the exit status."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import NoReturn

from bench.host.command_line import ExitStatus
from bench.host.secrets import scrub
from bench.report.terminal import startup_line

typed: list[str] = []  # the command line before it was rewritten for Hydra


def give_up(error: OSError | ValueError) -> NoReturn:
    """End the command for a failure other than a config mistake, such as a full disk."""
    startup_line.erase()
    print(f"bench: {_of_the_machine(error)}", file=sys.stderr)
    sys.exit(ExitStatus.FAILED)


def refuse(error: Exception) -> NoReturn:
    """End the command with the line for a refused config."""
    from bench.cli.refusals.message import explain  # noqa: PLC0415 - only refusals use it

    startup_line.erase()
    print(f"bench: {scrub(explain(error, typed or sys.argv[1:]))}", file=sys.stderr)
    sys.exit(ExitStatus.REFUSED)


def is_of_composition(error: Exception) -> bool:
    """Check whether Hydra or OmegaConf raised an error because of what was typed."""
    from bench.cli.refusals.message import is_of_composition  # noqa: PLC0415 - only refusals use it

    return is_of_composition(error)


def _of_the_machine(error: OSError | ValueError) -> str:
    """Return one line for a failure other than a config mistake."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder has been removed; start in another folder"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        where = error.filename or "a file"
        return f"{where} cannot be written: {error.strerror}; make room, or start in another folder"
    return scrub(f"{type(error).__name__}: {' '.join(str(error).split())}")
