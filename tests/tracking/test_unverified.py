"""What MLflow shows of a record with parts of its request that nothing confirms or contradicts."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from bench.cli import sync
from bench.config.mlflow_names import LONGEST_TAG
from bench.results.record import CompileObserved, Record, Unverified
from bench.tracking.pages.view import FIRST, TAG_PREFIX, Extras, save_view, view_key
from bench.tracking.publisher import Publisher
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.store import Store
from factories import make_iterations, make_record

CACHE = Unverified(key="generation.kv_cache", reason="transformers 6.0 has no name for it")
GRAPHS = Unverified(key="compile.mode", reason="torch 3.0 has no counters: graphs are not counted")
COLUMN = "tags.`unverified`"


def unverified(*entries: Unverified, **changes: Any) -> Record:
    seen = make_record().observed
    assert seen is not None
    return make_record(observed=dataclasses.replace(seen, unverified=list(entries)), **changes)


def shown(store: Store, record: Record, folder: Path) -> Any:
    run_id = publish(store, record, folder, parent_run_id=None, tags={})
    return store.client.get_run(run_id)


def view_of(store: Store, sweep_id: str) -> dict[str, Any]:
    view = json.loads(store.client.get_experiment(store.experiment_id).tags[TAG_PREFIX + view_key(sweep_id)])
    return json.loads(zlib.decompress(base64.b64decode(view["state"].partition(";")[2])))


# ---- a trial's run -----------------------------------------------------------------------------------------------


def test_the_tag_names_each_key_with_its_reason(store, tmp_path) -> None:
    run = shown(store, unverified(CACHE, GRAPHS, sweep_id="two"), tmp_path)
    assert run.data.tags["unverified"] == f"{CACHE.key}: {CACHE.reason}; {GRAPHS.key}: {GRAPHS.reason}"


def test_the_description_names_each_key_with_its_reason(store, tmp_path) -> None:
    note = shown(store, unverified(CACHE, GRAPHS, sweep_id="note"), tmp_path).data.tags["mlflow.note.content"]
    assert [line for line in note.splitlines() if "unverified" in line] == [
        f"- **unverified: {each.key}**: {each.reason}" for each in (CACHE, GRAPHS)
    ]


def test_a_record_without_any_has_no_word_of_it(store, tmp_path) -> None:
    tags = shown(store, make_record(sweep_id="none"), tmp_path).data.tags
    assert "unverified" not in tags
    assert "unverified" not in tags["mlflow.note.content"]


def test_one_that_is_unverified_has_its_headline_and_its_status(store, tmp_path) -> None:
    run, other = (shown(store, each, tmp_path) for each in (unverified(CACHE, sweep_id="x"), make_record(sweep_id="y")))
    assert run.data.tags["status"] == "ok"
    assert {**run.data.metrics, "phases/publish_s": 0} == {**other.data.metrics, "phases/publish_s": 0}


def test_a_tag_that_is_too_long_is_cut(store, tmp_path) -> None:
    entries = [Unverified(key=f"model.key{number}", reason="x" * 300) for number in range(100)]
    tag = shown(store, unverified(*entries, sweep_id="long"), tmp_path).data.tags["unverified"]
    assert len(tag) == LONGEST_TAG
    assert tag.startswith("model.key0: xxx")
    assert tag.endswith("x…")


def test_published_again_it_is_the_same(store, tmp_path) -> None:
    record = unverified(CACHE, sweep_id="again")
    first, second = (shown(store, record, tmp_path) for _ in range(2))
    assert first.info.run_id == second.info.run_id
    assert first.data.tags == second.data.tags


def test_counts_that_torch_does_not_tell_are_no_metrics(store, tmp_path) -> None:
    counts = ("graphs", "attention_graphs", "graph_breaks", "recompiles", "cudagraph_skips")
    unknown = dict.fromkeys((*counts, "compile_s", "autotune_s", "cache_hits", "cache_misses"))
    calls = [dataclasses.replace(each, graphs=None, compile_s=None) for each in make_iterations()]
    seen = make_record().observed
    assert seen is not None
    record = make_record(
        sweep_id="silent", observed=dataclasses.replace(seen, compile=CompileObserved(**unknown)), iterations=calls
    )
    metrics = shown(store, record, tmp_path).data.metrics
    assert [each for each in metrics if each in {f"compile/{name}" for name in unknown}] == []
    assert "per_iter/graphs" not in metrics
    assert metrics["e2e_ms"] > 0
    assert metrics["per_iter/e2e_ms"] > 0


# ---- its sweep ---------------------------------------------------------------------------------------------------


def test_the_column_stands_beside_fidelity_and_swept_params_keep_their_room(store) -> None:
    extras = Extras(unverified=True)
    save_view(store, sweep_id="v", swept_keys=["compile.mode", "workload.batch_size"], extras=extras)
    state = view_of(store, "v")
    order, widths = state["columnOrder"], state["columnWidths"]
    assert order[order.index("metrics.`fidelity`") + 1] == COLUMN
    assert COLUMN in state["selectedColumns"]
    assert (
        set(order)
        == set(widths)
        == {"attributes.`Run Name`", "runDateAndNestInfo", "duration", *state["selectedColumns"]}
    )
    assert {f"metrics.`{each}`" for each in FIRST} <= set(order)
    last = order.index("params.`workload.batch_size`") + 1
    assert sum(widths[each] for each in order[:last]) <= 960  # of 1700 pixels, beside the UI's own panels


def swept(start: Path, sweep_id: str, *records: Record, ends: bool = True) -> str:
    """Publish these records of one sweep; returns the id of the sweep's run."""
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
    keys = {"compile.mode": ["default"]}
    run_id = publisher.begin_sweep(sweep_id=sweep_id, name="s", swept=keys, settings=[], baseline=None)
    assert run_id is not None
    for number, record in enumerate(records):
        job = start / "multirun" / sweep_id / str(number)
        job.mkdir(parents=True)
        record.write(job)
        assert publisher.publish(record, job, run_id)
    if ends:
        publisher.end_sweep(run_id, records, interrupted=False)
    return run_id


def test_a_sweeps_run_counts_them_and_its_table_has_the_column(start, store, patient) -> None:
    records = [unverified(CACHE, sweep_id="s1"), make_record(sweep_id="s1", repeat=2, started_at_s=9.0)]
    run_id = swept(start, "s1", *records)
    assert store.client.get_run(run_id).data.tags["n_unverified"] == "1"
    columns = view_of(store, "s1")["selectedColumns"]
    assert COLUMN in columns
    assert "params.`compile.mode`" in columns


def test_a_sweep_without_any_has_neither_count_nor_column(start, store, patient) -> None:
    run_id = swept(start, "s2", make_record(sweep_id="s2"))
    assert "n_unverified" not in store.client.get_run(run_id).data.tags
    assert COLUMN not in view_of(store, "s2")["columnOrder"]


def test_the_table_has_the_column_while_the_sweep_runs(start, store, patient) -> None:
    swept(start, "s3", unverified(CACHE, sweep_id="s3"), ends=False)
    assert COLUMN in view_of(store, "s3")["columnOrder"]


def test_a_sweep_that_goes_on_counts_anew(start, store, patient) -> None:
    swept(start, "s4", unverified(CACHE, sweep_id="s4"))
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
    run_id = publisher.begin_sweep(sweep_id="s4", name="s", swept={}, settings=[], baseline=None)
    publisher.end_sweep(run_id, [make_record(sweep_id="s4")], interrupted=False)
    assert run_id is not None
    assert store.client.get_run(run_id).data.tags["n_unverified"] == "0"


def test_catching_up_gives_the_same_tag_count_and_column(start, store, sweep_on_disk, capsys) -> None:
    record, folder = sweep_on_disk(start, sweep_id="s5")[1]
    assert record.observed is not None
    record.observed.unverified.append(CACHE)
    record.write(folder)
    assert sync.main([str(folder.parent)]) == 0, capsys.readouterr().err
    tagged = [each.data.tags.get("unverified") for each in store.find_runs(kind="trial", sweep_id="s5")]
    assert sorted(filter(None, tagged)) == [f"{CACHE.key}: {CACHE.reason}"]
    (parent,) = store.find_runs(kind="sweep", sweep_id="s5")
    assert parent.data.tags["n_unverified"] == "1"
    assert COLUMN in view_of(store, "s5")["columnOrder"]
