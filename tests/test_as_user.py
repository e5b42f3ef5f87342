"""Whole commands at a user's desk: in a folder full of modules that must not be imported, and whatever else
`scripts/test as-user` makes unusual.

In the other suites they run as whoever runs those, which shows no more than that they hold there as well.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import decoys
from bench.results.record import Record
from conftest import run_bench, user_environment

pytestmark = [pytest.mark.as_user, pytest.mark.slow]

FEW = ("warmup.iterations=1", "measurement.iterations=2", "workload.num_tokens_to_generate=4")
DESK = os.environ.get("BENCH_TEST_DESK")
SWEEP = "multirun/night 1"


def umask() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:")]
    return int(line.split()[1], 8)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Iterator[Path]:
    """Run a sweep with MLflow in a start folder with a space in its name and with decoys."""
    parent = tmp_path_factory.mktemp("desk")
    folder = decoys.plant(parent / "my desk", parent / "marks")
    there = set(folder.iterdir())
    temporary = parent / "tmp"
    temporary.mkdir()
    typed = ("-m", "attention=eager,sdpa", "hydra.sweep.dir=multirun/night 1", *FEW)
    ended = run_bench(*typed, folder=folder, TMPDIR=str(temporary))
    (parent / "stdout").write_text(ended.stdout)
    (parent / "stderr").write_text(ended.stderr)
    (parent / "made").write_text("\n".join(sorted(each.name for each in set(folder.iterdir()) - there)))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    yield folder
    assert decoys.imported(parent / "marks") == []


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """Create a start folder with decoys."""
    yield decoys.plant(tmp_path / "my desk", tmp_path / "marks")
    assert decoys.imported(tmp_path / "marks") == []


@pytest.mark.skipif(DESK is None, reason="scripts/test as-user sets the desk up")
def test_the_environment_is_that_of_the_user() -> None:
    with pytest.raises(KeyError):
        pwd.getpwuid(os.getuid())
    assert umask() == 0o077
    assert ("HOME" in user_environment()) == (DESK == "bare-home")
    if DESK == "no-home":
        assert len(tempfile.gettempdir()) > 107
    else:
        with pytest.raises(PermissionError):
            Path.home().joinpath("file").touch()


def test_a_sweep_is_ok_and_does_not_mention_the_unusual_environment(start) -> None:
    assert {Record.read(each).status for each in start.glob(f"{SWEEP}/*/record.json")} == {"ok"}
    assert (start.parent / "stderr").read_text() == ""
    assert "reference for fidelity" in (start.parent / "stdout").read_text().splitlines()[0]


def test_a_sweep_publishes_and_writes_its_report(start) -> None:
    assert (start / SWEEP / "report.html").stat().st_size > 10_000
    assert (start / "mlflow.db").stat().st_size > 100_000
    assert len(list(start.glob(f"{SWEEP}/*/tracking.json"))) == 2


def test_nothing_is_left_in_the_temporary_folder(start) -> None:
    left = {each.name for each in (start.parent / "tmp").iterdir()}
    assert {each for each in left if not each.startswith("torchinductor_")} == set()  # torch's own, and empty


def test_only_documented_files_are_created(start) -> None:
    made = (start.parent / "made").read_text().splitlines()
    assert {each for each in made if not each.startswith("mlflow.db")} == {"multirun", "mlartifacts"}


def test_every_file_has_the_mode_that_the_umask_allows(start) -> None:
    wrong = []
    for each in [*start.glob("mlflow.db*"), *(start / "multirun").rglob("*"), *(start / "mlartifacts").rglob("*")]:
        mode = stat.S_IMODE(each.lstat().st_mode)
        if mode & umask() or (each.is_file() and each.lstat().st_mode & 0o100):
            wrong.append(f"{mode:o} {each}")
    assert wrong == []


def test_a_compiled_setting_is_ok(folder) -> None:
    ended = run_bench("compile=default", "tracking=off", *FEW, folder=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (record,) = [Record.read(each) for each in folder.glob("outputs/*/record.json")]
    assert record.observed.compile.graphs >= 1


@pytest.mark.parametrize("mode", ["spawn", "none"])
def test_a_single_run_is_ok_in_every_isolation(mode, folder) -> None:
    ended = run_bench(f"isolation.mode={mode}", "tracking=off", *FEW, folder=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_sweep_with_a_missing_record_is_resumed(start, folder) -> None:
    sweep = folder / "multirun/night"
    shutil.copytree(start / SWEEP, sweep)
    next(sweep.glob("*/record.json")).unlink()
    again = ["-m", "attention=eager,sdpa", "sweep.name=night", "sweep.resume=true", "tracking=off"]
    ended = run_bench(*again, *FEW, folder=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 of 2 jobs are done" in ended.stdout


@pytest.mark.parametrize("command", ["bench.compare", "bench.report", "bench.tracking.sync"])
def test_the_commands_on_a_sweep_work(command, start) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", command, SWEEP],
        cwd=start,
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_shared_compile_cache_is_created_or_refused_in_one_line(folder) -> None:
    ended = run_bench("attention=flex", "compile.cache=shared", "tracking=off", *FEW, folder=folder)
    if DESK is None:
        assert ended.returncode == 0
    else:
        assert ended.returncode == 2
        assert ended.stderr.startswith("bench: compile.cache=shared: ")
        assert ended.stderr.count("\n") == 1


def test_an_unwritable_start_folder_is_refused_in_one_line(tmp_path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    tmp_path.chmod(0o555)
    for arguments in (["tracking=off"], ["-m", "attention=eager,sdpa", "tracking=off"]):
        ended = run_bench(*arguments, *FEW, folder=tmp_path)
        assert ended.returncode in (1, 2)
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert str(tmp_path)[:100] in ended.stderr  # of a long path that is what one line shows
    assert list(tmp_path.iterdir()) == []
