"""Handle Ctrl-C, SIGTERM and SIGHUP: the first ends the running job and keeps the results, the second stops at once.

In a job started by an engine, the engine sends them: it cancels or preempts the job, or the time limit is near.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from bench.host.command_line import ExitStatus
from bench.jobs.process.fork_server import end_fork_server
from bench.jobs.process.stop_reason import SignalStop

ECHO_S = 0.1  # a repeated signal within this time is the same event: some senders signal the process and its group
MESSAGE = b"\nbench: interrupted; ends the running job and keeps what is done (once more: stops at once)\n"
SHOW_CURSOR = b"\x1b[?25h"

_first_s: float | None = None


def install() -> None:
    """Install the handlers. An ignored signal stays ignored: with nohup a sweep outlives its terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


@contextlib.contextmanager
def stopped_by_engine(engine: str) -> Iterator[None]:
    """Raise EngineStop in the block at the engine's first signal; ignore later ones until the record is written.

    submitit asks Slurm to send SIGUSR2 before the time limit, unless SUBMITIT_PREEMPT_SIGNAL names another signal.
    """
    from bench.jobs.engine import EngineStop  # noqa: PLC0415

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    limit = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", signal.SIGUSR2)
    stops = {
        signal.SIGTERM: ("interrupted", f"{engine} ended the job (SIGTERM): cancelled or preempted"),
        signal.SIGINT: ("interrupted", f"{engine} ended the job (SIGINT): cancelled"),
        limit: ("timeout", f"{engine}'s time limit was near: ask for more time, or for less"),
    }
    is_stopping = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            raise EngineStop(*stops[signal.Signals(number)])

    before = {number: signal.signal(number, stop) for number in stops}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def from_now_at_once() -> None:
    """Let the next signal stop the process at once: its work is done, and nothing is left to save."""
    global _first_s  # noqa: PLW0603 - a process has one set of signal handlers
    _first_s = -math.inf


def _on_signal(number: int, _: FrameType | None) -> None:
    global _first_s  # noqa: PLW0603 - as above
    now_s = time.monotonic()
    if _first_s is None:
        _first_s = now_s
        _print(MESSAGE)
        raise KeyboardInterrupt if number == signal.SIGINT else SignalStop(signal.Signals(number).name)
    if now_s > _first_s + ECHO_S:
        _stop_at_once()


def _stop_at_once() -> NoReturn:
    with contextlib.suppress(ImportError):  # stopped during its import: there is nothing to kill
        from bench.jobs.process.child import kill_all  # noqa: PLC0415

        kill_all()
    end_fork_server()  # it may still be importing; a child that it is starting ends without its parent
    if sys.stdout.isatty():
        _print(SHOW_CURSOR)  # the progress line hides the cursor
    _print(b"bench: stopped at once\n")
    os._exit(ExitStatus.INTERRUPTED)


def _print(text: bytes) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        os.write(2, text)
