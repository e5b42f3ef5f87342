"""The child's side of a job: measure one setting and write its record.

`measure` reads as the journey goes; `main` is what a process of its own needs around it: a group of its own, its log
file, and an end when its parent is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.config import BenchmarkConfig
from bench.record import REFERENCE_NAME, Record
from bench.rules import ConfigError
from bench.trial.environment import describe_environment
from bench.trial.model import resolve_device
from bench.trial.runner import BenchmarkRunner
from bench.trial.support import NotHonouredError, is_out_of_memory, one_line

# (phase, iterations done, iterations in all (0: not known before), E2E of the last one in seconds)
Emit = Callable[[str, int, int, float | None], None]

PHASES = {"Warmup": "warmup", "Benchmarking": "measurement"}


def measure(record: Record, folder: Path, compile_cache: Path, reference: Path | None, emit: Emit) -> Record:
    """Run the job that `record` requests, fill the record and write it into `folder`, whatever happens."""
    config = BenchmarkConfig.from_dict(record.requested)

    def progress(name: str, total: int | None) -> Iterator[int]:
        for index in itertools.count() if total is None else range(total):
            emit(PHASES[name], index, total or 0, record.iterations[-1].e2e_s)
            yield index

    def enter(stage: str) -> None:
        if stage == "evidence":  # what comes now may need memory that is not there, and the measurement is done
            record.write(folder)
        emit(stage, 0, 1, None)

    start = time.perf_counter()
    runner = BenchmarkRunner(
        logging.getLogger("bench"),
        progress=progress,
        enter=enter,
        folder=folder,
        record=record,
        compile_cache=compile_cache,
        reference=reference,
    )
    try:
        record.environment = describe_environment(str(resolve_device(config.device)))
        runner.setup_benchmark(config.model.id, config)
        if record.kind == "reference":
            runner.write_reference(config, folder / REFERENCE_NAME)
        else:
            runner.run_benchmark(config, config.profile.num_tokens)
    except Exception as error:  # noqa: BLE001 - failure is data
        _record_failure(record, error)
    except KeyboardInterrupt:
        record.fail("interrupted", "KeyboardInterrupt", "by the user")
        raise
    finally:
        runner.close()
        record.ended_at_s = time.time()
        record.phases_s["total"] = time.perf_counter() - start
        record.write(folder)
    return record


def _record_failure(record: Record, error: Exception) -> None:
    detail = "".join(traceback.format_exception(error))
    traceback.print_exc()
    message = str(error) if isinstance(error, ConfigError | NotHonouredError) else one_line(error)
    record.fail("oom" if is_out_of_memory(error) else "failed", type(error).__name__, message, detail)


def main(
    record: Record,
    folder: Path,
    compile_cache: Path,
    reference: Path | None,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """The entry of a child process: fill and write the record, tell the parent of the progress."""
    os.setsid()  # a group of its own, which the parent can kill whole, and which no Ctrl-C of the terminal reaches
    # Inherited as ignored or blocked; the parent uses it to end a job early.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _log_to(folder / "worker.log")
    _end_with_parent()

    def emit(phase: str, done: int, total: int, e2e_s: float | None) -> None:
        with contextlib.suppress(OSError):  # a parent that no longer listens is the business of _end_with_parent
            pipe.send((phase, done, total, e2e_s))

    measure(record, folder, compile_cache, reference, emit)
    pipe.close()  # says that the record is on disk; the parent waits only a little for what the libraries still do


def _log_to(path: Path) -> None:
    """Send whatever this process prints, from C as well, to the job's log."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    faulthandler.enable()


def _end_with_parent() -> None:
    """Kill this process's group when the parent is gone: nobody would read the record's rest, or stop a hang."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # The kernel does it at once for a parent that is a direct one; below a fork server the thread does.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
