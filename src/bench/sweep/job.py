"""One job in one process: start it, watch it, and turn whatever is left of it into a record.

The parent knows the child by name only and never imports torch. It waits on the child's pipe and sentinel and sleeps
in between: a parent that polls takes a core from the measurement. What is not covered here: a parent that dies (its
child ends itself) and a record that cannot be published (it stays on disk).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.config import BenchmarkConfig
from bench.record import FILE_NAME, Record, RecordError

WORKER = "bench.trial.worker"
LOG_NAME = "worker.log"
LONGEST_WAIT_S = 3600.0  # poll counts milliseconds in 32 bits
INTERRUPT_GRACE_S = 3.0  # for an interrupted child to write its record
EXIT_GRACE_S = 10.0  # for a child to end once its record is written; then it is killed, and the record stands
# (phase, iterations done, iterations in all (0: not known before), E2E of the last one in seconds)
OnEvent = Callable[[str, int, int, float | None], None]


def start_fork_server() -> None:
    """Start the process that imports torch and transformers once for all jobs. It gets ready in the background."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["bench.trial.preload"])
    multiprocessing.forkserver.ensure_running()


def new_record(config: BenchmarkConfig, **fields: Any) -> Record:
    """A record that says what is asked for and nothing yet of what came of it."""
    return Record(trial_id=config.trial_id(), started_at_s=time.time(), requested=config.to_dict(), **fields)


def run_job(
    config: BenchmarkConfig, record: Record, folder: Path, on_event: OnEvent, reference: Path | None = None
) -> Record:
    """Run one job as `isolation.mode` says; the record comes back filled and lies in `folder`.

    Args:
        config: the setting.
        record: to be filled; its `kind` says which job it is.
        folder: the job's own.
        on_event: takes the progress.
        reference: the file of the reference run to compare with.

    Raises:
        KeyboardInterrupt: the user's; the job is ended and its record written first.
    """
    (folder / FILE_NAME).unlink(missing_ok=True)  # of an earlier run in this folder: it must not pass for this one's
    cache = Path(tempfile.mkdtemp(prefix="bench-compile-"))
    try:
        if config.isolation.mode == "none":
            worker = importlib.import_module(WORKER)
            done: Record = worker.measure(record, folder, cache, reference, on_event)
            return done
        return _run_in_child(config, record, (folder, cache, reference), on_event)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _run_in_child(
    config: BenchmarkConfig, record: Record, paths: tuple[Path, Path, Path | None], on_event: OnEvent
) -> Record:
    folder = paths[0]
    context = multiprocessing.get_context(config.isolation.mode)
    if config.isolation.mode == "forkserver":
        start_fork_server()
    receiver, sender = context.Pipe(duplex=False)
    arguments = (record, *paths, sender)
    process = context.Process(target=_enter, args=arguments, name=f"bench {record.name}")  # type: ignore[attr-defined]
    watch = _Watch(on_event)
    start = time.monotonic()
    try:
        _start(process)
        sender.close()
        on_time = watch.until_end(receiver, process, start + config.isolation.timeout_s)
    except KeyboardInterrupt:
        _end_early(process, record, folder)
        record.fail("interrupted", "KeyboardInterrupt", "by the user")
        _finish(record, folder, watch.phase)
        raise
    except BaseException:
        _kill(process)
        raise
    finally:
        receiver.close()
    if not on_time:
        _end_early(process, record, folder)
        limit = config.isolation.timeout_s
        record.fail(
            "timeout",
            "Timeout",
            f"isolation.timeout_s={limit:g}: not finished in {watch.phase}; raise it or ask for less",
            _last_lines(folder / LOG_NAME),
        )
        return _finish(record, folder, watch.phase)
    _kill(process)  # what the job started and left behind
    return _read_back(record, folder, process.exitcode, watch.phase)


@dataclasses.dataclass
class _Watch:
    """Passes the child's progress on, and remembers how far it came."""

    on_event: OnEvent
    phase: str = "start"

    def until_end(self, pipe: multiprocessing.connection.Connection, process: Any, deadline: float) -> bool:
        """Wait for the child's end; False when the deadline came first."""
        waiting: list[Any] = [pipe, process.sentinel]
        while True:
            ready = multiprocessing.connection.wait(waiting, min(max(0.0, deadline - time.monotonic()), LONGEST_WAIT_S))
            if not ready and time.monotonic() < deadline:
                continue
            if not ready:
                return pipe not in waiting
            if pipe in ready:
                try:
                    event = pipe.recv()
                except (EOFError, OSError):  # closed: the record is written, or the child is dead
                    waiting = [process.sentinel]
                    deadline = time.monotonic() + EXIT_GRACE_S
                    continue
                self.phase = event[0]
                self.on_event(*event)
            elif process.sentinel in ready:
                process.join()
                return True


def _enter(*arguments: Any) -> None:
    """The child's first step. Named here so that the parent need not import the room that imports torch."""
    importlib.import_module(WORKER).main(*arguments)


def _start(process: Any) -> None:
    """Start the child; a signal that comes meanwhile waits until there is a child that it can be passed on to."""
    held = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        try:
            process.start()
        except (EOFError, OSError):
            process.start()  # the fork server had died: the first attempt notices, the second starts another
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


def _end_early(process: Any, record: Record, folder: Path) -> None:
    """End a job before its time, and take over into `record` the calls that it has made."""
    try:
        if process.pid is not None:
            # It writes its record and ends; in native code it does not hear.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                process.join(INTERRUPT_GRACE_S)
    finally:
        _kill(process)
    with contextlib.suppress(RecordError):
        vars(record).update(vars(Record.read(folder)))


def _kill(process: Any) -> None:
    """End the job's whole process group; a group that is gone is fine."""
    if process.pid is None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        if process.is_alive():  # not yet the leader of a group of its own
            process.kill()
    process.join(10)


def _read_back(record: Record, folder: Path, exit_code: int | None, phase: str) -> Record:
    """The record that the child wrote, or one that says how it died and keeps what was measured before."""
    with contextlib.suppress(RecordError):
        found = Record.read(folder)
        if found.status != "interrupted" or found.error is not None:
            return found
        record = found  # written when the last measured call had ended, and never again
    name = signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit status {exit_code}"
    left = "; its measured calls are kept" if record.iterations else " and left no record"
    message = f"the process ended with {name} in {phase}{left}; see {LOG_NAME}"
    record.fail("crashed", "Signal" if "SIG" in name else "Exit", message, _last_lines(folder / LOG_NAME))
    return _finish(record, folder, phase)


def _finish(record: Record, folder: Path, phase: str) -> Record:
    record.stage = phase
    record.ended_at_s = time.time()
    record.write(folder)
    return record


def _last_lines(log: Path, limit: int = 4000) -> str | None:
    """The end of the job's log, as evidence."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode("utf-8", "replace") or None
    except OSError:
        return None
