"""`python -m bench.tracking.ui` and scripts/ui, with real servers; what the pages look like is seen in a browser."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.cli.ui import main
from bench.tracking.pages.view import view_key
from bench.tracking.publisher import Publisher
from bench.tracking.store.opening import open_store
from factories import make_record
from started import default_signals

SCRIPT = Path(__file__).parents[2] / "scripts/ui"


def publish_sweep(start: Path, sweep_on_disk) -> None:
    """A sweep of three trials in the database of its start folder."""
    jobs = sweep_on_disk(start)
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
    swept = {"compile.mode": ["default"]}
    run_id = publisher.begin_sweep(sweep_id="night-1", name="night", swept=swept, settings=["default"], baseline=None)
    for record, folder in jobs:
        assert publisher.publish(record, folder, run_id)
    publisher.end_sweep(run_id, [record for record, _ in jobs], interrupted=False)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line.removeprefix("bench.tracking.ui: ")


@contextlib.contextmanager
def ui(*arguments: object, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The running command; what it leaves is killed in the end."""
    command = [sys.executable, "-m", "bench.tracking.ui", *(str(each) for each in arguments)]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals
    )
    own = psutil.Process(process.pid)
    left: list[psutil.Process] = []
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.Error):
            left = own.children(recursive=True)
        for each in [process, *left]:
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> list[str]:
    """What it says until the UI runs."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if "Ctrl-C ends it" in line:
            return lines
        lines.append(line.rstrip("\n"))
    assert process.stderr is not None
    raise AssertionError([*lines, process.stderr.read()])


# ---- what ends at once -------------------------------------------------------------------------------------------


def test_where_there_is_nothing_one_line_says_what_to_do(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert complaint(capsys) == (
        f"no sweep, no run and no mlflow.db in or below {tmp_path}: name the folder where one was started, or start "
        f"one: python -m bench"
    )


def test_a_folder_that_does_not_exist_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "x")]) == 2
    assert complaint(capsys) == f"{tmp_path}/x: no such folder"


def test_a_port_that_is_taken_is_one_line(tmp_path, capsys):
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(tmp_path), "--port", str(port)]) == 2
    assert complaint(capsys) == f"--port {port}: address already in use; name another, or none for one that is free"


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_is_none_is_one_line(tmp_path, capsys, port):
    (tmp_path / "mlflow.db").touch()
    assert main([str(tmp_path), "--port", port]) == 2
    assert complaint(capsys).startswith(f"--port {port}: ports go from 1 to 65535")


def test_a_server_that_does_not_answer_is_one_line(tmp_path, capsys, sweep_on_disk):
    sweep_on_disk(tmp_path, uri="http://127.0.0.1:9")  # the discard port: nothing answers
    assert main([str(tmp_path)]) == 1
    assert complaint(capsys).startswith("MLflow at http://127.0.0.1:9 cannot be reached: ")


def test_a_database_that_is_none_ends_the_ui_with_mlflows_own_words(tmp_path, capsys):
    (tmp_path / "mlflow.db").write_text("no database")
    assert main([str(tmp_path)]) == 1
    assert "not a database" in complaint(capsys)


# ---- what runs ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_of_a_database_runs_tells_its_pages_and_ends_with_all_it_started(tmp_path, sweep_on_disk, number):
    publish_sweep(tmp_path, sweep_on_disk)
    with ui(folder=tmp_path) as process:
        sweep, table, charts, compare = told(process)
        address = table.removeprefix("  table: ").partition("/#/")[0]
        assert sweep == "  sweep: night"
        assert address.startswith("http://127.0.0.1:")
        assert f"viewStateShareKey={view_key('night-1')}" in table
        assert charts == f" charts: {table.removeprefix('  table: ')}&compareRunsMode=CHART"
        trials = open_store(None, "bench", tmp_path).find_runs(kind="trial")
        assert compare.startswith(f"compare: {address}/#/compare-runs?")
        assert [run.info.run_id in compare for run in trials] == [True] * 3
        assert urllib.request.urlopen(address).status == 200
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 2
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_of_a_server_the_pages_are_told_and_nothing_is_started(tmp_path, sweep_on_disk):
    publish_sweep(tmp_path, sweep_on_disk)
    with ui("--port", free_port(), folder=tmp_path) as process:
        pages = told(process)
        address = pages[1].removeprefix("  table: ").partition("/#/")[0]
        away = tmp_path / "away"
        sweep_on_disk(away, uri=address)
        done = subprocess.run(
            [sys.executable, "-m", "bench.tracking.ui", str(away)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == pages


@pytest.mark.slow
def test_ctrl_c_while_the_ui_starts_leaves_nothing(tmp_path, sweep_on_disk):
    publish_sweep(tmp_path, sweep_on_disk)
    with ui(folder=tmp_path) as process:
        own = psutil.Process(process.pid)
        deadline_s = time.monotonic() + 60
        while not (family := own.children(recursive=True)):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.communicate() == ("", "")
        assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_the_script_is_one_that_can_be_run():
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert "-m bench.tracking.ui" in SCRIPT.read_text()


def test_a_single_run_is_shown_by_its_experiment(tmp_path, monkeypatch):
    from bench.tracking.pages import latest_sweep

    store = open_store(None, "mine", tmp_path)
    publisher = Publisher(uri=None, experiment="mine", tags={}, folder=tmp_path, warn=pytest.fail)
    publisher.publish(make_record(), tmp_path)
    monkeypatch.setattr(latest_sweep, "connect", lambda _: store.client)
    monkeypatch.setattr(latest_sweep, "check_answers", lambda _: None)
    (page,) = latest_sweep.pages("http://127.0.0.1:81", sweep_id=None, experiment="mine")
    assert (
        page == f"   runs: http://127.0.0.1:81/#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
    )
