"""Quick test that the supervisor ends processes that a job leaves in a separate session.

The tests with real jobs and all kinds of failures are in test_supervisor.py.
"""

from __future__ import annotations

import subprocess
import sys

import psutil

from bench.results.file_names import LEFTOVERS_NAME
from started import alive_after

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from bench.jobs.process.supervisor import run_supervised

def work():
    reads, writes = os.pipe()
    if os.fork() == 0:  # nobody's child, in a session of its own: a daemon
        os.setsid()
        if os.fork() == 0:
            os.write(writes, str(os.getpid()).encode())
            os.close(1)
            time.sleep(300)
        os._exit(0)
    os.wait()
    print(os.read(reads, 20).decode(), flush=True)

run_supervised(work, Path(sys.argv[1]))
os._exit(0)
"""


def test_a_daemon_that_a_job_leaves_ends_with_the_job(tmp_path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    daemon = int(run.stdout)
    left = [psutil.Process(daemon)] if psutil.pid_exists(daemon) else []
    try:
        assert alive_after(left, 1) == []
    finally:
        for each in left:
            if each.is_running():
                each.kill()
    (name,) = (tmp_path / LEFTOVERS_NAME).read_text(encoding="utf-8").splitlines()
    assert name.endswith(f"({daemon})")
