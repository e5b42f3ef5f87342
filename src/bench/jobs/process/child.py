"""One child process: start it from the fork server or anew, watch it until its end or deadline, and leave none behind.

The parent knows the child by name only and never imports torch. It waits on the child's pipe and on its pid, and wakes
once a second to check the size of its log: a parent that polls takes a core from the measurement.

The child reports its progress as JSON: nothing that a job sends is unpickled here.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bench.jobs.folders.scratch import bound_log
from bench.jobs.process.fork_server import start_fork_server
from bench.jobs.process.supervisor import run_supervised

LOG_CHECK_S = 1.0  # between checks of the log's size
INTERRUPT_GRACE_S = 3.0  # for an interrupted child to write its record
START_S = 300.0  # for the first message: a fork server that must be started first reads gigabytes of libraries
EXIT_GRACE_S = 10.0  # for a child to end once its record is written; then it is killed, and the record stands
KILL_S = 5.0  # for the supervisors to do so when the user will not wait: they need up to 0.4 s
SUPERVISOR_GRACE_S = 8.0  # for the supervisor to end all that the job started
LONGEST_EVENT_BYTES = 16 << 20
FORK_SERVER_DIED = 255  # multiprocessing's exit code then, however the child ended
# (phase, iterations done, iterations in all (0: not known before), E2E of the last one in seconds)
OnEvent = Callable[[str, int, int, float | None], None]

_running: set[int] = set()  # supervisors, for `kill_all`


def kill_all() -> None:
    """Kill all children at once, for a user who will not wait."""
    ends: list[int] = []
    for supervisor in _running:
        with contextlib.suppress(OSError):
            os.kill(supervisor, signal.SIGTERM)  # it kills processes outside of the group, then itself
            ends.append(os.pidfd_open(supervisor))
    deadline = time.monotonic() + KILL_S
    while ends and (left_s := deadline - time.monotonic()) > 0:
        for each in multiprocessing.connection.wait(ends, left_s):
            ends.remove(each)  # type: ignore[arg-type]
    for supervisor in _running:
        with contextlib.suppress(OSError):
            os.killpg(supervisor, signal.SIGKILL)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Delay an interruption until the end of the block; the rest of a signal's handler runs at once.

    So the first signal is answered at once, and a second one, which stops the command, does not wait at all: the fork
    server may import for many seconds. A mask would not do: the kernel hands signals to any other thread then.
    """
    held: list[KeyboardInterrupt] = []

    def holding(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def hold(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except KeyboardInterrupt as interruption:
                held.append(interruption)

        return hold

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, holding(handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            raise held[0]


@dataclass(kw_only=True)
class Ended:
    """How a child ended."""

    in_time: bool = True
    exit_code: int | None = None  # negative: the signal's number; None: not known, the fork server had died
    phase: str = "start"  # the last one that it reported
    ended_here: bool = False  # by a signal that this process sent
    log_cut_bytes: int = 0


@dataclass(kw_only=True)
class Child:
    """A child process and its state. `ended` is kept up to date while it runs."""

    mode: str  # forkserver or spawn
    entry: tuple[str, str]  # module and function
    folder: Path  # its own
    log: Path
    on_event: OnEvent
    name: str = "bench"
    ended: Ended = field(default_factory=Ended)
    _process: Any = None
    _pidfd: int | None = None

    def run(self, arguments: dict[str, Any], timeout_s: float) -> Ended:
        """Start `entry` with `arguments`, and watch the process until it has ended.

        It is also given `entered_s`, `time.monotonic()` at its first step, and as `pipe` the sending end of one.

        Raises:
            KeyboardInterrupt: the user's; the child has been asked to end, and killed when it did not.
        """
        context = multiprocessing.get_context(self.mode)
        if self.mode == "forkserver":
            start_fork_server()
        receiver, sender = context.Pipe(duplex=False)
        given = (self.entry, self.folder, arguments, sender)
        self._process = context.Process(target=_enter, args=given, name=self.name)  # type: ignore[attr-defined]
        try:
            self._start()
            sender.close()
            self.ended.in_time = self._watch(receiver, timeout_s)
            if not self.ended.in_time:
                self._interrupt()
        except KeyboardInterrupt:
            self._interrupt()
            raise
        finally:
            receiver.close()
            self._end()
        return self.ended

    def _start(self) -> None:
        """Start the child; a signal that arrives meanwhile is delayed until there is a child to pass it on to."""
        with _signals_held():
            try:
                self._process.start()
            except (EOFError, OSError):
                self._process.start()  # the fork server had died: the first attempt notices, the second starts another
            _running.add(self._process.pid)
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self._process.pid)

    def _watch(self, pipe: multiprocessing.connection.Connection, timeout_s: float) -> bool:
        """Pass the child's progress on until its end; False when the deadline came first.

        The deadline counts from the child's first message.
        """
        gone = self._process.sentinel if self._pidfd is None else self._pidfd
        waiting: list[Any] = [pipe, gone]
        deadline, has_begun = time.monotonic() + max(timeout_s, START_S), False
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            ready = multiprocessing.connection.wait(waiting, min(left_s, LOG_CHECK_S))
            self.ended.log_cut_bytes += bound_log(self.log)
            if pipe in ready:
                try:
                    event = json.loads(pipe.recv_bytes(LONGEST_EVENT_BYTES))
                except (
                    EOFError,
                    OSError,
                    ValueError,
                ):  # closed, as after the record is written, or a malformed message
                    waiting, deadline = [gone], time.monotonic() + EXIT_GRACE_S
                    continue
                if not has_begun:
                    deadline, has_begun = time.monotonic() + timeout_s, True
                self.ended.phase = event[0]
                self.on_event(*event)
            elif ready:
                return True
            elif time.monotonic() >= deadline:
                return pipe not in waiting

    def _interrupt(self) -> None:
        """Ask the child to write its record and end; in native code it does not react."""
        if self._process.pid is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGINT)
            self._wait(INTERRUPT_GRACE_S)

    def _end(self) -> None:
        """Make sure that the child, its supervisor and its process group have ended."""
        pid = self._process.pid
        if pid is None:
            return
        if not self._wait(0):
            self.ended.ended_here = True
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
            self._wait(SUPERVISOR_GRACE_S)
        with contextlib.suppress(OSError):  # a group that is gone is fine
            os.killpg(pid, signal.SIGKILL)
        if self._process.is_alive():  # not yet the leader of a group of its own
            self._process.kill()
        self._process.join(SUPERVISOR_GRACE_S)
        code = self._process.exitcode
        self.ended.exit_code = None if self.mode == "forkserver" and code == FORK_SERVER_DIED else code
        _running.discard(pid)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self.ended.log_cut_bytes += bound_log(self.log)

    def _wait(self, timeout_s: float) -> bool:
        """Wait for the supervisor to end; return whether it has done so within so many seconds."""
        gone = self._process.sentinel if self._pidfd is None else self._pidfd
        return bool(multiprocessing.connection.wait([gone], timeout_s))


def _enter(entry: tuple[str, str], folder: Path, arguments: dict[str, Any], sender: Any) -> None:
    """The child's first step. The entry is a name, so that the parent need not import torch."""
    entered_s = time.monotonic()

    def work() -> None:
        gc.disable()  # imported objects stay: collecting among them again and again takes a fifth of the imports' time
        module = importlib.import_module(entry[0])
        gc.freeze()
        gc.enable()
        getattr(module, entry[1])(**arguments, entered_s=entered_s, pipe=sender)

    run_supervised(work, folder, [sender])
