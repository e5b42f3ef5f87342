"""Test whole commands with every tested version of the libraries: settings measured, published and reported, a sweep
resumed, settings searched. test_main_job.py tests compilation, trial/test_not_honoured.py refuted claims.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from bench.results.record import Record
from conftest import run_bench

pytestmark = [pytest.mark.contract, pytest.mark.slow]

FEW = (
    "warmup.iterations=1", "measurement.iterations=3", "workload.sequence_length=16",
    "workload.num_tokens_to_generate=8",
)  # fmt: skip
SWEEP = ("-m", "attention=eager,sdpa", "generation.kv_cache=dynamic,static", *FEW, "sweep.name=s")


def records(folder: Path) -> dict[str, Record]:
    return {record.name: record for record in map(Record.read, folder.glob("multirun/s/*/record.json"))}


def runs(folder: Path, kind: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    return client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")


Sweep = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Sweep:
    """Run two attentions, each with both caches, published to a new database."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_bench(*SWEEP, folder=folder)


@pytest.fixture
def copy(sweep: Sweep, tmp_path: Path) -> Callable[[], Path]:
    """Return a copy of the sweep's folder of jobs in a separate start folder."""

    def make() -> Path:
        shutil.copytree(sweep[0] / "multirun", tmp_path / "multirun")
        return tmp_path

    return make


def test_every_setting_is_measured_as_requested(sweep: Sweep) -> None:
    folder, done = sweep
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(folder)
    assert {record.status for record in found.values()} == {"ok"}
    own = {"eager": "eager", "sdpa": "flash_attention"}
    caches = {"dynamic": "DynamicCache", "static": "StaticCache"}
    for attention, families in own.items():
        for asked, used in caches.items():
            observed = found[f"{attention} {asked}"].observed
            assert observed.kv_cache == used
            assert observed.attention.prefill.families == observed.attention.decode.families == [families]
            assert observed.compile.graphs == 0


def test_all_settings_agree_with_the_reference(sweep: Sweep) -> None:
    found = records(sweep[0])
    assert all(record.fidelity.agrees for record in found.values())
    assert len({str(record.output.token_ids) for record in found.values()}) == 1


def test_each_job_is_published_below_its_sweep_with_its_files(sweep: Sweep) -> None:
    folder, _ = sweep
    (parent,) = runs(folder, "sweep")
    children = runs(folder, "trial")
    assert {run.info.run_name.rstrip(" ≠~!?") for run in children} == set(records(folder))
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert all(run.data.metrics.get("e2e_ms", run.data.metrics.get("unranked_ms")) > 0 for run in children)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    of_sweep = {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "report.md", "figures", "trials.json"} <= of_sweep


def test_the_end_of_the_sweep_leads_to_its_view_in_the_ui_and_to_its_report(sweep: Sweep) -> None:
    folder, done = sweep
    assert "viewStateShareKey=" in done.stdout
    assert f"Report: {folder}/multirun/s/report.html" in done.stdout
    assert "sdpa static" in (folder / "multirun/s/report.md").read_text(encoding="utf-8")


def test_a_resumed_sweep_measures_only_missing_jobs(copy: Callable[[], Path]) -> None:
    folder = copy()
    before = {name: record.iterations for name, record in records(folder).items()}
    (lost,) = [path for path in folder.glob("multirun/s/*/record.json") if Record.read(path).name == "sdpa static"]
    lost.unlink()
    done = run_bench(*SWEEP, "sweep.resume=true", "tracking=off", folder=folder)  # MLflow would give the record back
    assert done.returncode == 0, done.stdout + done.stderr
    after = {name: record.iterations for name, record in records(folder).items()}
    assert {name for name in before if after[name] != before[name]} == {"sdpa static"}


def test_continuous_batching_runs_beside_generate(tmp_path) -> None:
    batching = ("generation.continuous_batching=false,true", "workload.batch_size=2", "tracking=off")
    done = run_bench("-m", *batching, *FEW, "sweep.name=s", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(tmp_path)
    assert [record.status for record in found.values()] == ["ok", "ok"]
    assert len({str(record.output.token_ids) for record in found.values()}) == 1


def test_a_search_runs_the_requested_number_of_jobs_and_names_the_best(tmp_path) -> None:
    space = ("attention=eager,sdpa", "workload.batch_size=1,2", "search.trials=3")
    done = run_bench("-m", "hydra/sweeper=optuna", *space, *FEW, "sweep.name=s", "tracking=off", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record.status for record in records(tmp_path).values()] == ["ok"] * 3
    assert "Best of 3 trials" in done.stdout


def test_a_requested_profile_is_written(tmp_path) -> None:
    done = run_bench("profile.num_tokens=2", *FEW, "tracking=off", "fidelity.reference=none", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (operators,) = tmp_path.glob("outputs/*/operators.txt")
    assert "aten::" in operators.read_text(encoding="utf-8")
