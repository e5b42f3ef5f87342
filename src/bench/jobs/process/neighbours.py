"""Queue of the jobs of bench on one host: jobs that share a GPU or cores wait for each other; all count who ran beside.

However they were started (two terminals, a cluster's jobs on one node, a launcher that starts all at once), every job
makes a ticket in a folder that all users of the host share: a file that it keeps locked while it waits and runs. The
kernel releases the lock when the process ends, however it ends, so an unlocked ticket belongs to a process that has
ended and is ignored. All reads and changes happen under the lock of the folder itself, which is held for about a
millisecond.

    the same GPU                                          one waits for the other
    cores in common, and at least one job uses no GPU     one waits for the other
    cores in common, each job on its own GPU              they run side by side, as intended on such a machine

First come, first served: a waiting job is overtaken only by jobs that share nothing with it. A job takes all that it
needs at once, its reference run included, and waits only for earlier tickets and for running jobs, so jobs cannot
deadlock. A job that begins appends a line to the tickets of all running ones, which therefore also count jobs that
begin and end meanwhile.

If the folder cannot be used, the job runs all the same, and its record says what is unknown.

Not covered: other programs on the host, such as a `BenchmarkRunner` that Python code calls; two logical cores of one
physical core, which count as two; jobs that do not see each other's folder (containers, or a cluster with a temporary
folder per job), unless BENCH_HOST_FOLDER names a shared one on a local file system; the seconds of CPU time that a
command takes before its first job; and an instance of a card (MIG) that two jobs name differently.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from bench.config.rules import shown
from bench.config.schema import BenchmarkConfig
from bench.host.gpus import cards, uuid_of_name, visible_names
from bench.host.secrets import scrub
from bench.jobs.process.stop_reason import asked_by
from bench.results.file_names import RECORD_NAME
from bench.results.record import Neighbours, Record

FOLDER_VARIABLE = "BENCH_HOST_FOLDER"
# Not the folder that TMPDIR names: many sites give each user, or each job, one of their own.
DEFAULT_FOLDER = Path("/tmp/bench-host")  # noqa: S108  # shared on purpose; nothing in it is trusted
POLL_S = 0.1  # between checks of the lock that is waited for, which take some microseconds
REGISTRY_POLL_S, REGISTRY_S = 0.01, 10.0  # for the folder's lock; a process that holds it longer is stopped (SIGSTOP)
LONGEST_TICKET_BYTES = 1 << 20
LONGEST_NAME, SHORT_NAME = 80, 24  # characters: in a ticket, and in a line on the terminal
# What reading a file that is not a ticket may raise: every user may create files there.
NO_TICKET = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
WAITING, RUNNING = ".waiting", ".running"  # suffixes of a ticket's name
TICKET_NAME = re.compile(rf"job-\d+-[0-9a-f]{{8}}({WAITING}|{RUNNING})")

# Called with what is waited for, in words, and the seconds waited; with None once the wait is over.
OnWait = Callable[[str | None, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """The GPUs and cores that a job uses, with its name and pid."""

    name: str
    pid: int
    gpus: frozenset[str]  # UUIDs; none: a CPU job
    cores: frozenset[int]

    def clash(self, other: Needs) -> bool:
        """Whether two jobs at the same time would disturb each other's measurement."""
        if self.gpus & other.gpus:
            return True
        return not (self.gpus and other.gpus) and bool(self.cores & other.cores)

    def __str__(self) -> str:
        return f"{shown(self.name, SHORT_NAME)}, pid {self.pid}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ticket:
    """The ticket of another job that waits or runs."""

    path: Path
    number: int
    needs: Needs

    @property
    def runs(self) -> bool:
        return self.path.suffix == RUNNING


# ---- a job among others --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def among_neighbours(config: BenchmarkConfig, record: Record, folder: Path, on_wait: OnWait) -> Iterator[None]:
    """Wait for the job's turn, and hold it within the block; `record` says how many jobs ran at the same time.

    Its `started_at_s` is the end of the wait.

    Args:
        config: the job's; with `isolation.share_device` it waits for no other.
        record: filled here, also on disk.
        folder: the job's own, with the record once it has run.
        on_wait: called while it waits.

    Raises:
        KeyboardInterrupt: the user's; a record of a job that was still waiting is written first.
    """
    with Turn(host_folder(), needs_of(config, record.name or str(config.model.id))) as turn:
        _wait(turn, config, record, folder, on_wait)
        try:
            yield
        finally:
            if (came := turn.leave()) and record.neighbours is not None:
                record.neighbours = dataclasses.replace(record.neighbours, came=came)
                with contextlib.suppress(OSError):  # the record without it is there
                    if (folder / RECORD_NAME).exists():
                        record.write(folder)


def _wait(turn: Turn, config: BenchmarkConfig, record: Record, folder: Path, on_wait: OnWait) -> None:
    """Take the turn, and record how long that took and how many jobs were running."""
    began_s = time.monotonic()
    try:
        at_start, unknown = turn.take(overlap=config.isolation.share_device, on_wait=on_wait), None
    except OSError as error:
        at_start, unknown = 0, scrub(f"{turn.folder}: {error.strerror or error}")
    except KeyboardInterrupt as stop:
        record.neighbours = Neighbours(at_start=0, came=0, waited_s=time.monotonic() - began_s)
        record.ended_at_s = time.time()
        why = f"{asked_by(stop)}, while it waited for {turn.awaited or 'others'}"
        record.fail("interrupted", type(stop).__name__, why)
        with contextlib.suppress(OSError):
            record.write(folder)
        raise
    record.started_at_s, waited_s = time.time(), time.monotonic() - began_s
    record.neighbours = Neighbours(at_start=at_start, came=0, waited_s=waited_s, unknown=unknown)
    record.phases_s["wait"] = waited_s


def host_folder() -> Path:
    """Return the folder of the tickets of all jobs on this host."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def needs_of(config: BenchmarkConfig, name: str) -> Needs:
    """Return what a job with this config will use when this process starts it."""
    return Needs(
        name=shown(scrub(name), LONGEST_NAME),
        pid=os.getpid(),
        gpus=frozenset(gpus_of(config)),
        cores=frozenset(os.sched_getaffinity(0)),
    )


def gpus_of(config: BenchmarkConfig) -> list[str]:
    """Return the UUIDs of the GPUs that a job will use, as far as known without torch; [] for a CPU job.

    Where it is unknown which card is meant, all are returned; where NVML knows none, CUDA's name is used.
    """
    known = cards()
    number = [config.device.partition(":")[2] or "0"] if config.device.startswith("cuda") else []
    wanted = names_of(config, known) or number
    if not known:
        return [each if each.startswith(("GPU-", "MIG-")) else f"cuda:{each}" for each in wanted]
    found = [uuid_of_name(each, known) for each in wanted]
    return [each for each in found if each is not None] if None not in found else [uuid for uuid, _ in known]


def names_of(config: BenchmarkConfig, known: list[tuple[str, str]]) -> list[str]:
    """Return a job's GPUs as CUDA_VISIBLE_DEVICES names them, or by number; [] for none. `known`: from `gpus.cards`."""
    if config.device == "cpu" or (config.device == "auto" and (not known or _torch_has_no_cuda())):
        return []
    if (names := visible_names()) is None:
        names = [str(each) for each in range(len(known))]
    split = config.model.tp_size is not None
    return names[: config.model.tp_processes] if split else names[int(config.device.partition(":")[2] or "0") :][:1]


def _torch_has_no_cuda() -> bool:
    """Whether the version of the installed torch says that it supports no GPU."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("torch").endswith("+cpu")
    return False


# ---- tickets -------------------------------------------------------------------------------------------------------


class Turn:
    """One job's place in the queue: `take` it, run, `leave`. Another object in the same process is another job."""

    def __init__(self, folder: Path, needs: Needs) -> None:
        """Write nothing yet."""
        self.folder, self.needs = folder, needs
        self.awaited: Needs | None = None  # the job that it waits for
        self._path: Path | None = None
        self._file: int | None = None  # descriptor, which holds the lock
        self._number = 0
        self._head_bytes = 0

    def take(self, *, overlap: bool, on_wait: OnWait) -> int:
        """Wait until the job may run; return how many others run on the host then.

        Raises:
            OSError: the folder cannot be used. No ticket is left there.
            KeyboardInterrupt: the user's. No ticket is left there either.
        """
        began_s = time.monotonic()
        try:
            _make(self.folder)
            while True:
                with _registry(self.folder):
                    others = self._others()
                    if self._file is None:
                        self._write(others)
                    ahead = [] if overlap else [each for each in others if self._is_behind(each)]
                    if not ahead:
                        return self._begin([each for each in others if each.runs])
                    try:
                        lock = os.open(ahead[0].path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                    except FileNotFoundError:  # its job ended without the folder's lock
                        continue
                self.awaited = ahead[0].needs
                try:
                    while _is_locked(lock):
                        on_wait(str(self.awaited), time.monotonic() - began_s)
                        time.sleep(POLL_S)
                finally:
                    os.close(lock)
        except BaseException:
            self._discard()
            raise
        finally:
            if self.awaited is not None:
                on_wait(None, time.monotonic() - began_s)

    def leave(self) -> int:
        """Let others run; return how many began meanwhile. Without a ticket, or a second time, 0."""
        if self._file is None:
            return 0
        came = 0
        with (
            contextlib.suppress(OSError),
            _registry(self.folder),
        ):  # so that two jobs count each other or neither does
            came = os.pread(self._file, LONGEST_TICKET_BYTES, self._head_bytes).count(b"\n")
            self._discard()
        self._discard()
        return came

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def _is_behind(self, other: _Ticket) -> bool:
        return self.needs.clash(other.needs) and (other.runs or other.number < self._number)

    def _others(self) -> list[_Ticket]:
        """Return the tickets of jobs that wait or run, the earliest first; remove those of ended processes."""
        found = []
        for path in self.folder.glob("job-*"):
            if path == self._path or path.suffix not in (WAITING, RUNNING):
                continue
            with contextlib.suppress(*NO_TICKET):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if not _is_locked(descriptor):
                        if TICKET_NAME.fullmatch(path.name):  # otherwise not a ticket of ours
                            path.unlink()
                        continue
                    ticket = _read(path, descriptor)
                finally:
                    os.close(descriptor)
                if ticket is not None:
                    found.append(ticket)
        return sorted(found, key=lambda each: each.number)

    def _write(self, others: list[_Ticket]) -> None:
        """Make a ticket with a number behind all others."""
        self._number = max((each.number for each in others), default=0) + 1
        path = self.folder / f"job-{self.needs.pid}-{os.urandom(4).hex()}{WAITING}"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        self._path = path
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(self._file, 0o666)  # whatever the umask: jobs of other users append a line
        content = {
            "host": _host(),
            "number": self._number,
            "name": self.needs.name,
            "pid": self.needs.pid,
            "gpus": sorted(self.needs.gpus),
            "cores": sorted(self.needs.cores),
        }
        head = json.dumps(content).encode() + b"\n"
        self._head_bytes = os.write(self._file, head)
        if self._head_bytes < len(head):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _begin(self, running: list[_Ticket]) -> int:
        """Mark the job as running, and notify those that run already; return how many these are."""
        assert self._path is not None
        self._path = self._path.rename(self._path.with_suffix(RUNNING))
        for each in running:
            with contextlib.suppress(OSError):
                _notify(each.path, f"{self.needs}\n")
        return len(running)

    def _discard(self) -> None:
        """Remove the ticket and release its lock."""
        path, file, self._path, self._file = self._path, self._file, None, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()
        if file is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # also for a process that inherited the descriptor
            os.close(file)


def _make(folder: Path) -> None:
    """Make a folder in which every user may create files but remove only their own, as in /tmp."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)


@contextlib.contextmanager
def _registry(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder. It is on the folder itself, because a lock file might belong to another user.

    Raises:
        OSError: there is no such folder, or another process has held the lock for the whole wait.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + REGISTRY_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has held its lock for {REGISTRY_S:g} s") from None
                time.sleep(REGISTRY_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Whether a job that waits or runs holds this ticket, which stays unchanged."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two readers at once do not block each other
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _read(path: Path, descriptor: int) -> _Ticket | None:
    """Read a ticket; None for one of another host. Raises one of NO_TICKET for another file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    line, _, _ = os.pread(descriptor, LONGEST_TICKET_BYTES, 0).partition(b"\n")
    content: dict[str, Any] = json.loads(line)
    if content["host"] != _host():
        return None
    needs = Needs(
        name=shown(str(content["name"]), LONGEST_NAME),
        pid=int(content["pid"]),
        gpus=frozenset(map(str, content["gpus"])),
        cores=frozenset(map(int, content["cores"])),
    )
    return _Ticket(path=path, number=int(content["number"]), needs=needs)


def _notify(path: Path, line: str) -> None:
    """Append a line to another job's ticket, which may belong to another user; never to a link or a special file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        state = os.fstat(descriptor)
        if stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
            os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _host() -> str:
    """Return an id that all containers of one machine share until the next boot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return os.uname().nodename
