"""Test that no command changes the user's files and folders, however it ends.

The places in the sources that delete or overwrite: tests/test_what_bench_deletes.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.results.record import Record
from conftest import run_bench
from factories import make_record
from snapshots import contents, snapshot
from sweeps import job, sweep

SHORT = (
    "tracking=off", "warmup.iterations=0", "measurement.iterations=1", "workload.sequence_length=8",
    "workload.num_tokens_to_generate=2", "monitor.enabled=false", "isolation.mode=none",
)  # fmt: skip
NOWHERE = ("model.id=/no/such/model", "model.weights=pretrained", "model.architecture=null")
NOT_RUN = {
    "dry run": ("sweep.dry_run=true",),
    "a value that cannot be": ("workload.batch_size=0",),
    "a key of a sweep": ("sweep.resume=true",),
    "a key that does not exist": ("workload.size=1",),
    "a model that is not there": NOWHERE,
}


@pytest.fixture
def start(tmp_path) -> Path:
    """Create an empty folder in which commands are typed."""
    folder = tmp_path / "start"
    folder.mkdir()
    return folder


def write(path: Path, text: str = "mine") -> Path:
    """Write a file of the user, with its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, *arguments: str) -> str:
    """Return the one line of a refused command, which must not change anything below the folder."""
    before = snapshot(folder)
    done = run_bench(*arguments, folder=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stdout + done.stderr
    assert snapshot(folder) == before
    return done.stderr


# ---- nothing is run ------------------------------------------------------------------------------------------------


def not_run_in(*places: str) -> list:
    """Each place with each reason; with the one that takes seconds to find, the first place alone."""
    return [
        pytest.param(place, arguments, id=f"{place}-{reason}")
        for place in places
        for reason, arguments in NOT_RUN.items()
        if arguments != NOWHERE or place == places[0]
    ]


@pytest.mark.parametrize(("place", "arguments"), not_run_in("results", "a/b/empty", "with", "link/../results", "."))
def test_a_single_run_that_does_not_start_does_not_change_the_folder(start, arguments, place: str) -> None:
    write(start / "results/thesis.txt")
    (start / "a/b/empty").mkdir(parents=True)
    write(start / "with/.hydra/config.yaml", "theirs")
    (start / "link").symlink_to("results")
    before = snapshot(start)
    run_bench(f"hydra.run.dir={place}", *arguments, folder=start)
    assert snapshot(start) == before


@pytest.mark.parametrize(("place", "arguments"), not_run_in("empty/new", "gone/../empty/../new"))
def test_a_single_run_that_does_not_start_leaves_no_file_and_removes_no_folder(start, arguments, place) -> None:
    (start / "empty").mkdir()
    before = snapshot(start)
    run_bench(f"hydra.run.dir={place}", *arguments, folder=start)
    assert snapshot(start) == before


def test_an_otherwise_empty_start_folder_is_kept(start) -> None:
    refused(start, "hydra.run.dir=o", "workload.batch_size=0")
    refused(start, "hydra.run.dir=o", *NOWHERE)
    refused(start, "workload.batch_size=0")
    refused(start, "-m", "hydra.sweep.dir=o", "workload.batch_size=0,1")
    run_bench("-m", "hydra.sweep.dir=o", "model.seed=1,2", *NOWHERE, folder=start)
    assert contents(start) == {}


@pytest.mark.parametrize("arguments", [("sweep.dry_run=true",), ("workload.batch_size=0",), NOWHERE])
def test_a_sweep_that_does_not_start_does_not_change_the_users_folder(start, arguments) -> None:
    write(start / "results/thesis.txt")
    write(start / "results/0/.hydra/config.yaml")
    (start / "empty").mkdir()
    before = contents(start)
    for place in ("results", "empty/new") if arguments == NOWHERE else ("results", "empty", "empty/new", "."):
        run_bench("-m", f"hydra.sweep.dir={place}", "model.seed=1,2", *arguments, folder=start)
        assert contents(start) == before


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("file", "file is a file"),
        ("file/below", "file is a file"),
        ("dangling", "dangling is a link that leads nowhere"),
    ],
)
def test_a_file_as_the_output_folder_is_refused(start, place: str, told: str) -> None:
    write(start / "file")
    (start / "dangling").symlink_to("nowhere/at/all")
    line = refused(start, f"hydra.run.dir={place}")
    assert line == f"bench: hydra.run.dir={place}: {told}; name a folder\n"


@pytest.mark.as_user
@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output_folder_is_refused(start) -> None:
    (start / "closed").mkdir(mode=0o555)
    for place in ("closed", "closed/new/below"):
        assert "closed cannot be written; choose another folder" in refused(start, f"hydra.run.dir={place}")


# ---- what is there already -----------------------------------------------------------------------------------------


def test_a_folder_with_a_record_is_refused_and_no_second_run_replaces_it(start) -> None:
    (start / "run1").mkdir()
    make_record().write(start / "run1")
    line = refused(start, "hydra.run.dir=run1", "workload.batch_size=2")
    assert line == (
        f"bench: hydra.run.dir={start / 'run1'}: holds the record.json of an earlier run; choose another folder\n"
    )


def test_a_dry_run_says_that_the_folder_would_be_refused(start) -> None:
    (start / "run1").mkdir()
    make_record().write(start / "run1")
    before = snapshot(start)
    done = run_bench("hydra.run.dir=run1", "sweep.dry_run=true", folder=start)
    assert done.returncode == 0
    assert "would be refused: " in done.stdout.splitlines()[-1]
    assert snapshot(start) == before


@pytest.mark.parametrize("place", ["multirun/night", "multirun/night/0_eager", "multirun/night/new", "bare"])
def test_a_single_run_is_refused_in_a_sweeps_folder(start, place: str) -> None:
    sweep(start / "multirun/night", [job("eager", 1.0), job("sdpa", 2.0)], baseline="eager")
    sweep(start / "bare", [job("eager", 1.0, sweep_id="s-1")])
    line = refused(start, f"hydra.run.dir={place}")
    assert "the sweep" in line or "holds a sweep" in line
    assert "sweep.resume=true" in line


@pytest.mark.parametrize("name", ["worker.log", "tracking.json", "operators.txt", "trace.json.gz"])
def test_a_folder_in_which_a_run_would_overwrite_a_file_is_refused(start, name: str) -> None:
    write(start / "results" / name)
    assert f"holds {name}, which a run would overwrite" in refused(start, "hydra.run.dir=results")


def test_a_sweep_that_would_overwrite_a_file_is_refused(start) -> None:
    write(start / "results/report.html")
    for resume in (False, True):
        line = refused(start, "-m", "hydra.sweep.dir=results", "model.seed=1,2", f"sweep.resume={resume}")
        assert "hydra.sweep.dir" in line
        assert "holds report.html, which a sweep would overwrite; choose another folder, or move that" in line


# ---- what is used --------------------------------------------------------------------------------------------------


def test_a_run_may_use_a_folder_with_user_files_and_keeps_them(start) -> None:
    write(start / "results/thesis.txt")
    write(start / "results/.hydra/config.yaml", "theirs")
    write(start / "results/.record-mine.json", "{}")
    write(start / "results/references/paper.bib")
    before = contents(start / "results")
    done = run_bench("hydra.run.dir=results", *SHORT, folder=start)
    assert done.returncode == 0, done.stdout + done.stderr
    after = contents(start / "results")
    assert before.items() <= after.items()
    assert Record.read(start / "results").status == "ok"
    assert (start / "results/.hydra-bench/config.yaml").is_file()


def test_a_failed_run_keeps_the_users_files(start) -> None:
    write(start / "results/thesis.txt")
    before = contents(start)
    done = run_bench("hydra.run.dir=results", *SHORT[:-1], "isolation.timeout_s=0.1", folder=start)
    assert done.returncode == 1
    assert before.items() <= contents(start).items()
    assert Record.read(start / "results").status == "timeout"


@pytest.mark.slow
def test_ctrl_c_before_a_run_begins_does_not_change_the_folder(start) -> None:
    write(start / "results/thesis.txt")
    before = contents(start)
    command = [sys.executable, "-m", "bench", "hydra.run.dir=results", *SHORT[:-1]]
    for wait_s in (0.2, 0.6, 1.0, 1.5):
        with subprocess.Popen(command, cwd=start, start_new_session=True, stderr=subprocess.PIPE) as process:
            time.sleep(wait_s)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        if (start / "results/record.json").exists() or (start / "results/worker.log").exists():
            break  # it had begun
        assert contents(start) == before
    assert before.items() <= contents(start).items()


def test_a_sweep_moves_no_folder_of_another_program_and_uses_none(start) -> None:
    for number in range(3):
        write(start / f"other/{number}/.hydra/config.yaml", f"lr: {number}")
        write(start / f"other/{number}/train.log")
    write(start / "other/0_seed=1/worker.log")
    write(start / "other/multirun.yaml", "hydra: theirs")
    before = contents(start / "other")
    names = ["-m", "hydra.sweep.dir=other", "model.seed=1,2", "fidelity.reference=none", *SHORT]
    done = run_bench(*names, folder=start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before.items() <= contents(start / "other").items()
    assert not (start / "other/earlier").exists()
    records = [Record.read(path) for path in sorted((start / "other").glob("*/record.json"))]
    assert [each.status for each in records] == ["ok", "ok"]
    write(start / "other/3/.hydra/config.yaml")
    before = contents(start / "other")
    done = run_bench(*names, "sweep.resume=true", folder=start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 jobs are done" in done.stdout
    kept = {name: what for name, what in before.items() if not name.startswith(("report", "figures", "sweep.json"))}
    assert kept.items() <= contents(start / "other").items()
