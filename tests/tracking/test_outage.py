"""What a sweep loses when its store is down, slow, full or refuses: seconds, and nothing that was measured.

Real servers and databases. The bounds on time are those that a user would notice, wide enough for a busy machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bench.cli.sync import main as sync
from bench.results.record import Record
from bench.tracking import publisher as module
from bench.tracking.publish_mark import read_mark, record_key
from bench.tracking.publisher import Publisher
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import MEDIAN_E2E_S, make_record
from mlflow_server import Server

pytestmark = pytest.mark.slow

JOB_BOUND_S = 10.0  # 5 s and a busy machine
START_BOUND_S = 20.0


def make(uri: str | None, folder: Path, warnings: list[str]) -> Publisher:
    return Publisher(uri=uri, experiment="bench", tags={}, folder=folder, warn=warnings.append)


@contextlib.contextmanager
def within(bound_s: float) -> Iterator[None]:
    before_s = time.monotonic()
    yield
    assert time.monotonic() - before_s < bound_s


def publish_patiently(publisher: Publisher, *arguments: Any) -> bool:
    """Publish what must come through, in the time that a busy machine takes for it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "JOB_S", 120.0)
        return publisher.publish(*arguments)


def assert_unpublished(record: Record, folder: Path, *words: str) -> None:
    """The record is on disk, and the mark tells why it is nowhere else."""
    assert Record.read(folder) == record
    mark = read_mark(folder)
    assert mark is not None
    assert (mark.published, mark.run_id, mark.record_key) == (False, None, record_key(record))
    error = str(mark.error)
    assert "\n" not in error
    assert any(each in error for each in words), error


def assert_agree(store: Store, jobs: list[tuple[Record, Path]]) -> None:
    """MLflow holds what the disk holds: each record once, with its figures, none running, and nothing else."""
    runs = {each.data.tags["record_key"]: each for each in store.find_runs(kind="trial")}
    assert len(store.find_runs(kind="trial")) == len(runs) == len(jobs)
    for record, folder in jobs:
        run = runs[record_key(record)]
        assert run.data.metrics["e2e_ms"] == pytest.approx(MEDIAN_E2E_S * 1000)
        assert run.data.params["compile.mode"] == "default"
        assert len(store.client.get_metric_history(run.info.run_id, "per_iter/e2e_ms")) == len(record.iterations) - 1
        mark = read_mark(folder)
        assert mark is not None
        assert (mark.published, mark.run_id, mark.error) == (True, run.info.run_id, None)
    assert store.running() == []


# ---- a server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """A server that runs and answers when the test begins, also after one that failed while it was down."""
    if started.process is None:
        started.start()
    yield started
    started.signal(signal.SIGCONT)


@pytest.fixture
def clean(server: Server) -> Store:
    """The server's experiment, without the runs of other tests."""
    store = open_store(server.uri, "bench", Path("/"))
    for run in store.find_runs():
        store.client.delete_run(run.info.run_id)
    return store


def test_a_hanging_server_costs_seconds_per_job_and_runs_are_published_later(server, clean, tmp_path, sweep_on_disk):
    jobs = sweep_on_disk(tmp_path, jobs=4, uri=server.uri)
    warnings: list[str] = []
    publisher = make(server.uri, tmp_path, warnings)
    parent = publisher.begin_sweep(sweep_id="night-1", name="night", swept={}, settings=[], baseline=None)
    assert publish_patiently(publisher, *jobs[0], parent)
    server.signal(signal.SIGSTOP)
    for record, folder in jobs[1:]:
        with within(JOB_BOUND_S):
            assert not publisher.publish(record, folder, parent)
        assert_unpublished(record, folder, "no answer within")
    assert len(warnings) == 3
    assert publisher.unpublished == (
        f"3 records are not published; later: python -m bench.tracking.sync {jobs[0][1].parent}"
    )
    server.signal(signal.SIGCONT)
    assert publisher.publish_missing([folder for _, folder in jobs], parent) == 0
    assert publisher.unpublished is None
    publisher.end_sweep(parent, [record for record, _ in jobs], interrupted=False)
    assert len(warnings) == 3
    assert_agree(clean, jobs)


def test_a_server_that_hangs_in_the_middle_of_a_record_gets_the_rest_when_it_is_back(
    server, clean, tmp_path, job_on_disk, monkeypatch
):
    """The thread waits on; the main thread does not, and what comes after is refused at once."""
    jobs = [job_on_disk(tmp_path / str(number), started_at_s=float(number)) for number in range(2)]
    warnings: list[str] = []
    publisher = make(server.uri, tmp_path, warnings)
    end = MlflowClient.set_terminated

    def stop_and_end(*arguments: object) -> None:
        server.signal(signal.SIGSTOP)
        end(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", stop_and_end)
        with within(JOB_BOUND_S):
            assert not publisher.publish(*jobs[0])
    assert_unpublished(*jobs[0], "gave no answer within 5 s")
    with within(1):
        assert not publisher.publish(*jobs[1])
    assert_unpublished(*jobs[1], "is still busy with an earlier request")
    server.signal(signal.SIGCONT)
    deadline_s = time.monotonic() + 60
    while str(publisher.unpublished).startswith("2 ") and time.monotonic() < deadline_s:
        time.sleep(0.1)
    mark = read_mark(jobs[0][1])
    assert mark is not None
    assert mark.published  # late, and known to be
    assert publisher.publish_missing([folder for _, folder in jobs], None) == 0
    assert_agree(clean, jobs)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_gets_what_it_missed_once(
    server, clean, tmp_path, sweep_on_disk, capsys
):
    jobs = sweep_on_disk(tmp_path, jobs=4, uri=server.uri)
    warnings: list[str] = []
    publisher = make(server.uri, tmp_path, warnings)
    parent = publisher.begin_sweep(sweep_id="night-1", name="night", swept={}, settings=[], baseline=None)
    assert publish_patiently(publisher, *jobs[0], parent)
    server.kill()
    for record, folder in jobs[1:]:
        with within(JOB_BOUND_S):
            assert not publisher.publish(record, folder, parent)
        assert_unpublished(record, folder, "refused")
    with within(JOB_BOUND_S):
        publisher.end_sweep(parent, [record for record, _ in jobs], interrupted=False)
    assert sync([str(tmp_path)]) == 1
    assert capsys.readouterr().out == "published 0, already there 1, failed 3\n"
    server.start()
    assert clean.client.get_run(parent).info.status == "RUNNING"
    assert sync([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "published 3, already there 1, failed 0\n"
    assert sync([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "published 0, already there 4, failed 0\n"
    assert clean.client.get_run(parent).info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in clean.find_runs(kind="trial")} == {parent}
    assert_agree(clean, jobs)


def test_a_server_that_was_down_at_the_start_gets_the_sweep_from_where_it_is_up_on(
    server, clean, tmp_path, sweep_on_disk
):
    jobs = sweep_on_disk(tmp_path, jobs=3, uri=server.uri)
    warnings: list[str] = []
    server.signal(signal.SIGSTOP)
    with within(START_BOUND_S):
        publisher = make(server.uri, tmp_path, warnings)
        parent = publisher.begin_sweep(sweep_id="night-1", name="night", swept={}, settings=[], baseline=None)
    assert parent is None
    assert not publisher.publish(*jobs[0], parent)
    server.signal(signal.SIGCONT)
    assert publish_patiently(publisher, *jobs[1], parent)
    assert publish_patiently(publisher, *jobs[2], parent)
    assert publisher.publish_missing([folder for _, folder in jobs], parent) == 0
    publisher.end_sweep(parent, [record for record, _ in jobs], interrupted=False)
    (run,) = clean.find_runs(kind="sweep")
    assert (run.info.run_name, run.info.status, run.data.tags["n_ok"]) == ("night", "FINISHED", "3")
    assert {each.data.tags["mlflow.parentRunId"] for each in clean.find_runs(kind="trial")} == {run.info.run_id}
    assert_agree(clean, jobs)


def test_no_password_is_kept_by_a_server_that_wanted_one(server, clean, tmp_path, sweep_on_disk):
    warnings: list[str] = []
    uri = server.uri.replace("//", "//me:s3cret@")
    publisher = make(uri, tmp_path, warnings)
    jobs = sweep_on_disk(tmp_path, jobs=1, uri=server.uri)
    assert publisher.address == server.uri
    assert publish_patiently(publisher, *jobs[0])
    assert sync([str(tmp_path), "--tracking-uri", uri, "--all"]) == 0
    assert warnings == []
    assert_agree(clean, jobs)
    files = [each for folder in (tmp_path, server.folder) for each in folder.rglob("*") if each.is_file()]
    assert server.folder / "server.db" in files
    assert [each for each in files if b"s3cret" in each.read_bytes()] == []


# ---- Ctrl-C ------------------------------------------------------------------------------------------------------


def test_an_interrupt_comes_through_at_once_and_tears_nothing(tmp_path, sweep_on_disk, monkeypatch):
    jobs = sweep_on_disk(tmp_path, jobs=1)
    publisher = make(None, tmp_path, [])
    parent = publisher.begin_sweep(sweep_id="night-1", name="night", swept={}, settings=[], baseline=None)
    main = threading.main_thread().ident
    upload, interrupted = MlflowClient.log_artifact, threading.Event()

    def interrupt_and_upload(*arguments: object) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        monkeypatch.undo()
        interrupted.wait(60)
        upload(*arguments)

    monkeypatch.setattr(MlflowClient, "log_artifact", interrupt_and_upload)
    monkeypatch.setattr(module, "JOB_S", 120.0)
    with pytest.raises(KeyboardInterrupt):
        publisher.publish(*jobs[0], parent)
    assert not interrupted.is_set()  # the upload is still under way
    interrupted.set()
    publisher.end_sweep(parent, [jobs[0][0]], interrupted=True)  # waits for what is under way
    store = open_store(None, "bench", tmp_path)
    assert_agree(store, jobs)
    assert store.client.get_run(parent).info.status == "KILLED"


# ---- servers that are none ---------------------------------------------------------------------------------------


class Refusing(socketserver.StreamRequestHandler):
    """Answers everything with the status of its server."""

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.rfile.read(length)
        status = self.server.status  # type: ignore[attr-defined]
        self.wfile.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)


@pytest.fixture
def refusing() -> Iterator[Callable[[int], str]]:
    """Start a server that answers with a status; returns its address, with a password in it."""
    servers = []

    def start(status: int) -> str:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing)
        server.daemon_threads = True
        server.status = status  # type: ignore[attr-defined]
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://me:s3cret@127.0.0.1:{server.server_address[1]}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://me:s3cret@127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def jobs(tmp_path: Path, job_on_disk) -> list[tuple[Record, Path]]:
    """Two single runs below a start folder."""
    return [job_on_disk(tmp_path / "outputs" / str(number), started_at_s=float(number + 1)) for number in range(2)]


def lose_and_catch_up(uri: str, folder: Path, jobs: list[tuple[Record, Path]], capsys, *words: str) -> None:
    """Publish to what is no server, job by job; then with `sync`, there, and to a database."""
    warnings: list[str] = []
    with within(START_BOUND_S):
        publisher = make(uri, folder, warnings)
    for record, path in jobs:
        with within(JOB_BOUND_S):
            assert not publisher.publish(record, path)
        assert_unpublished(record, path, *words)
    assert len(warnings) == 1 + len(jobs)
    assert sync([str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out == f"published 0, already there 0, failed {len(jobs)}\n"
    assert len(said.err.splitlines()) == 1
    address = f"sqlite:///{folder}/mlflow.db"
    assert sync([str(folder), "--tracking-uri", address]) == 0
    assert sync([str(folder), "--tracking-uri", address]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"published 0, already there {len(jobs)}, failed 0"
    assert_agree(open_store(address, "bench", folder), jobs)
    assert "s3cret" not in " ".join([*warnings, said.err])
    for each in folder.rglob("*"):
        assert not each.is_file() or b"s3cret" not in each.read_bytes(), each


@pytest.mark.parametrize(
    ("status", "word"), [(401, "MLFLOW_TRACKING_USERNAME"), (403, "MLFLOW_TRACKING_USERNAME"), (500, "answers 500")]
)
def test_a_server_that_refuses_costs_seconds_and_what_is_missing_goes_elsewhere(status, word, refusing, jobs, capsys):
    tmp_path = jobs[0][1].parents[1]
    lose_and_catch_up(refusing(status), tmp_path, jobs, capsys, word)


def test_a_silent_server_costs_seconds_and_missing_runs_can_go_elsewhere(silent, tmp_path, jobs, capsys):
    lose_and_catch_up(silent, tmp_path, jobs, capsys, "no answer within")


def test_catching_up_with_a_dead_server_does_not_try_every_record(silent, tmp_path, job_on_disk):
    jobs = [job_on_disk(tmp_path / str(number), started_at_s=float(number)) for number in range(50)]
    warnings: list[str] = []
    publisher = make(silent, tmp_path, warnings)
    with within(JOB_BOUND_S):
        assert publisher.publish_missing([folder for _, folder in jobs], None) == 50
    assert len(warnings) == 2
    assert str(publisher.unpublished).startswith("50 records are not published; later: python -m bench.tracking.sync ")


# ---- databases ---------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of few MiB, for which one must be root."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=False)  # MLflow still has the file open


def test_a_full_disk_costs_seconds_and_missing_runs_are_published_later(full_disk, tmp_path, job_on_disk, capsys):
    """Of the database's disk; the records lie on another."""
    uri = f"sqlite:///{full_disk}/mlflow.db"
    warnings: list[str] = []
    publisher = make(uri, tmp_path, warnings)
    first = job_on_disk(tmp_path / "outputs" / "0", started_at_s=1.0)
    assert publish_patiently(publisher, *first)
    filler = full_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    jobs = [job_on_disk(tmp_path / "outputs" / str(number), started_at_s=float(number + 1)) for number in (1, 2)]
    for record, folder in jobs:
        with within(JOB_BOUND_S):
            assert not publisher.publish(record, folder)
        assert_unpublished(record, folder, "full", "No space left")
    assert sync([str(tmp_path / "outputs")]) == 1
    assert capsys.readouterr().out == "published 0, already there 1, failed 2\n"
    filler.unlink()
    assert sync([str(tmp_path / "outputs")]) == 0
    assert sync([str(tmp_path / "outputs")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "published 0, already there 3, failed 0"
    assert_agree(open_store(uri, "bench", tmp_path), [first, *jobs])


def test_a_disk_that_is_full_from_the_start_costs_seconds(full_disk, tmp_path, job_on_disk, capsys):
    with contextlib.suppress(OSError), (full_disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    warnings: list[str] = []
    job = job_on_disk(tmp_path / "outputs" / "0")
    with within(START_BOUND_S):
        publisher = make(f"sqlite:///{full_disk}/mlflow.db", tmp_path, warnings)
    with within(JOB_BOUND_S):
        assert not publisher.publish(*job)
    assert_unpublished(*job, "full", "No space left", "disk I/O error")
    (full_disk / "filler").unlink()
    assert sync([str(tmp_path / "outputs")]) == 0
    assert capsys.readouterr().out == "published 1, already there 0, failed 0\n"


def test_a_database_that_is_locked_costs_seconds_and_gets_what_it_missed(tmp_path, jobs, capsys):
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for record, folder in jobs:
            with within(JOB_BOUND_S):
                assert not publisher.publish(record, folder)
            assert_unpublished(record, folder, "database is locked")
        with within(START_BOUND_S):
            later = make(None, tmp_path, warnings)
        with within(JOB_BOUND_S):
            assert not later.publish(*jobs[0])
    assert sync([str(tmp_path)]) == 0
    assert sync([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "published 2, already there 0, failed 0",
        "published 0, already there 2, failed 0",
    ]
    assert_agree(open_store(None, "bench", tmp_path), jobs)


def test_a_database_that_is_gone_is_said_to_be_and_not_made_anew_below_the_sweep(tmp_path, job_on_disk):
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    (tmp_path / "mlflow.db").unlink()
    job = job_on_disk(tmp_path / "outputs" / "0")
    assert not publisher.publish(*job)
    assert_unpublished(*job, "unable to open database file")
    assert not (tmp_path / "mlflow.db").exists()
    command = [sys.executable, "-m", "bench.tracking.sync", "outputs"]  # MLflow keeps what it knew of the old one
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "published 1, already there 0, failed 0\n")


def test_catching_up_ends_when_its_time_is_up(tmp_path, job_on_disk, monkeypatch):
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    folders = [job_on_disk(tmp_path / str(number), started_at_s=float(number))[1] for number in range(3)]
    monkeypatch.setattr(module, "CATCH_UP_S", 0.0)
    assert publisher.publish_missing(folders, None) == 3
    monkeypatch.undo()
    assert publisher.publish_missing(folders, None) == 0


def test_a_record_whose_figures_make_no_sense_costs_a_line(tmp_path, job_on_disk):
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    record, folder = job_on_disk(tmp_path / "0", iterations=make_record().iterations[:1], trial_id="x")
    record.started_at_s = float("nan")
    assert not publisher.publish(record, folder)
    (warning,) = warnings
    assert "is not published" in warning


def test_a_program_ends_while_its_publisher_hangs(silent, tmp_path):
    """With MLflow's own timeout, not ours: the probe is passed by."""
    code = """
import sys
from pathlib import Path
import bench.tracking.store.opening as opening
opening.check_answers = lambda *_, **__: None
import bench.tracking.publisher as publisher
publisher.OPEN_S = 1.0
publisher.Publisher(uri=sys.argv[1], experiment="bench", tags={}, folder=Path.cwd(), warn=print)
"""
    environment = os.environ | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}
    with within(60):
        done = subprocess.run(
            [sys.executable, "-c", code, silent],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "gave no answer within 1 s" in done.stdout
