from __future__ import annotations

import itertools
import json
import urllib.parse
from pathlib import Path

import pytest

from bench.results.record import Fidelity, Iteration
from bench.tracking.pages.links import LOCAL_UI, SIDE_BY_SIDE, Fastest, compare_address, find_fastest, sweep_links
from bench.tracking.runs.standing import rank_trials, ranking_of
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import make_iterations, make_record

_sweeps = itertools.count(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(None, "bench", tmp_path_factory.mktemp("store"))


@pytest.fixture
def sweep_id() -> str:
    """A sweep of the test's own: all of them share one database."""
    return f"sweep-{next(_sweeps)}"


def slower(calls: list[Iteration], by_s: float) -> list[Iteration]:
    return [Iteration(**vars(each) | {"e2e_s": each.e2e_s + by_s}) for each in calls]


def add(store: Store, sweep_id: str, folder: Path, repeat: int, **changes: object) -> str:
    record = make_record(sweep_id=sweep_id, repeat=repeat, **changes)
    return publish(store, record, folder, parent_run_id=None, tags={})


def asked(address: str) -> dict[str, list[str]]:
    """The lists in the query of a comparing page."""
    query = urllib.parse.parse_qs(address.partition("?")[2])
    return {name: json.loads(value) for name, (value,) in query.items()}


def test_the_fastest_come_first_and_are_ten_at_most(store, sweep_id, tmp_path):
    few = make_iterations(1)
    run_ids = [
        add(store, sweep_id, tmp_path, number, iterations=slower(few, 0.1 * (12 - number))) for number in range(12)
    ]
    fastest = find_fastest(store, sweep_id, 12, is_ranked=False)
    assert fastest == Fastest(run_ids=run_ids[:1:-1], of=12)
    assert len(fastest.run_ids) == SIDE_BY_SIDE


def test_of_a_sweep_that_has_ended_those_of_the_first_setting_come_first(store, sweep_id, tmp_path):
    few, records, run_ids = make_iterations(1), [], {}
    # By setting 1.8 s and 1.9 s; by trial the fastest is one of the slower setting.
    for trial_id, repeat, by_s in (("a", 1, 1.0), ("a", 2, 0.8), ("b", 1, 0.7), ("b", 2, 1.3), ("c", 1, 0.0)):
        agrees = None if trial_id != "c" else Fidelity(reference="eager", agrees=False, reason="other tokens")
        record = make_record(
            sweep_id=sweep_id, trial_id=trial_id, repeat=repeat, iterations=slower(few, by_s), fidelity=agrees
        )
        run_ids[trial_id, repeat] = publish(store, record, tmp_path, parent_run_id=None, tags={})
        records.append(record)
    assert find_fastest(store, sweep_id, 5).run_ids == []  # before its trials have their ranks
    assert rank_trials(store, sweep_id, ranking_of(records))
    wanted = [run_ids[each] for each in (("a", 2), ("a", 1), ("b", 1), ("b", 2))]
    assert find_fastest(store, sweep_id, 5) == Fastest(run_ids=wanted, of=5)


def test_what_is_not_ranked_and_what_was_tried_before_is_not_among_them(store, sweep_id, tmp_path):
    add(store, sweep_id, tmp_path, 1, started_at_s=1.0)
    newest = add(store, sweep_id, tmp_path, 1, started_at_s=2.0)
    add(store, sweep_id, tmp_path, 2, status="oom")
    add(store, sweep_id, tmp_path, 3, warmup_status="not_converged")
    add(store, "another", tmp_path, 4)
    store.create_run("parent", 0, {"kind": "sweep", "sweep_id": sweep_id})
    assert find_fastest(store, sweep_id, 1, is_ranked=False).run_ids == [newest]


def test_the_address_lists_the_runs_in_order_without_characters_that_end_a_link(store):
    address = compare_address(store, ["b", "a"])
    assert address.startswith(f"{LOCAL_UI}/#/compare-runs?runs=%5B%22b%22%2C%22a%22%5D&experiments=%5B%221%22%5D")
    assert asked(address) == {"runs": ["b", "a"], "experiments": [store.experiment_id]}
    assert set(' "[],').isdisjoint(address)


def test_a_server_has_its_own_address():
    server = Store(uri="https://me:secret@host:5000", experiment_id="7", experiment="bench", client=None)
    address = compare_address(server, ["a"], "http://127.0.0.1:1")
    assert address.startswith("https://host:5000/#/compare-runs?")


@pytest.mark.parametrize(
    ("run_ids", "of", "said"),
    [
        (["a", "b"], 2, ""),
        ([str(number) for number in range(10)], 48, " (the 10 fastest of 48)"),
    ],
)
def test_a_sweep_has_three_pages_and_the_last_says_when_it_holds_a_part(store, run_ids, of, said):
    table, charts, compare = sweep_links(
        store, sweep_id="s", view="key", fastest=Fastest(run_ids=run_ids, of=of), base="http://127.0.0.1:81"
    )
    page = "http://127.0.0.1:81/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=key"
    assert table == f"  table: {page}"
    assert charts == f" charts: {page}&compareRunsMode=CHART"
    assert compare == f"compare: {compare_address(store, run_ids, 'http://127.0.0.1:81')}{said}"


@pytest.mark.parametrize(("is_ranked", "metric"), [(False, "e2e_ms"), (True, "rank")])
def test_without_a_saved_view_the_table_is_sorted_as_the_view_would_be(store, is_ranked, metric):
    table, *_ = sweep_links(store, sweep_id="s", view=None, is_ranked=is_ranked)
    assert f"orderByKey=metrics.%60{metric}%60&orderByAsc=true" in table


@pytest.mark.parametrize("fastest", [None, Fastest(run_ids=[], of=0), Fastest(run_ids=["a"], of=1)])
def test_with_fewer_than_two_trials_there_is_nothing_to_compare(store, fastest):
    assert [line.split(":")[0] for line in sweep_links(store, sweep_id="s", view=None, fastest=fastest)] == [
        "  table",
        " charts",
    ]
