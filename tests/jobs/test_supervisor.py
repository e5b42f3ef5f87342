"""Test the supervisor, which ends a job if its parent cannot: killed parents, jobs that ignore signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import faults
from bench.results.file_names import LEFTOVERS_NAME
from started import SLEEP_S, alive_after, make_model, sleepers, started

pytestmark = pytest.mark.slow

# ---- killed parents ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("faulty") / "model")


def cmdline(process: psutil.Process) -> str:
    """Return the command line, empty for a process that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))


SWEEP = ("-m", "workload.batch_size=1,2", "sweep.order=given")
SPAWN = ("isolation.mode=spawn",)


@pytest.mark.parametrize(
    ("fault", "number", "arguments"),
    [
        ("leave_and_hang_in_native_code", signal.SIGKILL, SWEEP),
        ("leave_and_hang_in_python", signal.SIGKILL, SPAWN),
        ("leave_and_hang_in_native_code", signal.SIGTERM, ()),
        ("leave_and_hang_with_signals_blocked", signal.SIGHUP, SWEEP),
        ("leave_and_hang_in_python", signal.SIGHUP, ()),
        ("leave_and_hang_with_signals_blocked", signal.SIGTERM, (*SWEEP, *SPAWN)),
    ],
)
def test_no_process_outlives_its_parent(model, tmp_path, fault: str, number: int, arguments: tuple[str, ...]) -> None:
    faults.plant(model, {1: (fault, 2)})
    with started(tmp_path, model, *arguments) as run:
        worker = run.wait_for_fault()
        family = run.family()
        supervisor = psutil.Process(worker.pid).parent()
        assert len(sleepers()) == 3
        assert {worker.pid, supervisor.pid} <= {each.pid for each in family}
        assert oom_score(worker.pid) == 500
        assert oom_score(supervisor.pid) == oom_score(run.process.pid) == oom_score(os.getpid())
        run.process.send_signal(number)
        alive = alive_after([*family, psutil.Process(run.process.pid)], 20)
        assert [" ".join(each.cmdline()) for each in alive] == []
        assert sleepers() == []
        assert run.process.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 130)


# ---- alone ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from bench.jobs.process import supervisor
from bench.jobs.process.supervisor import run_supervised

folder = Path({folder!r})


def tell(text):
    os.write(1, (text + "\\n").encode())


def sleeper(**options):
    return subprocess.Popen(["sleep", "{sleep_s}"], stdout=subprocess.DEVNULL, **options)


def daemon():
    reads, writes = os.pipe()  # closed when it has become `sleep`
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "{sleep_s}"])
        os._exit(0)
    os.wait()
    os.close(writes)
    os.read(reads, 1)
    os.close(reads)


def work():
{work}


{before}
tell("begins")
run_supervised(work, folder)
os._exit(0)
"""


def program(folder: Path, work: str, before: str = "") -> str:
    """Return the source of a program that runs `before`, then `work` under a supervisor."""
    indented = "\n".join(f"    {line}" for line in work.splitlines())
    return PROGRAM.format(folder=str(folder), sleep_s=SLEEP_S, work=indented, before=before)


@pytest.fixture
def guarded(tmp_path):
    """Start a supervised program."""
    running: list[subprocess.Popen[str]] = []

    def start(work: str, before: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program(tmp_path, work, before)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "begins\n"
        return running[-1]

    yield start
    for each in running:
        each.kill()
        each.communicate()
    for each in sleepers():
        each.kill()


HANG = "while True: time.sleep(1)"
LEAVE = "sleeper()\nsleeper(start_new_session=True)\ndaemon()\n"


@pytest.mark.parametrize(
    ("work", "code"),
    [
        ("pass", 0),
        ("os._exit(7)", 7),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('planted')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.abort()", -signal.SIGABRT),
        ("signal.signal(signal.SIGINT, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", -(signal.SIGRTMIN + 3)),
    ],
)
@pytest.mark.parametrize("before", ["", "def pidfd_open(pid): raise OSError(38, 'ENOSYS')\nos.pidfd_open = pidfd_open"])
def test_a_supervisor_ends_with_its_jobs_status(guarded, work: str, code: int, before: str) -> None:
    assert guarded(work, before).wait(20) == code


def test_a_crash_writes_only_one_core_file(guarded, tmp_path) -> None:
    before = f"import resource\nresource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\nos.chdir({str(tmp_path)!r})"
    assert guarded("os.abort()", before).wait(20) == -signal.SIGABRT
    assert len(list(tmp_path.iterdir())) <= 1


def test_processes_that_a_job_leaves_are_killed_and_named(guarded, tmp_path) -> None:
    assert guarded(LEAVE).wait(20) == 0
    assert alive_after(sleepers(), 1) == []
    names = (tmp_path / LEFTOVERS_NAME).read_text(encoding="utf-8").splitlines()
    assert [name.partition(" ")[0] for name in names] == ["sleep"] * 3


def test_processes_of_a_crashed_job_are_killed(guarded, tmp_path) -> None:
    assert guarded(f"{LEAVE}os.kill(os.getpid(), signal.SIGKILL)").wait(20) == -signal.SIGKILL
    assert sleepers() == []
    assert len((tmp_path / LEFTOVERS_NAME).read_text(encoding="utf-8").splitlines()) == 3


def test_a_helper_that_ends_with_its_job_is_not_reported(guarded, tmp_path) -> None:
    helper = """reads, writes = os.pipe()
if os.fork() == 0:
    os.close(writes)
    os.read(reads, 1)  # until the job is gone
    time.sleep(0.05)
    os._exit(0)"""
    assert guarded(helper, "supervisor.GRACE_S = 10.0").wait(20) == 0
    assert not (tmp_path / LEFTOVERS_NAME).exists()


def test_a_chain_of_processes_that_keep_forking_is_ended(guarded) -> None:
    chain = f"""if os.fork() == 0:
    os.setsid()
    for _ in range(160):
        if os.fork():
            os._exit(0)
        time.sleep(0.05)
    os.execvp("sleep", ["sleep", "{SLEEP_S}"])"""
    begin = time.monotonic()
    assert guarded(chain).wait(30) == 0
    assert time.monotonic() - begin < 6
    time.sleep(0.2)
    assert [line for line in map(cmdline, psutil.process_iter()) if str(SLEEP_S) in line] == []


@pytest.mark.parametrize(
    "work",
    [
        HANG,
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL})\n" + HANG,
        "import ctypes\nnative, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)\n"
        "native.pthread_mutex_lock(mutex)\nnative.pthread_mutex_lock(mutex)",
    ],
)
@pytest.mark.parametrize("before", ["", "def pidfd_open(pid): raise OSError(38, 'ENOSYS')\nos.pidfd_open = pidfd_open"])
def test_sigterm_ends_a_job_that_ignores_it(guarded, tmp_path, work: str, before: str) -> None:
    run = guarded(f"{LEAVE}tell('hangs')\n{work}", before)
    assert run.stdout.readline() == "hangs\n"
    family = psutil.Process(run.pid).children(recursive=True)
    run.terminate()
    assert run.wait(10) == -signal.SIGKILL
    assert alive_after(family, 1) == []
    assert len((tmp_path / LEFTOVERS_NAME).read_text(encoding="utf-8").splitlines()) == 3


def test_sigterm_at_any_moment_leaves_no_process(guarded) -> None:
    for number in range(25):
        run = guarded(f"sleeper(start_new_session=True)\n{HANG}")
        time.sleep(number / 2000)
        run.terminate()
        # Before run_supervised() there is nothing to end but the program itself.
        assert run.wait(10) in (-signal.SIGTERM, -signal.SIGKILL)
    assert alive_after(sleepers(), 1) == []


def test_sigterm_while_the_job_ends_reports_one_of_the_two_statuses(guarded) -> None:
    for number in range(25):
        run = guarded(f"time.sleep(0.01)\nos._exit({number + 1})")
        time.sleep(0.005 + number / 4000)
        run.terminate()
        assert run.wait(10) in (-signal.SIGTERM, -signal.SIGKILL, number + 1)


def test_an_interrupt_of_the_group_reaches_the_job_and_spares_the_supervisor(guarded, tmp_path) -> None:
    hear = f"""try:
    tell("hears")
    {HANG}
except KeyboardInterrupt:
    time.sleep(0.3)
    (folder / "record").touch()
    os._exit(5)"""
    run = guarded(hear)
    assert run.stdout.readline() == "hears\n"
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(10) == 5  # the supervisor has waited for the job to finish
    assert (tmp_path / "record").exists()


def test_an_interrupt_reaches_the_job_of_a_parent_that_blocks_or_ignores_it(guarded) -> None:
    hear = f"try:\n    tell('hears')\n    {HANG}\nexcept KeyboardInterrupt:\n    os._exit(5)"
    for before in (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))",
    ):
        run = guarded(hear, before)
        assert run.stdout.readline() == "hears\n"
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(10) == 5


def test_killing_the_supervisor_ends_the_job(guarded) -> None:
    run = guarded(f"tell(str(os.getpid()))\n{HANG}")
    worker = psutil.Process(int(run.stdout.readline()))
    run.kill()
    assert alive_after([worker], 5) == []


def test_killing_the_supervisor_while_it_forks_ends_the_job(guarded) -> None:
    before = """real = supervisor._prctl
def prctl(option, value):
    if option == supervisor.PR_SET_PDEATHSIG:
        os.kill(os.getppid(), signal.SIGKILL)  # the moment before the kernel would tell
        while os.getppid() == me: time.sleep(0.01)
    real(option, value)
me, supervisor._prctl = os.getpid(), prctl"""
    run = guarded("tell('lives')\nsleeper()", before)
    assert run.wait(10) == -signal.SIGKILL
    assert run.stdout.read() == ""
    assert sleepers() == []


def test_the_oom_killer_takes_the_job_before_its_supervisor(guarded) -> None:
    run = guarded(f"tell(str(os.getpid()))\n{HANG}")
    worker = int(run.stdout.readline())
    assert oom_score(worker) == 500
    assert oom_score(run.pid) == oom_score(os.getpid())


def test_a_supervisor_uses_no_cpu_while_its_job_runs(guarded) -> None:
    run = guarded(f"tell('runs')\n{HANG}")
    assert run.stdout.readline() == "runs\n"
    supervisor = psutil.Process(run.pid)
    time.sleep(0.2)
    seen = [(supervisor.num_ctx_switches(), supervisor.cpu_times().user)]
    for _ in range(5):  # its remaining work may take a while on a busy machine
        time.sleep(1.5)
        seen.append((supervisor.num_ctx_switches(), supervisor.cpu_times().user))
        if seen[-1] == seen[-2]:
            break
    assert seen[-1] == seen[-2]  # it has used no CPU time


def test_failing_to_write_the_list_of_leftover_processes_has_no_other_effect(guarded, tmp_path) -> None:
    (tmp_path / LEFTOVERS_NAME).mkdir()
    assert guarded(f"{LEAVE}os._exit(7)").wait(20) == 7
    assert sleepers() == []


HIDEPID = 'mount -t proc -o hidepid={} proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'


@pytest.mark.parametrize("hidepid", [1, 2])
def test_a_jobs_processes_are_found_though_proc_hides_other_users(guarded, tmp_path, hidepid: int) -> None:
    if os.getuid() or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("needs root, unshare and setpriv")
    prefix = ("unshare", "--mount", "sh", "-c", HIDEPID.format(hidepid), "sh")
    if subprocess.run([*prefix, sys.executable, "-c", "pass"], capture_output=True, check=False).returncode:
        pytest.skip("no such /proc can be mounted here, or this interpreter is not readable for others")
    tmp_path.chmod(0o777)
    check = (
        "try:\n    Path('/proc/1/stat').read_text()\n    tell('sees all')\nexcept OSError:\n    tell('sees its own')"
    )
    command = [*prefix, sys.executable, "-c", program(tmp_path, f"{LEAVE}os._exit(7)", check)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["sees its own", "begins"], run.stderr
    assert run.returncode == 7
    assert alive_after(sleepers(), 1) == []
