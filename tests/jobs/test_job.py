"""Test one process per job with real child processes and real crashes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from bench.config.schema import BenchmarkConfig, IsolationConfig, ModelConfig
from bench.jobs.job import new_record, run_job
from bench.jobs.process.stop_reason import SignalStop
from bench.results.record import Record
from snapshots import snapshot


def quiet(*_: object) -> None:
    pass


def run(config: BenchmarkConfig, folder: Path, on_event=quiet) -> Record:
    return run_job(config, new_record(config, name="one"), folder, on_event)


@pytest.mark.parametrize("mode", ["forkserver", "spawn", "none"])
def test_a_job_runs_in_every_mode(tiny, tmp_path, mode: str) -> None:
    config = tiny(isolation=IsolationConfig(mode=mode))
    record = run(config, tmp_path)
    assert (record.status, record.stage, record.error) == ("ok", None, None)
    assert len(record.iterations) == 4
    assert record == Record.read(tmp_path)
    assert record.requested == config.to_dict()
    assert {"start", "import", "load", "evidence"} <= record.phases_s.keys()


def test_progress_arrives_in_the_order_of_the_stages(tiny, tmp_path) -> None:
    events = []
    run(tiny(warmup_iterations=2, measurement_iterations=3), tmp_path, lambda *event: events.append(event))
    assert [event[:3] for event in events] == [
        ("load", 0, 1),
        ("validation", 0, 1),
        ("warmup", 0, 2),
        ("warmup", 1, 2),
        ("measurement", 0, 3),
        ("measurement", 1, 3),
        ("measurement", 2, 3),
        ("evidence", 0, 1),
        ("roofline", 0, 1),
    ]
    assert all(event[3] > 0 for event in events if event[0] in ("warmup", "measurement"))


def test_each_job_has_its_own_process_and_the_parent_never_imports_torch(tmp_path) -> None:
    program = f"""
import sys, json
from pathlib import Path
import yaml
from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.jobs.job import new_record, run_job
from bench.jobs.process.stop_reason import SignalStop

tiny = yaml.safe_load(Path({str(Path(__file__).parents[2] / "conf/model/tiny.yaml")!r}).read_text())
if __name__ == "__main__":
    for index in range(2):
        folder = Path({str(tmp_path)!r}) / str(index)
        folder.mkdir()
        config = BenchmarkConfig(model=ModelConfig(**tiny), warmup_iterations=0, measurement_iterations=1)
        assert run_job(config, new_record(config), folder, lambda *event: None).status == "ok"
    assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    subprocess.run([sys.executable, str(path)], check=True, timeout=300)


def test_a_missing_model_gives_a_record_with_its_stage(tiny, tmp_path) -> None:
    config = tiny()
    config.model = ModelConfig(id="nowhere/to-be-found")
    record = run(config, tmp_path)
    assert (record.status, record.stage) == ("failed", "load")
    assert "nowhere/to-be-found" in record.error.message
    assert "\n" not in record.error.message
    assert "Traceback" in record.error.detail


def test_the_error_for_the_user_is_one_line(tiny, tmp_path) -> None:
    record = run(tiny(sequence_length=5000), tmp_path)
    assert (record.status, record.stage) == ("failed", "load")
    assert record.error.message == (
        "workload.sequence_length=5000: with 4 new tokens makes 5004 positions; the model has 4096"
    )


def test_the_deadline_ends_a_job_as_timeout_and_names_the_key(tiny, tmp_path) -> None:
    (tmp_path / "first").mkdir()
    run(tiny(), tmp_path / "first")  # the fork server is ready after it
    config = tiny(measurement_iterations=100_000, isolation=IsolationConfig(timeout_s=15))
    start = time.monotonic()
    record = run(config, tmp_path)
    assert time.monotonic() - start < 60
    assert (record.status, record.stage) == ("timeout", "measurement")
    assert len(record.calls("measurement")) >= 1
    assert record.error.message.startswith("isolation.timeout_s=15: not finished in measurement")
    assert Record.read(tmp_path) == record


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_job_gives_a_record_that_names_the_signal(tiny, tmp_path, number: int) -> None:
    def kill(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("measurement", 1):
            os.kill(worker(), number)

    record = run(tiny(measurement_iterations=1000), tmp_path, kill)
    assert (record.status, record.stage) == ("crashed", "measurement")
    assert "left no record" in record.error.message
    assert Record.read(tmp_path) == record


def worker() -> int:
    """Return the pid of the running job: the child of its supervisor, which leads their process group."""
    family = psutil.Process().children(recursive=True)
    (one,) = [each.pid for each in family if each.ppid() == os.getpgid(each.pid) != os.getpgrp()]
    return one


@contextlib.contextmanager
def running(tmp_path, iterations: int, hangup):
    """Start `python -m bench` with this many measured calls; wait for its job. SIGHUP is inherited as given."""
    command = [sys.executable, "-m", "bench", "tracking=off", f"measurement.iterations={iterations}"]
    with (tmp_path / "out").open("w", encoding="utf-8") as out:
        parent = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=out,
            stderr=out,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
        )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/*/worker.log")) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield parent


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_no_process_outlives_its_parent(tmp_path, number: int) -> None:
    # A test run under nohup passes its ignored SIGHUP on.
    with running(tmp_path, 100_000, signal.SIG_DFL) as parent:
        time.sleep(1)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 2  # the fork server and the job
        parent.send_signal(number)
        parent.wait(30)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []


@pytest.mark.slow
def test_under_nohup_a_run_outlives_its_terminal(tmp_path) -> None:
    with running(tmp_path, 10, signal.SIG_IGN) as parent:
        parent.send_signal(signal.SIGHUP)
        assert parent.wait(120) == 0
    (path,) = tmp_path.glob("outputs/*/record.json")
    assert Record.read(path).status == "ok"


def test_a_killed_fork_server_fails_no_job(tiny, tmp_path) -> None:
    (tmp_path / "first").mkdir()
    run(tiny(), tmp_path / "first")
    for each in psutil.Process().children():
        if "forkserver" in " ".join(each.cmdline()):
            each.kill()  # not waited for: its parent does that
            time.sleep(0.5)
    assert run(tiny(), tmp_path).status == "ok"


def test_the_next_job_runs_after_a_crashed_one(tiny, tmp_path) -> None:
    for name in ("dies", "lives"):
        (tmp_path / name).mkdir()
    dead = run(
        tiny(measurement_iterations=1000),
        tmp_path / "dies",
        lambda phase, done, *_: os.kill(worker(), signal.SIGKILL) if (phase, done) == ("measurement", 1) else None,
    )
    assert dead.status == "crashed"
    assert run(tiny(), tmp_path / "lives").status == "ok"


def test_ctrl_c_ends_the_job_and_leaves_its_record(tiny, tmp_path) -> None:
    def interrupt(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("measurement", 1):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tiny(measurement_iterations=2000), tmp_path, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    record = Record.read(tmp_path)
    assert (record.status, record.stage) == ("interrupted", "measurement")
    assert record.error.message == "by the user"
    assert len(record.calls("measurement")) >= 1  # calls measured before it are kept
    assert not [each for each in psutil.Process().children(recursive=True) if each.pid == os.getpgid(each.pid)]


def family() -> tuple[int, int]:
    """Return the pids of the running job's supervisor and worker."""
    (supervisor,) = [each for each in psutil.Process().children(recursive=True) if os.getpgid(each.pid) == each.pid]
    (worker,) = supervisor.children()
    return supervisor.pid, worker.pid


def send_to(whom: str, number: int):
    """Send a signal to the worker, its supervisor or their group once two calls are measured."""

    def on_event(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("measurement", 2):
            supervisor, worker = family()
            {"supervisor": lambda: os.kill(supervisor, number), "group": lambda: os.killpg(supervisor, number)}.get(
                whom, lambda: os.kill(worker, number)
            )()

    return on_event


@pytest.mark.parametrize(
    ("whom", "number"),
    [
        ("worker", signal.SIGTERM),
        ("worker", signal.SIGINT),
        ("supervisor", signal.SIGTERM),
        ("group", signal.SIGTERM),
        pytest.param("worker", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("supervisor", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("group", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_from_outside_is_named_as_such_and_ends_only_the_job(tiny, tmp_path, whom: str, number: int) -> None:
    for name in ("stopped", "next"):
        (tmp_path / name).mkdir()
    record = run(tiny(measurement_iterations=5000), tmp_path / "stopped", send_to(whom, number))
    name = signal.Signals(number).name
    assert record.status == ("interrupted" if number == signal.SIGINT else "crashed")
    assert (record.stage, record.error.type) == ("measurement", "Signal")
    assert record.error.message.startswith(f"{name} to the job's process in measurement, from outside of bench")
    assert Record.read(tmp_path / "stopped") == record
    assert not list((tmp_path / "stopped").glob(".sig*"))
    if whom == "worker":
        assert run(tiny(), tmp_path / "next").status == "ok"


def test_a_signal_to_the_command_is_named_in_the_record(tiny, tmp_path) -> None:
    before = signal.signal(signal.SIGTERM, raise_stop)
    try:
        with pytest.raises(SignalStop):
            run(
                tiny(measurement_iterations=5000),
                tmp_path,
                lambda phase, done, *_: (
                    os.kill(os.getpid(), signal.SIGTERM) if (phase, done) == ("measurement", 2) else None
                ),
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    record = Record.read(tmp_path)
    assert (record.status, record.stage) == ("interrupted", "measurement")
    assert record.error.message == "SIGTERM to the command"
    assert len(record.calls("measurement")) >= 1


def raise_stop(number: int, _: object) -> None:
    raise SignalStop(signal.Signals(number).name)


def test_the_fresh_compile_cache_is_gone_after_the_job(tiny, tmp_path, monkeypatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "job").mkdir()
    run(tiny(), tmp_path / "job")
    assert list(tmp_path.glob("bench-compile-*")) == []


def test_output_of_the_job_is_written_to_its_log(tiny, tmp_path) -> None:
    config = tiny()
    config.model = dataclasses.replace(config.model, id="nowhere/to-be-found", weights="pretrained", architecture=None)
    run(config, tmp_path)
    assert "Traceback" in (tmp_path / "worker.log").read_text(encoding="utf-8")


def test_the_record_of_an_earlier_attempt_is_not_taken_for_the_current_one(tiny, tmp_path) -> None:
    config = tiny(measurement_iterations=1000)
    former = new_record(config, name="one", sweep_id="s")
    former.status = "ok"
    former.write(tmp_path)
    dead = run_job(
        config,
        new_record(config, name="one", sweep_id="s"),
        tmp_path,
        lambda phase, done, *_: os.kill(worker(), signal.SIGKILL) if (phase, done) == ("measurement", 1) else None,
    )
    assert (dead.status, dead.iterations) == ("crashed", [])
    assert Record.read(tmp_path).status == "crashed"


# ---- files already in the folder -----------------------------------------------------------------------------------


def test_a_record_of_another_run_is_never_removed(tiny, tmp_path) -> None:
    config = tiny()
    for there in (new_record(config), new_record(config, sweep_id="s", repeat=2), new_record(config, sweep_id="other")):
        there.write(tmp_path)
        before = snapshot(tmp_path)
        with pytest.raises(FileExistsError, match="holds the record of another run"):
            run_job(config, new_record(config, sweep_id="s"), tmp_path, lambda *event: None)
        assert snapshot(tmp_path) == before
    with pytest.raises(FileExistsError):
        run_job(config, new_record(config), tmp_path, lambda *event: None)  # nor that of another single run


def test_a_requeued_attempt_replaces_the_earlier_one(tiny, tmp_path) -> None:
    config = tiny(isolation=IsolationConfig(mode="none"))
    former = new_record(config, sweep_id="s")
    former.fail("interrupted", "Preempted", "by Slurm")
    former.write(tmp_path)
    (tmp_path / "operators.txt").write_text("of the former one")
    record = run_job(config, new_record(config, sweep_id="s"), tmp_path, lambda *event: None)
    assert record.status == "ok"
    assert not (tmp_path / "operators.txt").exists()
