"""Run subcommands such as `bench compare`: parse options, report mistakes in one line, handle closed pipes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from bench.config.rules import shown
from bench.host.command_line import COMMANDS, CommandError, ExitStatus, as_typed, name_of

LONGEST_LINE = 2000


class Parser(argparse.ArgumentParser):
    """Report mistakes in one line, and show `bench WORD` in usage and examples if that was typed."""

    def __init__(self, word: str, **options: Any) -> None:
        self._module_form = f"python -m {COMMANDS[word]}"
        layout = {"formatter_class": argparse.RawDescriptionHelpFormatter}  # examples keep their lines
        super().__init__(prog=as_typed(word), **layout | options)

    def format_help(self) -> str:
        """Return the help, with the examples as they are typed."""
        return super().format_help().replace(self._module_form, self.prog)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments. Raises CommandError."""
        raise CommandError(f"{message}; see {self.prog} --help")


def say(word: str, text: str) -> None:
    """Print one line on stderr. Names come from files: escape sequences in them are not sent to the terminal.

    Args:
        word: the subcommand, a key of COMMANDS.
        text: the message.
    """
    print(f"{name_of(word)}: {shown(' '.join(text.split()), LONGEST_LINE)}", file=sys.stderr)


def run(word: str, work: Callable[[], int]) -> int:
    """Run a subcommand; return the exit status: 2 for a mistake, which is reported in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # do not fail on a stream that cannot encode "±"
    try:
        return work()
    except CommandError as error:
        say(word, str(error))
        return ExitStatus.REFUSED
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes again at exit
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
