"""Test Ctrl-C and other signals to the real command while a real job measures or ignores them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import faults
from bench.jobs.process import child as process
from bench.orchestration import signals
from bench.results.record import Record
from started import (
    Started,
    alive_after,
    default_signals,
    environment,
    go_on,
    make_model,
    records,
    sleepers,
    started,
    statuses,
)

pytestmark = pytest.mark.slow

SWEEP = ("-m", "workload.batch_size=1,2,3", "sweep.order=given", "measurement.iterations=3")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("faulty") / "model")


def test_the_first_signal_keeps_finished_jobs_and_says_how_to_resume(model, tmp_path) -> None:
    faults.plant(model, {2: ("measure_on", 3)})
    with started(tmp_path, model, *SWEEP) as run:
        run.wait_for_fault()  # the second job, during its measured calls
        family = run.family()
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 130
        assert alive_after(family, 20) == []
    assert statuses(tmp_path) == {1: "ok", 2: "interrupted"}
    stopped = records(tmp_path)[2]
    assert (stopped.stage, stopped.error.message) == ("measurement", "by the user")
    assert len(stopped.calls("measurement")) >= 1
    assert "interrupted; ends the running job and keeps what is done" in run.err
    assert "Traceback" not in run.out + run.err
    first = next(path for path in tmp_path.glob("multirun/*/*/record.json") if "batch_size=1" in path.parent.name)
    before = first.stat()

    faults.plant(model, {})
    done = go_on(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path) == {1: "ok", 2: "ok", 3: "ok"}
    assert first.stat() == before  # finished jobs do not run again
    assert len({each.sweep_id for each in records(tmp_path).values()}) == 1
    assert len(list(tmp_path.glob("multirun/*/earlier/*/record.json"))) == 1


def test_the_second_signal_stops_at_once_whatever_the_job_does(model, tmp_path) -> None:
    faults.plant(model, {2: ("leave_and_hang_in_native_code", 3)})
    with started(tmp_path, model, *SWEEP) as run:
        run.wait_for_fault()
        family = run.family()
        assert len(sleepers()) == 3
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert run.process.poll() is None  # the job ignores the signal and is given time
        begin = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(30) == 130
        assert time.monotonic() - begin < 2 + process.KILL_S
        assert [" ".join(each.cmdline()) for each in alive_after(family, 20)] == []
    assert statuses(tmp_path) == {1: "ok"}
    assert run.err.endswith("bench: stopped at once\n")
    assert "Traceback" not in run.out + run.err

    faults.plant(model, {})
    (folder,) = tmp_path.glob("multirun/*")
    command = ["-m", "bench", *SWEEP, *faults.arguments(model), "tracking=off"]
    done = subprocess.run(
        [sys.executable, *command, f"sweep.name={folder.name}", "sweep.resume=true"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path) == {1: "ok", 2: "ok", 3: "ok"}


def test_the_same_signal_twice_within_a_moment_counts_once(model, tmp_path) -> None:
    faults.plant(model, {1: ("measure_on", 3)})
    # An interval short enough even on a busy machine.
    long = "from bench.cli import application; from bench.orchestration import signals; signals.ECHO_S = 30.0; application.main()"
    with started(tmp_path, model, python=("-c", long)) as run:
        run.wait_for_fault()
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.03)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 130
    (path,) = tmp_path.glob("outputs/*/record.json")
    assert Record.read(path).status == "interrupted"  # it was given the time to write it
    assert "stopped at once" not in run.err
    assert run.err.count("interrupted; ends the running job") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_the_job_the_same_way(model, tmp_path, number: int) -> None:
    faults.plant(model, {1: ("measure_on", 3)})
    with started(tmp_path, model) as run:
        run.wait_for_fault()
        run.process.send_signal(number)
        assert run.process.wait(60) == 130
    (path,) = tmp_path.glob("outputs/*/record.json")
    record = Record.read(path)
    assert (record.status, record.error.message) == ("interrupted", f"{signal.Signals(number).name} to the command")


def test_under_nohup_a_sweep_continues(model, tmp_path) -> None:
    def nohup() -> None:
        default_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    faults.plant(model, {1: ("measure_on_for_a_moment", 3)})
    with started(tmp_path, model, "-m", "workload.batch_size=1,2", prepare=nohup) as run:
        run.wait_for_fault()
        os.killpg(run.process.pid, signal.SIGHUP)  # the terminal closes: every process of the session gets the signal
        assert run.process.wait(120) == 0
    assert statuses(tmp_path) == {1: "ok", 2: "ok"}


def test_a_signal_during_the_commands_imports_leaves_nothing(model, tmp_path) -> None:
    faults.plant(model, {})
    with started(tmp_path, model, "-m", "workload.batch_size=1,2") as run:
        run.wait_until(lambda: psutil.Process(run.process.pid).children())  # the fork server: it is started first
        end_early(run)
    assert not (tmp_path / "multirun").exists()


def test_a_second_signal_during_the_fork_servers_imports_leaves_nothing(model, tmp_path) -> None:
    faults.plant(model, {})
    with started(tmp_path, model, "-m", "workload.batch_size=1,2") as run:
        run.wait_until(lambda: list(tmp_path.glob("multirun/*")))  # now it is waited for
        family = run.family()
        assert family
        run.process.send_signal(signal.SIGINT)
        time.sleep(3 * signals.ECHO_S)
        begin = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(30) == 130
        assert time.monotonic() - begin < 2 + process.KILL_S
        assert alive_after(family, 5) == []


def test_a_signal_before_the_first_job_leaves_nothing(model, tmp_path) -> None:
    faults.plant(model, {})
    with started(tmp_path, model, "-m", "workload.batch_size=1,2") as run:
        run.wait_until(lambda: list(tmp_path.glob("multirun/*")))
        end_early(run)
    assert records(tmp_path) == {}


def end_early(run: Started) -> None:
    family = run.family()
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 130
    assert alive_after(family, 20) == []
    assert "Traceback" not in run.out + run.err


# ---- the handler alone ---------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time
{before}
from bench.orchestration import signals
signals.install()
try:
    print("begins", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    print("first", flush=True)
    time.sleep(30)
"""


def handled(tmp_path: Path, before: str = "") -> subprocess.Popen[str]:
    command = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    assert command.stdout.readline() == "begins\n"
    return command


def test_two_different_signals_are_a_first_and_a_second(tmp_path) -> None:
    with handled(tmp_path) as command:
        command.send_signal(signal.SIGHUP)
        assert command.stdout.readline() == "first\n"
        time.sleep(2 * signals.ECHO_S)
        command.send_signal(signal.SIGTERM)
        assert command.wait(10) == 130


def test_an_ignored_signal_stays_ignored(tmp_path) -> None:
    with handled(tmp_path, "signal.signal(signal.SIGINT, signal.SIG_IGN)") as command:
        command.send_signal(signal.SIGINT)
        command.send_signal(signal.SIGTERM)
        assert command.stdout.readline() == "first\n"
        assert "interrupted" in command.stderr.readline() + command.stderr.readline()
        command.kill()


def test_a_closed_terminal_is_no_error(tmp_path) -> None:
    with handled(tmp_path, "os.close(2)") as command:
        command.send_signal(signal.SIGINT)
        assert command.stdout.readline() == "first\n"
        time.sleep(2 * signals.ECHO_S)
        command.send_signal(signal.SIGINT)
        assert command.wait(10) == 130


def test_a_second_signal_during_an_import_still_stops(tmp_path) -> None:
    before = "import types\nsys.modules['bench.jobs.process.child'] = types.ModuleType('half')"
    with handled(tmp_path, before) as command:
        command.send_signal(signal.SIGINT)
        assert command.stdout.readline() == "first\n"
        time.sleep(2 * signals.ECHO_S)
        command.send_signal(signal.SIGINT)
        assert command.wait(10) == 130


def test_a_signal_during_a_jobs_start_waits_until_it_can_be_forwarded(tmp_path, monkeypatch) -> None:
    class Starting:
        pid = None

        def start(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # the child has been asked for, and has no name here yet
            self.pid = os.getpid()

    child = process.Child(
        mode="forkserver", entry=("", ""), folder=tmp_path, log=tmp_path / "log", on_event=lambda *_: None
    )
    child._process = Starting()
    monkeypatch.setattr(process, "_running", set())
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)  # such as the live line's: a signal that is masked here goes there
    other.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            child._start()
        assert process._running == {os.getpid()}
    finally:
        signal.signal(signal.SIGINT, before)
        stop.set()
        other.join()
        if child._pidfd is not None:
            os.close(child._pidfd)
