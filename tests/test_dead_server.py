"""Test a real tracking server that hangs, crashes and restarts in a sweep, and several sweeps on one new database."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

import faults
from bench.results.record import Record
from conftest import run_bench
from mlflow_server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    one = Server(tmp_path / "server")
    one.start()
    yield one
    one.kill()


def trials(uri: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bench")
    return client.search_runs([experiment.experiment_id], "tags.kind = 'trial'", max_results=1000)


def agrees(runs: list, records: list[Record]) -> bool:
    """Return whether MLflow has each record once, with its own values."""
    found = {run.data.tags["record_key"]: run.data.metrics["latency/e2e_median_s"] for run in runs}
    told = {statistics.median(call.e2e_s for call in record.calls("measurement")) for record in records}
    return len(found) == len(runs) == len(records) and set(found.values()) == told


@pytest.mark.parametrize("how", ["hangs", "dies"])
def test_a_server_failure_during_a_sweep_costs_seconds_and_loses_no_record(tmp_path, server, how: str) -> None:
    model = faults.make_model(tmp_path / "model")
    faults.plant(model, dict.fromkeys(range(1, 5), ("nap", 0)))
    arguments = [*faults.arguments(model), "workload.batch_size=1,2,3,4", "sweep.order=given", "sweep.name=s"]
    with (tmp_path / "out").open("w") as out:
        sweep = subprocess.Popen(
            [sys.executable, "-m", "bench", "-m", *arguments, f"tracking.uri={server.uri}"],
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )
    published = tmp_path / "multirun/s/0_batch_size=1/tracking.json"
    deadline = time.monotonic() + 120
    while not published.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    server.signal(signal.SIGSTOP if how == "hangs" else signal.SIGKILL)
    begin = time.monotonic()
    assert sweep.wait(180) == 0, (tmp_path / "out").read_text()
    assert time.monotonic() - begin < 60  # three jobs of 3 s, plus a few seconds each for the server
    text = " ".join((tmp_path / "out").read_text().split())
    records = [Record.read(path) for path in (tmp_path / "multirun/s").glob("*/record.json")]
    assert [record.status for record in records] == ["ok"] * 4
    marks = [json.loads(path.read_text()) for path in sorted((tmp_path / "multirun/s").glob("*/tracking.json"))]
    assert [mark["published"] for mark in marks][:1] == [True]
    missing = sum(not mark["published"] for mark in marks)
    assert missing >= 2
    assert f"{missing} records are not published; later: python -m bench.tracking.sync" in text

    server.kill()
    server.start()
    for _ in range(2):  # a second sync changes nothing
        sync = subprocess.run(
            [sys.executable, "-m", "bench.tracking.sync", "multirun/s"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert sync.returncode == 0, sync.stdout + sync.stderr
        assert agrees(trials(server.uri), records)
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("bench")
    assert client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'") == []


def test_a_server_that_never_ran_costs_seconds_and_loses_no_record(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    arguments = [*faults.arguments(model), "workload.batch_size=1,2,3", "sweep.name=s"]
    done = run_bench("-m", *arguments, "tracking.uri=http://127.0.0.1:9", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 records are not published; later: python -m bench.tracking.sync" in " ".join(done.stdout.split())
    sync = [
        sys.executable,
        "-m",
        "bench.tracking.sync",
        "multirun/s",
        "--tracking-uri",
        f"sqlite:///{tmp_path}/other.db",
    ]
    for _ in range(2):
        done = subprocess.run(sync, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        records = [Record.read(path) for path in (tmp_path / "multirun/s").glob("*/record.json")]
        assert agrees(trials(f"sqlite:///{tmp_path}/other.db"), records)


def test_several_sweeps_create_one_database_and_write_to_it_concurrently(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    sweeps = []
    for number in range(3):
        with (tmp_path / f"out{number}").open("w") as out:
            arguments = [
                *faults.arguments(model),
                f"model.seed={number},{number + 10},{number + 20}",
                f"sweep.name=s{number}",
            ]
            sweeps.append(
                subprocess.Popen(
                    [sys.executable, "-m", "bench", "-m", *arguments], cwd=tmp_path, stdout=out, stderr=out
                )
            )
    for number, sweep in enumerate(sweeps):
        assert sweep.wait(300) == 0, (tmp_path / f"out{number}").read_text()
    records = [Record.read(path) for path in tmp_path.glob("multirun/s*/*/record.json")]
    assert len(records) == 9
    runs = trials(f"sqlite:///{tmp_path}/mlflow.db")
    assert agrees(runs, records)
    assert {run.info.status for run in runs} == {"FINISHED"}
