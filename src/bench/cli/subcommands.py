"""What the small commands share, such as `bench compare` and `bench report`: names, one line for a mistake, pipes.

Each is a module with a `main`, which `python -m MODULE` runs as well as `bench WORD`. Messages and help name the form
that was typed.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.rules import shown

REFUSED, INTERRUPTED = 2, 130
LONGEST_LINE = 2000
# The word after `bench` → the module that runs it, and how it is run alone.
COMMANDS = {
    "compare": ("bench.compare", "python -m bench.compare"),
    "report": ("bench.reporting", "python -m bench.report"),
    "sync": ("bench.tracking.sync", "python -m bench.tracking.sync"),
    "ui": ("bench.tracking.ui", "python -m bench.tracking.ui"),
    "calibrate": ("bench.analysis.calibrate", "python -m bench.analysis.calibrate"),
}
MODULE_FORM = ["python", "-m", "bench"]
STARTED_AS = "BENCH_STARTED_AS"  # environment variable in which a script says under which name it was typed

_typed: list[str] = []  # how bench itself was typed; [] where that is not known
_word: list[str] = []  # the word of COMMANDS that was typed after it


class CommandError(ValueError):
    """What the user must change, in one line."""


class Parser(argparse.ArgumentParser):
    """Mistakes become one line, and `bench WORD` stands in usage and examples where that was typed."""

    def __init__(self, *, prog: str, **options: Any) -> None:
        self._module_form = prog
        super().__init__(prog=as_typed(prog), **options)

    def format_help(self) -> str:
        """The help, with the examples as they are typed."""
        return super().format_help().replace(self._module_form, self.prog)

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed. Raises CommandError."""
        raise CommandError(f"{message}; see {self.prog} --help")


def note_start(program: str, arguments: Sequence[str]) -> str | None:
    """Take note of how this process was started; return the module of the command that was typed, if one was.

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
    return COMMANDS[arguments[0]][0]


def program() -> list[str]:
    """How bench is typed here, in words."""
    return list(_typed or MODULE_FORM)


def to_type(word: str) -> list[str]:
    """How a command of COMMANDS is typed here, in words: the short form where bench has one."""
    return [*_typed, word] if _typed and _typed != MODULE_FORM else COMMANDS[word][1].split()


def as_typed(prog: str) -> str:
    """A command's name as it was typed: `bench compare` for `python -m bench.compare`."""
    return shlex.join([*program(), *_word]) if _word and COMMANDS[_word[0]][1] == prog else prog


def say(command: str, text: str) -> None:
    """One line beside the output. Names come from files: a terminal is not to obey them.

    Args:
        command: the module, as in `python -m MODULE`.
        text: what is said.
    """
    print(f"{name_of(command)}: {shown(' '.join(text.split()), LONGEST_LINE)}", file=sys.stderr)


def name_of(module: str) -> str:
    """The name that a command's messages begin with: `bench compare` where that was typed, else the module."""
    return f"bench {_word[0]}" if _word and COMMANDS[_word[0]][1] == f"python -m {module}" else module


def run(command: str, work: Callable[[], int]) -> int:
    """Do a command's work; returns the exit status: 2 for a mistake, which is said in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe that cannot write a "±" is no reason to fail
    try:
        return work()
    except CommandError as error:
        say(command, str(error))
        return REFUSED
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of Python tries once more
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
