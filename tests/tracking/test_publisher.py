from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from bench.tracking.publisher import Publisher
from bench.tracking.store import LOCAL_UI, Store, open_store
from bench.tracking.view import TAG_PREFIX
from conftest import run_bench
from factories import make_record

pytestmark = pytest.mark.usefixtures("patient")

DEAD = "http://127.0.0.1:9"  # the discard port: nothing answers


def make(uri: str | None, folder, warnings: list[str]) -> Publisher:
    return Publisher(uri=uri, experiment="bench", tags={"team": "x"}, folder=folder, warn=warnings.append)


def views_of(store: Store) -> dict[str, str]:
    tags = store.client.get_experiment(store.experiment_id).tags
    return {name: value for name, value in tags.items() if name.startswith(TAG_PREFIX)}


def test_a_dead_server_costs_one_line_a_call_and_nothing_else(tmp_path) -> None:
    warnings: list[str] = []
    publisher = make(DEAD, tmp_path, warnings)
    run_id = publisher.begin_sweep(sweep_id="s", name="s", swept={}, settings=[], baseline=None)
    assert run_id is None
    assert not publisher.publish(make_record(), tmp_path, run_id)
    publisher.end_sweep(run_id, [make_record()], interrupted=False)
    assert publisher.ways_on("s") == []
    assert len(warnings) == 4
    for warning in warnings:
        assert f"MLflow at {DEAD} cannot be reached: " in warning
        assert "\n" not in warning


def test_a_server_that_dies_later_costs_a_line_a_record(tmp_path) -> None:
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    (tmp_path / "mlflow.db").unlink()
    (tmp_path / "mlflow.db").mkdir()
    publisher.publish(make_record(name="sdpa"), tmp_path)
    (warning,) = warnings
    assert warning.startswith("sdpa is not published (its record is in ")


def test_a_store_says_how_to_look_at_a_single_run(tmp_path) -> None:
    start, page = make(None, tmp_path, []).ways_on(None)
    assert start.startswith("Compare: ")
    assert start.endswith(f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db --host 127.0.0.1")
    assert page.endswith("#/experiments/1/runs?workflowType=machine_learning")


def test_a_sweep_leads_to_its_view_from_its_beginning_on(tmp_path) -> None:
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    publisher.begin_sweep(
        sweep_id="sweep-1", name="s", swept={"compile.mode": ["default"]}, settings=["default"], baseline=None
    )
    assert warnings == []
    store = open_store(None, "bench", tmp_path)
    ((tag, _),) = views_of(store).items()
    start, table, charts = publisher.ways_on("sweep-1")
    page = f"{LOCAL_UI}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey="
    assert start.startswith("Compare: ")
    assert table == f"  table: {page}{tag.removeprefix(TAG_PREFIX)}"
    assert charts == f" charts: {page}{tag.removeprefix(TAG_PREFIX)}&compareRunsMode=CHART"


def test_a_sweep_whose_view_is_not_saved_leads_to_its_trials_all_the_same(tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("no such thing\nas views")

    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", fail)
    assert publisher.begin_sweep(sweep_id="sweep-1", name="s", swept={}, settings=[], baseline=None) is not None
    (warning,) = warnings
    assert "cannot save the sweep's view: no such thing" in warning
    assert "\n" not in warning
    _, table, charts = publisher.ways_on("sweep-1")
    wanted = "searchFilter=tags.sweep_id%20%3D%20%27sweep-1%27%20and%20tags.kind%20%3D%20%27trial%27"
    assert wanted in table
    assert charts.removeprefix(" charts: ") == f"{table.removeprefix('  table: ')}&compareRunsMode=CHART"


def test_the_measurement_stands_when_the_server_is_dead(tmp_path) -> None:
    few = ["warmup.iterations=0", "measurement.iterations=1"]
    done = run_bench(f"tracking.uri={DEAD}", *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not published" in done.stdout
    assert len(list(tmp_path.glob("outputs/*/record.json"))) == 1
