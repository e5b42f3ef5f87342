"""Run the real command in its own session with a model with injected faults, observed from outside.

The faults added here to those of tests/faults.py report that they have been reached. Their leftover processes differ
from those of other tests by the time that they sleep.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import faults
from bench.results.record import Record
from conftest import user_environment

SLEEP_S = 900_000_000 + os.getpid()
CODE = f'''

def reached():
    (HERE / "reached").write_text(str(os.getpid()))


def leave_sleepers():
    subprocess.Popen(["sleep", "{SLEEP_S}"])
    subprocess.Popen(["sleep", "{SLEEP_S}"], start_new_session=True)
    reads, writes = os.pipe()  # closed when the daemon has become `sleep`
    if os.fork() == 0:  # a daemon as daemons are made
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "{SLEEP_S}"])
        os._exit(0)
    os.wait()
    os.close(writes)
    os.read(reads, 1)
    os.close(reads)
    reached()


def leave_and_hang_in_python():
    leave_sleepers()
    hang_in_python()


def leave_and_hang_in_native_code():
    leave_sleepers()
    native, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)  # for ever, with Python's lock held; no signal ends it, as it would end a sleep


def leave_and_hang_with_signals_blocked():
    leave_sleepers()
    hang_with_signals_blocked()


def measure_on():
    """Until the job is interrupted."""
    reached()
    time.sleep(60)


def measure_on_for_a_moment():
    reached()
    time.sleep(1)


def wait_for_leave():
    """Until the test makes the file `leave` beside this one, in this job and in all that follow."""
    while not (HERE / "leave").exists():
        time.sleep(0.05)


def fill_the_disk():
    """Of the job's folder: the way there goes over its log."""
    folder = Path(os.readlink("/proc/self/fd/1")).parent
    state = os.statvfs(folder)
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize)
    reached()
'''


def make_model(folder: Path) -> Path:
    """Write a checkpoint with the faults of both files."""
    faults.make_model(folder)
    with (folder / "modeling_faulty.py").open("a", encoding="utf-8") as file:
        file.write(CODE)
    return folder


def environment() -> dict[str, str]:
    """Return this test's environment without variables that affect the command."""
    return user_environment()


def default_signals() -> None:
    """Reset signals in the child: a test run in the background or under nohup passes its ignored signals on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass
class Started:
    """A running command."""

    process: subprocess.Popen[bytes]
    folder: Path
    model: Path
    logs: Path

    @property
    def out(self) -> str:
        """Return its stdout so far."""
        return (self.logs / "stdout").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Return its stderr so far."""
        return (self.logs / "stderr").read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], object], timeout_s: float = 120.0) -> None:
        """Wait for a condition while the command runs."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"it has ended: {self.out}{self.err}"
            assert time.monotonic() < deadline, f"it takes too long: {self.out}{self.err}"
            time.sleep(0.05)

    def wait_for_fault(self) -> psutil.Process:
        """Wait until a fault has been reached and return its process."""
        self.wait_until(lambda: read_or_none(self.model / "reached"))
        return psutil.Process(int((self.model / "reached").read_text(encoding="utf-8")))

    def family(self) -> list[psutil.Process]:
        """Return all running processes of the command: its descendants and their leftover processes."""
        return [*psutil.Process(self.process.pid).children(recursive=True), *sleepers()]


def go_on(run: Started, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the printed command that resumes a sweep."""
    (line,) = [line for line in run.out.splitlines() if line.strip().startswith("Resume:")]
    python, *rest = shlex.split(line.partition("Resume:")[2])
    assert python == "python"
    return subprocess.run(
        [sys.executable, *rest],
        cwd=run.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def records(folder: Path) -> dict[int, Record]:
    """Map each batch size to the record of its job, for the sweeps below a folder."""
    found = [Record.read(path) for path in folder.glob("multirun/*/*/record.json")]
    by_size = {each.requested["workload"]["batch_size"]: each for each in found}
    assert len(by_size) == len(found)  # one record each
    return by_size


def statuses(folder: Path) -> dict[int, str]:
    """Map each batch size to the status of its job."""
    return {size: record.status for size, record in sorted(records(folder).items())}


def read_or_none(path: Path) -> str | None:
    """Return the text of a file, None while it does not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def sleepers() -> list[psutil.Process]:
    """Return the sleeping processes that jobs of this test left."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if each.cmdline() == ["sleep", str(SLEEP_S)]:
                found.append(each)
    return found


def alive_after(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return the processes that still run after this many seconds, or as soon as none is left."""
    deadline = time.monotonic() + timeout_s
    while alive := [each for each in processes if is_alive(each)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return alive


def is_alive(process: psutil.Process) -> bool:
    """Return whether the process runs; a zombie does not."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextlib.contextmanager
def started(
    folder: Path,
    model: Path,
    *arguments: str,
    logs: Path | None = None,
    prepare: Callable[[], None] = default_signals,
    python: Sequence[str] = ("-m", "bench"),
) -> Iterator[Started]:
    """Run `python -m bench` with these arguments in `folder`; kill its leftover processes in the end.

    Its output is written to `logs`, or to `folder`.
    """
    logs = logs or folder
    (model / "reached").unlink(missing_ok=True)
    command = [sys.executable, *python, *arguments, *faults.arguments(model), "tracking=off"]
    with (logs / "stdout").open("wb") as out, (logs / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=prepare,
        )
    run = Started(process=process, folder=folder, model=model, logs=logs)
    family: list[psutil.Process] = []
    try:
        yield run
    finally:
        with contextlib.suppress(psutil.Error):
            family = run.family()
        process.kill()
        process.wait()
        for each in [*family, *sleepers()]:
            with contextlib.suppress(psutil.Error):
                each.kill()
