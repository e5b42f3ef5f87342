"""Test what a command prints and does before it starts if its results could not be published."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

from bench.tracking.store.opening import open_store
from conftest import run_bench
from small_disk import make_read_only, small_disk

pytestmark = pytest.mark.as_user

QUICK = (
    "model=tiny", "warmup.iterations=1", "measurement.iterations=2", "workload.sequence_length=16",
    "workload.num_tokens_to_generate=4", "fidelity.reference=none",
)  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("'tracking.tags={who?: me}'", ("tracking.tags.who?=me", "'?'")),
        ("'tracking.tags={a//b: me}'", ("tracking.tags.a//b=me", "path")),
        ("tracking.tags.kind=mine", ("tracking.tags.kind=mine", "my_kind")),
        ("tracking.tags.status=good", ("tracking.tags.status=good", "my_status")),
        ("'tracking.tags={mlflow.runName: x}'", ("tracking.tags.mlflow.runName=x", "MLflow's own")),
        ("'tracking.tags={team: x, Team: y}'", ("by case alone",)),
        (f"tracking.experiment={'x' * 300}", ("tracking.experiment=x", "256 characters")),
    ],
)
@pytest.mark.parametrize("mode", [(), ("-m", "workload.batch_size=1,2")], ids=["run", "sweep"])
def test_a_name_that_mlflow_refuses_is_refused_in_one_line_before_anything_runs(
    tmp_path, argument: str, words: tuple[str, ...], mode: tuple[str, ...]
) -> None:
    done = run_bench(*mode, *QUICK, argument.strip("'"), folder=tmp_path, timeout_s=120)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    for each in words:
        assert each in line
    assert done.stdout == ""
    assert not (tmp_path / "mlflow.db").exists()
    assert list(tmp_path.rglob("record.json")) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", [(), ("-m", "workload.batch_size=1,2")], ids=["run", "sweep"])
def test_a_read_only_database_is_one_line_before_the_first_job_and_loses_no_result(
    tmp_path, mode: tuple[str, ...]
) -> None:
    (tmp_path / "made").mkdir()
    open_store(None, "bench", tmp_path / "made")
    with small_disk(tmp_path / "disk", 20) as disk:
        shutil.copyfile(tmp_path / "made/mlflow.db", disk / "mlflow.db")
        make_read_only(disk)
        arguments = (*mode, *QUICK, f"tracking.uri=sqlite:///{disk}/mlflow.db")
        done = run_bench(*arguments, folder=tmp_path, timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (told,) = [line for line in lines if line.startswith("not published: ")]
    assert told.startswith(f"not published: MLflow at sqlite:///{disk}/mlflow.db cannot be written: ")
    assert "attempt to write a readonly database" in told
    assert lines.index(told) < min(number for number, line in enumerate(lines) if "is not published (its" in line)
    assert "python -m bench.tracking.sync" in done.stdout
    records = list(tmp_path.rglob("record.json"))
    assert {json.loads(each.read_text())["status"] for each in records} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [(), ("-m", "workload.batch_size=1,2")], ids=["run", "sweep"])
def test_an_unwritable_artifact_folder_is_one_line_before_the_first_job(tmp_path, mode: tuple[str, ...]) -> None:
    with small_disk(tmp_path / "mlartifacts", 1) as disk:
        make_read_only(disk)
        done = run_bench(*mode, *QUICK, folder=tmp_path, timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    first = next(line for line in done.stdout.splitlines() if "published" in line)
    assert " will not be published: MLflow at sqlite:///" in first
    assert "Read-only file system" in first
    assert "check that folder" in first


@pytest.mark.slow
@pytest.mark.parametrize(("mask", "expected"), [("077", 0o600), ("002", 0o664)])
def test_all_files_of_a_command_have_the_mode_that_the_umask_allows(tmp_path, mask: str, expected: int) -> None:
    start = tmp_path / "start"
    start.mkdir()
    python = sys.executable
    typed = f'umask {mask} && exec "$0" -m bench "$@"'
    done = subprocess.run(
        ["sh", "-c", typed, python, "-m", *QUICK, "workload.batch_size=1,2"],
        cwd=start,
        env={name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "MLFLOW_"))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    modes = {str(each.relative_to(start)): stat.S_IMODE(each.stat().st_mode) for each in start.rglob("*")}
    assert len(modes) > 20
    wrong = {
        name: oct(mode)
        for name, mode in modes.items()
        if mode != (expected if (start / name).is_file() else expected | (expected & 0o444) >> 2)
    }
    assert wrong == {}
