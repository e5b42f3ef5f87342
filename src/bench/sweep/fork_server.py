"""The process that imports torch and transformers once, and from which each job is forked.

Its imports take seconds, more than all else that precedes the first job, so the command starts it first of all, where
its arguments look like a run. A wrong guess costs those seconds on another core, and no more: the process is ended with
the command.

Imported before anything else of bench: nothing heavy may be imported here.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
from collections.abc import Sequence

PRELOAD = "bench.trial.preload"
COMPILER = "bench.trial.preload_compiler"  # a second more, for jobs that compile
COMPILING = ("compile", "experiment=", "hydra.sweeper.")
# Overrides after which nothing is forked here, as they begin.
ELSEWHERE = ("sweep.dry_run=", "isolation.mode=", "hydra/launcher=", "hydra.launcher=", "query=")
RUN_FLAGS = ("-m", "--multirun")

_owner: list[int] = []  # the process that starts it, once it has
_preload = [PRELOAD]


def start_fork_server() -> None:
    """Start it, unless it runs. It gets ready in the background; who forks from it before waits."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_preload)
    multiprocessing.forkserver.ensure_running()
    if os.getpid() not in _owner:
        _owner.append(os.getpid())
        atexit.register(_end, os.getpid())


def start_ahead(arguments: Sequence[str]) -> bool:
    """Start it where a command with these arguments will fork jobs from it, as far as that is told by a look."""
    overrides = [each.lstrip("+") for each in arguments if each not in RUN_FLAGS]
    if any(each.startswith(("-", *ELSEWHERE)) for each in overrides):
        return False
    if COMPILER not in _preload and any(_may_compile(each) for each in overrides):
        _preload.append(COMPILER)
    with contextlib.suppress(OSError):  # no process can be started: whoever needs it will say so
        start_fork_server()
    return True


def _may_compile(override: str) -> bool:
    """Whether a setting that it leads to may compile. A wrong guess costs its jobs the import."""
    return override.startswith(COMPILING) or (override.startswith("attention") and "flex" in override)


def end_fork_server() -> None:
    """End it where it turns out that nothing will be forked from it. Started again, it is another process."""
    _end(os.getpid())


def _end(owner: int) -> None:
    """End it with the command: by itself it would first finish its imports, and then undo them, for a second each."""
    pid = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001
    if pid is not None and owner == os.getpid() and owner in _owner:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
