"""Ctrl-C, SIGTERM and SIGHUP: the first ends the running job and keeps what is done, the second stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
ECHO_S = 0.1  # the same signal so soon again is the same event: some senders address the process and its group
MESSAGE = b"\nbench: interrupted; ends the running job and keeps what is done (once more: stops at once)\n"
SHOW_CURSOR = b"\x1b[?25h"

_first_s: float | None = None


def install() -> None:
    """Handle the signals; one that is ignored stays so: below nohup a sweep outlives its terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def _on_signal(*_: int | FrameType | None) -> None:
    global _first_s  # noqa: PLW0603 - a process has one set of signal handlers
    now_s = time.monotonic()
    if _first_s is None:
        _first_s = now_s
        _tell(MESSAGE)
        raise KeyboardInterrupt
    if now_s > _first_s + ECHO_S:
        _stop_at_once()


def _stop_at_once() -> NoReturn:
    with contextlib.suppress(ImportError):  # stopped while it is imported: there is nothing to kill
        from bench.sweep.process import kill_all  # noqa: PLC0415

        kill_all()
    if sys.stdout.isatty():
        _tell(SHOW_CURSOR)  # the live line had hidden it
    _tell(b"bench: stopped at once\n")
    os._exit(INTERRUPTED)


def _tell(text: bytes) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what is gone
        os.write(2, text)
