"""Test disks that are full, read-only or hold other files, clocks that jump, and two sweeps in one folder."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from filelock import FileLock

import faults
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, IsolationConfig, ModelConfig, SweepConfig
from bench.jobs.folders import scratch
from bench.jobs.job import new_record, run_job
from bench.jobs.planning.plan import Point
from bench.orchestration.sweep import sweep
from bench.results.file_names import RESERVE_NAME
from bench.results.record import Record
from bench.results.sweep_file import SweepFile
from small_disk import fill, make_read_only, small_disk
from started import go_on, make_model, records, started, statuses

pytestmark = pytest.mark.slow

SWEEP = ("-m", "workload.batch_size=1,2,3", "sweep.order=given")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("faulty") / "model")


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 60) as folder:
        yield folder


# ---- full ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_becomes_full_loses_no_measurement_and_stops_the_sweep(model, disk, tmp_path) -> None:
    faults.plant(model, {2: ("fill_the_disk", 3)})
    with started(disk, model, *SWEEP, logs=tmp_path) as run:
        assert run.process.wait(300) == 1, run.out + run.err
    assert (model / "reached").exists()
    assert statuses(disk) == {1: "ok", 2: "ok"}
    assert len(records(disk)[2].calls("measurement")) == 3
    (line,) = [line for line in run.out.splitlines() if line.startswith("Stopped: ")]
    assert line.startswith("Stopped: No space left on device")
    assert line.endswith("no further job could keep its result")
    assert "Traceback" not in run.out + run.err
    assert "1 of 3 jobs left no record" in run.out

    (filler,) = disk.glob("multirun/*/*/filler")
    filler.unlink()
    faults.plant(model, {})
    done = go_on(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(disk) == {1: "ok", 2: "ok", 3: "ok"}
    assert list(disk.glob(f"multirun/*/*/{RESERVE_NAME}")) == []


@pytest.mark.slow
def test_a_disk_full_during_a_reference_run_stops_the_sweep_with_the_reason(model, disk, tmp_path) -> None:
    faults.plant(model, {2: ("fill_the_disk", 0)})
    with started(disk, model, *SWEEP, "fidelity.reference=eager", logs=tmp_path) as run:
        assert run.process.wait(300) == 1, run.out + run.err
    assert statuses(disk)[1] == "ok"
    assert "Traceback" not in run.out + run.err
    assert "Resume:" in run.out


def test_a_full_disk_refuses_a_sweep_before_it_begins(model, disk, tmp_path) -> None:
    fill(disk / "filler", leave_bytes=1 << 20)
    with started(disk, model, *SWEEP, logs=tmp_path) as run:
        assert run.process.wait(120) == 2
    (line,) = run.err.splitlines()
    assert "No space left on device" in line
    assert run.out == ""
    assert sorted(each.name for each in disk.iterdir()) == ["filler"]


@pytest.mark.parametrize("leave_bytes", [0, 200_000])
def test_a_single_run_on_a_full_disk_is_one_line(model, disk, tmp_path, leave_bytes: int) -> None:
    fill(disk / "filler", leave_bytes=leave_bytes)
    with started(disk, model, logs=tmp_path) as run:
        assert run.process.wait(120) == 1
    (line,) = run.err.splitlines()
    assert "No space left on device" in line
    assert "make room" in line
    assert "Traceback" not in run.out
    assert list(disk.glob("outputs/*/record.json")) == []


# ---- read-only ----------------------------------------------------------------------------------------------------


def test_a_read_only_disk_refuses_a_sweep_before_it_begins(model, disk, tmp_path) -> None:
    make_read_only(disk)
    with started(disk, model, *SWEEP, logs=tmp_path) as run:
        assert run.process.wait(120) == 2
    (line,) = run.err.splitlines()
    assert "Read-only file system" in line
    assert "start in another folder" in line
    assert run.out == ""


def test_a_single_run_on_a_read_only_disk_is_refused_in_one_line(model, disk, tmp_path) -> None:
    make_read_only(disk)
    with started(disk, model, logs=tmp_path) as run:
        assert run.process.wait(120) == 2  # before anything runs
    (line,) = run.err.splitlines()
    assert f"{disk} cannot be written" in line
    assert "choose another folder" in line
    assert run.out == ""


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [("multirun", SWEEP, 2), ("multirun/s", (*SWEEP, "sweep.name=s"), 2), ("outputs", (), 2)],
)
def test_a_file_in_the_way_is_one_line(model, tmp_path, name: str, arguments: tuple[str, ...], status: int) -> None:
    work, logs = tmp_path / "work", tmp_path / "logs"
    logs.mkdir()
    (work / name).parent.mkdir(parents=True)
    (work / name).write_text("mine", encoding="utf-8")
    with started(work, model, *arguments, logs=logs) as run:
        assert run.process.wait(120) == status
    (line,) = run.err.splitlines()
    assert name in line
    assert "Traceback" not in run.out + run.err
    assert (work / name).read_text(encoding="utf-8") == "mine"


# ---- clocks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Set the wall-clock time of this process only."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def put(seconds: float) -> None:
        ahead[0] = seconds

    return put


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_jump_during_a_job_does_not_change_its_duration(tiny, tmp_path, clock, jump_s: float) -> None:
    config = tiny(isolation=IsolationConfig(mode="none"), gpu_monitoring=False)

    def jump(phase: str, *_: object) -> None:
        if phase == "measurement":
            clock(jump_s)

    begin = time.monotonic()
    record = run_job(config, new_record(config), tmp_path, jump)
    took_s = time.monotonic() - begin
    assert record.status == "ok"
    assert took_s - 2 < record.ended_at_s - record.started_at_s <= took_s
    assert Record.read(tmp_path) == record


def test_a_clock_jump_before_a_crash_does_not_put_the_end_before_the_start(model, tmp_path, clock) -> None:
    faults.plant(model, {1: ("sigkill", 3)})
    config = BenchmarkConfig(
        model=ModelConfig(id=str(model), weights="random", trust_remote_code=True),
        sequence_length=8,
        num_tokens_to_generate=4,
        warmup_iterations=1,
        measurement_iterations=3,
        gpu_monitoring=False,
    )
    begin = time.monotonic()
    record = run_job(config, new_record(config), tmp_path, lambda *_: clock(-3600.0))
    assert record.status == "crashed"
    assert 0 <= record.ended_at_s - record.started_at_s <= time.monotonic() - begin


# ---- two at once ---------------------------------------------------------------------------------------------------


def test_of_two_simultaneous_sweeps_of_one_name_one_is_refused(model, tmp_path) -> None:
    faults.plant(model, {})
    with contextlib.ExitStack() as stack:
        runs = []
        for number in (1, 2):
            (tmp_path / str(number)).mkdir()
            arguments = ("-m", "workload.batch_size=1,2", "sweep.name=same")
            runs.append(stack.enter_context(started(tmp_path, model, *arguments, logs=tmp_path / str(number))))
        for run in runs:
            run.process.wait(300)
    ran, refused = sorted(runs, key=lambda each: each.process.returncode)
    assert (ran.process.returncode, refused.process.returncode) == (0, 2), [run.out + run.err for run in runs]
    (line,) = refused.err.splitlines()
    assert "sweep.name=same" in line
    assert refused.out == ""
    assert statuses(tmp_path) == {1: "ok", 2: "ok"}
    assert {each.sweep_id for each in records(tmp_path).values()} == {
        SweepFile.read(tmp_path / "multirun/same").sweep_id
    }


def test_two_unnamed_sweeps_in_one_second_use_different_folders(model, tmp_path) -> None:
    faults.plant(model, {})
    with contextlib.ExitStack() as stack:
        runs = []
        for number in (1, 2):
            (tmp_path / str(number)).mkdir()
            sizes = f"workload.batch_size={2 * number - 1},{2 * number}"
            runs.append(stack.enter_context(started(tmp_path, model, "-m", sizes, logs=tmp_path / str(number))))
        for run in runs:
            run.process.wait(300)
    ends = sorted(run.process.returncode for run in runs)
    assert ends in ([0, 0], [0, 2]), [run.out + run.err for run in runs]
    for number, run in enumerate(runs, 1):
        if run.process.returncode == 0:
            assert statuses(tmp_path).items() >= {2 * number - 1: "ok", 2 * number: "ok"}.items()
        else:
            (line,) = run.err.splitlines()
            assert "a sweep is running in" in line
    for each in (tmp_path / "multirun").iterdir():
        of_one = {Record.read(path).sweep_id for path in each.glob("*/record.json")}
        assert of_one == {SweepFile.read(each).sweep_id}


def test_a_refused_sweep_keeps_the_folder_and_lock_of_the_running_one(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "multirun" / "same"
    real = scratch.check_space
    other = FileLock(folder / ".lock")

    def check_space(place: Path) -> None:
        real(place)
        other.acquire()  # another start was a little faster, and has written nothing yet

    monkeypatch.setattr(scratch, "check_space", check_space)
    config = BenchmarkConfig(sweep=SweepConfig(name="same"))
    point = Point(overrides=(), swept={}, config=config)
    with pytest.raises(ConfigError, match="a sweep is running in"):
        sweep([point], folder=folder, launch=lambda plan: {}, is_local=True)
    assert (folder / ".lock").exists()
    monkeypatch.setattr(scratch, "check_space", real)
    with pytest.raises(ConfigError, match="a sweep is running in"):  # and a third one is refused as well
        sweep([point], folder=folder, launch=lambda plan: {}, is_local=True)
    other.release()
