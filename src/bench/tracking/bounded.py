"""Calls that nobody waits for longer than agreed: they run in a thread of their own, one at a time.

A call that takes too long is not stopped, for nothing can stop a thread: it goes on, and while it does, further calls
are refused at once, so that nothing piles up behind it. The end of the program does not wait for the thread.

Not covered: several threads that call at once, and threads that a library starts by itself and waits for at the end.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

LOOK_S = 0.2  # how late a signal may be noticed
_Result = TypeVar("_Result")


class NotInTimeError(Exception):
    """A call is still running; or, with `is_busy`, was not begun because an earlier one is."""

    def __init__(self, *, waited_s: float, is_busy: bool) -> None:
        self.is_busy = is_busy
        super().__init__("still busy with an earlier request" if is_busy else f"no answer within {waited_s:.3g} s")


class _Done:
    """Said once, and waited for any number of times, by one thread, whose waiting Ctrl-C ends.

    No threading.Event: Ctrl-C in the midst of its wait may leave its lock taken, and the other thread would then wait
    for ever as it says that it is done. Here the lock may be taken, for the flag was set before it was free.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        self._is_set = True
        self._lock.release()

    def wait(self, within_s: float) -> bool:
        """Whether it has been said, after so many seconds at most."""
        deadline_s = time.monotonic() + within_s
        while not self._is_set and (left_s := deadline_s - time.monotonic()) > 0:
            # Python sees a signal that came just before it began to wait only when that wait is over.
            self._lock.acquire(timeout=min(left_s, LOOK_S))
        return self._is_set


@dataclass(kw_only=True)
class _Call:
    work: Callable[[], Any]
    deadline_s: float  # on the monotonic clock
    result: Any = None
    error: BaseException | None = None
    done: _Done = field(default_factory=_Done)


class BoundedThread:
    """One thread and what it is doing. It starts with the first call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._last: _Call | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], _Result], *, within_s: float) -> _Result:
        """Run it in the thread and return what it returns, or raise what it raises.

        An earlier call that is within its own time, after Ctrl-C for instance, is waited for.

        Raises:
            NotInTimeError: there is no result yet; the work goes on, unless it was not begun.
        """
        call = self._begin(work, within_s)
        if not call.done.wait(call.deadline_s - time.monotonic()):
            raise NotInTimeError(waited_s=within_s, is_busy=False)
        if call.error is not None:
            raise call.error
        result: _Result = call.result
        return result

    def begin(self, work: Callable[[], object], *, within_s: float) -> None:
        """Run it in the thread and wait for nothing; what it raises is lost. The next call waits for its end.

        Raises:
            NotInTimeError: it was not begun, for an earlier call is still running.
        """
        self._begin(work, within_s)

    def _begin(self, work: Callable[[], object], within_s: float) -> _Call:
        now_s = time.monotonic()
        if self._last is not None and not self._last.done.wait(min(within_s, self._last.deadline_s - now_s)):
            raise NotInTimeError(waited_s=within_s, is_busy=True)
        call = _Call(work=work, deadline_s=now_s + within_s)
        self._start()
        self._calls.put(call)
        self._last = call  # not before: an interrupt in between would leave a call that never ends
        return call

    def wait_until_free(self, within_s: float) -> None:
        """Wait for a call that took too long, but no longer than this."""
        if self._last is not None:
            self._last.done.wait(within_s)

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="bench-tracking", daemon=True)
        # The thread gets no signal: one that the main thread holds back for a moment must not come in by this door,
        # and one that it waits for must interrupt its waiting.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call.result = call.work()
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                call.error = error
            call.done.set()
