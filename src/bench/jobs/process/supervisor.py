"""The process between the parent and a job: it ends the job when the parent is gone, and all that the job left behind.

    parent ─ fork server ─ guardian ─ worker ─ whatever the worker starts

The guardian does nothing while the worker runs but sleep in the kernel. It does not measure, so no hang of the worker
(in native code, with signals blocked, with Python's lock held) can reach it. It is a subreaper: what the worker starts
and leaves, in a process group or session of its own, becomes the guardian's child and dies with the job.

    the worker ends      what it left is killed, its own end is passed on
    the parent is gone   the worker and all below it are killed: nobody would read its record
    SIGTERM              the same; the parent sends it at the deadline
    the fork server dies nothing: the worker goes on, and the parent watches the guardian by its pid

Not covered: a guardian that is killed itself takes the worker with it, but not what the worker had put into another
process group; and where /proc hides other users' processes (hidepid), what the worker left of theirs.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from bench.results.file_names import LEFTOVERS_NAME, SIGTERM_NAME

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
POLL_S = 0.2  # where the kernel has no pidfd_open (before Linux 5.3)
GRACE_S = 0.3  # for what ends by itself once its parent is gone
STRAYS_S = 5.0  # how long to go on killing what keeps starting others
SIGNALS = {signal.SIGINT, signal.SIGTERM}  # that the parent sends
OOM_SCORE = "500"  # of 1000: short of memory, the kernel shall end the job and not who watches it


class Closable(Protocol):
    """An end of a pipe."""

    def close(self) -> None:
        """Close it."""


def guard(work: Callable[[], None], folder: Path, not_mine: Iterable[Closable] = ()) -> None:
    """Fork; in the child do `work` and return, in the guardian wait for its end and never return.

    Args:
        work: the job.
        folder: the job's own, for the list of strays.
        not_mine: ends of pipes that only the worker may hold, so that their other ends see when it is gone.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until each side knows what to do with them
    os.setsid()  # a group of its own, which the parent can kill whole, and which no Ctrl-C of the terminal reaches
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    guardian = os.getpid()
    worker = os.fork()
    if worker == 0:
        _become_worker(guardian)
        work()
        return
    status, is_watched = 1, True
    try:
        for each in not_mine:
            each.close()
        status, is_watched = _until_end(worker, folder)
    finally:
        strays = _end_descendants(GRACE_S if is_watched else 0.0)
        _leave(status, strays if is_watched else [], folder)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _become_worker(guardian: int) -> None:
    _prctl(PR_SET_CHILD_SUBREAPER, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should the guardian be killed
    if os.getppid() != guardian:  # it was, before the line above
        os.kill(os.getpid(), signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    # Inherited as ignored, or blocked; the parent uses it to end a job early.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _until_end(worker: int, folder: Path) -> tuple[int, bool]:
    """Sleep until the worker has ended, or the parent, or SIGTERM comes; in the end the worker has ended.

    Returns:
        The worker's wait status, and whether there still is a parent.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    # SIGTERM makes the pipe readable and raises nothing: an exception might come between a wait and its result.
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sends it to the group, and means the worker
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = multiprocessing.parent_process()
    watched = [told] if parent is None else [told, parent.sentinel]
    timeout_s: float | None = POLL_S
    with contextlib.suppress(OSError):
        watched.append(os.pidfd_open(worker))
        timeout_s = None
    while True:
        ready = multiprocessing.connection.wait(watched, timeout_s)
        ended, status = os.waitpid(worker, os.WNOHANG)
        has_parent = parent is None or parent.sentinel not in ready
        if ended:
            return status, has_parent
        if told in ready or not has_parent:
            os.kill(worker, signal.SIGKILL)
            status = os.waitpid(worker, 0)[1]
            if has_parent:
                with contextlib.suppress(OSError):
                    (folder / SIGTERM_NAME).touch()
            return status, has_parent


def _end_descendants(grace_s: float) -> list[str]:
    """Kill all that is left below this process, whatever groups and sessions it made; returns the names.

    Args:
        grace_s: for helpers that end with their job; they are no strays.
    """
    killed: dict[int, str] = {}
    start = time.monotonic()
    while _has_children() and time.monotonic() < start + STRAYS_S:
        for pid, name in _descendants().items() if time.monotonic() >= start + grace_s else ():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                killed[pid] = name
        time.sleep(0.01)
    return [f"{name} ({pid})" for pid, name in killed.items()]


def _has_children() -> bool:
    """Bury the dead. Of a subreaper without children no descendant lives; a look at /proc may miss one that forks."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _descendants() -> dict[int, str]:
    """Pid → name of what lives below this process."""
    names: dict[int, str] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        # Gone meanwhile, or another user's where /proc shows their names only.
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            name, _, rest = text.rpartition(") ")
            state, parent = rest.split()[:2]
            if state not in ("Z", "X"):
                names[pid] = name.partition(" (")[2]
                children.setdefault(int(parent), []).append(pid)
    found, unseen = {}, [os.getpid()]
    while unseen:
        below = children.get(unseen.pop(), [])
        found.update({pid: names[pid] for pid in below})
        unseen += below
    return found


def _leave(status: int, strays: list[str], folder: Path) -> None:
    """End as the worker did, so that whoever waits for this process learns of it."""
    if strays:
        with contextlib.suppress(OSError):
            (folder / LEFTOVERS_NAME).write_text("\n".join(strays), encoding="utf-8")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF if os.WIFEXITED(status) else 1)
