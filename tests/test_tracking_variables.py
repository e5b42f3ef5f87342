"""Test MLflow's own variables, set by a user for the real command."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

import started
from bench.cli import sync
from conftest import run_bench
from mlflow_server import Server

SHORT = [
    "warmup.iterations=1", "measurement.iterations=2", "monitor.enabled=false", "fidelity.reference=none",
    "workload.sequence_length=8", "workload.num_tokens_to_generate=4",
]  # fmt: skip
SWEEP = ["-m", "workload.batch_size=1,2", "sweep.name=night", *SHORT]


def runs(database: Path) -> dict[str, int]:
    """Experiment → how many runs it has."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT experiments.name, count(run_uuid) FROM experiments JOIN runs USING (experiment_id) GROUP BY experiments.name"
        return dict(connection.execute(query).fetchall())


def mlflow_line(output: str) -> str:
    (line,) = [each for each in output.splitlines() if each.startswith(" MLflow: ")]
    return line


def test_paths_in_variables_start_at_the_start_folder_and_the_line_names_them(tmp_path: Path) -> None:
    done = run_bench(
        *SHORT, "hydra.job.chdir=true", folder=tmp_path, MLFLOW_TRACKING_URI="sqlite:///team.db",
        MLFLOW_EXPERIMENT_NAME="nights", MLFLOW_DEFAULT_ARTIFACT_ROOT="store",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs(tmp_path / "team.db") == {"nights": 1}
    assert not (tmp_path / "mlflow.db").exists()
    assert list((tmp_path / "store").glob("*/artifacts/record.json"))
    assert mlflow_line(done.stdout).endswith(
        "# from MLFLOW_TRACKING_URI, experiment nights from MLFLOW_EXPERIMENT_NAME"
    )


def test_keys_override_the_variables_and_the_sweep_file_records_the_choice(tmp_path: Path) -> None:
    done = run_bench(
        *SWEEP, "tracking.uri=sqlite:///mine.db", "tracking.experiment=bench", folder=tmp_path,
        MLFLOW_TRACKING_URI="sqlite:///team.db", MLFLOW_EXPERIMENT_NAME="nights",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs(tmp_path / "mine.db") == {"bench": 3}
    assert not (tmp_path / "team.db").exists()
    tracking = json.loads((tmp_path / "multirun/night/sweep.json").read_text())["tracking"]
    assert (tracking["uri"], tracking["experiment"]) == (f"sqlite:///{tmp_path}/mine.db", "bench")
    assert mlflow_line(done.stdout).endswith("# from tracking.uri, experiment bench from tracking.experiment")


@pytest.mark.parametrize(
    "arguments",
    [[], ["sweep.dry_run=true"], ["-m", "workload.batch_size=1,2"], ["-m", "workload.batch_size=1,2", "sweep.dry_run=true"],
     ["-m", "hydra/sweeper=optuna", "workload.batch_size=1,2"]],
)  # fmt: skip
def test_a_variable_that_is_no_address_is_refused_before_anything_is_created(tmp_path, arguments) -> None:
    done = run_bench(*arguments, folder=tmp_path, MLFLOW_TRACKING_URI="./mlruns")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "bench: MLFLOW_TRACKING_URI=./mlruns: is no address that MLflow can record to: write "
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_resumed_under_another_variable_keeps_its_store(tmp_path: Path) -> None:
    first = run_bench(*SWEEP, folder=tmp_path, MLFLOW_TRACKING_URI="sqlite:///one.db")
    assert first.returncode == 0, first.stdout + first.stderr
    again = run_bench(
        *SWEEP, "workload.batch_size=1,2,3", "sweep.resume=true", folder=tmp_path,
        MLFLOW_TRACKING_URI="sqlite:///two.db",
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert runs(tmp_path / "one.db") == {"bench": 4}
    assert not (tmp_path / "two.db").exists()
    assert f"it goes on in sqlite:///{tmp_path}/one.db" in again.stdout
    assert mlflow_line(again.stdout).endswith("# from sweep.json")


def test_a_password_in_the_variable_is_in_no_output_of_a_sweep(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run_bench(*SWEEP, folder=tmp_path, MLFLOW_TRACKING_URI=f"http://ann:hunter2secret@127.0.0.1:{port}")
    assert "not published" in done.stdout
    assert "hunter2secret" not in done.stdout + done.stderr
    found = [each for each in tmp_path.rglob("*") if each.is_file() and b"hunter2secret" in each.read_bytes()]
    assert found == []
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_without_a_typed_address_the_variable_decides_the_store(tmp_path: Path, monkeypatch) -> None:
    done = run_bench(*SWEEP, "tracking.uri=http://127.0.0.1:1", folder=tmp_path)
    sweep = tmp_path / "multirun/night"
    for file in [*sweep.rglob("tracking.json"), sweep / "sweep.json"]:
        file.unlink()
    for file in sweep.glob("*/record.json"):  # as where nothing was typed
        file.write_text(file.read_text().replace('"http://127.0.0.1:1"', "null"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///team.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "nights")
    assert sync.main([str(sweep)]) == 0, done.stdout
    assert runs(tmp_path / "team.db")["nights"] >= 2
    sweep_id = json.loads(next(sweep.glob("*/record.json")).read_text())["sweep_id"]
    read = subprocess.run(
        [sys.executable, "-m", "bench.compare", f"mlflow:{sweep_id}"],
        cwd=tmp_path, env=started.environment() | {"MLFLOW_TRACKING_URI": "sqlite:///team.db"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "batch_size=2, batch_size=1" in read.stderr + read.stdout  # read, though it has nothing to compare them by


@pytest.mark.slow
def test_a_job_of_an_engine_publishes_to_the_store_of_the_start(tmp_path: Path) -> None:
    """Whatever that variable is in the job's own process."""
    (tmp_path / "server").mkdir()
    (tmp_path / "start").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    try:
        done = run_bench(
            *SWEEP, "hydra/launcher=submitit_local", "+hydra.job.env_set.MLFLOW_TRACKING_URI='sqlite:///wrong.db'",
            "+hydra.job.env_set.MLFLOW_EXPERIMENT_NAME=wrong", folder=tmp_path / "start",
            MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME="nights",
        )  # fmt: skip
        client = MlflowClient(server.uri)
        found = client.search_runs([client.get_experiment_by_name("nights").experiment_id])
        names = {each.name for each in client.search_experiments()}
    finally:
        server.kill()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" MLflow: {server.uri}  # from MLFLOW_TRACKING_URI, experiment nights from" in done.stdout
    assert sorted(run.data.tags["kind"] for run in found) == ["sweep", "trial", "trial"]
    assert names == {"Default", "nights"}
    assert not list(tmp_path.rglob("wrong.db"))
    assert not (tmp_path / "start/mlflow.db").exists()
