"""Test a sweep on a real local Ray with two workers: killing one fails only its job."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

import faults
import started
from bench.results.record import Record
from conftest import run_bench

pytestmark = pytest.mark.slow

NAME = "rays"
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}  # else it depends on whether this user has ever started a Ray here
LAUNCHER = ["hydra/launcher=ray", "hydra.launcher.num_gpus=0", "+hydra.launcher.init.num_cpus=2"]


def records(folder: Path) -> dict[int, Record]:
    """Map each batch size to its one record."""
    found = [Record.read(path) for path in folder.glob(f"multirun/{NAME}/*/record.json")]
    by_size = {each.requested["workload"]["batch_size"]: each for each in found}
    assert len(by_size) == len(found)
    return by_size


def trials(folder: Path) -> dict[int, tuple[str, str]]:
    """Map each batch size to status and trial id of its run in MLflow."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert all(run.info.status != "RUNNING" for run in runs)
    found = {int(run.data.params["workload.batch_size"]): run for run in runs}
    assert len(found) == len(runs)
    return {size: (run.data.tags["status"], run.data.tags["trial_id"]) for size, run in found.items()}


def worker_of(process: psutil.Process) -> psutil.Process:
    """Return the Ray worker that is the parent of a job's process."""
    for each in process.parents():
        with contextlib.suppress(psutil.Error):
            if each.name().startswith("ray::"):
                return each
    raise AssertionError(f"no worker above {process}")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Run six jobs by batch size, kill the worker of the third during its measurement, then resume the sweep."""
    folder = tmp_path_factory.mktemp("ray")
    model = started.make_model(folder / "model")
    faults.plant(model, {3: ("measure_on", 2)})
    arguments = ["-m", *faults.arguments(model), "workload.batch_size=1,2,3,4,5,6", "sweep.order=given",
                 f"sweep.name={NAME}", *LAUNCHER]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env=started.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + 180
        while not (pid := started.read_or_none(model / "reached")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        job = psutil.Process(int(pid))
        worker = worker_of(job)
        worker.kill()
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    first, in_mlflow = records(folder), trials(folder)
    is_gone = not started.is_alive(job)
    faults.plant(model, {})
    again = run_bench(*arguments, "sweep.resume=true", folder=folder)
    return folder, process.returncode, output, first, in_mlflow, is_gone, again


def test_a_killed_worker_fails_only_one_job(course) -> None:
    _, returncode, output, first, _, is_gone, _ = course
    assert returncode == 1, output
    assert {size: record.status for size, record in sorted(first.items())} == {
        1: "ok", 2: "ok", 3: "crashed", 4: "ok", 5: "ok", 6: "ok",
    }, output  # fmt: skip
    assert "ray lost the job's worker" in first[3].error.message
    assert is_gone
    assert "Traceback" not in output


def test_each_job_has_its_own_worker(course) -> None:
    _, _, _, first, _, _, _ = course
    assert {record.placement.engine for record in first.values()} == {"ray"}
    assert len({record.placement.job_id for record in first.values()}) == 6
    assert all(record.placement.attempt == 1 for record in first.values())


def test_mlflow_agrees_with_the_disk(course) -> None:
    _, _, _, first, in_mlflow, _, _ = course
    assert in_mlflow == {size: (record.status, record.trial_id) for size, record in first.items()}


def test_resume_runs_the_missing_jobs(course) -> None:
    folder, _, _, first, _, _, again = course
    assert again.returncode == 0, again.stdout + again.stderr
    assert "5 of 6 jobs are done" in again.stdout
    now = records(folder)
    assert {size for size in now if now[size].started_at_s != first[size].started_at_s} == {3}
    assert trials(folder) == {size: ("ok", record.trial_id) for size, record in now.items()}


def test_half_a_gpu_is_refused(tmp_path) -> None:
    done = run_bench("-m", "hydra/launcher=ray", "hydra.launcher.num_gpus=0.5", folder=tmp_path)
    assert done.returncode == 2
    assert "hydra.launcher.num_gpus=0.5: must be a whole number" in done.stderr
    assert not (tmp_path / "multirun").exists()


def test_a_gpu_request_that_no_node_satisfies_is_refused(tmp_path) -> None:
    done = run_bench("-m", "hydra/launcher=ray", "+hydra.launcher.init.num_gpus=0", folder=tmp_path)
    assert done.returncode == 2
    assert "hydra.launcher.num_gpus=1: no node of this Ray has more than 0" in done.stderr
    assert not (tmp_path / "multirun").exists()


@pytest.fixture
def elsewhere(tmp_path):
    """Return the address of a Ray whose workers see a different, empty `multirun`."""
    (tmp_path / "multirun").mkdir()
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount that only Ray sees needs root and unshare")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    session = tempfile.mkdtemp(prefix="ray")  # short: a socket's path has at most 107 characters
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=2", "--num-gpus=0",
           "--include-dashboard=false", "--block", f"--temp-dir={session}", "--node-ip-address=127.0.0.1"]  # fmt: skip
    script = f"mount -t tmpfs none {shlex.quote(str(tmp_path / 'multirun'))} && exec {shlex.join(ray)}"
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=started.environment() | NO_TOKEN, stdout=log, stderr=log, start_new_session=True
        )
    deadline_s = time.monotonic() + 120
    while "Ray runtime started" not in (tmp_path / "ray.log").read_text(errors="replace"):
        assert process.poll() is None, (tmp_path / "ray.log").read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.wait(30)
    shutil.rmtree(session, ignore_errors=True)


def test_records_are_returned_without_a_shared_folder(elsewhere, tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    faults.plant(model, {2: ("plain_exception", 2)})
    command = ["-m", *faults.arguments(model), "workload.batch_size=1,2", f"sweep.name={NAME}", "hydra/launcher=ray",
               "hydra.launcher.num_gpus=0", f"hydra.launcher.init.address={elsewhere}"]  # fmt: skip
    done = run_bench(*command, folder=tmp_path, **NO_TOKEN)
    assert done.returncode == 1, done.stdout + done.stderr
    found = records(tmp_path)
    assert {size: record.status for size, record in found.items()} == {1: "ok", 2: "failed"}
    assert all("planted failure" in (path.parent / "worker.log").read_text() for path in _failed(tmp_path))
    assert trials(tmp_path) == {size: (record.status, record.trial_id) for size, record in found.items()}
    faults.plant(model, {})
    again = run_bench(*command, "sweep.resume=true", folder=tmp_path, **NO_TOKEN)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 2 jobs are done" in again.stdout
    assert trials(tmp_path) == {size: ("ok", record.trial_id) for size, record in records(tmp_path).items()}


def _failed(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"multirun/{NAME}/*/record.json") if Record.read(path).status == "failed"]
    assert len(found) == 1
    return found
