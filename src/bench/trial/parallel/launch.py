"""A tensor-parallel job: starts its ranks by torch's launcher, ends all of them when one dies, and says which it was.

    guardian ─ worker ─ rank 0 (measures, writes the record), rank 1, …

The worker itself only waits. Whatever ends it (the deadline, a parent that is gone) ends the ranks: each asks the
kernel to be killed with it, and all are below the guardian.

Only the rank whose fault it is may end with an exit status other than 0, for the launcher keeps no more than the first
that it sees: a rank that merely lost contact gives it time to find the other one (`LOST_GRACE_S`). What a rank can say
of its own failure it leaves in the scratch folder; of one that died without a word the launcher tells the signal.
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
from bench.trial.parallel.other_ranks import follow
from bench.trial.parallel.tensor_parallel import rank_count

LOOK_S = 0.25  # between the launcher's looks at the ranks
LOST_GRACE_S = 3.0  # for the launcher to find the rank that is gone
DONE_GRACE_S = 3.0  # for rank 0 to write its record when another rank has failed
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What each rank is given: the arguments of `bench.trial.worker.main`."""

    record: Record
    folder: Path
    compile_cache: Path
    reference: Path | None
    began_s: float
    pipe: multiprocessing.connection.Connection

    @property
    def scratch(self) -> Path:
        """Shared by the ranks, in a folder that the parent removes with the job."""
        return self.compile_cache / "ranks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankExit:
    """What a rank says of its end."""

    status: str  # of the record; "lost": another rank is gone
    type: str = ""
    message: str = ""
    detail: str | None = None
    requested_bytes: int | None = None
    free_bytes: int | None = None


def run_ranks(job: Job) -> None:
    """Start the ranks, wait for their end, and see that the record says how it came about. Raises nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sends it to the group, and means rank 0
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
    settle(job, died)


def _launch(job: Job, size: int) -> None:
    """Run `enter` in so many new processes until all have come to an end, or one has failed.

    Raises:
        ChildFailedError: it was ended by a signal, or with an exit status other than 0; the others are killed.
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
        monitor_interval=LOOK_S,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(job.scratch / "launcher")),
        signals_to_handle="SIGTERM",
    )
    elastic_launch(launcher, enter)(job)


# ---- in each rank ---------------------------------------------------------------------------------------------------


def enter(job: Job) -> None:
    """The entry of each rank."""
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
        _lead(job, device_type)
    else:
        job.pipe.close()
        _follow(job, device_type, rank)


def _lead(job: Job, device_type: str) -> None:
    """Rank 0: the job as one process would do it, but for the others that go along."""
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
        _say(job, 0, RankExit(status=record.status))
        _leave_at_once(1)
    word = RankExit(status=record.status)
    if record.error is not None and lost_contact(f"{record.error.type}: {record.error.message}"):
        word = RankExit(status="lost")
    if record.status == "ok":
        try:
            groups[0].announce(RankCommand(kind="stop"))
        except RuntimeError:
            word = RankExit(status="lost")
    _say(job, 0, word)
    _end(word, groups)


def _follow(job: Job, device_type: str, rank: int) -> None:
    """Another rank: make rank 0's calls, and leave word if that fails."""
    config, word, groups = BenchmarkConfig.from_dict(job.record.requested), RankExit(status="ok"), []
    try:
        groups.append(RankGroup.join(config, device_type, job.scratch))
        follow(config, groups[0], job.compile_cache / f"rank{rank}")
    except Exception as error:  # noqa: BLE001 - failure is data
        failed = dataclasses.replace(job.record)
        trial.record_failure(failed, error)
        assert failed.error is not None
        word = RankExit(status=failed.status, **dataclasses.asdict(failed.error))
        if lost_contact(f"{word.type}: {word.message}"):
            word = dataclasses.replace(word, status="lost")
    except SystemExit as error:  # code that comes with a model may do it
        word = RankExit(status="crashed", type="SystemExit", message=f"sys.exit({error.code!r}) was called")
        word = dataclasses.replace(word, detail=traceback.format_exc())
    _say(job, rank, word)
    if word.status not in ("ok", "lost"):
        # It may be a reason for rank 0 as well, whose record says it better: as a limit, or of the whole job.
        deadline = time.monotonic() + DONE_GRACE_S
        while 0 not in _all_heard(job) and time.monotonic() < deadline:
            time.sleep(0.05)
    _end(word, groups)


def _end(word: RankExit, groups: list[RankGroup]) -> None:
    """Leave: a rank at fault at once, so that the launcher ends the others too."""
    if word.status == "ok":
        for group in groups:
            group.leave()
        return
    if word.status == "lost":
        time.sleep(LOST_GRACE_S)
    _leave_at_once(1)


def _leave_at_once(status: int) -> None:
    """Without waiting for threads and libraries, which may wait for ranks that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _say(job: Job, rank: int, word: RankExit) -> None:
    with contextlib.suppress(OSError):
        _write(job.scratch / f"rank{rank}.json", json.dumps(dataclasses.asdict(word)))


def _write(path: Path, text: str) -> None:
    """So that a reader finds all of it or nothing."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _all_heard(job: Job) -> dict[int, RankExit]:
    """Rank → what it has said of its end, of those that have."""
    heard = {}
    for path in job.scratch.glob("rank*.json"):
        rank = int(path.stem.removeprefix("rank"))
        heard[rank] = RankExit(**json.loads(path.read_text(encoding="utf-8")))
    return heard


# ---- what came of them ----------------------------------------------------------------------------------------------


def settle(job: Job, died: dict[int, int]) -> None:
    """Where another rank than 0 is the reason of the end, or rank 0 could not write its record: say so in it.

    Args:
        job: the job, all of whose ranks are gone.
        died: rank → exit status (negative: the signal's number) of those that the launcher saw fail.
    """
    record, heard = _written(job), _all_heard(job)
    first, stage = heard.pop(0, None), _stage(job)
    if first is not None and first.status == "ok":
        return
    own = {rank: word for rank, word in heard.items() if word.status not in ("ok", "lost")}
    silent = {rank: code for rank, code in died.items() if code < 0 or (rank not in heard and (rank or first is None))}
    knows = first is not None and first.status != "lost"
    if any(silent) or (silent and not knows):
        rank, code = max(silent.items())
        _blame_silent(record, rank, code, stage)
    elif own and not knows:
        rank, word = min(own.items())
        said = dataclasses.asdict(word)
        record.fail(said.pop("status"), said.pop("type"), f"rank {rank}: {said.pop('message')}", **said)
    elif not knows:
        record.fail("crashed", "Exit", f"a rank left without a word in {stage}; see {LOG_NAME}")
    else:
        return  # rank 0 has said why
    record.stage = stage
    _finish(job, record)


def _blame_silent(record: Record, rank: int, code: int, stage: str) -> None:
    name = _signal_name(-code) if code < 0 else None
    how = name or f"exit status {code}"
    kept = "; its measured calls are kept" if record.iterations else ""
    message = f"rank {rank} ended with {how} in {stage}{kept}; see {LOG_NAME}"
    record.fail("crashed", "Signal" if name else "Exit", message)
    record.end = ProcessEnd(signal=name, exit_code=None if name else code)


def _written(job: Job) -> Record:
    """The record as rank 0 wrote it last; the one that was asked for when it wrote none."""
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
