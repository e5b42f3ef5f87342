"""The console of a run: output that cannot be written costs the output, and never the measurement.

A pipe whose reader has gone (`bench -m … | head`), a terminal that was closed below nohup, a file on a full disk: the
jobs go on, and their records, the table's figures among them, are on disk.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, Any, cast

from rich.console import Console

from bench.report.terminal import startup_line


class _Unfailing:
    """A stream whose writes raise no OSError; after the first that fails, what is written goes nowhere."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        startup_line.erase()
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop what it holds."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Lead the stream's descriptor nowhere: else what it still holds would fail once more as Python ends."""
        with contextlib.suppress(OSError, ValueError):  # a stream without descriptor, or one that is closed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Terminal(Console):
    """A console that outlives its output."""

    @property
    def file(self) -> IO[str]:
        """Return the stream that is written to."""
        return cast("IO[str]", _Unfailing(super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file
