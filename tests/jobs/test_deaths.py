"""Run jobs that really fail in each way possible without a GPU: check the record and the processes left behind.

The model injects the faults (tests/faults.py). After each failure the test looks for surviving processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import faults
from bench.config.schema import BenchmarkConfig, IsolationConfig, ModelConfig
from bench.jobs.folders.scratch import LOG_HEAD_BYTES, LOG_TAIL_BYTES
from bench.jobs.job import new_record, run_job
from bench.results.record import Record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return faults.make_model(tmp_path_factory.mktemp("faulty") / "model")


@pytest.fixture
def die(model, tmp_path):
    """Run the faulty model with a fault injected before a call; return the record."""

    def run(
        fault: str, call: int = 3, *, timeout_s: float = 120.0, mode: str = "forkserver", folder=tmp_path
    ) -> Record:
        faults.plant(model, {1: (fault, call)})
        config = BenchmarkConfig(
            model=ModelConfig(id=str(model), weights="random", trust_remote_code=True),
            sequence_length=8,
            num_tokens_to_generate=4,
            warmup_iterations=1,
            measurement_iterations=3,
            gpu_monitoring=False,
            isolation=IsolationConfig(timeout_s=timeout_s, mode=mode),
        )
        folder.mkdir(exist_ok=True)
        record = run_job(config, new_record(config), folder, lambda *_: None)
        assert Record.read(folder) == record  # the record on disk equals the returned one
        assert record.ended_at_s >= record.started_at_s
        assert left_behind() == []
        assert sorted(path.name for path in folder.iterdir()) == ["record.json", "worker.log"]
        return record

    return run


def left_behind() -> list[str]:
    """Return the processes that this process's jobs left running."""
    family = {each.pid: each for each in psutil.Process().children(recursive=True)}
    jobs = [each for each in family.values() if os.getpgid(each.pid) == each.pid and "forkserver" in cmdline(each)]
    sleepers = [each for each in psutil.process_iter() if cmdline(each) == "sleep 98765"]
    return [cmdline(each) for each in [*jobs, *sleepers]]


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def test_an_exception_is_a_failure_with_its_traceback(die) -> None:
    record = die("plain_exception", 0)
    assert (record.status, record.stage, record.error.message) == ("failed", "validation", "planted failure")
    assert "in plain_exception" in record.error.detail
    assert record.end is None


@pytest.mark.parametrize("mode", ["forkserver", "spawn"])
def test_a_call_of_exit_ends_only_the_job(die, mode: str) -> None:
    record = die("sys_exit", mode=mode)
    assert (record.status, record.stage) == ("crashed", "measurement")
    assert record.error.message == "the job called sys.exit(3)"
    assert len(record.calls("measurement")) == 1  # the fault comes before the second


def test_a_call_of_exit_in_the_parents_own_process_does_not_end_the_parent(model, tmp_path) -> None:
    faults.plant(model, {1: ("sys_exit", 2)})
    config = BenchmarkConfig(
        model=ModelConfig(id=str(model), weights="random", trust_remote_code=True),
        sequence_length=8,
        num_tokens_to_generate=4,
        warmup_iterations=1,
        measurement_iterations=1,
        gpu_monitoring=False,
        isolation=IsolationConfig(mode="none"),
    )
    record = run_job(config, new_record(config), tmp_path, lambda *_: None)
    assert (record.status, record.error.message) == ("crashed", "the job called sys.exit(3)")


def test_a_process_that_exits_without_a_message_is_a_crash_with_its_exit_status(die) -> None:
    record = die("os_exit")
    assert (record.status, record.stage) == ("crashed", "measurement")
    assert (record.end.exit_code, record.end.signal) == (7, None)
    assert "exit status 7" in record.error.message


@pytest.mark.parametrize(
    ("fault", "signal", "evidence"),
    [
        ("segmentation_fault", "SIGSEGV", "Segmentation fault"),
        ("abort", "SIGABRT", "Aborted"),
        ("sigkill", "SIGKILL", ""),
    ],
)
def test_a_fatal_signal_is_a_crash_that_names_the_signal_and_quotes_the_log(
    die, fault: str, signal: str, evidence: str
) -> None:
    record = die(fault)
    assert (record.status, record.stage) == ("crashed", "measurement")
    assert (record.end.exit_code, record.end.signal) == (None, signal)
    assert signal in record.error.message
    assert evidence in (record.error.detail or "")
    if evidence:  # the line of Python in which it happened
        assert f"in {fault}" in record.error.detail


def test_a_failed_allocation_is_oom_with_the_bytes(die) -> None:
    record = die("allocation")
    assert (record.status, record.error.requested_bytes) == ("oom", 10**15)
    assert 0 < record.error.free_bytes < 10**13


def test_errors_of_the_gpu_allocator_are_parsed(die) -> None:
    record = die("cuda_out_of_memory")
    assert record.status == "oom"
    assert (record.error.requested_bytes, record.error.free_bytes) == (2684354560, 19398656)


def test_a_sticky_device_error_fails_only_its_job(die, tmp_path) -> None:
    record = die("sticky_cuda_error", folder=tmp_path / "first")
    assert (record.status, record.stage) == ("failed", "measurement")
    assert record.error.message == "CUDA error: an illegal memory access was encountered"
    assert die("", folder=tmp_path / "second").status == "ok"  # another process, another context


@pytest.mark.parametrize("fault", ["hang_in_python", "hang_in_native_code", "hang_with_signals_blocked"])
def test_a_hanging_job_ends_at_the_deadline(die, fault: str) -> None:
    begin = time.monotonic()
    record = die(fault, timeout_s=15.0)
    assert (record.status, record.stage) == ("timeout", "measurement")
    assert record.error.message == "isolation.timeout_s=15: not finished in measurement; raise it or ask for less"
    assert record.end.killed_at_deadline
    assert time.monotonic() - begin < 90


def test_processes_that_outlive_their_job_are_ended_and_named(die) -> None:
    record = die("leave_processes")
    assert record.status == "ok"
    assert len(record.end.strays) == 3
    assert all(each.startswith("sleep (") for each in record.end.strays)


def test_processes_of_a_crashed_job_are_ended(die) -> None:
    record = die("leave_processes_and_die")
    assert (record.status, record.end.signal, len(record.end.strays)) == ("crashed", "SIGKILL", 3)


def test_processes_of_a_hanging_job_are_ended(die) -> None:
    record = die("leave_processes_and_hang", timeout_s=15.0)
    assert record.status == "timeout"
    assert len(record.end.strays) >= 2  # the process in the job's own group may have received the interrupt


def test_an_endless_log_keeps_its_beginning_and_its_end(die, tmp_path) -> None:
    record = die("fill_log")
    log = (tmp_path / "worker.log").read_bytes()
    assert record.status == "ok"
    assert LOG_HEAD_BYTES < len(log) <= LOG_HEAD_BYTES + LOG_TAIL_BYTES + 10_000
    assert b"\n[bench: " in log
    assert log.rstrip().endswith(b"the last line") or b"the last line" in log[-10_000:]
    assert record.end.log_cut_bytes > 50 << 20


def test_a_job_that_crashes_after_the_measurement_keeps_its_results(die) -> None:
    record = die("sigkill", 5)  # in the call for evidence
    assert (record.status, record.stage) == ("crashed", "evidence")
    assert len(record.calls("measurement")) == 3
    assert "its measured calls are kept" in record.error.message


def test_a_truncated_record_is_a_crash(die) -> None:
    record = die("half_a_record")
    assert (record.status, record.end.signal) == ("crashed", "SIGKILL")
    assert record.iterations == []


def test_a_fork_server_killed_during_a_job_loses_no_job(die, tmp_path) -> None:
    assert die("kill_the_fork_server", folder=tmp_path / "first").status == "ok"
    assert die("", folder=tmp_path / "second").status == "ok"


def test_killing_the_supervisor_ends_the_worker(die) -> None:
    record = die("kill_the_supervisor")
    assert (record.status, record.end.signal) == ("crashed", "SIGKILL")


# ---- memory --------------------------------------------------------------------------------------------------------


def bench(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments, "tracking=off"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, **options)


def test_an_exhausted_address_space_is_oom(model, tmp_path) -> None:
    faults.plant(model, {1: ("eat_memory", 2)})
    limit = 12 << 30
    done = bench(
        tmp_path, *faults.arguments(model), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )
    (path,) = tmp_path.glob("outputs/*/record.json")
    record = Record.read(path)
    assert (done.returncode, record.status, record.stage) == (1, "oom", "measurement")
    assert record.error.type == "MemoryError"


@pytest.fixture
def group():
    """Create a control group limited to 3 GiB of memory."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    parts = [line.split(":", 2) for line in lines]
    v1 = next((path for _, names, path in parts if "memory" in names.split(",")), None)
    v2 = next((path for _, names, path in parts if names == ""), "/")
    root = Path("/sys/fs/cgroup/memory" if v1 is not None else "/sys/fs/cgroup") / (v1 or v2).lstrip("/")
    folder = root / f"bench-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if v1 is not None else "memory.max"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(3 << 30))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    for _ in range(50):
        with contextlib.suppress(OSError):  # busy until the last process is reaped
            folder.rmdir()
            break
        time.sleep(0.1)


def test_the_kernels_oom_killer_ends_only_the_job_and_is_named(model, tmp_path, group) -> None:
    faults.plant(model, {2: ("eat_memory", 2)})

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    done = bench(tmp_path, "-m", *faults.arguments(model), "workload.batch_size=1,2,3", preexec_fn=enter)
    records = {
        r.requested["workload"]["batch_size"]: r for r in map(Record.read, tmp_path.glob("multirun/*/*/record.json"))
    }
    assert done.returncode == 1, done.stdout + done.stderr
    assert {size: record.status for size, record in records.items()} == {1: "ok", 2: "oom", 3: "ok"}
    dead = records[2]
    assert (dead.end.signal, dead.end.oom_killed, dead.stage) == ("SIGKILL", True, "measurement")
    assert re.match(r"the kernel's OOM killer ended the process in measurement", dead.error.message)
