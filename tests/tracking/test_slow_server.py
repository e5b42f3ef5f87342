"""A server that is slow but alive, behind a real line of 15 or 5 kB/s: what is published, when, and what is said."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.sync import main as sync
from bench.tracking import publisher as module
from bench.tracking.publisher import Publisher
from bench.tracking.store.opening import open_store
from bench.tracking.store.request_time import (
    LONGEST_S,
    QUESTION_S,
    SLOWEST_BYTES_PER_S,
    VARIABLE,
    seconds_for,
    time_for,
)
from bench.tracking.store.store import Store
from mlflow_server import Server
from slow_line import SlowLine, slow_line

TRACE_BYTES = 88_000


# ---- the time of a request ---------------------------------------------------------------------------------------


def test_a_request_has_the_time_of_a_question_and_that_of_its_bytes(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "10")
    with time_for(TRACE_BYTES):
        assert int(os.environ[VARIABLE]) == 10 + TRACE_BYTES / SLOWEST_BYTES_PER_S
    assert os.environ[VARIABLE] == "10"


def test_what_the_user_has_set_is_the_time_of_a_question(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "300")
    with time_for(2 * SLOWEST_BYTES_PER_S):
        assert os.environ[VARIABLE] == "302"
    monkeypatch.delenv(VARIABLE)
    with time_for(0):
        assert os.environ[VARIABLE] == str(QUESTION_S)
    assert VARIABLE not in os.environ


def test_a_setting_that_mlflow_will_refuse_is_left_to_it(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "soon")
    with time_for(10**6):
        assert os.environ[VARIABLE] == "soon"


def test_no_size_is_waited_for_without_end() -> None:
    assert seconds_for(10**12) == LONGEST_S


def test_the_time_is_given_back_when_a_request_fails(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "10")
    with pytest.raises(OSError), time_for(10**6):
        raise OSError
    assert os.environ[VARIABLE] == "10"


# ---- a real server behind a slow line ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server"))
    one.start()
    yield one
    one.kill()


@pytest.fixture
def line(server: Server) -> Iterator[SlowLine]:
    with slow_line(server.port, 15_000) as one:
        yield one


@pytest.fixture
def direct(server: Server) -> Store:
    """The same server, asked past the slow line."""
    return open_store(server.uri, "bench", Path("/"))


def give_trace(folder: Path) -> None:
    """A file that does not become smaller on its way."""
    (folder / "trace.json.gz").write_bytes(os.urandom(TRACE_BYTES))


def sweep_run(store: Store, sweep_id: str):
    (run,) = store.find_runs(kind="sweep", sweep_id=sweep_id)
    return run


@pytest.mark.slow
def test_sync_publishes_a_trace_over_five_kilobytes_a_second(line, direct, tmp_path, sweep_on_disk, capsys) -> None:
    line.bytes_per_s = 5_000
    ((_, folder),) = sweep_on_disk(tmp_path, sweep_id="trickle", jobs=1, uri=line.uri)
    give_trace(folder)
    before_s = time.monotonic()
    assert sync([str(folder.parent)]) == 0, capsys.readouterr().err
    assert time.monotonic() - before_s > TRACE_BYTES / 5_000  # it really was slow
    (trial,) = direct.find_runs(kind="trial", sweep_id="trickle")
    files = {each.path: each.file_size for each in direct.client.list_artifacts(trial.info.run_id)}
    assert files["trace.json.gz"] == TRACE_BYTES
    assert trial.data.tags["complete"] == "yes"
    assert sweep_run(direct, "trickle").info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.parametrize("bytes_per_s", [15_000, 5_000])
def test_a_sweep_over_a_slow_line_is_ended_or_sync_is_told_and_ends_it(
    line, direct, tmp_path, sweep_on_disk, bytes_per_s: int
) -> None:
    sweep_id = f"slow-{bytes_per_s}"
    jobs = sweep_on_disk(tmp_path, sweep_id=sweep_id, jobs=3, uri=line.uri)
    lines: list[str] = []
    publisher = Publisher(uri=line.uri, experiment="bench", tags={}, folder=tmp_path, warn=lines.append)
    run_id = publisher.begin_sweep(sweep_id=sweep_id, name="s", swept={}, settings=["default"], baseline=None)
    assert run_id is not None, lines
    line.bytes_per_s = bytes_per_s
    for record, folder in jobs:
        give_trace(folder)
        before_s = time.monotonic()
        publisher.publish(record, folder, run_id)
        assert time.monotonic() - before_s < 2 * module.JOB_S  # no measurement waits longer than before
    publisher.publish_missing([folder for _, folder in jobs], run_id)
    is_ended = publisher.end_sweep(run_id, [record for record, _ in jobs], interrupted=False)
    if is_ended:
        assert sweep_run(direct, sweep_id).info.status == "FINISHED"
    else:
        told = ("the sweep's run is not ended: ", "not all trials have their rank in MLflow: ")
        assert any(line.startswith(told) for line in lines)
    (jobs[0][1].parent / ".lock").touch()  # that nobody holds: the sweep has ended
    script = f"from bench.tracking.sync import main; raise SystemExit(main([{str(jobs[0][1].parent)!r}]))"
    line.bytes_per_s = 15_000
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    run = sweep_run(direct, sweep_id)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "ok")
    trials = direct.find_runs(kind="trial", sweep_id=sweep_id)
    assert sorted(each.data.tags["record_key"] for each in trials if "complete" in each.data.tags) == sorted(
        {each.data.tags["record_key"] for each in trials}
    )
    assert [each for each in direct.running() if each.data.tags["sweep_id"] == sweep_id] == []
