"""Time publishing a trial: 1 + 5 + 20 calls of a real record, into SQLite and to a server over HTTP.

One real job of the tiny model is run first. Its folder is copied with other trial ids, and each copy is published as
the end of a job does it: once into a database and once to a server that runs on this machine, in turns. No call is
measured meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.results.record import Record
from overhead_bench import running
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result, interleaved

TITLE = "publishing a trial of 26 calls"
AT_MOST_S = 0.3  # SQLite
TRIALS = 12
ANSWER_S = 120.0  # to wait for the server, on a busy machine
SWEEP_ID = "overhead-publish"


def measure(options: Options) -> Result:
    """Publish a trial into each store, in turns."""
    job, _ = running.one_record(options.folder, options)
    trials = 10 if options.quick else max(TRIALS, 2 * options.repeats)
    with _server(options.folder / "server") as address:
        arms = {
            "SQLite": _publishing(job, options.folder / "sqlite", None),
            "HTTP, mlflow server on this machine": _publishing(job, options.folder / "http", address),
        }
        found = interleaved(arms, trials)
    targets = {"SQLite": AT_MOST_S}
    figures = [Figure(name=name, unit="s", values=each, at_most=targets.get(name)) for name, each in found.items()]
    return Result(figures=figures)


def _publishing(job: Path, folder: Path, address: str | None) -> Callable[[], float]:
    """Return a function that publishes the next copy of a job at each call and returns the seconds taken."""
    from bench.tracking.publisher import Publisher  # noqa: PLC0415 - imports MLflow

    folder.mkdir()
    problems: list[str] = []
    publisher = Publisher(uri=address, experiment="bench", tags={}, folder=folder, warn=problems.append)
    swept = {"warmup.iterations": ["5"]}
    parent = publisher.begin_sweep(sweep_id=SWEEP_ID, name="overhead", swept=swept, settings=["5"], baseline=None)
    pattern, done = Record.read(job), iter(range(1 << 20))

    def publish_next() -> float:
        number = next(done)
        copy = folder / f"{number:04}"
        shutil.copytree(job, copy)
        record = dataclasses.replace(pattern, trial_id=f"{number:012x}", sweep_id=SWEEP_ID, name=f"copy {number}")
        record.write(copy)
        begun_s = time.perf_counter()
        is_published = publisher.publish(record, copy, parent)
        took_s = time.perf_counter() - begun_s
        if problems or not is_published:
            raise NotMeasuredError("; ".join(problems) or "a record could not be published")
        return took_s

    return publish_next


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Run MLflow's server with a separate database; yield once it answers."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}  # else ten processes
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this project's own command
            command,
            cwd=folder,
            env=running.environment() | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(address, process)
        yield address
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _wait_for(address: str, process: subprocess.Popen[Any]) -> None:
    deadline_s = time.monotonic() + ANSWER_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"{address}/health", timeout=2),  # noqa: S310 - http
        ):
            return
        time.sleep(0.2)
    raise NotMeasuredError(f"MLflow's server does not answer at {address}")
