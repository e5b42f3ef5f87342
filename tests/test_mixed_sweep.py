"""Test a sweep in which most jobs fail, with a real MLflow database: kept records and jobs of a second start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

import faults
from bench.results.record import Record
from conftest import run_bench

pytestmark = pytest.mark.slow

DEATHS = {
    2: ("plain_exception", 2),
    3: ("segmentation_fault", 3),
    5: ("sys_exit", 0),
    6: ("hang_in_native_code", 3),
    8: ("sigkill", 1),
    9: ("allocation", 2),
}
NAMED = {2: "failed", 3: "crashed", 5: "crashed", 6: "timeout", 8: "crashed", 9: "oom"}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Run the sweep with the faults, then again with `sweep.resume=true` and without them."""
    folder = tmp_path_factory.mktemp("mixed")
    model = faults.make_model(folder / "model")
    command = [
        "-m",
        *faults.arguments(model),
        "workload.batch_size=range(1,11)",
        "sweep.name=mixed",
        "isolation.timeout_s=15",
    ]
    faults.plant(model, DEATHS)
    first = run_bench(*command, folder=folder)
    before = {size: record for size, (_, record) in records(folder).items()}
    in_mlflow = trials(folder)
    faults.plant(model, {})
    planned = run_bench(*command, "sweep.resume=true", "sweep.dry_run=true", folder=folder)
    second = run_bench(*command, "sweep.resume=true", "sweep.order=given", folder=folder)
    return folder, first, before, in_mlflow, planned, second


def records(folder: Path) -> dict[int, tuple[str, Record]]:
    """Map each batch size to folder and record; a setting must not have a second record."""
    found = {}
    for path in folder.glob("multirun/mixed/*/record.json"):
        record = Record.read(path)
        size = record.requested["workload"]["batch_size"]
        assert size not in found
        found[size] = (path.parent.name, record)
    return found


def trials(folder: Path, kind: str = "trial") -> list:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    return client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", max_results=1000)


def test_six_failures_affect_six_jobs_and_have_the_right_status(course) -> None:
    _, first, before, _, _, _ = course
    assert first.returncode == 1, first.stdout + first.stderr
    assert {size: before[size].status for size in before} == dict.fromkeys(range(1, 11), "ok") | NAMED
    assert "Traceback" not in first.stdout + first.stderr


def test_each_failure_is_in_mlflow_as_on_disk(course) -> None:
    _, _, before, in_mlflow, _, _ = course
    assert {run.data.params["workload.batch_size"]: run.data.tags["status"] for run in in_mlflow} == {
        str(size): record.status for size, record in before.items()
    }
    assert all(run.info.status != "RUNNING" for run in in_mlflow)


def test_the_plan_of_the_second_start_lists_finished_and_repeated_jobs(course) -> None:
    _, _, _, _, planned, _ = course
    lines = planned.stdout.splitlines()
    assert sum(" done " in line for line in lines) == 4
    assert {line.split()[1]: line.split("again: ")[1].split()[0] for line in lines if "again: " in line} == {
        f"batch_size={size}": status for size, status in NAMED.items()
    }
    assert lines[-1].startswith("10 jobs: 4 done, 6 to run, about ")


def test_without_the_faults_the_second_start_runs_six(course) -> None:
    folder, _, before, _, _, second = course
    assert second.returncode == 0, second.stdout + second.stderr
    after = records(folder)
    assert {size: record.status for size, (_, record) in after.items()} == dict.fromkeys(range(1, 11), "ok")
    ran = {size for size, (_, record) in after.items() if record.started_at_s != before[size].started_at_s}
    assert ran == set(NAMED)
    assert {record.sweep_id for _, record in after.values()} == {before[1].sweep_id}


def test_the_records_of_the_failures_are_kept(course) -> None:
    folder = course[0]
    earlier = [Record.read(path) for path in folder.glob("multirun/mixed/earlier/*/record.json")]
    assert sorted(record.requested["workload"]["batch_size"] for record in earlier) == sorted(NAMED)


def test_mlflow_has_each_job_once_and_agrees_with_the_disk(course) -> None:
    folder = course[0]
    runs = {run.data.params["workload.batch_size"]: run for run in trials(folder)}
    assert len(trials(folder)) == len(runs) == 10
    for size, (_, record) in records(folder).items():
        run = runs[str(size)]
        assert (run.data.tags["status"], run.info.status) == ("ok", "FINISHED")
        e2e_s = sorted(call.e2e_s for call in record.calls("measurement"))
        assert run.data.metrics["latency/e2e_median_s"] == pytest.approx(e2e_s[1])
    assert len(trials(folder, "superseded")) == 6
    (parent,) = trials(folder, "sweep")
    assert (parent.info.status, parent.data.tags["status"]) == ("FINISHED", "ok")


def test_every_job_is_marked_as_published(course) -> None:
    folder = course[0]
    marks = [json.loads(path.read_text()) for path in folder.glob("multirun/mixed/*/tracking.json")]
    assert [mark["published"] for mark in marks] == [True] * 10


def test_a_third_start_has_nothing_to_do(course) -> None:
    folder, _, _, _, _, _ = course
    before = records(folder)
    model = folder / "model"
    command = [
        "-m",
        *faults.arguments(model),
        "workload.batch_size=range(1,11)",
        "sweep.name=mixed",
        "sweep.resume=true",
    ]
    third = run_bench(*command, folder=folder)
    assert third.returncode == 0, third.stdout + third.stderr
    assert "10 of 10 jobs are done" in third.stdout
    assert records(folder) == before
    assert len(trials(folder)) == 10


def test_a_resumed_sweep_uses_the_new_environment_order_repeats_and_points(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    command = ["-m", *faults.arguments(model), "sweep.name=mixed", "sweep.resume=true", "tracking=off"]

    def done(text: str) -> str:
        (line,) = [each for each in text.splitlines() if " jobs are done" in each or "holds no sweep yet" in each]
        return line.rpartition(": ")[2]

    first = run_bench(*command, "workload.batch_size=1,2", folder=tmp_path)
    assert (first.returncode, done(first.stdout)) == (0, "it begins"), first.stdout + first.stderr
    more = ["workload.batch_size=3,2,4", "sweep.repeats=2", "sweep.seed=7"]
    second = run_bench(*command, *more, folder=tmp_path)
    assert (second.returncode, done(second.stdout)) == (0, "1 of 6 jobs are done"), second.stdout + second.stderr
    assert "1 finished jobs are none of these points" in second.stdout
    assert len(list(tmp_path.glob("multirun/mixed/*/record.json"))) == 7
    third = run_bench(*command, "workload.batch_size=1,2", folder=tmp_path, MKL_NUM_THREADS="1")
    assert (third.returncode, done(third.stdout)) == (0, "0 of 2 jobs are done"), third.stdout + third.stderr
    assert "the environment has changed (MKL_NUM_THREADS – → 1)" in third.stdout
    found = [Record.read(path) for path in tmp_path.glob("multirun/mixed/*/record.json")]
    assert [r.fingerprint.get("MKL_NUM_THREADS") for r in found if r.repeat == 1].count("1") == 2
    earlier = [Record.read(path) for path in tmp_path.glob("multirun/mixed/earlier/*/record.json")]
    assert [record.status for record in earlier] == ["ok", "ok"]
