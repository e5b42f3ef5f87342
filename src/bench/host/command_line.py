"""How bench and its subcommands were typed, and with which exit statuses they end.

Messages name the command in the form that the user can type again.
"""

from __future__ import annotations

import enum
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

# The word after `bench` → the module that `python -m` runs for it. The command itself is `bench.cli.WORD`.
COMMANDS = {
    "compare": "bench.compare",
    "report": "bench.report",
    "sync": "bench.tracking.sync",
    "ui": "bench.tracking.ui",
    "calibrate": "bench.analysis.calibrate",
}
MODULE_FORM = ["python", "-m", "bench"]
STARTED_AS = "BENCH_STARTED_AS"  # environment variable in which a script says under which name it was typed


class ExitStatus(enum.IntEnum):
    """How a command ended, for the shell."""

    OK = 0  # every job is ok or skipped with its reason
    FAILED = 1  # a job failed; of `bench compare`: a setting is slower than --fail-if-slower allows
    REFUSED = 2  # refused before anything ran: a mistake in the arguments or the config
    INCONCLUSIVE = 3  # of `bench compare` with --fail-if-inconclusive
    INCOMPARABLE = 4  # of `bench compare`: a setting that worked failed, vanished or changed its output
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells have it


_typed: list[str] = []  # how bench itself was typed; [] where that is not known
_word: list[str] = []  # the word of COMMANDS that was typed after it


class CommandError(ValueError):
    """What the user must change, in one line."""


def note_start(program: str, arguments: Sequence[str]) -> str | None:
    """Note how this process was started; return the word of the subcommand that was typed, if one was.

    Args:
        program: `sys.argv[0]`.
        arguments: what was typed behind it.
    """
    if os.environ.get(STARTED_AS):
        _typed[:] = [os.environ[STARTED_AS]]
    elif Path(program).name == "bench":
        _typed[:] = ["bench"]
    else:
        _typed[:] = MODULE_FORM
    if not arguments or arguments[0] not in COMMANDS:
        return None
    _word[:] = arguments[:1]
    return arguments[0]


def program() -> list[str]:
    """Return how bench is typed here, in words."""
    return list(_typed or MODULE_FORM)


def to_type(word: str) -> list[str]:
    """Return how a subcommand is typed here, in words: the short form where bench has one."""
    return [*_typed, word] if _typed and _typed != MODULE_FORM else ["python", "-m", COMMANDS[word]]


def as_typed(word: str) -> str:
    """Return a subcommand as it was typed: `bench compare`, or `python -m bench.compare`."""
    return shlex.join([*program(), word] if _word == [word] else ["python", "-m", COMMANDS[word]])


def name_of(word: str) -> str:
    """Return the name that a subcommand's messages begin with: `bench compare` if that was typed, else the module."""
    return f"bench {word}" if _word == [word] else COMMANDS[word]
