"""The fork server: a process that imports torch and transformers once, and from which each job is forked.

The imports take seconds, longer than everything else before the first job, so the command starts the server first if
its arguments look like a run. A wrong guess only costs those seconds on another core: the server ends with the command.

This module is imported before anything else of bench: it must import nothing heavy.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PRELOAD = "bench.trial.preload"
COMPILER = "bench.trial.preload_compiler"  # a second more, for jobs that compile
COMPILING = ("compile", "experiment=", "hydra.sweeper.")
# Beginnings of overrides with which no job is forked here.
ELSEWHERE = ("sweep.dry_run=", "isolation.mode=", "hydra/launcher=", "hydra.launcher=", "query=")
RUN_FLAGS = ("-m", "--multirun")
LONGEST_SOCKET_BYTES = 107  # of a path: sun_path of Linux (unix(7)), less the zero at its end
SOCKET_BYTES = len("/pymp-12345678/listener-12345678")  # that multiprocessing adds to the temporary folder
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - multiprocessing makes a folder of its own there

_owner: list[int] = []  # the process that has started it; [] before
_preload = [PRELOAD]


def start_fork_server() -> None:
    """Start the server, unless it runs. It imports in the background; a job that needs it earlier waits."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_preload)
    with _short_temporary_folder():
        multiprocessing.forkserver.ensure_running()
    if os.getpid() not in _owner:
        _owner.append(os.getpid())
        atexit.register(_end, os.getpid())


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Keep the server's socket out of a temporary folder whose path is too long for one.

    Only the socket: all else that is temporary stays where TMPDIR says. Raises ConfigError where there is no other
    folder.
    """
    before = tempfile.tempdir
    named = tempfile.gettempdir()
    tempfile.tempdir = _folder_for_sockets(named)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _folder_for_sockets(named: str) -> str:
    """Return the temporary folder that is named, or a usual one where a socket's path in it would be too long."""
    if _fits_socket(named):
        return named
    for folder in SHORT_FOLDERS:
        if Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    from bench.config.rules import ConfigError  # noqa: PLC0415 - only on this path

    remedy = f"needs a socket in the temporary folder, and {named} is too long a path for one; set TMPDIR to a folder "
    raise ConfigError("isolation.mode", "forkserver", f"{remedy}with a shorter path, or use isolation.mode=spawn")


def _fits_socket(folder: str) -> bool:
    return len(os.fsencode(folder)) + SOCKET_BYTES <= LONGEST_SOCKET_BYTES


def start_ahead(arguments: Sequence[str]) -> bool:
    """Start the server if a command with these arguments seems to need it; return whether it does."""
    overrides = [each.lstrip("+") for each in arguments if each not in RUN_FLAGS]
    if any(each.startswith(("-", *ELSEWHERE)) for each in overrides):
        return False
    if COMPILER not in _preload and any(_may_compile(each) for each in overrides):
        _preload.append(COMPILER)
    with contextlib.suppress(OSError, ValueError):  # the job that needs it reports why it cannot be started
        start_fork_server()
    return True


def _may_compile(override: str) -> bool:
    """Whether a setting with this override may compile. A wrong guess only costs its jobs the import."""
    return override.startswith(COMPILING) or (override.startswith("attention") and "flex" in override)


def end_fork_server() -> None:
    """End the server if no job will be forked from it. It can be started again."""
    _end(os.getpid())


def _end(owner: int) -> None:
    """Kill the server: by itself it would first finish its imports, then tear them down, for a second each."""
    pid = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001
    if pid is not None and owner == os.getpid() and owner in _owner:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
