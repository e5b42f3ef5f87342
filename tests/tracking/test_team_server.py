"""A team's tracking server for real, with PostgreSQL, passwords and permissions, and 16 jobs that end at once.

How many of them come through within the time that a job waits depends on the machine and is printed, not asserted; that
none is lost or doubled is.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli.sync import main as sync
from bench.results.record import Iteration, Record
from bench.tracking import publisher as module
from bench.tracking.publish_mark import read_mark, record_key
from bench.tracking.publisher import Publisher
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.errors import TrackingError, UnreachableError
from bench.tracking.store.opening import open_store
from bench.tracking.store.reachable import check_answers
from bench.tracking.store.store import Store
from factories import STARTED_AT_S, make_config, make_evidence, make_iterations, make_record
from mlflow_server import TeamServer
from postgres import NoPostgresError, Postgres
from publish_at_once import Outcome, Target, publish_at_once

pytestmark = pytest.mark.slow

JOBS = 16  # of one sweep on machines of their own
TOGETHER = 16  # of one sweep on one machine
USER = {"name": "ann", "password": "anns-own-password"}
EDITOR = {"name": "bob", "password": "bobs-own-password"}
GUEST = {"name": "guest", "password": "a-guests-password"}
EXPERIMENT = "shared"  # of the tests that need no experiment of their own


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    try:
        one = Postgres()
        one.start()
    except NoPostgresError as error:
        pytest.skip(f"PostgreSQL cannot be started: {error}")
    yield one
    one.remove()


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    one = TeamServer(tmp_path_factory.mktemp("server"), postgres, default_permission="READ")
    one.start()
    for each in (USER, GUEST):
        one.add_user(**each)
    yield one
    one.kill()


def login(user: dict[str, str]) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user["name"], "MLFLOW_TRACKING_PASSWORD": user["password"]}


def log_in(monkeypatch: pytest.MonkeyPatch, user: dict[str, str]) -> None:
    for name, value in login(user).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ann(server: TeamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of the team."""
    log_in(monkeypatch, USER)


# ---- jobs --------------------------------------------------------------------------------------------------------


def slower(calls: list[Iteration], factor: float) -> list[Iteration]:
    """The same calls, each so many times as long."""
    return [
        dataclasses.replace(
            call,
            start_s=call.start_s * factor,
            e2e_s=call.e2e_s * factor,
            token_times_s=[each * factor for each in call.token_times_s],
        )
        for call in calls
    ]


def write_job(folder: Path, sweep_id: str, number: int) -> Record:
    """A job whose every figure is its own, with the files that it leaves."""
    config = make_config(batch_size=number + 1)
    record = make_record(
        **make_evidence(),
        sweep_id=sweep_id,
        trial_id=config.trial_id(),
        name=f"batch_size={number + 1}",
        swept={"workload.batch_size": str(number + 1)},
        iterations=slower(make_iterations(), 1 + number / 100),
        started_at_s=STARTED_AT_S + 100 * number,
        ended_at_s=STARTED_AT_S + 100 * number + 90,
        requested=config.to_dict(),
    )
    (folder / ".hydra").mkdir(parents=True)
    record.write(folder)
    (folder / "worker.log").write_text(f"job {number}\n")
    (folder / ".hydra" / "config.yaml").write_text(f"number: {number}\n")
    (folder / ".hydra" / "overrides.yaml").write_text(f"- workload.batch_size={number + 1}\n")
    return record


def write_plan(folder: Path, sweep_id: str, uri: str, experiment: str, jobs: int) -> None:
    plan = {
        "schema_version": 2,
        "sweep_id": sweep_id,
        "name": "night",
        "settings": [f"batch_size={number + 1}" for number in range(jobs)],
        "swept": {"workload.batch_size": [str(number + 1) for number in range(jobs)]},
        "started_at_s": STARTED_AT_S - 1,
        "tracking": {"uri": uri, "experiment": experiment, "tags": {"team": "x"}},
        "jobs": [{"number": number} for number in range(jobs)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(plan))


def make_publisher(server: TeamServer, experiment: str, folder: Path, lines: list[str]) -> Publisher:
    return Publisher(uri=server.uri, experiment=experiment, tags={"team": "x"}, folder=folder, warn=lines.append)


def target(server: TeamServer, experiment: str, parent_run_id: str | None) -> Target:
    return Target(uri=server.uri, experiment=experiment, parent_run_id=parent_run_id, variables=login(USER))


def report(what: str, outcomes: list[Outcome], catch_up: str) -> None:
    within = sum(each.published for each in outcomes)
    seconds = sorted(each.seconds for each in outcomes)
    print(
        f"\n{what}: {within} of {len(outcomes)} within their time; {seconds[0]:.1f} to {seconds[-1]:.1f} s, "
        f"median {statistics.median(seconds):.1f} s; {catch_up}"
    )


# ---- what MLflow must hold ---------------------------------------------------------------------------------------


def assert_agree(server: TeamServer, store: Store, sweep_id: str, folders: list[Path], copies: Path) -> None:
    """Each record on disk is in MLflow once, value for value, below the sweep's one run, and nothing is running."""
    copies.mkdir(exist_ok=True)
    (parent,) = store.find_runs(kind="sweep", sweep_id=sweep_id)
    trials = store.find_runs(kind="trial", sweep_id=sweep_id)
    by_key = {run.data.tags["record_key"]: run for run in trials}
    assert len(trials) == len(by_key) == len(folders)
    for folder in folders:
        record = Record.read(folder)
        run = by_key[record_key(record)]
        assert_same(store, run, record)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        copy = store.client.download_artifacts(run.info.run_id, "record.json", str(copies))
        record.phases_s.pop("publish", None)  # known once the file is there, by whoever wrote it last
        assert Record.read(Path(copy)) == record
        files = {each.path for each in store.client.list_artifacts(run.info.run_id)}
        assert {"record.json", "worker.log", ".hydra"} <= files
        mark = read_mark(folder)
        assert mark is not None
        assert (mark.published, mark.run_id, mark.error) == (True, run.info.run_id, None)
    assert store.running() == []
    # Past MLflow: no other run of these, hidden or half made.
    rows = "SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE key = 'sweep_id' AND value = '{}'"
    hidden = f"{rows} AND lifecycle_stage = 'active'".format(sweep_id)
    assert server.postgres.ask("mlflow", hidden) == [[str(len(folders) + 1)]]


def assert_same(store: Store, run: Any, record: Record) -> None:
    """Params, metrics, series and tags of one run are the record's."""
    measured = [call.e2e_s for call in record.calls("measurement")]
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    requested = {f"{section}.{key}": value for section, keys in record.requested.items() if isinstance(keys, dict)
                 for key, value in keys.items()}  # fmt: skip
    assert params["workload.batch_size"] == str(requested["workload.batch_size"])
    assert {name: params[name] for name in ("model.id", "compile.mode")} == {
        name: requested[name] for name in ("model.id", "compile.mode")
    }
    assert requested.keys() <= params.keys()
    assert metrics["latency/e2e_median_s"] == pytest.approx(statistics.median(measured), rel=1e-12)
    assert metrics["e2e_ms"] == float(f"{statistics.median(measured) * 1000:.4g}")
    assert metrics["ttft_ms"] == float(
        f"{statistics.median(call.token_times_s[0] for call in record.calls('measurement')) * 1000:.4g}"
    )
    series = store.client.get_metric_history(run.info.run_id, "per_iter/e2e_ms")
    told = [(each.step, each.value) for each in sorted(series, key=lambda each: each.step)]
    assert told == [(call.index, pytest.approx(call.e2e_s * 1000, rel=1e-12)) for call in record.iterations[1:]]
    assert (tags["status"], tags["trial_id"], tags["team"], tags["complete"]) == ("ok", record.trial_id, "x", "yes")
    assert (run.info.status, run.info.run_name) == ("FINISHED", f"b{requested['workload.batch_size']}")
    assert (run.info.start_time, run.info.end_time) == (
        round(record.started_at_s * 1000),
        round(record.ended_at_s * 1000),
    )


# ---- many at once ------------------------------------------------------------------------------------------------


def test_16_jobs_of_a_sweep_that_end_at_once_are_published_once_each(server, ann, tmp_path):
    sweep_id, folder, lines = "night-1", tmp_path / "multirun" / "night", []
    folders = [folder / f"{number:02}_batch_size={number + 1}" for number in range(TOGETHER)]
    records = [write_job(each, sweep_id, number) for number, each in enumerate(folders)]
    write_plan(folder, sweep_id, server.uri, "night", TOGETHER)
    conductor = make_publisher(server, "night", tmp_path, lines)
    parent = conductor.begin_sweep(sweep_id=sweep_id, name="night", swept={}, settings=[], baseline=None)
    assert (lines, parent is None) == ([], False)
    outcomes = publish_at_once(target(server, "night", parent), folders)
    left = conductor.publish_missing(folders, parent)
    conductor.end_sweep(parent, records, interrupted=False)
    status = sync([str(folder)])
    report("with the sweep's run", outcomes, f"the sweep's end left {left}, sync ended with {status}")
    assert status == 0
    assert [each.noise for each in outcomes] == [""] * TOGETHER
    assert all(each.published or len(each.lines) == 1 for each in outcomes)
    store = open_store(server.uri, "night", tmp_path)
    assert_agree(server, store, sweep_id, folders, tmp_path / "copies")
    assert store.client.get_run(parent).info.status == "FINISHED"
    assert store.client.get_run(parent).data.tags["n_ok"] == str(TOGETHER)


def test_16_jobs_without_a_common_folder_make_one_experiment_and_one_sweep(server, ann, tmp_path, capsys):
    """No server was there when the sweep began: each of them looks for experiment and run, and finds none."""
    sweep_id, name = "dawn-1", "dawn"
    sweeps = [tmp_path / f"machine-{number}" / "multirun" / name for number in range(JOBS)]
    folders = [sweep / f"{number:02}_batch_size={number + 1}" for number, sweep in enumerate(sweeps)]
    for number, (sweep, folder) in enumerate(zip(sweeps, folders, strict=True)):
        write_plan(sweep, sweep_id, server.uri, name, JOBS)
        write_job(folder, sweep_id, number)
    outcomes = publish_at_once(target(server, name, None), folders)
    status = sync([str(tmp_path)])
    with capsys.disabled():
        report("without the sweep's run", outcomes, f"sync ended with {status}")
    assert status == 0
    store = open_store(server.uri, name, tmp_path)
    assert_agree(server, store, sweep_id, folders, tmp_path / "copies")
    assert server.postgres.ask("mlflow", f"SELECT count(*) FROM experiments WHERE name = '{name}'") == [["1"]]


# ---- who may not -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(server: TeamServer) -> Store:
    """An experiment that its maker may do everything with, and others may read."""
    with pytest.MonkeyPatch.context() as patched:
        log_in(patched, USER)
        return open_store(server.uri, EXPERIMENT, Path("/"))


@pytest.fixture
def three(server: TeamServer, shared: Store, tmp_path: Path) -> list[Path]:
    """The folders of a sweep's three jobs, none of them published."""
    sweep = tmp_path / "multirun" / "three"
    write_plan(sweep, tmp_path.name, server.uri, EXPERIMENT, 3)
    folders = [sweep / str(number) for number in range(3)]
    for number, each in enumerate(folders):
        write_job(each, tmp_path.name, number)
    return folders


@pytest.mark.parametrize(
    "who",
    [
        ({"name": "ann", "password": "not-anns-password"}, "check MLFLOW_TRACKING_USERNAME and"),
        ({"name": "nobody-at-all", "password": "some-password"}, "check MLFLOW_TRACKING_USERNAME and"),
        (GUEST, "needs the permission EDIT"),
    ],
    ids=["wrong-password", "unknown-user", "guest"],
)
def test_who_may_not_publish_is_told_so_in_one_line_and_loses_nothing(server, three, monkeypatch, capsys, who):
    user, word = who
    folder = three[0].parent
    log_in(monkeypatch, user)
    lines: list[str] = []
    publisher = make_publisher(server, EXPERIMENT, folder, lines)
    assert not publisher.publish(Record.read(three[0]), three[0])
    at_the_end: list[str] = []
    publisher = make_publisher(server, EXPERIMENT, folder, lines)
    publisher._warn = at_the_end.append
    assert publisher.publish_missing(three, None) == 3
    assert sync([str(folder)]) == 1
    by_sync = capsys.readouterr().err.splitlines()
    assert (len(at_the_end), len(by_sync)) == (1, 1)  # for all three records
    for line in [*lines, *at_the_end, *by_sync]:
        assert word in line
        assert user["password"] not in line
        assert "\n" not in line
    assert all((mark := read_mark(each)) is not None and not mark.published for each in three)
    log_in(monkeypatch, USER)
    assert sync([str(folder)]) == 0
    store = open_store(server.uri, EXPERIMENT, folder)
    assert_agree(server, store, Record.read(three[0]).sweep_id, three, folder / "copies")


def test_a_double_that_may_not_be_deleted_counts_nowhere(server, shared, tmp_path, monkeypatch):
    """Who may edit an experiment may not delete its runs."""
    server.add_user(**EDITOR)
    with server.as_admin() as client:
        client.grant_user_permission(EDITOR["name"], "experiment", shared.experiment_id, "EDIT")
    log_in(monkeypatch, EDITOR)
    record = write_job(tmp_path / "job", "doubled-1", 0)
    tags = {"record_key": record_key(record), "kind": "trial", "sweep_id": "doubled-1"}
    made = {shared.create_run(record.name, record.started_at_s, tags) for _ in range(2)}
    run_id = publish(shared, record, tmp_path / "job", parent_run_id=None, tags={"team": "x"})
    (other,) = made - {run_id}
    assert [run.info.run_id for run in shared.find_runs(record_key=record_key(record))] == [run_id]
    double = shared.client.get_run(other)
    assert (double.data.tags["kind"], double.info.status, double.info.lifecycle_stage) == ("double", "KILLED", "active")
    assert publish(shared, record, tmp_path / "job", parent_run_id=None, tags={}) == run_id


# ---- PostgreSQL itself -------------------------------------------------------------------------------------------


def test_a_postgresql_that_answers_passes_and_one_that_hangs_is_found_at_once(postgres):
    uri = postgres.uri("postgres")
    check_answers(uri)
    postgres.signal(signal.SIGSTOP)
    try:
        with pytest.raises(UnreachableError) as caught:
            check_answers(uri, timeout_s=1.0)
    finally:
        postgres.signal(signal.SIGCONT)
    assert "no answer within 1 s" in str(caught.value)
    assert postgres.password not in str(caught.value)
    check_answers(uri)


def test_bench_writes_to_postgresql_itself_with_the_password_of_its_driver(postgres, tmp_path, monkeypatch):
    postgres.create("direct")
    uri = f"postgresql+psycopg2://bench@127.0.0.1:{postgres.port}/direct"
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    monkeypatch.setattr(module, "OPEN_S", 120.0)
    monkeypatch.setattr(module, "JOB_S", 120.0)
    lines: list[str] = []
    record = write_job(tmp_path / "job", "direct-1", 0)
    publisher = Publisher(uri=uri, experiment="direct", tags={"team": "x"}, folder=tmp_path, warn=lines.append)
    assert publisher.publish(record, tmp_path / "job"), lines
    store = open_store(uri, "direct", tmp_path)
    (run,) = store.find_runs(kind="trial")
    assert_same(store, run, record)
    texts = [each.read_text(errors="replace") for each in (tmp_path / "job").rglob("*.json")]
    assert not any(postgres.password in each for each in texts)


def test_a_wrong_password_of_postgresql_is_told_without_it(postgres, tmp_path, monkeypatch):
    uri = f"postgresql+psycopg2://bench:not-the-password@127.0.0.1:{postgres.port}/postgres"
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "1")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    with pytest.raises(TrackingError) as caught:
        open_store(uri, "bench", tmp_path)
    assert "\n" not in str(caught.value)
    assert "not-the-password" not in str(caught.value)
