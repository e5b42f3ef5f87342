"""Test a sweep on a real one-node Slurm: cancelled, timed-out or requeued jobs do not affect the others.

Where Slurm cannot be started, the test is skipped with the reason; submitit's local executor, which submits and waits
the same way, is tested everywhere.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

import faults
import slurm
import started
from bench.results.record import Record
from conftest import run_bench

pytestmark = pytest.mark.slow

LAUNCHER = [
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.gpus_per_node=0",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.timeout_min=5",
    "hydra.launcher.signal_delay_s=20",
]
NAME = "cluster"
HANGS = "".join(
    f"""

def hang_of_{size}():
    (HERE / "hangs-{size}").touch()
    time.sleep(1000)
"""
    for size in (3, 4, 5)
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    found = slurm.Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        found.start()
    except slurm.UnavailableError as error:
        pytest.skip(f"no Slurm here: {error}")
    yield found
    found.stop()


def command(model: Path, *arguments: str) -> list[str]:
    return ["-m", *faults.arguments(model), "sweep.order=given", f"sweep.name={NAME}", *arguments]


def records(folder: Path) -> dict[int, Record]:
    """Map each batch size to its one record."""
    found = [Record.read(path) for path in folder.glob(f"multirun/{NAME}/*/record.json")]
    by_size = {each.requested["workload"]["batch_size"]: each for each in found}
    assert len(by_size) == len(found)
    return by_size


def trials(folder: Path) -> dict[int, tuple[str, str]]:
    """Map each batch size to status and median E2E (ms) of its run in MLflow, without superseded runs."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert all(run.info.status != "RUNNING" for run in runs)
    found = {int(run.data.params["workload.batch_size"]): run for run in runs}
    assert len(found) == len(runs)
    return {size: (run.data.tags["status"], run.data.tags["trial_id"]) for size, run in found.items()}


def run_while(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env=started.environment() | environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=started.default_signals,
    )


def wait_until(condition, process: subprocess.Popen[str], what: str, timeout_s: float = 120) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"ended before {what}: {process.stdout.read()}"
        assert time.monotonic() < deadline_s, f"no {what}"
        time.sleep(0.2)


def job_of(cluster: slurm.Slurm, number: int) -> str:
    """Slurm's name of the job with this number, once it has one."""
    ids = cluster.ask("squeue", "--noheader", "--array", "--format=%i").split()
    return next((each for each in ids if each.endswith(f"_{number}")), "")


@pytest.fixture(scope="module")
def course(cluster, tmp_path_factory):
    """Six jobs by batch size: 3 is cancelled while it runs, 4 hangs over its limit, 5 hangs and is queued again, 6 is
    cancelled before it begins. Then the same without the faults, resumed."""
    folder = tmp_path_factory.mktemp("sweep")
    model = faults.make_model(folder / "model")
    with (model / "modeling_faulty.py").open("a", encoding="utf-8") as file:
        file.write(HANGS)
    hang = {size: (f"hang_of_{size}", 2) for size in (3, 4, 5)}
    faults.plant(model, hang)
    arguments = command(model, "workload.batch_size=1,2,3,4,5,6", *LAUNCHER)
    process = run_while(folder, cluster.environment | {"PATH": slurm._path()}, *arguments)
    try:
        wait_until(lambda: job_of(cluster, 5), process, "submission")
        assert cluster.ask("scancel", job_of(cluster, 5)) == ""
        wait_until((model / "hangs-3").exists, process, "job of size 3")
        cluster.ask("scancel", job_of(cluster, 2))
        wait_until((model / "hangs-5").exists, process, "job of size 5")
        faults.plant(model, {size: hang[size] for size in (3, 4)})
        requeued, limited = job_of(cluster, 4), job_of(cluster, 3)
        cluster.ask("scontrol", "update", f"JobId={limited}", "TimeLimit=1")
        cluster.ask("scontrol", "requeue", requeued)
        # Two minutes, that Slurm waits before it starts it again, belong to it: sooner the end of the first start is
        # taken for that of the second.
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    first = records(folder)
    in_mlflow = trials(folder)
    faults.plant(model, {})
    again = run_bench(*arguments, "sweep.resume=true", folder=folder, **cluster.environment, PATH=slurm._path())
    return folder, process.returncode, output, first, in_mlflow, again


def test_each_job_has_a_record_with_its_own_status(course) -> None:
    _, returncode, output, first, _, _ = course
    assert returncode == 1, output
    assert {size: record.status for size, record in sorted(first.items())} == {
        1: "ok", 2: "ok", 3: "interrupted", 4: "timeout", 5: "ok", 6: "interrupted",
    }, output  # fmt: skip
    assert "SIGTERM" in first[3].error.message
    assert "time limit" in first[4].error.message
    assert "never began: cancelled" in first[6].error.message
    assert "Traceback" not in output


def test_records_say_where_they_ran(course) -> None:
    _, _, _, first, _, _ = course
    assert {record.placement.engine for record in first.values()} == {"slurm"}
    assert {record.placement.job_id.rpartition("_")[2] for record in first.values()} == {"0", "1", "2", "3", "4", "5"}
    assert first[5].placement.attempt == 2
    assert all(first[size].placement.attempt == 1 for size in (1, 2, 3, 4, 6))


def test_mlflow_agrees_with_the_disk(course) -> None:
    _, _, _, first, in_mlflow, _ = course
    assert in_mlflow == {size: (record.status, record.trial_id) for size, record in first.items()}


def test_resume_runs_the_missing_jobs(course) -> None:
    folder, _, _, first, _, again = course
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 of 6 jobs are done" in again.stdout
    now = records(folder)
    assert {record.status for record in now.values()} == {"ok"}
    assert {size for size in now if now[size].started_at_s == first[size].started_at_s} == {1, 2, 5}
    assert trials(folder) == {size: ("ok", record.trial_id) for size, record in now.items()}


@pytest.fixture
def hanging(cluster, tmp_path):
    """Return a sweep of three jobs whose second hangs, its environment and its arguments."""
    model = faults.make_model(tmp_path / "model")
    with (model / "modeling_faulty.py").open("a", encoding="utf-8") as file:
        file.write(HANGS)
    faults.plant(model, {3: ("hang_of_3", 2)})
    environment = cluster.environment | {"PATH": slurm._path()}
    arguments = command(model, "workload.batch_size=1,3,5", *LAUNCHER, "hydra.launcher.array_parallelism=1")
    process = run_while(tmp_path, environment, *arguments)
    wait_until((model / "hangs-3").exists, process, "job of size 3")
    yield process, model, environment, arguments
    process.kill()
    cluster.ask("scancel", "--user=root")


def test_ctrl_c_cancels_submitted_jobs_and_keeps_finished_ones(hanging, cluster, tmp_path) -> None:
    process, _, _, _ = hanging
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert {size: record.status for size, record in records(tmp_path).items()} == {
        1: "ok", 3: "interrupted", 5: "interrupted",
    }, output  # fmt: skip
    assert trials(tmp_path) == {size: (each.status, each.trial_id) for size, each in records(tmp_path).items()}
    assert "Resume:" in output
    assert "Traceback" not in output
    wait_until_empty(cluster)


def test_jobs_outlive_their_launcher_and_are_not_started_twice(hanging, cluster, tmp_path) -> None:
    process, model, environment, arguments = hanging
    process.kill()
    process.wait()
    refused = run_bench(*arguments, "sweep.resume=true", folder=tmp_path, **environment)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "jobs of an earlier start are in Slurm's queue still" in refused.stderr
    cluster.ask("scancel", "--user=root")
    wait_until_empty(cluster)
    assert records(tmp_path)[1].status == "ok"
    assert records(tmp_path)[3].status == "interrupted"  # by the job itself: nobody else was there
    faults.plant(model, {})
    again = run_bench(*arguments, "sweep.resume=true", folder=tmp_path, **environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 3 jobs are done" in again.stdout
    assert trials(tmp_path) == {size: ("ok", record.trial_id) for size, record in records(tmp_path).items()}


def wait_until_empty(cluster: slurm.Slurm) -> None:
    deadline_s = time.monotonic() + 60
    while cluster.ask("squeue", "--noheader").strip():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["hydra.launcher.partition=nowhere"], "invalid partition specified"),
        (["hydra.launcher.mem_gb=100000"], "Memory specification can not be satisfied"),
    ],
)
def test_a_refusal_by_slurm_is_one_line(cluster, tmp_path, overrides, said) -> None:
    environment = cluster.environment | {"PATH": slurm._path()}
    done = run_bench(
        "-m", *LAUNCHER, *overrides, "attention=eager,sdpa", "tracking=off", folder=tmp_path, **environment
    )
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: ")
    assert said in line


def test_without_slurm_nothing_is_started(tmp_path) -> None:
    done = run_bench("-m", "hydra/launcher=submitit_slurm", "attention=eager,sdpa", folder=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert "there is no sbatch here" in done.stderr
    assert not (tmp_path / "multirun").exists()


def test_the_local_executor_is_handled_the_same_way(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    faults.plant(model, {2: ("sigkill", 2)})
    arguments = command(model, "workload.batch_size=1,2,3", "hydra/launcher=submitit_local")
    done = run_bench(*arguments, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    found = records(tmp_path)
    assert {size: record.status for size, record in sorted(found.items())} == {1: "ok", 2: "crashed", 3: "ok"}
    assert {record.placement.engine for record in found.values()} == {"submitit_local"}
    assert trials(tmp_path) == {size: (record.status, record.trial_id) for size, record in found.items()}
    faults.plant(model, {})
    again = run_bench(*arguments, "sweep.resume=true", folder=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 3 jobs are done" in again.stdout
