"""Run a real command line in a fork of the test's process with jobs that measure nothing: at most a second per sweep.

Hydra, the sweeper, its launcher, the plan, the folders, the records, the table and the report are real. Changes by a
test affect only the fork.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.config.schema import BenchmarkConfig
from bench.results.record import Record

SWEEP = (
    "-m", "workload.batch_size=1,2,3", "sweep.order=given", "sweep.name=s", "tracking=off", "fidelity.reference=none",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    folder: Path  # of the sweep

    def records(self) -> dict[int, Record]:
        """Map each batch size to the record of its job."""
        found = [Record.read(path) for path in sorted(self.folder.glob("*/record.json"))]
        return {each.requested["workload"]["batch_size"]: each for each in found}

    def statuses(self) -> dict[int, str]:
        """Map each batch size to the status of its job."""
        return {size: record.status for size, record in sorted(self.records().items())}


def measure_nothing(
    config: BenchmarkConfig, record: Record, folder: Path, on_event: object, reference: Path | None = None
) -> Record:
    """Do what `run_job` does, except the measurement."""
    del on_event, reference
    from bench.jobs.folders.scratch import reserved_space
    from bench.results.file_names import REFERENCE_NAME
    from factories import make_record

    with reserved_space(config, folder):
        done = make_record()
        for name in ("observed", "iterations", "output", "memory", "status", "stage"):
            setattr(record, name, getattr(done, name))
        record.ended_at_s = record.started_at_s + 1.0
        record.write(folder)
        if record.kind == "reference":
            (folder / REFERENCE_NAME).write_bytes(b"")
    return record


def write_no_report(report: object, folder: Path) -> list[Path]:
    """Do what the report's `write` does, without figures, which take seconds."""
    del report
    (folder / "report.html").write_text("no report", encoding="utf-8")
    return [folder / "report.html"]


def run(
    folder: Path, *arguments: str, prepare: Callable[[], object] = lambda: None, with_report: bool = False
) -> Ended:
    """Run `bench` with these arguments in `folder`; `prepare` is called first in the fork."""
    folder.mkdir(parents=True, exist_ok=True)
    from bench.cli import application  # imported once, before the fork
    from bench.jobs import job, reference
    from bench.jobs.process import fork_server
    from bench.orchestration import job_run, sweep  # noqa: F401
    from bench.orchestration.search import examination, search  # noqa: F401
    from bench.report.page import write

    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.chdir(folder)
            out = os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = (os.fdopen(each, "w", buffering=1, closefd=False) for each in (1, 2))
            sys.argv = ["bench", *arguments]
            if not with_report:
                write.build, write.write = lambda *_, **__: None, write_no_report
            sweep.make_ready = examination.make_ready = lambda *_: None
            fork_server.start_fork_server = lambda: None
            job.run_job = reference.run_job = measure_nothing
            prepare()
            application.main()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - the test sees it in the output
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    text = (folder / "out").read_text(encoding="utf-8")
    return Ended(status=os.waitstatus_to_exitcode(ended), out=text, folder=folder / "multirun/s")
