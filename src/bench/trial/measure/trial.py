"""Run one trial in this process: measure a setting and write its record, whatever happens.

`measure` shows the stages in order. `bench.trial.worker` and the ranks of `bench.trial.parallel.launch` call it, each
in a process of its own; with isolation.mode=none the command's own process does.
"""

from __future__ import annotations

import faulthandler
import itertools
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.libraries import imported, with_imported
from bench.host.secrets import scrub
from bench.results.file_names import REFERENCE_NAME
from bench.results.record import Record
from bench.trial.hardware.environment import describe_environment
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import resolve_device
from bench.trial.parallel.group import RankGroup
from bench.trial.unsupported import NotHonouredError, is_out_of_memory, memory_asked_for, one_line

# (phase, iterations done, iterations in all (0: not known before), E2E of the last one in seconds)
Emit = Callable[[str, int, int, float | None], None]

PHASES = {"Warmup": "warmup", "Benchmarking": "measurement"}


def measure(
    record: Record,
    *,
    folder: Path,
    compile_cache: Path,
    reference: Path | None,
    began_s: float,
    emit: Emit,
    join: Callable[[], RankGroup] | None = None,
) -> Record:
    """Run the job that `record` requests, fill the record and write it into `folder`, whatever happens.

    Args:
        record: the request.
        folder: the job's own.
        compile_cache: an empty folder.
        reference: the file to compare the output with; None: no comparison.
        began_s: `time.monotonic()` at the record's `started_at_s`: the wall clock may be set meanwhile.
        emit: takes the progress.
        join: with tensor parallelism, connects this process, rank 0, to the other ranks.
    """
    config = BenchmarkConfig.from_dict(record.requested)

    def progress(name: str, total: int | None) -> Iterator[int]:
        for index in itertools.count() if total is None else range(total):
            emit(PHASES[name], index, total or 0, record.iterations[-1].e2e_s)
            yield index

    def enter(stage: str) -> None:
        if stage == "evidence":  # the measurement is complete, and what follows may run out of memory
            note_sources(record)
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
        runner.group = join() if join is not None else None
        runner.setup_benchmark(config.model.id, config)
        if record.kind == "reference":
            runner.write_reference(config, folder / REFERENCE_NAME)
        else:
            runner.run_benchmark(config, config.profile.num_tokens)
    except Exception as error:  # noqa: BLE001 - failure is data
        record_failure(record, error)
    except SystemExit as error:  # code that comes with a model may do it
        record.fail("crashed", "SystemExit", f"the job called sys.exit({error.code!r})", traceback.format_exc())
    except KeyboardInterrupt as stop:
        # In a process of its own the parent records who stopped it; in the command's process the exception does.
        asked_by = str(getattr(stop, "message", "by the user"))
        record.fail(str(getattr(stop, "status", "interrupted")), type(stop).__name__, asked_by)
        raise
    finally:
        record.ended_at_s = record.started_at_s + (time.monotonic() - began_s)
        record.phases_s["total"] = time.perf_counter() - start
        note_sources(record)
        record.write(folder)
        runner.close()  # after the record: a device in an error state raises here as well
    return record


def note_sources(record: Record) -> None:
    """Record which copy of each library was imported, which replaces the expected copies in the fingerprint."""
    found = imported()
    record.environment["sources"] = found
    record.fingerprint = with_imported(record.fingerprint, found)


def record_failure(record: Record, error: Exception) -> None:
    """Write an error into the record and the log."""
    detail = "".join(traceback.format_exception(error))
    print(scrub(detail), end="", file=sys.stderr)  # with isolation.mode=none that is the terminal
    message = str(error) if isinstance(error, ConfigError | NotHonouredError) else one_line(error)
    if is_out_of_memory(error):
        requested, free = memory_asked_for(error)
        record.fail("oom", type(error).__name__, message, detail, requested_bytes=requested, free_bytes=free)
    else:
        record.fail("failed", type(error).__name__, message, detail)


def log_to(path: Path) -> None:
    """Send whatever this process prints, from C as well, to the job's log."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    faulthandler.enable()
