"""The saved view of a sweep, read back from a real database. That the UI reads it so was seen in a browser."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from bench.tracking.pages import view
from bench.tracking.pages.view import FIRST, HEADLINE, SECTIONS, TAG_PREFIX, Extras, save_view
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import make_evidence, make_record

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(None, "bench", tmp_path_factory.mktemp("store"))


def views(store: Store) -> dict[str, Any]:
    """Key → view, for each that is saved."""
    tags = store.client.get_experiment(store.experiment_id).tags
    return {name.removeprefix(TAG_PREFIX): json.loads(tags[name]) for name in tags if name.startswith(TAG_PREFIX)}


def saved(store: Store, sweep_id: str, *swept_keys: str, **extras: bool) -> dict[str, Any]:
    """The state that the UI restores."""
    key = save_view(store, sweep_id=sweep_id, swept_keys=swept_keys, extras=Extras(**extras))
    packed = views(store)[key]["state"]
    method, _, text = packed.partition(";")
    assert method == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(text)))


def columns(state: dict[str, Any], kind: str) -> list[str]:
    return [each.split("`")[1] for each in state["selectedColumns"] if each.startswith(f"{kind}.`")]


def test_the_filter_finds_the_sweeps_trials_and_nothing_else(store, tmp_path):
    kept = publish(store, make_record(sweep_id="it's one"), tmp_path, parent_run_id=None, tags={})
    publish(store, make_record(sweep_id="other"), tmp_path, parent_run_id=None, tags={})
    store.create_run("parent", 0, {"kind": "sweep", "sweep_id": "it's one"})
    found = store.client.search_runs([store.experiment_id], saved(store, "it's one")["searchFilter"])
    assert [run.info.run_id for run in found] == [kept]


def test_while_a_sweep_runs_the_fastest_comes_first_and_the_failed_last(store, tmp_path):
    for name, status, number in (("failed", "oom", 0), ("ok", "ok", 1)):
        record = make_record(sweep_id="sorted", name=name, status=status, repeat=number)
        publish(store, record, tmp_path, parent_run_id=None, tags={})
    state = saved(store, "sorted")
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`e2e_ms`", True)
    order = [f"{state['orderByKey']} ASC"]
    runs = store.client.search_runs([store.experiment_id], state["searchFilter"], order_by=order)
    assert [run.info.run_name.split()[0] for run in runs] == ["ok", "failed"]


def test_the_columns_are_the_headline_metrics_and_the_swept_params(store):
    state = saved(store, "s", "compile.mode", "model.dtype")
    assert columns(state, "metrics") == list(HEADLINE)
    assert columns(state, "params") == ["compile.mode", "model.dtype"]
    assert len(state["selectedColumns"]) == len(HEADLINE) + 2  # and none of the UI's own


def test_six_metrics_and_the_swept_params_come_first_and_have_room_beside_each_other(store):
    state = saved(store, "s", "compile.mode", "workload.batch_size")
    order, widths = state["columnOrder"], state["columnWidths"]
    assert len(FIRST) >= 6
    first = ["attributes.`Run Name`", "runDateAndNestInfo", *(f"metrics.`{name}`" for name in FIRST)]
    assert order[: len(first) + 2] == [*first, "params.`compile.mode`", "params.`workload.batch_size`"]
    assert set(order) == {*first[:2], "duration", *state["selectedColumns"]}
    assert set(widths) == set(order)
    # Of 1700 pixels, what the UI's own panels leave when both are open: seen in a browser.
    assert sum(widths[each] for each in order[: len(first) + 2]) <= 960


@pytest.mark.parametrize(
    "extras",
    [{"ranked": True}, {"ranked": True, "unranked": True}, {"ranked": True, "unranked": True, "unverified": True}],
)
def test_the_more_columns_a_sweep_has_the_fewer_metrics_stand_before_its_params(store, extras):
    state = saved(store, "s", "compile.mode", "workload.batch_size", **extras)
    order, widths = state["columnOrder"], state["columnWidths"]
    last = order.index("params.`workload.batch_size`") + 1
    assert sum(widths[each] for each in order[:last]) <= 960
    own = {"ranked": "metrics.`rank`", "unranked": "metrics.`unranked_ms`", "unverified": "tags.`unverified`"}
    needed = {"metrics.`e2e_ms`", "metrics.`steady`", "metrics.`fidelity`", *(own[each] for each in extras)}
    assert needed <= set(order[:last])
    assert set(order) == {*order[:2], "duration", *state["selectedColumns"]}
    assert len(order) == len(set(order)) == len(widths)
    assert {f"metrics.`{each}`" for each in HEADLINE} <= set(order)


def test_the_table_of_an_ended_sweep_is_sorted_by_its_first_column_rank(store):
    state = saved(store, "s", ranked=True)
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`rank`", True)
    assert state["columnOrder"][2:4] == ["metrics.`rank`", "metrics.`e2e_ms`"]


def test_the_headline_is_what_is_published_without_a_prefix(store, tmp_path):
    run_id = publish(store, make_record(sweep_id="headline", **make_evidence()), tmp_path, parent_run_id=None, tags={})
    run = store.client.get_run(run_id)
    assert {name for name in run.data.metrics if "/" not in name} == set(HEADLINE)
    sections = {name.partition("/")[0] for name in run.data.metrics if "/" in name}
    assert sections == set(SECTIONS) - {"Model metrics"}


@pytest.mark.parametrize(
    ("swept", "params"),
    [
        (["attention", "compile"], ["attention.implementation", "compile.mode"]),
        (["model", "workload", "device"], ["model.id", "workload.sequence_length", "device"]),
        (["compile", "compile.mode"], ["compile.mode"]),
        (["+compile.options.triton.cudagraphs", "++compile.options.epilogue_fusion"], ["compile.options"]),
        (["experiment", "warmup"], []),
        ([], []),
    ],
)
def test_a_swept_override_shows_as_the_param_that_it_sets(store, swept, params):
    assert columns(saved(store, "s", *swept), "params") == params


def test_every_such_param_is_published(store, tmp_path):
    groups = ["attention", "compile", "model", "workload", "device", "compile.options"]
    run_id = publish(store, make_record(sweep_id="params"), tmp_path, parent_run_id=None, tags={})
    assert set(columns(saved(store, "s", *groups), "params")) <= set(store.client.get_run(run_id).data.params)


def test_the_charts_begin_with_the_bars_then_the_curves_and_show_every_run(store):
    state = saved(store, "s")
    shown = [section["name"] for section in state["compareRunSections"] if section["display"]]
    assert shown == ["Model metrics", "per_iter"]
    assert state["runsHiddenMode"] == "SHOW_ALL"


def text_for(release: str | None, keys: int = 2) -> str:
    """A view as it is saved for a UI of this release, with so many swept keys."""
    swept = [f"generation.a_key_{number}" for number in range(keys)]
    return view._view("night", swept, extras=Extras(unverified=True), release=release)


def unpacked(text: str) -> dict[str, Any]:
    return json.loads(zlib.decompress(base64.b64decode(text.removeprefix("deflate;"))))


def test_a_release_that_names_views_gets_one_with_its_name():
    saved_view = json.loads(text_for("3.18.0"))
    assert set(saved_view) == {"name", "createdAt", "updatedAt", "state"}
    assert saved_view["name"] == "night"


@pytest.mark.parametrize("release", ["3.10.0", None])
def test_another_release_finds_the_whole_state_in_the_view_itself(release):
    saved_view = json.loads(text_for(release))
    state = unpacked(json.loads(text_for("3.18.0"))["state"])
    assert saved_view["name"] == "night"
    assert unpacked(saved_view["state"]) == state
    assert {name: saved_view[name] for name in state} == state
    assert saved_view["runsPinned"] == []  # such a release fills in nothing


def test_a_view_with_very_many_params_is_still_no_longer_than_a_tag():
    text = text_for(None, keys=60)
    assert len(text) <= 5000
    assert len(unpacked(text)["selectedColumns"]) == len(HEADLINE) + 1 + 60


def test_a_view_saved_again_replaces_the_first_and_others_stay(store):
    other = save_view(store, sweep_id="another", swept_keys=[])
    before = views(store)
    assert columns(saved(store, "twice", "model.id"), "params") == ["model.id"]
    assert columns(saved(store, "twice", "compile.mode"), "params") == ["compile.mode"]
    (new,) = set(views(store)) - set(before)
    assert views(store)[new]["name"] == "twice"
    assert views(store)[other] == before[other]


def test_a_store_that_is_gone_is_a_tracking_error(tmp_path):
    store = open_store(None, "bench", tmp_path)
    (tmp_path / "mlflow.db").unlink()
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TrackingError, match="cannot save the sweep's view"):
        save_view(store, sweep_id="s", swept_keys=[])
