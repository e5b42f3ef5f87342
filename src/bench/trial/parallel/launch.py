"""Start the ranks of a tensor-parallel job by torch's launcher, and record which rank failed.

    supervisor ─ worker ─ rank 0 (measures, writes the record), rank 1, …

The worker itself only waits. Whatever ends it (the deadline, a parent that is gone) ends the ranks: each asks the
kernel to be killed with it, and all are descendants of the supervisor. The launcher ends all ranks when one fails.

Only the rank that failed may end with an exit status other than 0, because the launcher keeps only the first failure
that it sees: a rank that merely lost contact waits, so that the launcher can find the other one (`LOST_GRACE_S`). A
rank writes its own failure into the scratch folder (`RankExit`); for one that was killed, the launcher reports the
signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bench.config.schema import BenchmarkConfig
from bench.results.file_names import LOG_NAME
from bench.results.record import ProcessEnd, Record, RecordError
from bench.trial.measure import trial
from bench.trial.model.loading import resolve_device
from bench.trial.parallel.group import RankCommand, RankGroup, lost_contact
from bench.trial.parallel.other_ranks import obey_commands
from bench.trial.parallel.tensor_parallel import rank_count

POLL_S = 0.25  # between the launcher's checks of the ranks
LOST_GRACE_S = 3.0  # for the launcher to find the rank that is gone
DONE_GRACE_S = 3.0  # for rank 0 to write its record when another rank has failed
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The arguments of `bench.trial.worker.main`, as each rank gets them."""

    record: Record
    folder: Path
    compile_cache: Path
    reference: Path | None
    began_s: float
    pipe: multiprocessing.connection.Connection

    @property
    def scratch(self) -> Path:
        """Return the folder that the ranks share; the parent removes it with the job."""
        return self.compile_cache / "ranks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankExit:
    """How a rank ended, as it writes itself."""

    status: str  # of the record; "lost": another rank is gone
    type: str = ""
    message: str = ""
    detail: str | None = None
    requested_bytes: int | None = None
    free_bytes: int | None = None


def run_ranks(job: Job) -> None:
    """Start the ranks, wait for their end, and make sure that the record says why they ended. Raises nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent signals the whole group; only rank 0 acts on it
    job.scratch.mkdir(parents=True)
    config = BenchmarkConfig.from_dict(job.record.requested)
    died: dict[int, int] = {}
    try:
        device = resolve_device(config.device)
        size = rank_count(config.model, device)
        if device.type == "cpu" and torch.cuda.is_available():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # transformers would split over the GPUs
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are here, whatever the host's name resolves to
        _launch(job, size)
    except ChildFailedError as error:
        died = {rank: failure.exitcode for rank, failure in error.failures.items()}
    except Exception as error:  # noqa: BLE001 - failure is data
        trial.record_failure(job.record, error)
        _finish(job, job.record)
        return
    complete_record(job, died)


def _launch(job: Job, size: int) -> None:
    """Run `enter` in `size` new processes until all have ended or one has failed.

    Raises:
        ChildFailedError: a rank was killed, or ended with an exit status other than 0; the others are killed.
    """
    launcher = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        run_id=f"bench-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{LOOPBACK}:0",  # any free port
        local_addr=LOOPBACK,
        max_restarts=0,
        monitor_interval=POLL_S,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(job.scratch / "launcher")),
        signals_to_handle="SIGTERM",
    )
    elastic_launch(launcher, enter)(job)


# ---- in each rank ---------------------------------------------------------------------------------------------------


def enter(job: Job) -> None:
    """Run one rank: the entry of its process."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    trial.log_to(job.folder / LOG_NAME)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    print(f"rank {rank} of {size}: process {os.getpid()}", flush=True)
    device_type = resolve_device(BenchmarkConfig.from_dict(job.record.requested).device).type
    if device_type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))  # ranks that share cores would only wait
    if rank == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _run_rank_0(job, device_type)
    else:
        job.pipe.close()
        _run_other_rank(job, device_type, rank)


def _run_rank_0(job: Job, device_type: str) -> None:
    """Run the job as a single process does, and command the other ranks."""
    record, groups = job.record, []

    def join() -> RankGroup:
        config = BenchmarkConfig.from_dict(record.requested)
        groups.append(RankGroup.join(config, device_type, job.scratch))
        return groups[0]

    def emit(phase: str, done: int, total: int, e2e_s: float | None) -> None:
        if done == 0:
            _write(job.scratch / "stage", phase)
        with contextlib.suppress(OSError):
            job.pipe.send_bytes(json.dumps((phase, done, total, e2e_s)).encode())

    try:
        trial.measure(
            record,
            folder=job.folder,
            compile_cache=job.compile_cache / "rank0",
            reference=job.reference,
            began_s=job.began_s,
            emit=emit,
            join=join,
        )
    except KeyboardInterrupt:
        _write_exit(job, 0, RankExit(status=record.status))
        _leave_at_once(1)
    ended = RankExit(status=record.status)
    if record.error is not None and lost_contact(f"{record.error.type}: {record.error.message}"):
        ended = RankExit(status="lost")
    if record.status == "ok":
        try:
            groups[0].announce(RankCommand(kind="stop"))
        except RuntimeError:
            ended = RankExit(status="lost")
    _write_exit(job, 0, ended)
    _end(ended, groups)


def _run_other_rank(job: Job, device_type: str, rank: int) -> None:
    """Make rank 0's calls, and write how this rank ended."""
    config, ended, groups = BenchmarkConfig.from_dict(job.record.requested), RankExit(status="ok"), []
    try:
        groups.append(RankGroup.join(config, device_type, job.scratch))
        obey_commands(config, groups[0], job.compile_cache / f"rank{rank}")
    except Exception as error:  # noqa: BLE001 - failure is data
        failed = dataclasses.replace(job.record)
        trial.record_failure(failed, error)
        assert failed.error is not None
        ended = RankExit(status=failed.status, **dataclasses.asdict(failed.error))
        if lost_contact(f"{ended.type}: {ended.message}"):
            ended = dataclasses.replace(ended, status="lost")
    except SystemExit as error:  # code that comes with a model may do it
        ended = RankExit(status="crashed", type="SystemExit", message=f"sys.exit({error.code!r}) was called")
        ended = dataclasses.replace(ended, detail=traceback.format_exc())
    _write_exit(job, rank, ended)
    if ended.status not in ("ok", "lost"):
        # Rank 0 may have failed for the same reason, and its record says it better: as a known limit, for example.
        deadline = time.monotonic() + DONE_GRACE_S
        while 0 not in _read_exits(job) and time.monotonic() < deadline:
            time.sleep(0.05)
    _end(ended, groups)


def _end(ended: RankExit, groups: list[RankGroup]) -> None:
    """End this rank: at once after a failure, so that the launcher ends the others too."""
    if ended.status == "ok":
        for group in groups:
            group.leave()
        return
    if ended.status == "lost":
        time.sleep(LOST_GRACE_S)
    _leave_at_once(1)


def _leave_at_once(status: int) -> None:
    """Exit without waiting for threads and libraries, which may wait for ranks that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _write_exit(job: Job, rank: int, ended: RankExit) -> None:
    with contextlib.suppress(OSError):
        _write(job.scratch / f"rank{rank}.json", json.dumps(dataclasses.asdict(ended)))


def _write(path: Path, text: str) -> None:
    """Write the file through a rename, so that a reader finds all of it or nothing."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _read_exits(job: Job) -> dict[int, RankExit]:
    """Return how ranks ended, by rank, for those that wrote it."""
    heard = {}
    for path in job.scratch.glob("rank*.json"):
        rank = int(path.stem.removeprefix("rank"))
        heard[rank] = RankExit(**json.loads(path.read_text(encoding="utf-8")))
    return heard


# ---- the record -----------------------------------------------------------------------------------------------------


def complete_record(job: Job, died: dict[int, int]) -> None:
    """Write the failure into the record if another rank caused it, or if rank 0 could not write its record.

    Args:
        job: the job, all of whose ranks are gone.
        died: rank → exit status (negative: the signal's number) of those that the launcher saw fail.
    """
    record, exits = _written(job), _read_exits(job)
    rank_0, stage = exits.pop(0, None), _stage(job)
    if rank_0 is not None and rank_0.status == "ok":
        return
    failed = {rank: each for rank, each in exits.items() if each.status not in ("ok", "lost")}
    unexplained = {
        rank: code for rank, code in died.items() if code < 0 or (rank not in exits and (rank or rank_0 is None))
    }
    rank_0_knows = rank_0 is not None and rank_0.status != "lost"
    if any(unexplained) or (unexplained and not rank_0_knows):
        rank, code = max(unexplained.items())
        _record_death(record, rank, code, stage)
    elif failed and not rank_0_knows:
        rank, ended = min(failed.items())
        fields = dataclasses.asdict(ended)
        record.fail(fields.pop("status"), fields.pop("type"), f"rank {rank}: {fields.pop('message')}", **fields)
    elif not rank_0_knows:
        record.fail("crashed", "Exit", f"a rank ended without an error message in {stage}; see {LOG_NAME}")
    else:
        return  # rank 0 has recorded why
    record.stage = stage
    _finish(job, record)


def _record_death(record: Record, rank: int, code: int, stage: str) -> None:
    name = _signal_name(-code) if code < 0 else None
    how = name or f"exit status {code}"
    kept = "; its measured calls are kept" if record.iterations else ""
    message = f"rank {rank} ended with {how} in {stage}{kept}; see {LOG_NAME}"
    record.fail("crashed", "Signal" if name else "Exit", message)
    record.end = ProcessEnd(signal=name, exit_code=None if name else code)


def _written(job: Job) -> Record:
    """Return the record as rank 0 wrote it last; without one, the requested record."""
    with contextlib.suppress(RecordError):
        return Record.read(job.folder)
    return job.record


def _stage(job: Job) -> str:
    with contextlib.suppress(OSError):
        return (job.scratch / "stage").read_text(encoding="utf-8")
    return "start"


def _finish(job: Job, record: Record) -> None:
    record.ended_at_s = record.started_at_s + (time.monotonic() - job.began_s)
    record.write(job.folder)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
