"""Making and reaching the MLflow store: real databases, processes and sockets."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import time
import urllib.parse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy

from bench.host.secrets import without_credentials
from bench.tracking.pages.links import experiment_address, ui_command
from bench.tracking.store import database
from bench.tracking.store.errors import TrackingError, explained
from bench.tracking.store.opening import open_store, prepare_store
from bench.tracking.store.store import COMPLETE, Store

# Forked, so that MLflow's import, seconds long, neither costs time nor keeps the processes apart.
FORK = multiprocessing.get_context("fork")
PROCESSES = 4

_start: Barrier


def remember(barrier: Barrier) -> None:
    global _start  # noqa: PLW0603
    _start = barrier


def open_with_others(folder: Path, number: int) -> str:
    """Wait until every process is ready; all that this one says goes to a file."""
    with (folder / f"said-{number}").open("w") as said:
        sys.stdout = sys.stderr = said
        logging.basicConfig(level=logging.INFO, stream=said, force=True)  # as Hydra configures it
        _start.wait(30)
        return open_store(None, "race", folder).experiment_id


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder, with # and blank in its name, whose database four processes made at once, and what each got."""
    folder = tmp_path_factory.mktemp("a #folder")
    barrier = FORK.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=FORK, initializer=remember, initargs=(barrier,)) as pool:
        futures = [pool.submit(open_with_others, folder, number) for number in range(PROCESSES)]
        return folder, [future.result(timeout=120) for future in futures]


@pytest.fixture
def folder(raced: tuple[Path, list[str]]) -> Path:
    return raced[0]


def test_four_processes_that_make_a_database_at_once_get_one_experiment(raced):
    _, ids = raced
    assert len(ids) == PROCESSES
    assert len(set(ids)) == 1


def test_making_a_database_says_nothing(folder):
    assert [(folder / f"said-{number}").read_text() for number in range(PROCESSES)] == [""] * PROCESSES


def test_nothing_unfinished_is_left(folder):
    names = {each.name for each in folder.iterdir() if not each.name.startswith("said-")}
    assert names == {"mlflow.db", "mlflow.db.lock"}


def test_the_default_address_is_the_database_in_the_folder(folder):
    assert open_store(None, "race", folder).uri == f"sqlite:///{folder}/mlflow.db"


def test_preparing_leaves_nothing_in_the_folder(tmp_path):
    prepared = prepare_store(None, tmp_path)
    assert prepared.template is not None
    assert list(tmp_path.iterdir()) == []


def clauses(sql):
    """A statement's lines in the order of the alphabet: migrations copy the constraints of a table in any order."""
    return sorted(line.strip().rstrip(",") for line in (sql or "").splitlines())


def test_a_database_that_was_made_ahead_is_like_one_that_was_not(tmp_path):
    made = {}
    for name in ("prepared", "at once"):
        folder = tmp_path / name
        folder.mkdir()
        prepared = prepare_store(None, folder) if name == "prepared" else None
        store = open_store(None, "mine", folder, prepared)
        experiment = store.client.get_experiment(store.experiment_id)
        assert experiment.artifact_location == (folder / "mlartifacts").as_uri()
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
            schema = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            made[name] = sorted((kind, what, clauses(sql)) for kind, what, sql in schema)
            default = connection.execute("SELECT artifact_location FROM experiments WHERE name = 'Default'").fetchone()
        assert default[0].startswith((folder / "mlartifacts").as_uri())
        assert sorted(each.name for each in folder.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    assert made["prepared"] == made["at once"]


def test_a_database_that_came_in_between_is_kept(tmp_path):
    prepared = prepare_store(None, tmp_path)
    first = open_store(None, "first", tmp_path)
    second = open_store(None, "second", tmp_path, prepared)
    assert second.client.get_experiment_by_name("first").experiment_id == first.experiment_id


def test_of_a_database_that_is_there_preparing_makes_the_client_and_no_experiment(tmp_path):
    open_store(None, "first", tmp_path)
    prepared = prepare_store(None, tmp_path)
    assert prepared.client.get_experiment_by_name("second") is None
    assert open_store(None, "second", tmp_path, prepared).client is prepared.client


def test_an_experiment_is_found_again(raced):
    folder, ids = raced
    assert open_store(None, "race", folder).experiment_id == ids[0]


def test_artifacts_lie_beside_the_database(folder):
    store = open_store(None, "race", folder)
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.artifact_location == (folder / "mlartifacts").as_uri()


def test_a_relative_path_counts_from_the_folder_and_not_from_where_the_process_is(folder, monkeypatch):
    monkeypatch.chdir("/")
    assert open_store("sqlite:///mlflow.db", "race", folder).uri == f"sqlite:///{folder}/mlflow.db"


def test_a_deleted_experiment_is_refused_with_the_way_to_restore_it(folder):
    store = open_store(None, "gone", folder)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(TrackingError) as caught:
        open_store(None, "gone", folder)
    assert f"mlflow experiments restore --experiment-id {store.experiment_id}" in str(caught.value)
    assert "tracking.experiment" in str(caught.value)


def open_and_be_killed(folder: Path) -> None:
    """Die in the middle of a migration that copies a table: MLflow cannot open what is in the file then."""

    def watch(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO _alembic_tmp_experiments" in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", watch)
    open_store(None, "first", folder)


def test_a_process_killed_while_it_makes_the_database_breaks_nothing(tmp_path):
    process = FORK.Process(target=open_and_be_killed, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    assert open_store(None, "second", tmp_path).client.get_experiment_by_name("second") is not None


def test_a_server_that_refuses_connections_costs_seconds_and_a_line_without_password():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        open_store(f"http://me:s%40cret@127.0.0.1:{port}", "bench", Path("/"))
    assert time.monotonic() - started < 15
    text = str(caught.value)
    assert "\n" not in text
    assert "cret" not in text
    assert f"http://127.0.0.1:{port}" in text
    assert "refused" in text
    assert "tracking.enabled=false" in text


@pytest.mark.parametrize("uri", ["", "mlflow.db", "./mlruns", "localhost:5000", "file:///tmp/mlruns"])
def test_what_is_no_address_is_refused_with_examples_of_one(uri, tmp_path):
    with pytest.raises(TrackingError, match=r"sqlite:///mlflow\.db .* http://localhost:5000"):
        open_store(uri, "bench", tmp_path)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_that_no_file_keeps_is_refused(uri, tmp_path):
    with pytest.raises(TrackingError, match="names no file"):
        open_store(uri, "bench", tmp_path)


@pytest.mark.parametrize("name", ["50%", "what?"])
def test_a_folder_that_no_address_can_name_is_refused(name, tmp_path):
    with pytest.raises(TrackingError, match="holds a % or a"):
        open_store(None, "bench", tmp_path / name)


def test_a_file_that_is_no_database_is_refused_at_once_and_kept(tmp_path):
    (tmp_path / "mlflow.db").write_text("my notes, all of them " * 10)
    started = time.monotonic()
    with pytest.raises(TrackingError, match="file is not a database"):
        open_store(None, "bench", tmp_path)
    assert time.monotonic() - started < 5
    assert (tmp_path / "mlflow.db").read_text().startswith("my notes")


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="cannot open the store"):
        open_store("sqlite:///file/mlflow.db", "bench", tmp_path)


def at(uri: str) -> Store:
    return Store(uri=uri, experiment_id="7", experiment="bench", client=None)


def test_the_ui_command_quotes_what_a_shell_would_take_apart():
    command = ui_command(at("sqlite:////data/mlflow.db"))
    assert command.endswith("mlflow ui --backend-store-uri sqlite:////data/mlflow.db --host 127.0.0.1")
    assert "'sqlite:////my data/mlflow.db'" in ui_command(at("sqlite:////my data/mlflow.db"))


def test_for_a_server_the_ui_is_its_address():
    assert ui_command(at("http://me:secret@host:8080")) == "http://host:8080"


def test_the_experiments_page_shows_runs():
    page = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert experiment_address(at("sqlite:////data/mlflow.db")) == page


def test_a_servers_own_address_is_the_base_of_its_pages():
    assert experiment_address(at("https://me:secret@host/mlflow/")).startswith("https://host/mlflow/#/experiments/7/")


def parameters(page: str) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(page.partition("?")[2], strict_parsing=True))


def test_a_sweeps_page_is_a_sorted_list_of_its_trials():
    page = experiment_address(at("sqlite:////data/mlflow.db"), sweep_id="night-1")
    assert not set(page) & set(" '`\"")  # a terminal takes all of it for the address
    assert parameters(page) == {
        "workflowType": "machine_learning",
        "searchFilter": "tags.sweep_id = 'night-1' and tags.kind = 'trial'",
        "orderByKey": "metrics.`e2e_ms`",
        "orderByAsc": "true",
    }


def test_a_views_page_has_no_filter_beside_it():
    page = experiment_address(at("sqlite:////data/mlflow.db"), sweep_id="night-1", view="ab12")
    assert parameters(page) == {"workflowType": "machine_learning", "viewStateShareKey": "ab12"}


def test_charts_are_another_page_of_the_same_runs():
    table = experiment_address(at("sqlite:////data/mlflow.db"), view="ab12")
    charts = experiment_address(at("sqlite:////data/mlflow.db"), view="ab12", charts=True)
    assert parameters(charts) == parameters(table) | {"compareRunsMode": "CHART"}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@host:5000/path?token=secret", "http://host:5000/path"),
        ("postgresql+psycopg://me:secret@host/db?password=secret", "postgresql+psycopg://host/db"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("null", "null"),
    ],
)
def test_addresses_are_shown_without_credentials(uri, shown):
    assert without_credentials(uri) == shown


def test_any_exception_becomes_one_line_that_names_what_failed_and_where():
    with pytest.raises(TrackingError) as caught, explained("sqlite:////data/mlflow.db", "log to a run"):
        raise RuntimeError("disk is full\nand more")
    assert str(caught.value).startswith("MLflow at sqlite:////data/mlflow.db cannot log to a run: disk is full; ")


def test_the_ui_command_can_be_typed_where_the_environment_is_not_active(monkeypatch, tmp_path):
    own = tmp_path / "bin" / "mlflow"
    own.parent.mkdir()
    own.touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert ui_command(at("sqlite:////data/mlflow.db")).startswith(f"{own} ui ")
    monkeypatch.setenv("PATH", str(own.parent))
    assert ui_command(at("sqlite:////data/mlflow.db")).startswith("mlflow ui ")


def test_a_users_file_beside_a_new_database_stays(tmp_path):
    names = ("mlflow.db.new", "mlflow.db.new-journal", "mlflow.db-wal-notes")
    for name in names:
        (tmp_path / name).write_text("mine")
    open_store(None, "bench", tmp_path)
    assert {name: (tmp_path / name).read_text() for name in names} == dict.fromkeys(names, "mine")


def test_a_link_to_where_the_database_shall_be_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "disk/mlflow.db")
    open_store(None, "bench", tmp_path)
    assert (tmp_path / "mlflow.db").is_symlink()
    assert (tmp_path / "disk/mlflow.db").stat().st_size


def test_a_database_that_another_program_has_made_meanwhile_is_not_replaced(tmp_path):
    (tmp_path / "mlflow.db").write_text("theirs")
    (tmp_path / "new").write_text("ours")
    database._put_in_place(tmp_path / "new", tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_text() == "theirs"


# ---- doubles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_of_doubled_runs_the_one_that_has_all_stays(tmp_path: Path, whole: int) -> None:
    """Whichever it is by age and id: a double may be what a process left that died while it published."""
    store = open_store(None, "doubled", tmp_path)
    made = sorted(store.create_run("a", 1e9 + number, {"record_key": "k"}) for number in range(3))
    store.log(made[whole], tags={COMPLETE: "yes"})
    kept = store.sole_run({"record_key": "k"}, name="a", started_at_s=1e9, tags={})
    assert kept.info.run_id == made[whole]
    assert [each.info.run_id for each in store.find_runs(record_key="k")] == [made[whole]]
    assert {store.client.get_run(each).info.lifecycle_stage for each in made if each != made[whole]} == {"deleted"}


def test_of_doubled_runs_that_are_alike_every_process_keeps_the_same(tmp_path: Path) -> None:
    store = open_store(None, "doubled", tmp_path)
    made = [store.create_run("a", 1e9 + number, {"record_key": "k"}) for number in range(3)]
    found = store.find_runs(record_key="k")
    assert store.keep_one(found).info.run_id == min(made)
    assert store.keep_one(reversed(found)).info.run_id == min(made)
