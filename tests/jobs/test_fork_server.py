"""Test the fork server: when it is started in advance, and that it ends with the command."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from bench.jobs.process.fork_server import COMPILER, start_ahead

pytestmark = pytest.mark.as_user


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--cfg", "job"],
        ["-m", "sweep.dry_run=true"],
        ["isolation.mode=spawn"],
        ["-m", "hydra/launcher=submitit_slurm"],
        ["-m", "+hydra/launcher=ray"],
        ["--keys"],
        ["-sc", "query=bash"],
    ],
)
def test_no_fork_server_is_started_for_a_command_without_jobs(arguments, monkeypatch) -> None:
    monkeypatch.setattr("bench.jobs.process.fork_server.start_fork_server", lambda: pytest.fail("started"))
    assert not start_ahead(arguments)


@pytest.mark.parametrize("arguments", [[], ["-m", "compile.mode=default"], ["--multirun"], ["attention=eager"]])
def test_the_fork_server_is_started_in_advance_for_a_run_and_a_sweep(arguments, monkeypatch) -> None:
    started = []
    monkeypatch.setattr("bench.jobs.process.fork_server.start_fork_server", lambda: started.append(True))
    assert start_ahead(arguments)
    assert started == [True]


@pytest.mark.parametrize(
    ("override", "is_imported"),
    [("compile.mode=default", True), ("attention=eager,flex", True), ("attention=eager,sdpa", False)],
)
def test_the_compiler_is_imported_in_advance_if_a_job_may_compile(override, is_imported, monkeypatch) -> None:
    preload: list[str] = []
    monkeypatch.setattr("bench.jobs.process.fork_server._preload", preload)
    monkeypatch.setattr("bench.jobs.process.fork_server.start_fork_server", lambda: None)
    start_ahead(["-m", override])
    assert (COMPILER in preload) == is_imported


def test_a_fork_server_that_cannot_start_raises_no_error_in_advance(monkeypatch) -> None:
    def fail() -> None:
        raise OSError("no processes left")

    monkeypatch.setattr("bench.jobs.process.fork_server.start_fork_server", fail)
    assert start_ahead([])


STARTER = """
import multiprocessing.forkserver as standard
from bench.jobs.process.fork_server import end_fork_server, start_fork_server
start_fork_server()
print(standard._forkserver._forkserver_pid, flush=True)
"""


def pids_of(code: str) -> list[int]:
    """Run a separate process and return the pids that it prints, one per line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return [int(line) for line in done.stdout.split()]


def wait_until_gone(pid: int) -> bool:
    """Return whether all these processes end within a few seconds."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def test_the_fork_server_ends_with_the_command_even_while_importing() -> None:
    [pid] = pids_of(STARTER)
    assert wait_until_gone(pid)


def test_a_restarted_fork_server_is_a_new_process() -> None:
    first, second = pids_of(STARTER + "end_fork_server(); import time; time.sleep(0.5)\n" + STARTER)
    assert first != second
    assert wait_until_gone(first)
    assert wait_until_gone(second)


def test_a_forked_child_does_not_end_its_parents_fork_server(monkeypatch) -> None:
    killed = []
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    monkeypatch.setattr("bench.jobs.process.fork_server._owner", [1])  # another process
    from bench.jobs.process.fork_server import end_fork_server

    end_fork_server()
    assert killed == []
