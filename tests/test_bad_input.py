"""What a user may type wrongly, as the command line answers it: one line, status 2, and nothing left behind.

What the examination before the start finds in models, tokenizers and prompts: tests/sweep/test_preflight.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import run_bench

SECRET = "hunter2-and-more"


def refusal(folder: Path, *arguments: str) -> str:
    """The one line; fails where there is anything else."""
    before = sorted(folder.rglob("*"))
    done = run_bench(*arguments, folder=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stdout + done.stderr
    assert sorted(folder.rglob("*")) == before
    assert done.stderr.startswith("bench: ")
    return done.stderr.removeprefix("bench: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["workload.batch_size=0"], "workload.batch_size=0: must be at least 1"),
        (["attention=[eager,sdpa]"], "attention=[eager,sdpa]: is a list, and a group takes one choice; with commas alone "
         "it is a sweep: -m attention=eager,sdpa"),
        (["-m", "model.seed=range(100000)"],
         "sweep.max_jobs=1000: this sweep has 100000 jobs; sweep.max_jobs=100000 runs them"),
        (["-m", "model.seed=range(100000)", "workload.batch_size=range(1,100001)", "compile=off,default"],
         "sweep.max_jobs=1000: this sweep has 20000000000 jobs; sweep.max_jobs=20000000000 runs them"),
        (["-m", "sweep.repeats=1,3"],
         "sweep.repeats=3: is one for the whole sweep (here also 1) and cannot be swept"),
        (["-m", "tracking.experiment=a,b"],
         "tracking.experiment=b: is one for the whole sweep (here also a) and cannot be swept"),
        (["sweep.resume=true"], "sweep.resume=true: is for sweeps; add -m"),
        (["-m", "sweep.resume=true", "model.seed=1,2"],
         "sweep.resume=true: needs the name of the sweep to go on with: add sweep.name=NAME"),
        (["-m", "model.seed=1,2", "sweep.name=../../elsewhere"], r"sweep.name=../../elsewhere: must match [A-Za-z0-9][\w.-]{0,99}"),
    ],
)  # fmt: skip
def test_a_slip_is_one_line(tmp_path, arguments: list[str], line: str) -> None:
    assert refusal(tmp_path, *arguments) == line


@pytest.mark.parametrize(
    "arguments", [["workload.batch_size=[1,2]"], ["device=[cpu]"], ["model.id=[a,b]"], ["workload=1"]]
)
def test_a_list_or_a_number_where_something_else_belongs_is_one_line(tmp_path, arguments: list[str]) -> None:
    line = refusal(tmp_path, *arguments)
    assert arguments[0].partition("=")[0] in line or "Config group override" in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("warmup:\n  count: 3\n", "warmup.count: no such key; did you mean"),
        ("workload:\n  batch_size: [1, 2]\n", "workload.batch_size: value '[1, 2]'"),
        ("benchmark:\n  runs: 3\n", "benchmark: no such key"),
    ],
)
def test_a_config_file_of_another_schema_is_one_line(tmp_path, text: str, line: str) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/old.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
    assert refusal(tmp_path, "--config-dir", "conf", "experiment=old").startswith(line)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["device=cuda:7"], ["-m", "device=cpu,cuda:7"]])
def test_what_the_machine_lacks_starts_nothing(tmp_path, arguments: list[str]) -> None:
    assert refusal(tmp_path, *arguments).startswith("device=cuda:7: ")


@pytest.mark.slow
def test_one_bad_setting_among_good_ones_starts_nothing(tmp_path) -> None:
    line = "workload.sequence_length=5000: with 32 new tokens makes 5032 positions; the model has 4096"
    assert refusal(tmp_path, "-m", "workload.sequence_length=16,5000", "sweep.repeats=2").startswith(line)


def test_a_password_in_the_tracking_address_is_refused_and_not_repeated(tmp_path) -> None:
    line = refusal(tmp_path, f"tracking.uri=http://me:{SECRET}@localhost:1")
    assert line.startswith("tracking.uri=http://localhost:1: ")
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert SECRET not in line


@pytest.mark.slow
def test_what_would_be_skipped_is_told_by_earlier_records(tmp_path) -> None:
    settings = ["-m", "attention=flash2,sdpa", "warmup.iterations=0", "measurement.iterations=1", "tracking=off"]
    done = run_bench(*settings, "fidelity.reference=none", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = run_bench(*settings, "sweep.dry_run=true", "sweep.name=again", folder=tmp_path).stdout.splitlines()
    (skipped,) = [line for line in planned if " flash2 " in line]
    assert "would be skipped: attention.implementation=flash_attention_2 cannot run here" in skipped
    assert planned[-1].startswith("2 jobs: 1 to run, 1 to be skipped, about 0:0")
    assert "(1 by records of the same setting)" in planned[-1]
    assert not (tmp_path / "multirun/again").exists()


def test_what_lacks_its_package_is_told_before_it_has_ever_run(tmp_path) -> None:
    planned = run_bench("-m", "attention=flash2,sdpa", "sweep.dry_run=true", folder=tmp_path).stdout.splitlines()
    (skipped,) = [line for line in planned if " flash2 " in line]
    assert "would be skipped: attention.implementation=flash_attention_2 needs the package flash-attn" in skipped
    assert planned[-1] == "2 jobs: 1 to run, 1 to be skipped; no earlier record tells how long that takes"
