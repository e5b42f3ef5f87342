"""Test the README's main use end to end: two sweeps with real compilation, records and MLflow."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from bench.results.record import Record
from bench.trial.evidence.fidelity import ENOUGH_STEPS
from conftest import run_bench

pytestmark = pytest.mark.compiled


class Sweep:
    """The results of one sweep."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder, self.done = folder, done
        self.records = {record.name: record for record in map(Record.read, folder.glob("multirun/*/*/record.json"))}
        client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
        self.runs: list[Run] = client.search_runs([experiment.experiment_id])
        self.client = client

    def children(self) -> dict[str, Run]:
        trials = (run for run in self.runs if run.data.tags["kind"] == "trial")
        return {run.info.run_name.rstrip(" ≠~!?"): run for run in trials}

    def parents(self) -> list[Run]:
        return [run for run in self.runs if run.data.tags["kind"] == "sweep"]


@pytest.fixture(scope="module")
def modes(tmp_path_factory) -> Sweep:
    """Run the README's first command."""
    folder = tmp_path_factory.mktemp("modes")
    return Sweep(folder, run_bench("-m", "compile.mode=default,max-autotune", folder=folder))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory) -> Sweep:
    """Two attentions, compiled and not."""
    folder = tmp_path_factory.mktemp("matrix")
    few = ["warmup.iterations=1", "measurement.iterations=3"]
    return Sweep(folder, run_bench("-m", "attention=eager,sdpa", "compile=off,default", *few, folder=folder))


def test_the_first_command_succeeds(modes) -> None:
    assert modes.done.returncode == 0, modes.done.stdout + modes.done.stderr
    assert {name: record.status for name, record in modes.records.items()} == {"default": "ok", "max-autotune": "ok"}


def test_mlflow_holds_one_parent_with_two_nested_runs(modes) -> None:
    (parent,) = modes.parents()
    assert set(modes.children()) == {"default", "max-autotune"}
    assert {run.data.tags["mlflow.parentRunId"] for run in modes.children().values()} == {parent.info.run_id}
    assert {run.info.status for run in modes.runs} == {"FINISHED"}


def test_params_are_the_config_keys(modes) -> None:
    assert {name: run.data.params["compile.mode"] for name, run in modes.children().items()} == {
        "default": "default",
        "max-autotune": "max-autotune",
    }


def test_each_run_has_5_warm_up_and_20_measured_steps_after_validation(modes) -> None:
    for name, record in modes.records.items():
        phases = [each.phase for each in record.iterations]
        assert phases == ["validation"] + ["warmup"] * 5 + ["measurement"] * 20
        history = modes.client.get_metric_history(modes.children()[name].info.run_id, "per_iter/e2e_ms")
        assert sorted(point.step for point in history) == list(range(1, 26))
        values = {point.step: point.value for point in history}
        assert values[25] == pytest.approx(record.iterations[25].e2e_s * 1e3)


def test_both_were_really_compiled_from_a_cold_cache(modes) -> None:
    for record in modes.records.values():
        compiled = record.observed.compile
        assert compiled.graphs >= 1
        assert compiled.arguments["mode"] == record.requested["compile"]["mode"]
        assert (compiled.cache_hits, compiled.cache_misses) == (0, compiled.graphs)
        assert record.iterations[0].graphs == compiled.graphs
        assert record.iterations[0].compile_s > 1
        assert sum(each.graphs for each in record.iterations[1:]) == 0
        assert record.observed.kv_cache == "StaticCache"


def test_headline_metrics_are_those_of_the_record(modes) -> None:
    for name, run in modes.children().items():
        times = sorted(each.e2e_s for each in modes.records[name].calls("measurement"))
        shown = run.data.metrics.get("e2e_ms", run.data.metrics.get("unranked_ms"))  # this machine may be unsteady
        assert shown == pytest.approx((times[9] + times[10]) / 2 * 1e3, rel=1e-3)
        assert run.data.metrics["cold_s"] == pytest.approx(modes.records[name].iterations[0].e2e_s, rel=1e-3)


def test_the_record_and_the_config_are_artifacts(modes) -> None:
    for run in modes.children().values():
        names = {each.path for each in modes.client.list_artifacts(run.info.run_id)}
        assert {"record.json", "worker.log"} <= names


def test_the_end_names_the_table_and_the_ui(modes) -> None:
    out = modes.done.stdout
    assert "mlflow ui --backend-store-uri sqlite:///" in out
    for name in ("default", "max-autotune"):
        assert name in out
    assert "\x1b" not in out


def test_results_are_below_the_folder_of_the_command(modes) -> None:
    assert {path.name for path in modes.folder.iterdir()} >= {"mlflow.db", "mlartifacts", "multirun"}


@pytest.mark.contract
@pytest.mark.slow
def test_four_settings_generate_the_same_tokens(matrix) -> None:
    assert matrix.done.returncode == 0, matrix.done.stdout + matrix.done.stderr
    assert {record.status for record in matrix.records.values()} == {"ok"}
    assert len(matrix.records) == 4
    outputs = [record.output.token_ids for record in matrix.records.values()]
    assert all(each == outputs[0] for each in outputs)
    assert len(set(outputs[0][0])) > 4  # a repeated token would prove nothing


@pytest.mark.contract
@pytest.mark.slow
def test_uncompiled_settings_are_not_compiled(matrix) -> None:
    graphs = {name: record.observed.compile.graphs for name, record in matrix.records.items()}
    assert graphs == {"eager off": 0, "sdpa off": 0, "eager default": 1, "sdpa default": 1}


@pytest.mark.contract
@pytest.mark.slow
def test_every_setting_proves_its_attention_and_agrees_with_the_reference(matrix) -> None:
    for name, record in matrix.records.items():
        own = "eager" if name.startswith("eager") else "flash_attention"
        assert record.observed.attention.prefill.families == [own]
        assert record.fidelity.agrees
        assert record.fidelity.positions == ENOUGH_STEPS  # for all tokens are equal
    assert matrix.records["sdpa default"].observed.attention.decode.compiled_regions == 2
    assert len(list(matrix.folder.glob("multirun/*/references/*/record.json"))) == 1


@pytest.mark.contract
@pytest.mark.slow
def test_each_setting_had_its_own_process_and_cache(matrix) -> None:
    for name in ("eager default", "sdpa default"):
        compiled = matrix.records[name].observed.compile
        assert (compiled.cache_hits, compiled.cache_misses) == (0, 1)


def test_settings_the_machine_cannot_run_are_reported_and_the_rest_completes(tmp_path) -> None:
    few = ["warmup.iterations=0", "measurement.iterations=1", "tracking=off"]
    done = run_bench("-m", "experiment=sdpa_backends", *few, folder=tmp_path)
    records = {record.name: record for record in map(Record.read, tmp_path.glob("multirun/*/*/record.json"))}
    statuses = {name: record.status for name, record in records.items()}
    here, elsewhere = ("math", "flash_attention"), ("efficient_attention", "cudnn_attention")
    assert statuses == dict.fromkeys(here, "ok") | dict.fromkeys(elsewhere, "skipped")
    assert done.returncode == 0
    for name in here:  # each its own kernels
        attention = records[name].observed.attention
        assert (attention.prefill.families, attention.decode.families) == ([name], [name])
    for name in elsewhere:
        assert records[name].error.message.startswith(f"attention.sdpa_backend={name} cannot run here")
        assert f"{name}: attention.sdpa_backend={name} cannot run here" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_flex_attention_runs_in_all_forms_and_shows_its_own_graphs(tmp_path) -> None:
    few = ["warmup.iterations=0", "measurement.iterations=1", "tracking=off"]
    done = run_bench("-m", "attention=flash2,flex", "compile=off,default", *few, folder=tmp_path)
    records = {record.name: record for record in map(Record.read, tmp_path.glob("multirun/*/*/record.json"))}
    assert {name: record.status for name, record in records.items()} == {
        "flex off": "ok",
        "flash2 off": "skipped",
        "flash2 default": "skipped",
        "flex default": "ok",
    }
    assert done.returncode == 0
    own = records["flex off"].observed.compile
    assert own.graphs == own.attention_graphs > 0
    for name in ("flex off", "flex default"):
        assert records[name].observed.attention.prefill.families == ["flex_attention"]
        assert records[name].fidelity.agrees
    assert records["flex off"].output.token_ids == records["flex default"].output.token_ids
    assert records["flex off"].observed.mends == []
    assert records["flex default"].observed.mends != []
    assert "4 own" in done.stdout


@pytest.mark.slow
def test_a_shared_cache_is_warm_the_second_time_and_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ["compile=default", "compile.cache=shared", "warmup.iterations=0", "measurement.iterations=1"]
    observed = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        done = run_bench(*command, "tracking=off", folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = folder.glob("outputs/*/record.json")
        observed.append(Record.read(path).observed.compile)
    assert (observed[0].cache_hits, observed[0].cache_misses) == (0, 1)
    assert observed[1].cache_hits >= 1
    assert observed[1].cache_misses == 0
    assert observed[1].graphs == 1
