"""The order of settings in MLflow is that of the report, whatever the trials were, in a real database and server."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from bench.cli.sync import main as sync
from bench.config.schema import SweepConfig
from bench.results.record import Fidelity, Record, Steadiness, Unverified
from bench.tracking import publisher as publisher_module
from bench.tracking.pages.view import HEADLINE, TAG_PREFIX, view_key
from bench.tracking.publish_mark import read_mark, record_key
from bench.tracking.publisher import Publisher
from bench.tracking.runs.standing import KEPT, RANK, UNRANKED, places_of, rank_trials, ranking_of, sweep_metrics
from bench.tracking.runs.trial_run import publish, run_name
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import LAYOUT, Store, trials_filter
from factories import MEDIAN_E2E_S, make_config, make_evidence, make_iterations, make_record
from mlflow_server import Server

WRONG = Fidelity(reference="eager", agrees=False, reason="other tokens")
UNSTEADY = Steadiness(steady=False, flags=["trend", "cv_high"], shape="slowdown", power="enough")
UNRANKED_FIELDS: list[dict[str, Any]] = [
    {"fidelity": WRONG},
    {"steadiness": UNSTEADY},
    {"warmup_status": "not_converged", "warmup_stop": "after 50 calls"},
]
REPEATED = make_config(sweep=SweepConfig(repeats=3)).to_dict()
_sweeps = itertools.count(1)


@pytest.fixture
def sweep_id() -> str:
    return f"sweep-{next(_sweeps)}"


def trial(sweep_id: str, setting: str, repeat: int = 1, *, slower_s: float = 0.0, **changes: Any) -> Record:
    """A trial of two measured calls."""
    calls = [dataclasses.replace(each, e2e_s=each.e2e_s + slower_s) for each in make_iterations(2)]
    own = {"name": setting, "trial_id": setting, "swept": {"x": setting}, "iterations": calls, "requested": REPEATED}
    return make_record(sweep_id=sweep_id, repeat=repeat, **own | changes)


def published(store: Store, record: Record, folder: Path) -> Any:
    run_id = publish(store, record, folder, parent_run_id=None, tags={})
    return store.client.get_run(run_id)


def in_order(store: Store, sweep_id: str) -> list[Any]:
    """The trials of a sweep as its saved view sorts them."""
    order = [f"metrics.{RANK} ASC"]
    return list(store.client.search_runs([store.experiment_id], trials_filter(sweep_id), order_by=order))


def settings_shown(store: Store, sweep_id: str) -> list[str]:
    """The ranked settings in the order of the table, each once."""
    runs = [each for each in in_order(store, sweep_id) if each.data.metrics.get(RANK, math.nan) > 0]
    return list(dict.fromkeys(each.data.tags["setting_id"] for each in runs))


def assert_agrees(store: Store, records: list[Record], sweep_id: str) -> None:
    """The table's order is the ranking's: ranked settings by their places, everything else below."""
    ranked = [each.setting.setting_id for each in ranking_of(records) if each.standing.is_ranked]
    assert settings_shown(store, sweep_id) == ranked
    has_rank = [each.data.metrics.get(RANK, math.nan) > 0 for each in in_order(store, sweep_id)]
    assert has_rank == sorted(has_rank, reverse=True)


# ---- a trial's run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", UNRANKED_FIELDS)
def test_a_trial_that_is_not_ranked_has_no_speed_under_a_headline_name(store, tmp_path, sweep_id, fields) -> None:
    run = published(store, make_record(sweep_id=sweep_id, **make_evidence() | fields), tmp_path)
    named = {name for name in run.data.metrics if "/" not in name}
    assert named == {UNRANKED, *KEPT}
    assert named & set(HEADLINE) == set(KEPT)
    assert run.data.metrics[UNRANKED] == MEDIAN_E2E_S * 1e3
    assert run.data.metrics["latency/e2e_median_s"] == pytest.approx(MEDIAN_E2E_S)
    assert "**not ranked**" in run.data.tags["mlflow.note.content"]


def test_the_note_of_an_unranked_trial_gives_each_reason_and_unranked_ms(store, tmp_path, sweep_id) -> None:
    run = published(store, trial(sweep_id, "a", fidelity=WRONG, steadiness=UNSTEADY), tmp_path)
    lines = run.data.tags["mlflow.note.content"].splitlines()
    assert [each for each in lines if "not ranked" in each] == [
        "- **not ranked**: its output differs from the reference's (other tokens)",
        "- **not ranked**: it was unsteady during measurement (trend)",
    ]
    names, values = ([cell.strip() for cell in lines[index].strip("|").split("|")] for index in (2, 4))
    assert dict(zip(names, values, strict=True))[UNRANKED] == "912"
    assert "e2e_ms" not in names


def test_the_note_of_a_ranked_trial_gives_no_reason(store, tmp_path, sweep_id) -> None:
    run = published(store, trial(sweep_id, "a"), tmp_path)
    assert "not ranked" not in run.data.tags["mlflow.note.content"]
    assert UNRANKED not in run.data.metrics


def test_the_marks_of_its_standing_stand_behind_the_name() -> None:
    seen = make_record().observed
    assert seen is not None
    unsure = dataclasses.replace(seen, unverified=[Unverified(key="compile.mode", reason="no counters")])
    every = {"fidelity": WRONG, "warmup_status": "not_converged", "steadiness": UNSTEADY, "observed": unsure}
    assert run_name(trial("s", "sdpa", 2)) == "sdpa r2"
    assert run_name(trial("s", "sdpa", 2, **every)) == "sdpa r2 ≠~!?"
    assert run_name(trial("s", "sdpa", 2, status="failed", **every)) == "sdpa r2"


# ---- ranks -------------------------------------------------------------------------------------------------------


def random_sweep(sweep_id: str, seed: int) -> list[Record]:
    """Settings of one to three processes, of all kinds."""
    choose = random.Random(seed)
    kinds: list[dict[str, Any]] = [*UNRANKED_FIELDS, {"status": "oom"}, {"status": "skipped"}, {}, {}, {}, {}]
    return [
        trial(sweep_id, f"setting-{number}", repeat, slower_s=choose.choice([0.0, 0.5, choose.random()]), **kind)
        for number in range(choose.randint(1, 6))
        for repeat in range(1, choose.randint(1, 3) + 1)
        for kind in [choose.choice(kinds)]
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_table_has_the_order_of_the_report(store, tmp_path, sweep_id, seed) -> None:
    records = random_sweep(sweep_id, seed)
    for each in records:
        published(store, each, tmp_path)
    assert rank_trials(store, sweep_id, ranking_of(records))
    assert_agrees(store, records, sweep_id)


def test_all_repeats_of_a_ranked_setting_have_its_rank_unranked_ones_half_a_place_later(
    store, tmp_path, sweep_id
) -> None:
    records = [trial(sweep_id, "slow", each, slower_s=1.0) for each in (1, 2)]
    # One unsteady process of three widens an interval; two of three rule the setting out.
    records += [trial(sweep_id, "fast", each, steadiness=UNSTEADY if each == 3 else None) for each in (1, 2, 3)]
    records += [trial(sweep_id, "unsteady", each, steadiness=UNSTEADY if each > 1 else None) for each in (1, 2, 3)]
    for each in records:
        published(store, each, tmp_path)
    rank_trials(store, sweep_id, ranking_of(records))
    ranks = {run.info.run_name: run.data.metrics.get(RANK) for run in in_order(store, sweep_id)}
    assert ranks == {
        "fast r1": 1, "fast r2": 1, "fast r3 !": 1.5, "slow r1": 2, "slow r2": 2,
        "unsteady r1": None, "unsteady r2 !": None, "unsteady r3 !": None,
    }  # fmt: skip


def test_ranking_again_writes_nothing_where_nothing_changed(store, tmp_path, sweep_id, monkeypatch) -> None:
    records = [trial(sweep_id, "a"), trial(sweep_id, "b", slower_s=1.0)]
    for each in records:
        published(store, each, tmp_path)
    rank_trials(store, sweep_id, ranking_of(records))
    monkeypatch.setattr(store.client, "log_batch", None)
    assert rank_trials(store, sweep_id, ranking_of(records))


def lost_and_changed(store: Store, folder: Path, sweep_id: str) -> None:
    """Rank a sweep, then rank it anew with a setting that lost its rank and one that is faster now."""
    first = [trial(sweep_id, "a", slower_s=0.1), trial(sweep_id, "b", slower_s=0.2), trial(sweep_id, "c", slower_s=0.3)]
    for each in first:
        published(store, each, folder)
    rank_trials(store, sweep_id, ranking_of(first))
    assert settings_shown(store, sweep_id) == ["a", "b", "c"]
    again = [
        trial(sweep_id, "a", 2, slower_s=0.1, fidelity=WRONG),
        trial(sweep_id, "c", 2, slower_s=-0.5),
        trial(sweep_id, "c", 3, slower_s=-0.5),
    ]
    for each in again:
        published(store, each, folder)
    everything = [*first, *again]
    rank_trials(store, sweep_id, ranking_of(everything))
    assert settings_shown(store, sweep_id) == ["c", "b"]
    assert_agrees(store, everything, sweep_id)
    (lost,) = (each for each in in_order(store, sweep_id) if each.data.tags["record_key"] == record_key(first[0]))
    assert math.isnan(lost.data.metrics[RANK])


def test_a_setting_that_lost_its_rank_does_not_keep_it(store, tmp_path, sweep_id) -> None:
    lost_and_changed(store, tmp_path, sweep_id)


@pytest.mark.slow
def test_a_server_sorts_a_lost_rank_last_too(tmp_path, sweep_id) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        over_http = open_store(server.uri, "bench", tmp_path)
        lost_and_changed(over_http, tmp_path, sweep_id)
        for seed in range(3):
            records = random_sweep(f"{sweep_id}-{seed}", seed)
            for each in records:
                published(over_http, each, tmp_path)
            rank_trials(over_http, f"{sweep_id}-{seed}", ranking_of(records))
            assert_agrees(over_http, records, f"{sweep_id}-{seed}")
    finally:
        server.kill()


def test_a_later_rank_counts_though_the_clock_went_back(store, tmp_path, sweep_id, monkeypatch) -> None:
    record = trial(sweep_id, "a")
    run_id = published(store, record, tmp_path).info.run_id
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 4e9)
        store.set_metrics(store.client.get_run(run_id), {RANK: 7})
    for place in (3, None, 5):
        store.set_metrics(store.client.get_run(run_id), {RANK: place})
        shown = store.client.get_run(run_id).data.metrics[RANK]
        assert math.isnan(shown) if place is None else shown == place


def test_an_attempt_that_was_superseded_has_no_rank(store, tmp_path, sweep_id) -> None:
    first = trial(sweep_id, "a", started_at_s=1.0)
    old = published(store, first, tmp_path).info.run_id
    rank_trials(store, sweep_id, ranking_of([first]))
    last = trial(sweep_id, "a", started_at_s=2.0)
    new = published(store, last, tmp_path).info.run_id
    rank_trials(store, sweep_id, ranking_of([last]))
    assert store.client.get_run(new).data.metrics[RANK] == 1
    assert math.isnan(store.client.get_run(old).data.metrics[RANK])


# ---- the sweep's run ---------------------------------------------------------------------------------------------


def test_the_counts_of_a_sweep_are_of_settings() -> None:
    records = [
        trial("s", "fast", 1), trial("s", "fast", 2, status="crashed"), trial("s", "slow", slower_s=1.0),
        trial("s", "wrong", slower_s=-0.5, fidelity=WRONG), trial("s", "no", status="skipped"),
        trial("s", "oom", status="oom"), trial("s", "late", status="timeout"),
    ]  # fmt: skip
    assert sweep_metrics(ranking_of(records)) == {
        "best_e2e_ms": 912.0, "settings_ok": 3, "ranked": 2, "unranked": 1, "skipped": 1, "failed": 2,
    }  # fmt: skip
    assert max(map(len, sweep_metrics([]))) <= 12


def test_settings_of_different_work_have_no_best() -> None:
    other = make_config(batch_size=16).to_dict()
    records = [trial("s", "a"), trial("s", "b", requested=other)]
    assert sweep_metrics(ranking_of(records))["best_e2e_ms"] is None
    assert sweep_metrics(ranking_of(records[:1]))["best_e2e_ms"] == 912.0


def swept(start: Path, sweep_id: str, records: list[Record], lines: list[str]) -> tuple[str, bool]:
    """Publish a sweep as a command does; returns its run and whether all of its end is done."""
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=lines.append)
    folder = start / "multirun" / sweep_id
    folder.mkdir(parents=True, exist_ok=True)
    settings = [each.name for each in records]
    plan = {"sweep_id": sweep_id, "name": "night", "swept": {"x": settings}, "settings": settings, "jobs": []}
    (folder / "sweep.json").write_text(json.dumps(plan))
    run_id = publisher.begin_sweep(sweep_id=sweep_id, name="night", swept={"x": settings}, settings=[], baseline=None)
    assert run_id is not None
    for number, record in enumerate(records):
        job = folder / f"{number}"
        job.mkdir(exist_ok=True)
        record.write(job)
        assert publisher.publish(record, job, run_id)
    return run_id, publisher.end_sweep(run_id, records, interrupted=False)


def columns(store: Store, sweep_id: str) -> str:
    """The saved view as text."""
    import base64
    import zlib

    view = json.loads(store.client.get_experiment(store.experiment_id).tags[TAG_PREFIX + view_key(sweep_id)])
    return zlib.decompress(base64.b64decode(view["state"].partition(";")[2])).decode()


@pytest.fixture
def mixed(sweep_id: str) -> list[Record]:
    """Two ranked settings, and a faster one whose output is wrong."""
    return [
        trial(sweep_id, "slow", slower_s=1.0),
        trial(sweep_id, "fast", slower_s=0.5),
        trial(sweep_id, "wrong", fidelity=WRONG),
    ]


@pytest.mark.contract
def test_the_end_of_a_sweep_ranks_its_trials_and_sorts_its_table_by_it(start, store, sweep_id, mixed, patient) -> None:
    lines: list[str] = []
    run_id, is_done = swept(start, sweep_id, mixed, lines)
    assert (is_done, lines) == (True, [])
    assert settings_shown(store, sweep_id) == ["fast", "slow"]
    data = store.client.get_run(run_id).data
    assert {name: data.metrics[name] for name in ("best_e2e_ms", "ranked", "unranked", "failed")} == {
        "best_e2e_ms": 1412.0, "ranked": 2, "unranked": 1, "failed": 0,
    }  # fmt: skip
    state = json.loads(columns(store, sweep_id))
    assert state["orderByKey"] == f"metrics.`{RANK}`"
    assert f"metrics.`{UNRANKED}`" in state["selectedColumns"]


def test_a_sweep_of_ranked_trials_has_no_column_for_others(start, store, sweep_id, mixed, patient) -> None:
    swept(start, sweep_id, mixed[:2], [])
    assert UNRANKED not in columns(store, sweep_id)


def test_a_sweep_that_goes_on_is_sorted_by_e2e_again_until_it_ends(start, store, sweep_id, mixed, patient) -> None:
    swept(start, sweep_id, mixed, [])
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
    publisher.begin_sweep(sweep_id=sweep_id, name="night", swept={"x": []}, settings=[], baseline=None)
    assert json.loads(columns(store, sweep_id))["orderByKey"] == "metrics.`e2e_ms`"


@pytest.mark.usefixtures("patient")
def test_what_was_not_ranked_in_time_makes_the_sweep_incomplete_and_sync_ranks_it(
    start, store, sweep_id, mixed, monkeypatch
) -> None:
    monkeypatch.setattr(publisher_module, "RANK_S", -1.0)
    lines: list[str] = []
    run_id, is_done = swept(start, sweep_id, mixed, lines)
    assert not is_done
    assert any(line.startswith("not all trials have their rank in MLflow") for line in lines)
    assert settings_shown(store, sweep_id) == []
    assert json.loads(columns(store, sweep_id))["orderByKey"] == "metrics.`e2e_ms`"
    assert "ranked" not in store.client.get_run(run_id).data.metrics
    folder = start / "multirun" / sweep_id
    assert read_mark(folder) is None
    (folder / ".lock").touch()  # that nobody holds: the sweep has ended
    assert sync([str(folder)]) == 0
    assert settings_shown(store, sweep_id) == ["fast", "slow"]
    assert json.loads(columns(store, sweep_id))["orderByKey"] == f"metrics.`{RANK}`"
    assert store.client.get_run(run_id).data.metrics["ranked"] == 2
    assert read_mark(folder) is not None


@pytest.mark.usefixtures("patient")
def test_one_search_gives_the_ranked_trials_as_the_documentation_has_it(
    start, store, sweep_id, mixed, monkeypatch
) -> None:
    swept(start, sweep_id, mixed, [])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)  # set_tracking_uri would leave it for the tests that follow
    query = f"tags.sweep_id = '{sweep_id}' and tags.kind = 'trial' and metrics.rank > 0"
    trials = mlflow.search_runs(experiment_names=["bench"], filter_string=query, order_by=["metrics.rank ASC"])
    assert list(trials["tags.setting_id"]) == ["fast", "slow"]


# ---- published by an earlier version -------------------------------------------------------------------------------


@pytest.fixture
def earlier(store: Store, tmp_path: Path) -> Callable[[Record], str]:
    """Publish a record as the version before did: e2e_ms for the unsteady too, another name, no tag for the layout."""

    def make(record: Record) -> str:
        run_id = publish(store, record, tmp_path, parent_run_id=None, tags={})
        end_ms = round((record.ended_at_s or 0) * 1000)
        store.client.log_metric(run_id, "e2e_ms", 912.0, timestamp=end_ms)
        store.client.delete_tag(run_id, LAYOUT)
        store.client.delete_tag(run_id, "mlflow.user")
        store.client.update_run(run_id, name=store.client.get_run(run_id).info.run_name.rstrip(" !"))
        return str(run_id)

    return make


@pytest.fixture
def on_disk(start: Path, sweep_id: str) -> Iterator[Callable[[Record], Path]]:
    def write(record: Record) -> Path:
        job = start / "multirun" / sweep_id / record.name
        job.mkdir(parents=True)
        record.write(job)
        plan = {"sweep_id": sweep_id, "name": "old", "tracking": {"uri": f"sqlite:///{start}/mlflow.db"}}
        (job.parent / "sweep.json").write_text(json.dumps(plan))
        (job.parent / ".lock").touch()
        return job.parent

    return write


def test_sync_gives_a_run_of_an_earlier_version_what_it_would_have_now(
    store, sweep_id, earlier, on_disk, capsys
) -> None:
    record = trial(sweep_id, "old", steadiness=UNSTEADY)
    run_id = earlier(record)
    before = store.client.get_run(run_id)
    assert (before.info.run_name, before.data.metrics["e2e_ms"]) == ("old r1", 912.0)
    folder = on_disk(record)
    assert sync([str(folder), "--all"]) == 0, capsys.readouterr().err
    (run,) = store.find_runs(sweep_id=sweep_id, kind="trial")
    assert run.info.run_id == run_id
    assert run.info.run_name == "old r1 !"
    assert math.isnan(run.data.metrics["e2e_ms"])
    assert run.data.metrics[UNRANKED] == 912.0
    assert run.data.tags["mlflow.user"]
    capsys.readouterr()
    assert sync([str(folder), "--all"]) == 0
    assert capsys.readouterr().out == "published 0, already there 1, failed 0\n"


def test_a_name_and_metrics_that_the_user_gave_a_run_stay(store, sweep_id, tmp_path, earlier) -> None:
    record = trial(sweep_id, "old", steadiness=UNSTEADY)
    run_id = earlier(record)
    store.client.update_run(run_id, name="my favourite")
    store.client.log_metric(run_id, "mine", 5.0)
    run = published(store, record, tmp_path)
    assert run.info.run_name == "my favourite"
    assert run.data.metrics["mine"] == 5.0


def test_places_count_settings() -> None:
    records = [trial("s", "b", each, slower_s=1.0) for each in (1, 2)] + [trial("s", "a")]
    assert places_of(ranking_of(records)) == {record_key(records[2]): 1} | {record_key(each): 2 for each in records[:2]}
