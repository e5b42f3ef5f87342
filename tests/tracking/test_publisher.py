from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from bench.results.palette import colour
from bench.tracking.pages.links import LOCAL_UI
from bench.tracking.pages.view import TAG_PREFIX
from bench.tracking.publisher import Publisher
from bench.tracking.runs.sweep_run import is_described
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
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
    files = [tmp_path / "comparison.md"]
    publisher.conclude(run_id, files=files, base=tmp_path, tables={"t.json": {"a": [1]}}, answer="nothing")
    assert publisher.ways_on("s") == []
    assert len(warnings) == 4  # opening the store and beginning the sweep fail with the same line, said once
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
    assert start.startswith(" MLflow: ")
    assert start.endswith(f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db --host 127.0.0.1")
    assert page.endswith("#/experiments/1/runs?workflowType=machine_learning")


@pytest.mark.contract
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
    assert start.startswith(" MLflow: ")
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


# ---- what a sweep came to ----------------------------------------------------------------------------------------


def ended(tmp_path: Path, statuses: list[str], warnings: list[str]) -> tuple[Publisher, str | None]:
    """A publisher after a sweep whose jobs ended so, and the sweep's run."""
    publisher = make(None, tmp_path, warnings)
    swept = {"compile.mode": ["default"]}
    run_id = publisher.begin_sweep(sweep_id="s", name="s", swept=swept, settings=["default"], baseline=None)
    records = []
    for repeat, status in enumerate(statuses, start=1):
        record = make_record(sweep_id="s", name="default", repeat=repeat, status=status, started_at_s=float(repeat))
        folder = tmp_path / "multirun" / str(repeat)
        folder.mkdir(parents=True)
        record.write(folder)
        publisher.publish(record, folder, run_id)
        records.append(record)
    publisher.end_sweep(run_id, records, interrupted=False)
    return publisher, run_id


@pytest.mark.contract
def test_a_sweep_leads_to_its_fastest_trials_side_by_side(tmp_path) -> None:
    warnings: list[str] = []
    publisher, _ = ended(tmp_path, ["ok", "oom", "ok"], warnings)
    *_, charts, compare = publisher.ways_on("s")
    assert charts.startswith(" charts: ")
    store = open_store(None, "bench", tmp_path)
    ok = [run.info.run_id for run in store.find_runs(kind="trial") if run.data.tags["status"] == "ok"]
    assert compare.startswith(f"compare: {LOCAL_UI}/#/compare-runs?runs=%5B%22")
    assert [run_id in compare for run_id in ok] == [True, True]
    assert warnings == []


def test_a_sweep_in_which_all_failed_has_no_such_page(tmp_path) -> None:
    warnings: list[str] = []
    publisher, _ = ended(tmp_path, ["oom", "failed"], warnings)
    assert [line.split(":")[0].strip() for line in publisher.ways_on("s")] == ["MLflow", "table", "charts"]
    assert warnings == []


def test_the_ways_on_ask_nobody(tmp_path, monkeypatch) -> None:
    publisher, _ = ended(tmp_path, ["ok", "ok"], [])
    monkeypatch.setattr(MlflowClient, "search_runs", None)
    monkeypatch.setattr(MlflowClient, "get_run", None)
    assert len(publisher.ways_on("s")) == 4


def test_the_fastest_not_found_cost_a_line_and_nothing_else(tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TrackingError("no answer")

    monkeypatch.setattr("bench.tracking.publisher.find_fastest", fail)
    warnings: list[str] = []
    publisher, run_id = ended(tmp_path, ["ok", "ok"], warnings)
    assert len(publisher.ways_on("s")) == 3
    assert warnings == []
    assert open_store(None, "bench", tmp_path).client.get_run(run_id).info.status == "FINISHED"


def test_the_answer_of_a_sweep_stands_above_what_it_swept_and_replaces_a_former_one(tmp_path) -> None:
    publisher, run_id = ended(tmp_path, [], [])
    client = open_store(None, "bench", tmp_path).client
    for answer in ("first\n", "# Answer\n\ndefault, by 3 %\n"):
        publisher.conclude(run_id, answer=answer)
    run = client.get_run(run_id)
    note = run.data.tags["mlflow.note.content"]
    assert note == "# Answer\n\ndefault, by 3 %\n\nSweep `s`\n\n- `compile.mode`: `default`"
    assert is_described(run)


def test_a_too_long_answer_is_cut_at_a_line_and_the_swept_keys_follow(tmp_path) -> None:
    publisher, run_id = ended(tmp_path, [], [])
    publisher.conclude(run_id, answer="a line of the answer\n" * 1000)
    note = open_store(None, "bench", tmp_path).client.get_run(run_id).data.tags["mlflow.note.content"]
    assert len(note) <= 8000
    answer, _, below = note.partition("\n…\n\n")
    assert set(answer.splitlines()) == {"a line of the answer"}
    assert below == "Sweep `s`\n\n- `compile.mode`: `default`"


def test_a_run_that_only_has_an_answer_is_not_described(tmp_path) -> None:
    store = open_store(None, "bench", tmp_path)
    run_id = store.create_run("s", 0.0, {"kind": "sweep", "sweep_id": "s"})
    make(None, tmp_path, []).conclude(run_id, answer="answer")
    run = store.client.get_run(run_id)
    assert run.data.tags["mlflow.note.content"] == "answer"
    assert not is_described(run)


def test_files_keep_their_path_from_the_base_and_lie_at_the_top_without(tmp_path) -> None:
    publisher, run_id = ended(tmp_path, [], [])
    (tmp_path / "sweep" / "figures").mkdir(parents=True)
    files = [tmp_path / "sweep" / name for name in ("report.md", "figures/x.svg")] + [tmp_path / "notes.txt"]
    for file in files:
        file.touch()
    publisher.conclude(run_id, files=files, base=tmp_path / "sweep")
    client = open_store(None, "bench", tmp_path).client
    assert {each.path for each in client.list_artifacts(run_id)} == {"report.md", "figures", "notes.txt", "sweep.md"}
    assert [each.path for each in client.list_artifacts(run_id, "figures")] == ["figures/x.svg"]
    publisher.conclude(run_id, files=files[1:2])
    assert "x.svg" in {each.path for each in client.list_artifacts(run_id)}


def test_a_table_of_the_sweep_is_one_of_its_artifacts(tmp_path) -> None:
    publisher, run_id = ended(tmp_path, [], [])
    publisher.conclude(run_id, tables={"verdicts.json": {"setting": ["default"], "ratio": [1.0]}})
    client = open_store(None, "bench", tmp_path).client
    written = json.loads(Path(client.download_artifacts(run_id, "verdicts.json")).read_text())
    assert written == {"columns": ["setting", "ratio"], "data": [["default", 1.0]]}
    (named,) = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert named == {"path": "verdicts.json", "type": "table"}


def test_a_table_that_is_none_costs_a_line(tmp_path) -> None:
    warnings: list[str] = []
    publisher, run_id = ended(tmp_path, [], warnings)
    publisher.conclude(run_id, tables={"verdicts.json": {"a": [1, 2], "b": []}})
    (warning,) = warnings
    assert warning.startswith("the sweep's results are not published: ValueError: ")


@pytest.mark.contract
def test_the_runs_of_a_sweep_have_the_names_and_colours_of_its_settings(tmp_path) -> None:
    publisher = make(None, tmp_path, [])
    swept = {"compile": ["off", "max-autotune"], "workload.batch_size": ["1", "2"]}
    settings = ["off batch_size=1", "max-autotune batch_size=2"]
    run_id = publisher.begin_sweep(sweep_id="s", name="s", swept=swept, settings=settings, baseline=None)
    own = {"compile": "max-autotune", "workload.batch_size": "2"}
    publisher.publish(make_record(sweep_id="s", name=settings[1], swept=own), tmp_path, run_id)
    (run,) = open_store(None, "bench", tmp_path).find_runs(kind="trial")
    assert (run.info.run_name, run.data.tags["mlflow.runColor"]) == ("max-autotune b2", colour(1))


def test_the_measurement_stands_when_the_server_is_dead(tmp_path) -> None:
    few = ["warmup.iterations=0", "measurement.iterations=1"]
    done = run_bench(f"tracking.uri={DEAD}", *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not published" in done.stdout
    assert len(list(tmp_path.glob("outputs/*/record.json"))) == 1
