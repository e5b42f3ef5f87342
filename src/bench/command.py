"""What the small commands share, `bench.compare` and `bench.report`: one line for a mistake, and quiet pipes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from bench.rules import shown

REFUSED, INTERRUPTED = 2, 130
LONGEST_LINE = 2000


class CommandError(ValueError):
    """What the user must change, in one line."""


class Parser(argparse.ArgumentParser):
    """Mistakes become one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed. Raises CommandError."""
        raise CommandError(f"{message}; see {self.prog} --help")


def say(command: str, text: str) -> None:
    """One line beside the output. Names come from files: a terminal is not to obey them."""
    print(f"{command}: {shown(' '.join(text.split()), LONGEST_LINE)}", file=sys.stderr)


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
