"""Run a job's process: its log file, and progress messages to the parent, around `measure`.

`bench.jobs.process.supervisor` ends this process when its parent is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing.connection
import time
from pathlib import Path

from bench.results.file_names import LOG_NAME
from bench.results.record import Record
from bench.trial.measure.trial import log_to, measure


def main(
    *,
    record: Record,
    folder: Path,
    compile_cache: Path,
    reference: Path | None,
    began_s: float,
    entered_s: float,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """Fill and write the record, and send the progress to the parent: the entry of a child process.

    `entered_s` is `time.monotonic()` at the process's first step, before this module was imported.
    """
    log_to(folder / LOG_NAME)  # first: whatever the imports say belongs there, and not on the terminal
    import_compiler(record)
    record.phases_s |= {"start": entered_s - began_s, "import": time.monotonic() - entered_s}
    if record.requested["model"]["tp_size"] is not None:
        from bench.trial.parallel import launch  # noqa: PLC0415 - imports torch's launcher

        launch.run_ranks(
            launch.Job(
                record=record,
                folder=folder,
                compile_cache=compile_cache,
                reference=reference,
                began_s=began_s,
                pipe=pipe,
            )
        )
        pipe.close()
        return

    def emit(phase: str, done: int, total: int, e2e_s: float | None) -> None:
        with contextlib.suppress(OSError):  # if the parent is gone, the supervisor ends this process
            pipe.send_bytes(json.dumps((phase, done, total, e2e_s)).encode())

    measure(record, folder=folder, compile_cache=compile_cache, reference=reference, began_s=began_s, emit=emit)
    pipe.close()  # says that the record is on disk; the parent waits only a little for what the libraries still do


def import_compiler(record: Record) -> None:
    """Import the compiler before the first call, so that the cold start contains no import of it."""
    requested = record.requested
    if requested["compile"]["mode"] is not None or requested["attention"]["implementation"] == "flex_attention":
        importlib.import_module("bench.trial.preload_compiler")
