"""Provide the console of a run: a failed write loses output, but never stops the measurement.

After a closed pipe (`bench -m … | head`), a terminal closed under nohup, or a full disk, the jobs continue, and their
records, including the table's figures, are on disk.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, Any, cast

from rich.console import Console

from bench.report.terminal import startup_line


class _Unfailing:
    """Wrap a stream so that writes raise no OSError; after the first failure, output is discarded."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or discard it."""
        startup_line.erase()
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush the stream, or discard its buffer."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Redirect the stream's descriptor to the null device: otherwise its buffer would fail again at exit."""
        with contextlib.suppress(OSError, ValueError):  # a stream without descriptor, or a closed one
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Terminal(Console):
    """Provide a console that works on after its output fails."""

    @property
    def file(self) -> IO[str]:
        """Return the output stream."""
        return cast("IO[str]", _Unfailing(super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file
