"""Test user errors on the command line: one line, status 2, and no files left.

Errors in models, tokenizers and prompts that the check before the start finds: tests/jobs/test_preflight.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.refusals.override_checks import OF_HYDRA
from bench.config.schema import no_such_key
from conftest import run_bench

SECRET = "hunter2-and-more"


def refusal(folder: Path, *arguments: str) -> str:
    """Return the one line of the refusal; fail if there is any other output."""
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
        (["warmup=10"], "warmup=10: warmup is a section, whose keys are warmup.…; bench --keys warmup lists them"),
        (["-m", "warmup=1,2"], "warmup=1,2: warmup is a section, whose keys are warmup.…; bench --keys warmup lists them"),
        (["sweep=x"], "sweep=x: sweep is a section, whose keys are sweep.…; bench --keys sweep lists them"),
        (["attention=eager", "-m", "compile=off"], "compile=off: a flag stands between overrides; flags come before all "
         "key=value, or after; bench --help shows examples, bench --hydra-help the flags"),
        (["attention.backend=math"], "attention.backend=math: no such key; did you mean attention.sdpa_backend?"),
        (["-m", "sweep.repeats=1,3"],
         "sweep.repeats=3: is one for the whole sweep (here also 1) and cannot be swept"),
        (["-m", "tracking.experiment=a,b"],
         "tracking.experiment=b: is one for the whole sweep (here also a) and cannot be swept"),
        (["sweep.resume=true"], "sweep.resume=true: is for sweeps; add -m"),
        (["-m", "sweep.resume=true", "model.seed=1,2"],
         "sweep.resume=true: needs the name of the sweep to go on with: add sweep.name=NAME"),
        (["-m", "model.seed=1,2", "sweep.name=../../elsewhere"], "sweep.name=../../elsewhere: must be 100 letters, digits and _ . - at most, the first a letter or a digit"),
    ],
)  # fmt: skip
def test_a_user_error_is_one_line(tmp_path, arguments: list[str], line: str) -> None:
    assert refusal(tmp_path, *arguments) == line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--foo"], "unrecognized arguments: --foo; bench --help"),
        (["--info", "compile=default"], "invalid choice: 'compile=default' (choose from 'all', "),
        (["--cfg"], "expected one argument; bench --help"),
    ],
)
def test_an_unknown_flag_is_one_line(tmp_path, arguments: list[str], told: str) -> None:
    done = run_bench(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: ")
    assert told in line


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("atention", "attention"),
        ("modl", "model"),
        ("experimnt", "experiment"),
        ("compile.mod", "compile.mode"),
        ("compile_mode", "compile.mode"),
        ("mode.compile", "compile.mode"),
        ("batch_size", "workload.batch_size"),
        ("model.batch_size", "workload.batch_size"),
        ("atention.implementation", "attention.implementation"),
        ("warmpu.iterations", "warmup.iterations"),
        ("iterations", "warmup.iterations or measurement.iterations"),
        ("mode", "compile.mode or isolation.mode"),
        ("attn_implementation", "attention.implementation"),
        ("num_tokens_to_generate", "workload.num_tokens_to_generate"),
        ("num_tokens", "profile.num_tokens"),
        ("warmup_iterations", "warmup.iterations"),
        ("warmup_iteration", "warmup.iterations"),
        ("gpu_monitoring", "monitor.enabled"),
        ("compile_kwargs", "compile"),
        ("hydra/launchr", "hydra/launcher"),
        ("hydra/sweper", "hydra/sweeper"),
        ("launcher", "hydra/launcher"),
    ],
)
def test_an_unknown_key_suggests_the_nearest_one(name: str, meant: str) -> None:
    assert no_such_key(name, OF_HYDRA) == f"no such key; did you mean {meant}?"


def test_an_unknown_key_without_a_near_one_refers_to_the_list() -> None:
    assert no_such_key("foo.bar", OF_HYDRA) == "no such key; bench --keys lists them"
    assert no_such_key("fidelity.zzzzzzzzzzzz", OF_HYDRA) == "no such key; bench --keys fidelity lists them"
    assert no_such_key("x" * 100_000, OF_HYDRA) == "no such key; bench --keys lists them"


@pytest.mark.parametrize("multirun", [[], ["-m"]])
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("atention=eager", "atention=eager: no such key; did you mean attention?"),
        ("atention.implementation=eager",
         "atention.implementation=eager: no such key; did you mean attention.implementation?"),
        ("+batch_size=4", "batch_size=4: no such key; did you mean workload.batch_size?"),
        ("++mode.compile=default", "mode.compile=default: no such key; did you mean compile.mode?"),
        ("+launcher=ray", "launcher=ray: no such key; did you mean hydra/launcher?"),
        ("~compile.mod", "~compile.mod: no such key; did you mean compile.mode?"),
        ("hydra/launchr=ray", "hydra/launchr=ray: no such key; did you mean hydra/launcher?"),
        ("hydra.sweeper.prams={}", "hydra.sweeper.prams={}: no such key; did you mean hydra.sweeper.params?"),
        ("hydra.zzz=1", "hydra.zzz=1: no such key; bench --cfg hydra shows Hydra's own"),
        ("hydra/launcher=submitit", "hydra/launcher=submitit: no such choice; allowed: basic, ray, submitit_local, "
         "submitit_slurm; did you mean submitit_local or submitit_slurm?"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_one_line_in_runs_and_in_sweeps(tmp_path, multirun, typed: str, line: str) -> None:
    assert refusal(tmp_path, *multirun, typed) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hydra: {sweeper: {params: {atention.implementation: 'eager,sdpa'}}}",
         "conf/experiment/mine.yaml:2: atention.implementation=eager,sdpa: no such key; did you mean "
         "attention.implementation?"),
        ("hydra: {sweeper: {settings: [compile=off, mode.compile=default]}}",
         "conf/experiment/mine.yaml:2: mode.compile: no such key; did you mean compile.mode?"),
        ("hydra: {sweeper: {settings: [+batch_size=2]}}",
         "conf/experiment/mine.yaml:2: batch_size=2: no such key; did you mean workload.batch_size?"),
        ("hydra: {sweeper: {parms: {}}}",
         "conf/experiment/mine.yaml:2: hydra.sweeper.parms: no such key; did you mean hydra.sweeper.params?"),
        ("atention: {implementation: eager}", "conf/experiment/mine.yaml:2: atention: no such key; did you mean attention?"),
        ("defaults: [override /atention: eager]",
         "conf/experiment/mine.yaml:2: - override /atention: eager: no such key; did you mean attention?"),
    ],
)  # fmt: skip
def test_a_misspelt_key_in_an_experiment_is_one_line(tmp_path, text: str, line: str) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n", encoding="utf-8")
    assert refusal(tmp_path, "-m", "--config-dir", "conf", "experiment=mine") == line


@pytest.mark.parametrize(
    "arguments", [["workload.batch_size=[1,2]"], ["device=[cpu]"], ["model.id=[a,b]"], ["workload=1"]]
)
def test_a_list_or_a_number_in_place_of_another_type_is_one_line(tmp_path, arguments: list[str]) -> None:
    line = refusal(tmp_path, *arguments)
    assert arguments[0].partition("=")[0] in line or "Config group override" in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("warmup:\n  count: 3\n", "conf/experiment/old.yaml:3: warmup.count=3: no such key; did you mean"),
        ("workload:\n  batch_size: [1, 2]\n", "conf/experiment/old.yaml:3: workload.batch_size=[1, 2]: is a list"),
        ("benchmark:\n  runs: 3\n", "conf/experiment/old.yaml:2: benchmark: no such key"),
    ],
)
def test_a_config_file_of_another_schema_is_one_line(tmp_path, text: str, line: str) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/old.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
    assert refusal(tmp_path, "--config-dir", "conf", "experiment=old").startswith(line)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["device=cuda:7"], ["-m", "device=cpu,cuda:7"]])
def test_a_setting_the_machine_cannot_run_starts_nothing(tmp_path, arguments: list[str]) -> None:
    assert refusal(tmp_path, *arguments).startswith("device=cuda:7: ")


@pytest.mark.slow
def test_one_bad_setting_among_good_ones_starts_nothing(tmp_path) -> None:
    line = "workload.sequence_length=5000: with 32 new tokens makes 5032 positions; the model has 4096"
    assert refusal(tmp_path, "-m", "workload.sequence_length=16,5000", "sweep.repeats=2").startswith(line)


def test_a_password_in_the_tracking_address_is_refused_and_not_printed(tmp_path) -> None:
    line = refusal(tmp_path, f"tracking.uri=http://me:{SECRET}@localhost:1")
    assert line.startswith("tracking.uri=http://localhost:1: ")
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert SECRET not in line


@pytest.mark.slow
def test_settings_to_be_skipped_are_reported_from_earlier_records(tmp_path) -> None:
    settings = ["-m", "attention=flash2,sdpa", "warmup.iterations=0", "measurement.iterations=1", "tracking=off"]
    done = run_bench(*settings, "fidelity.reference=none", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = run_bench(*settings, "sweep.dry_run=true", "sweep.name=again", folder=tmp_path).stdout.splitlines()
    (skipped,) = [line for line in planned if " flash2 " in line]
    assert "would be skipped: attention.implementation=flash_attention_2 cannot run here" in skipped
    assert planned[-1].startswith("2 jobs: 1 to run, 1 to be skipped, about 0:0")
    assert "(1 by records of the same setting)" in planned[-1]
    assert not (tmp_path / "multirun/again").exists()


def test_a_missing_package_is_reported_before_the_first_run(tmp_path) -> None:
    planned = run_bench("-m", "attention=flash2,sdpa", "sweep.dry_run=true", folder=tmp_path).stdout.splitlines()
    (skipped,) = [line for line in planned if " flash2 " in line]
    assert "would be skipped: attention.implementation=flash_attention_2 needs the package flash-attn" in skipped
    assert planned[-1] == "2 jobs: 1 to run, 1 to be skipped; no earlier record tells how long that takes"


def test_a_removed_start_folder_is_one_line(tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    typed = f"cd '{tmp_path}/gone' && rmdir '{tmp_path}/gone' && exec '{sys.executable}' -P -m bench tracking=off"
    done = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "bench: the current folder has been removed; start in another folder\n"
