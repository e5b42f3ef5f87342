"""The supervisor: a process between parent and worker that ends the worker, and every process that the worker started.

    parent ─ fork server ─ supervisor ─ worker ─ processes that the worker starts

While the worker runs the supervisor only sleeps in the kernel. It does not measure, so a hang of the worker (in native
code, with signals blocked, holding Python's lock) cannot affect it. It is a subreaper: a process that the worker starts
and leaves, in a process group or session of its own, becomes a child of the supervisor and is killed with the job.

    the worker ends       processes that it left are killed; the supervisor ends with the worker's status
    the parent is gone    the worker and all processes below it are killed: nobody would read its record
    SIGTERM               the same; the parent sends it at the deadline
    the fork server ends  nothing changes: the worker continues, and the parent watches the supervisor by its pid

Not covered: if the supervisor itself is killed, the worker is killed with it, but processes in other process groups are
not; and where /proc hides the processes of other users (hidepid), those are not found.
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
GRACE_S = 0.3  # for processes that end by themselves once their parent is gone
KILL_S = 5.0  # how long to go on killing processes that keep starting others
SIGNALS = {signal.SIGINT, signal.SIGTERM}  # that the parent sends
OOM_SCORE = "500"  # of 1000: short of memory, the kernel ends the job rather than its supervisor


class Closable(Protocol):
    """An end of a pipe."""

    def close(self) -> None:
        """Close it."""


def run_supervised(work: Callable[[], None], folder: Path, to_close: Iterable[Closable] = ()) -> None:
    """Fork; the child calls `work` and returns, the supervisor waits for its end and never returns.

    Args:
        work: the job.
        folder: the job's own, for the list of processes that it left.
        to_close: ends of pipes that only the worker may hold open, so that a reader notices when the worker is gone.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until each side has set its handlers
    os.setsid()  # a group of its own, which the parent can kill whole, and which no Ctrl-C of the terminal reaches
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        _become_worker(supervisor)
        work()
        return
    status, has_parent = 1, True
    try:
        for each in to_close:
            each.close()
        status, has_parent = _wait_for_end(worker, folder)
    finally:
        leftovers = _kill_descendants(GRACE_S if has_parent else 0.0)
        _exit_as(status, leftovers if has_parent else [], folder)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _become_worker(supervisor: int) -> None:
    _prctl(PR_SET_CHILD_SUBREAPER, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # when the supervisor is killed
    if os.getppid() != supervisor:  # it was killed before the line above
        os.kill(os.getpid(), signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    # Inherited as ignored, or blocked; the parent uses it to end a job early.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _wait_for_end(worker: int, folder: Path) -> tuple[int, bool]:
    """Sleep until the worker or the parent has ended or SIGTERM arrives; then make sure that the worker has ended.

    Returns:
        The worker's wait status, and whether there still is a parent.
    """
    sigterm, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    # SIGTERM makes the pipe readable and raises nothing: an exception might separate a wait from its result.
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sends it to the group, and means the worker
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = multiprocessing.parent_process()
    watched = [sigterm] if parent is None else [sigterm, parent.sentinel]
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
        if sigterm in ready or not has_parent:
            os.kill(worker, signal.SIGKILL)
            status = os.waitpid(worker, 0)[1]
            if has_parent:
                with contextlib.suppress(OSError):
                    (folder / SIGTERM_NAME).touch()
            return status, has_parent


def _kill_descendants(grace_s: float) -> list[str]:
    """Kill all processes below this one, in whatever group or session; returns their names.

    Args:
        grace_s: how long to wait for helpers that end with their job; these are not named.
    """
    killed: dict[int, str] = {}
    start = time.monotonic()
    while _has_children() and time.monotonic() < start + KILL_S:
        for pid, name in _descendants().items() if time.monotonic() >= start + grace_s else ():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                killed[pid] = name
        time.sleep(0.01)
    return [f"{name} ({pid})" for pid, name in killed.items()]


def _has_children() -> bool:
    """Reap zombies; return whether children are left.

    A subreaper without children has no descendants at all. A scan of /proc could miss one that is forking.
    """
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _descendants() -> dict[int, str]:
    """Return pid → name of the processes below this one."""
    names: dict[int, str] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        # The process has ended, or is another user's where /proc shows only their names.
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


def _exit_as(status: int, leftovers: list[str], folder: Path) -> None:
    """End with the worker's exit status or signal, for the parent that waits for this process."""
    if leftovers:
        with contextlib.suppress(OSError):
            (folder / LEFTOVERS_NAME).write_text("\n".join(leftovers), encoding="utf-8")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF if os.WIFEXITED(status) else 1)
