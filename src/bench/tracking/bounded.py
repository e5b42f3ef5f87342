"""Call functions with a time limit: they run in a separate thread, one at a time.

A call that exceeds its limit continues, because a thread cannot be stopped. Until it returns, further calls are refused
at once, so that they do not queue up. The end of the program does not wait for the thread.

Not covered: several threads that call at once, and threads that a library starts itself and joins at the end.
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
    """A call is still running; with `is_busy`, it was not started because an earlier one is."""

    def __init__(self, *, waited_s: float, is_busy: bool) -> None:
        self.is_busy = is_busy
        super().__init__("still busy with an earlier request" if is_busy else f"no answer within {waited_s:.3g} s")


class _Done:
    """Signal once that a call is done; one thread may wait for it any number of times, and Ctrl-C interrupts the wait.

    Not threading.Event: Ctrl-C during its wait may leave its lock held, and the other thread would then block for ever
    in `set`. Here the lock may stay held, because the flag is set before the lock is released.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        self._is_set = True
        self._lock.release()

    def wait(self, within_s: float) -> bool:
        """Wait at most so many seconds, and return whether the call is done."""
        deadline_s = time.monotonic() + within_s
        while not self._is_set and (left_s := deadline_s - time.monotonic()) > 0:
            # Python handles a signal that arrived just before the wait only after the wait.
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
    """Run calls in one thread, which starts with the first call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._last: _Call | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], _Result], *, within_s: float) -> _Result:
        """Run a function in the thread and return its result, or raise its exception.

        Waits for an earlier call that is still within its own limit, for example after Ctrl-C.

        Raises:
            NotInTimeError: there is no result yet; the function keeps running unless it was not started.
        """
        call = self._begin(work, within_s)
        if not call.done.wait(call.deadline_s - time.monotonic()):
            raise NotInTimeError(waited_s=within_s, is_busy=False)
        if call.error is not None:
            raise call.error
        result: _Result = call.result
        return result

    def begin(self, work: Callable[[], object], *, within_s: float) -> None:
        """Start a function in the thread and return at once; its exceptions are lost. The next call waits for its end.

        Raises:
            NotInTimeError: it was not started because an earlier call is still running.
        """
        self._begin(work, within_s)

    def _begin(self, work: Callable[[], object], within_s: float) -> _Call:
        now_s = time.monotonic()
        if self._last is not None and not self._last.done.wait(min(within_s, self._last.deadline_s - now_s)):
            raise NotInTimeError(waited_s=within_s, is_busy=True)
        call = _Call(work=work, deadline_s=now_s + within_s)
        self._start()
        self._calls.put(call)
        self._last = call  # not earlier: an interrupt in between would leave a call that never ends
        return call

    def wait_until_free(self, within_s: float) -> None:
        """Wait at most so many seconds for a call that exceeded its limit."""
        if self._last is not None:
            self._last.done.wait(within_s)

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="bench-tracking", daemon=True)
        # The thread receives no signals: one that the main thread blocks must not be delivered here, and one that it
        # waits for must interrupt its wait.
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
            except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
                call.error = error
            call.done.set()
