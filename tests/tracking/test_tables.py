from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.results.record import Iteration
from bench.tracking.runs.tables import CALLS, TAG, calls_of, table_text, tag_text, upload_table
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import make_iteration, make_record


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(None, "bench", tmp_path_factory.mktemp("store"))


@pytest.fixture
def run_id(store: Store) -> str:
    return store.create_run("a run", 0.0, {})


def loaded(store: Store, run_id: str, name: str) -> Any:
    """The table as MLflow's own reader has it, which asks the store of the environment."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", store.uri)
        return store.client.load_table(store.experiment_id, name, run_ids=[run_id])


def tables_of(store: Store, run_id: str) -> list[dict[str, str]]:
    return json.loads(store.client.get_run(run_id).data.tags[TAG])


def test_mlflow_reads_the_table_as_its_own(store, run_id):
    upload_table(store, run_id, "verdicts.json", {"setting": ["a", "b ≠"], "e2e_ms": [1.5, None]})
    frame = loaded(store, run_id, "verdicts.json")
    assert frame["setting"].tolist() == ["a", "b ≠"]
    assert frame["e2e_ms"].tolist()[0] == 1.5
    assert frame["e2e_ms"].isna().tolist() == [False, True]


def test_mlflow_itself_writes_the_same_tag_and_the_same_form(store, run_id):
    columns = {"name": ["a", "b"], "value": [1, 2]}
    upload_table(store, run_id, "ours.json", columns)
    ours = tables_of(store, run_id)
    store.client.log_table(run_id, columns, "theirs.json")
    assert tables_of(store, run_id) == [*ours, {"path": "theirs.json", "type": "table"}]
    paths = [Path(store.client.download_artifacts(run_id, name)) for name in ("ours.json", "theirs.json")]
    read = [json.loads(path.read_text()) for path in paths]
    assert read[0] == read[1]


def test_a_table_given_again_replaces_the_first_and_is_named_once(store, run_id):
    for rows in (["a", "b", "c"], ["d"]):
        upload_table(store, run_id, "t.json", {"name": rows})
    assert tables_of(store, run_id) == [{"path": "t.json", "type": "table"}]
    assert loaded(store, run_id, "t.json")["name"].tolist() == ["d"]


def test_columns_of_unequal_length_are_no_table(store, run_id):
    with pytest.raises(ValueError, match="shorter"):
        upload_table(store, run_id, "t.json", {"a": [1, 2], "b": [1]})
    assert store.client.list_artifacts(run_id) == []


def test_what_is_no_number_is_an_empty_cell():
    written = json.loads(table_text({"ratio": [1.5, float("nan"), float("inf"), None]}), parse_constant=pytest.fail)
    assert written["data"] == [[1.5], [None], [None], [None]]


def test_a_tag_that_holds_something_else_is_replaced():
    assert json.loads(tag_text("t.json", "{not json")) == [{"path": "t.json", "type": "table"}]
    assert json.loads(tag_text("t.json", '{"a": 1}')) == [{"path": "t.json", "type": "table"}]


def test_the_calls_of_a_record_are_rows_in_order():
    calls = calls_of(make_record())
    assert calls["index"] == list(range(26))
    assert calls["phase"] == ["validation"] + ["warmup"] * 5 + ["measurement"] * 20
    assert calls["e2e_ms"][:3] == [5000.0, 1348.0, 1148.0]
    assert (calls["ttft_ms"][6], calls["tpot_ms"][6]) == (100.0, 200.0)
    assert (calls["graphs"][:2], calls["compile_s"][:2]) == ([1, 0], [3.0, 0.0])


@pytest.mark.parametrize(("times", "known"), [([], []), ([0.1], ["ttft_ms"]), ([0.1, 0.2], ["ttft_ms", "tpot_ms"])])
def test_what_a_call_does_not_tell_is_an_empty_cell(times, known):
    call = Iteration(index=0, phase="warmup", start_s=0, e2e_s=1, token_times_s=times, graphs=0, compile_s=0)
    calls = calls_of(make_record(iterations=[call]))
    assert [name for name in ("ttft_ms", "tpot_ms") if calls[name] != [None]] == known


def test_each_trial_has_its_calls_as_a_table_once_however_often_it_is_published(store, tmp_path):
    record = make_record(iterations=[make_iteration(number, "measurement") for number in range(3)])
    for _ in range(2):
        run_id = publish(store, record, tmp_path, parent_run_id=None, tags={})
    assert tables_of(store, run_id) == [{"path": CALLS, "type": "table"}]
    frame = loaded(store, run_id, CALLS)
    assert frame["index"].tolist() == [0, 1, 2]


def test_a_job_that_ended_before_its_first_call_has_no_table(store, tmp_path):
    record = make_record(started_at_s=1.0, status="failed", stage="load", iterations=[], observed=None)
    run_id = publish(store, record, tmp_path, parent_run_id=None, tags={})
    assert TAG not in store.client.get_run(run_id).data.tags
    assert [each.path for each in store.client.list_artifacts(run_id)] == ["summary.md"]
