"""One job in one process: run it, and make a record however it ends.

Not covered here: a parent that is killed (the supervisor ends the job) and a record that cannot be published (it stays
on disk).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from bench.config.schema import BenchmarkConfig
from bench.host import cache_folder
from bench.host.secrets import scrub, scrub_file
from bench.jobs.engine import EngineStop, LostJob, placement
from bench.jobs.folders.scratch import compile_cache, last_lines, reserved_space
from bench.jobs.planning.fingerprint import fingerprint
from bench.jobs.process.child import Child, Ended, OnEvent
from bench.jobs.process.device import cards_of, oom_kills, used_bytes, wait_until_free
from bench.jobs.process.stop_reason import asked_by
from bench.results.file_names import LEFTOVERS_NAME, LOG_NAME, PROFILE_NAMES, RECORD_NAME, SIGTERM_NAME
from bench.results.record import ProcessEnd, Record, RecordError

WORKER = "bench.trial.worker"
UNFINISHED = ".record-*.json"  # a temporary file that a killed writer of the record leaves
# Signals that no fault of a program raises, and that bench does not send to a job without saying so.
FROM_OUTSIDE = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def new_record(config: BenchmarkConfig, *, trial_id: str | None = None, **fields: Any) -> Record:
    """Return a record that holds the request and no results yet.

    `trial_id` is the config's where it is known: computing it reads the prompt file, which may be gone.
    """
    return Record(
        trial_id=trial_id or config.trial_id(),
        started_at_s=time.time(),
        requested=config.to_dict(),
        fingerprint=fingerprint(),
        placement=placement(),
        **fields,
    )


def run_job(
    config: BenchmarkConfig, record: Record, folder: Path, on_event: OnEvent, reference: Path | None = None
) -> Record:
    """Run one job as `isolation.mode` says; return its record, which is also written to `folder`.

    Args:
        config: the setting.
        record: filled here; its `kind` says which job it is.
        folder: the job's own.
        on_event: called with the progress.
        reference: the file of the reference run to compare with.

    Raises:
        KeyboardInterrupt: the user's, or EngineStop; the job has been ended and its record written.
        OSError: there is no space for the job's results; it was not started.
    """
    _clear_earlier_attempt(record, folder)
    before = set(folder.glob(UNFINISHED))
    with reserved_space(config, folder), compile_cache() as cache:
        given = {"folder": folder, "compile_cache": cache, "reference": reference}
        try:
            if config.isolation.mode == "none":
                began_s = time.monotonic()  # the import is part of the job's time, as in a process of its own
                worker = importlib.import_module(WORKER)
                worker.import_compiler(record)
                record.phases_s |= {"start": 0.0, "import": time.monotonic() - began_s}
                worker.measure(record, **given, began_s=began_s, emit=on_event)
                return _updated_from(record, folder)  # as another process would leave it: without secrets
            return _run_in_child(config, record, given, on_event)
        finally:
            scrub_file(folder / LOG_NAME)
            for unfinished in set(folder.glob(UNFINISHED)) - before:  # of a writer of this job that was killed
                unfinished.unlink(missing_ok=True)


def _clear_earlier_attempt(record: Record, folder: Path) -> None:
    """Remove the record of an attempt at the same job that its engine queues again.

    Raises:
        OSError: the folder holds another record, which stays.
    """
    path = folder / RECORD_NAME
    if not os.path.lexists(path):
        return
    with contextlib.suppress(RecordError):
        found = Record.read(folder)
        names = ("kind", "trial_id", "sweep_id", "repeat")
        if record.sweep_id is not None and all(getattr(found, name) == getattr(record, name) for name in names):
            for name in (RECORD_NAME, *PROFILE_NAMES):
                (folder / name).unlink(missing_ok=True)
            return
    raise FileExistsError(errno.EEXIST, "holds the record of another run", os.fspath(folder))


def _run_in_child(config: BenchmarkConfig, record: Record, given: dict[str, Any], on_event: OnEvent) -> Record:
    folder: Path = given["folder"]
    child = Child(
        mode=config.isolation.mode,
        entry=(WORKER, "main"),
        folder=folder,
        log=folder / LOG_NAME,
        on_event=on_event,
        name=f"bench {record.name}",
    )
    own_cards = None if config.device == "cpu" else cards_of(config)
    device_before = used_bytes(own_cards) if own_cards else None  # memory in use on other cards is not this job's
    kills_before, start_s = oom_kills(), time.monotonic()
    interrupted: KeyboardInterrupt | None = None
    try:
        child.run({"record": record, **given, "began_s": start_s}, config.isolation.timeout_s)
    except KeyboardInterrupt as error:
        interrupted = error
    cache_folder.empty(given["compile_cache"])  # a job may have filled the disk there
    record = _updated_from(record, folder)
    is_complete = record.status != "interrupted"
    # The worker has recorded that it was interrupted, and cannot know by whom.
    was_interrupted = not is_complete and record.error is not None and child.ended.in_time
    killed_for_memory = oom_kills() > kills_before
    end = _how_it_ended(child.ended, folder, killed_for_memory=killed_for_memory)
    if is_complete and record.end is not None:
        end = _with_rank(record, end, folder, killed_for_memory=killed_for_memory)
    if (freed := wait_until_free(device_before)) is not None:
        end = dataclasses.replace(end, device_wait_s=freed[0], device_left_bytes=freed[1])
        record.phases_s["wait"] = record.phases_s.get("wait", 0.0) + freed[0]
    if not is_complete:
        if not was_interrupted:
            record.stage = child.ended.phase
            # By the monotonic clock, so that the end is never before the start.
            record.ended_at_s = record.started_at_s + (time.monotonic() - start_s)
        if interrupted is None and was_interrupted:
            message = f"SIGINT to the job's process in {record.stage}, from outside of bench, ended it"
            record.fail("interrupted", "Signal", message)
        else:
            _explain_end(record, end, child.ended, folder, limit_s=config.isolation.timeout_s, interrupted=interrupted)
    if not is_complete or end != ProcessEnd(device_wait_s=end.device_wait_s, device_left_bytes=0 if freed else None):
        record.end = end
        record.write(folder)
    if interrupted:
        raise interrupted
    return record


def write_lost(record: Record, folder: Path, lost: LostJob) -> Record:
    """Make a record of a job that its engine lost: what the job wrote stays, and the engine's reason is added."""
    folder.mkdir(parents=True, exist_ok=True)
    record.placement = lost.placement  # replaced below by what the job itself wrote
    record = _updated_from(record, folder)
    if record.ended_at_s is None:
        record.ended_at_s = max(record.started_at_s, time.time())
    record.fail(lost.status, type(lost).__name__, lost.message, _evidence(folder))
    record.write(folder)
    return record


def _updated_from(record: Record, folder: Path) -> Record:
    """Return the record as the child last wrote it; the given one when it wrote none."""
    with contextlib.suppress(RecordError):
        vars(record).update(vars(Record.read(folder)))
    return record


def _how_it_ended(ended: Ended, folder: Path, *, killed_for_memory: bool) -> ProcessEnd:
    code = ended.exit_code
    name = _signal_name(-code) if code is not None and code < 0 else None
    received_sigterm = (folder / SIGTERM_NAME).exists()
    with contextlib.suppress(OSError):
        (folder / SIGTERM_NAME).unlink(missing_ok=True)
    if received_sigterm and name == "SIGKILL" and not ended.ended_here:
        name = "SIGTERM"  # from another process; the supervisor has then killed the worker
    leftovers: list[str] = []
    with contextlib.suppress(OSError):
        leftovers = (folder / LEFTOVERS_NAME).read_text(encoding="utf-8").splitlines()
        (folder / LEFTOVERS_NAME).unlink()
    return ProcessEnd(
        exit_code=code if name is None and code != 0 else None,
        signal=name if ended.in_time else None,
        killed_at_deadline=not ended.in_time,
        oom_killed=killed_for_memory and name == "SIGKILL",
        strays=leftovers,
        log_cut_bytes=ended.log_cut_bytes,
    )


def _with_rank(record: Record, end: ProcessEnd, folder: Path, *, killed_for_memory: bool) -> ProcessEnd:
    """Return how a rank of a tensor-parallel job ended, from the worker's record and what only the parent can see."""
    assert record.end is not None
    assert record.error is not None
    rank, why = record.end, record.error
    oom_killed = killed_for_memory and rank.signal == "SIGKILL"
    message = f"{why.message}; the kernel's OOM killer was at work: ask for less memory" if oom_killed else why.message
    record.fail("oom" if oom_killed else record.status, why.type, message, why.detail or _evidence(folder))
    return dataclasses.replace(end, signal=rank.signal, exit_code=rank.exit_code, oom_killed=oom_killed)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _explain_end(
    record: Record,
    end: ProcessEnd,
    ended: Ended,
    folder: Path,
    *,
    limit_s: float,
    interrupted: KeyboardInterrupt | None,
) -> None:
    """Fail the record of a job that could not write the reason itself."""
    left = "; its measured calls are kept" if record.iterations else " and left no record"
    if isinstance(interrupted, EngineStop):
        record.fail(interrupted.status, type(interrupted).__name__, interrupted.message)
    elif interrupted is not None:
        record.fail("interrupted", type(interrupted).__name__, asked_by(interrupted))
    elif end.killed_at_deadline:
        message = f"isolation.timeout_s={limit_s:g}: not finished in {ended.phase}; raise it or ask for less"
        record.fail("timeout", "Timeout", message, _evidence(folder))
    elif end.oom_killed:
        message = f"the kernel's OOM killer ended the process in {ended.phase}{left}: the job needs more memory than "
        message += "the machine, or its control group, has; ask for less"
        record.fail("oom", "Signal", message, _evidence(folder))
    elif end.signal in FROM_OUTSIDE:
        message = f"{end.signal} to the job's process in {ended.phase}, from outside of bench, ended it"
        record.fail("crashed", "Signal", f"{message}{left}; see {LOG_NAME}", _evidence(folder))
    else:
        how = f"with {end.signal or f'exit status {ended.exit_code}'}"
        if ended.exit_code is None:
            how = "together with the fork server"
        message = f"the process ended {how} in {ended.phase}{left}; see {LOG_NAME}"
        record.fail("crashed", "Signal" if end.signal else "Exit", message, _evidence(folder))


def _evidence(folder: Path) -> str | None:
    lines = last_lines(folder / LOG_NAME)
    return None if lines is None else scrub(lines)
