"""Simulate many jobs that end at the same time: each is a separate process that publishes one record and exits."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench.results.record import Record
from bench.tracking.publisher import Publisher

# From a server that has imported MLflow, so that seconds of importing do not keep the processes apart; not forked from
# the test, whose connections to a server they would share.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bench.tracking.publisher"])


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one process."""

    published: bool  # whether it was within the time that a job waits
    seconds: float  # from the common start to the end
    lines: list[str]  # messages to the user
    noise: str  # other output of libraries


@dataclass(frozen=True, kw_only=True)
class Target:
    """The tracking server to which all processes publish."""

    uri: str
    experiment: str
    parent_run_id: str | None  # of their sweep; None: each must find or create it
    variables: dict[str, str]  # of their environment: user and password


def publish_at_once(target: Target, folders: Sequence[Path]) -> list[Outcome]:
    """Publish the record of each folder with bench's own publisher, one process each, all released together.

    As on separate machines, they share no lock in a folder for temporary files.
    """
    barrier = CONTEXT.Barrier(len(folders))
    running = []
    for folder in folders:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_publish, args=(theirs, barrier, target, folder))
        process.start()
        theirs.close()
        running.append((process, ours))
    outcomes = [ours.recv() for _, ours in running]
    for process, ours in running:
        process.join(60)
        ours.close()
    return outcomes


def _publish(told: Connection, barrier: Barrier, target: Target, folder: Path) -> None:
    os.environ.update(target.variables)
    lines: list[str] = []
    noise = io.StringIO()
    record = Record.read(folder)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own,
        contextlib.redirect_stdout(noise),
        contextlib.redirect_stderr(noise),
    ):
        tempfile.tempdir = own
        barrier.wait(120)
        begun_s = time.monotonic()
        publisher = Publisher(
            uri=target.uri, experiment=target.experiment, tags={"team": "x"}, folder=folder, warn=lines.append
        )
        published = publisher.publish(record, folder, target.parent_run_id)
        seconds = time.monotonic() - begun_s
    told.send(Outcome(published=published, seconds=seconds, lines=lines, noise=noise.getvalue()))
