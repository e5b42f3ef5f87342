"""Test that relative paths start at the folder where the command was typed, whatever a job's current folder is."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import faults
import started
from bench.host import start_folder
from bench.results.record import Record
from conftest import run_bench
from hydra_plugins.bench_launchers.engine import EngineJob

PATHS = ["workload.prompt_file=prompts/mine.txt", "model.id=models/mine"]
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A start folder with a prompt file and a model, whose name no file URI and no shell takes as it is."""
    folder = tmp_path / "my project #1"
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts/mine.txt").write_text("The tide comes in, and the boats rise with it.\n")
    faults.make_model(folder / "models/mine")
    return folder


def arguments() -> list[str]:
    return [*faults.arguments(Path("models/mine")), *PATHS, "measurement.iterations=2"]


def below(folder: Path) -> set[str]:
    """Return the new files in a start folder."""
    return {each.name for each in folder.iterdir()} - {"prompts", "models"}


LANDED = {"mlflow.db", "mlflow.db.lock", "mlartifacts"}


@pytest.mark.parametrize("more", [[], ["hydra.job.chdir=true"], ["hydra.job.chdir=true", "isolation.mode=none"]])
def test_paths_of_a_single_run_are_relative_to_the_start_folder(start: Path, more: list[str]) -> None:
    done = run_bench(*arguments(), *more, folder=start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert below(start) == {*LANDED, "outputs"}
    (path,) = start.glob("outputs/*/record.json")
    record = Record.read(path.parent)
    assert record.status == "ok"
    assert record.requested["workload"]["prompt_file"] == "prompts/mine.txt"
    assert record.requested["model"]["id"] == "models/mine"
    assert not (path.parent / "mlflow.db").exists()


@pytest.mark.parametrize("launcher", ["basic", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_paths_of_a_sweep_with_chdir_are_relative_to_the_start_folder(start: Path, launcher: str) -> None:
    sizes = "workload.batch_size=1,2"
    common = ["-m", *arguments(), sizes, f"hydra/launcher={launcher}"]
    done = run_bench(*common, "hydra.job.chdir=true", "sweep.name=with", folder=start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert below(start) == {*LANDED, "multirun"}
    found = [Record.read(each.parent) for each in start.glob("multirun/with/*/record.json")]
    assert [each.status for each in found] == ["ok", "ok"]
    # The same setting is the same trial with and without: the paths count as typed.
    plan = run_bench(*common, "sweep.name=with", "sweep.resume=true", "sweep.dry_run=true", folder=start)
    assert "2 jobs: 2 done, 0 to run" in plan.stdout, plan.stdout + plan.stderr


def test_sqlite_addresses_and_output_folders_are_relative_to_the_start_folder(start: Path) -> None:
    done = run_bench(
        *arguments(),
        "hydra.job.chdir=true",
        "tracking.uri=sqlite:///data/runs.db",
        "hydra.run.dir=out/here",
        folder=start,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert below(start) == {"data", "out"}
    assert (start / "data/runs.db").is_file()
    assert (start / "data/mlartifacts").is_dir()
    assert (start / "out/here/record.json").is_file()


@pytest.mark.slow
def test_a_search_stores_its_study_in_the_start_folder(start: Path) -> None:
    done = run_bench(
        "-m", "hydra/sweeper=optuna", *arguments(), "workload.batch_size=1,2", "hydra.job.chdir=true",
        "search.storage=sqlite:///study.db", folder=start,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert below(start) == {*LANDED, "multirun", "study.db"}


def test_a_missing_path_is_refused_with_its_typed_name(start: Path) -> None:
    done = run_bench(*arguments(), "workload.prompt_file=none.txt", "hydra.job.chdir=true", folder=start)
    assert done.returncode == 2
    assert "workload.prompt_file=none.txt: no such file" in done.stderr


def test_without_the_start_folder_a_job_uses_its_current_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    start_folder.enter(tmp_path / "gone", tmp_path)
    assert Path.cwd() == tmp_path
    start_folder.enter(tmp_path / "gone")
    assert Path.cwd() == tmp_path


def test_an_engines_process_changes_to_the_start_folder_before_composing(tmp_path: Path, monkeypatch) -> None:
    """An engine may start it in any folder; a relative `hydra.searchpath` also starts at the start folder."""
    from omegaconf import OmegaConf

    monkeypatch.chdir("/")
    seen = []

    class Loader:
        def load_sweep_config(self, _config, _overrides):
            seen.append(Path.cwd())
            raise KeyError("enough")

    class Context:
        config_loader = Loader()

    config = OmegaConf.create({"hydra": {"runtime": {"cwd": str(tmp_path)}}})
    job = EngineJob(Context(), None, config, {})
    monkeypatch.setattr("hydra_plugins.bench_launchers.engine.Singleton.set_state", lambda _: None)
    monkeypatch.setattr("hydra_plugins.bench_launchers.engine.setup_globals", lambda: None)
    with pytest.raises(KeyError):
        job([], 0)
    assert seen == [tmp_path]


@pytest.fixture
def ray_of_another_folder(tmp_path: Path):
    """Return the address of a Ray that was started in another folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    session = tempfile.mkdtemp(prefix="ray")  # short: a socket's path has at most 107 characters
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=2",
               "--num-gpus=0", "--include-dashboard=false", "--block", f"--temp-dir={session}",
               "--node-ip-address=127.0.0.1"]  # fmt: skip
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd="/", env=started.environment() | NO_TOKEN, stdout=log, stderr=log, start_new_session=True
        )
    deadline_s = time.monotonic() + 120
    while "Ray runtime started" not in (tmp_path / "ray.log").read_text(errors="replace"):
        assert process.poll() is None, (tmp_path / "ray.log").read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.wait(30)
    shutil.rmtree(session, ignore_errors=True)


@pytest.mark.slow
def test_a_job_of_a_ray_started_in_another_folder_finds_its_files(start: Path, ray_of_another_folder: str) -> None:
    pytest.importorskip("ray")
    done = run_bench(
        "-m", *arguments(), "workload.batch_size=1,2", "hydra/launcher=ray", "hydra.launcher.num_gpus=0",
        f"hydra.launcher.init.address={ray_of_another_folder}", folder=start, **NO_TOKEN,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert below(start) == {*LANDED, "multirun"}
    assert not [each for each in Path("/").iterdir() if each.name in ("outputs", "multirun", "mlflow.db")]
