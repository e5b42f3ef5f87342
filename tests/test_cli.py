"""Test the command line for users: refusals, output and exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from omegaconf.errors import ConfigAttributeError

import faults
from bench.cli.refusals.message import explain
from bench.orchestration.job_run import exit_status
from bench.results.record import Record
from conftest import run_bench
from factories import make_record


@pytest.mark.contract
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["warmup.itertions=3"], "warmup.itertions=3: no such key; did you mean warmup.iterations?"),
        (["warmup.iterations=-1"], "warmup.iterations=-1: must be at least 0"),
        (["workload.num_tokens_to_generate=1"], "workload.num_tokens_to_generate=1: must be at least 2"),
        (["warmup.iterations=abc"], "warmup.iterations=abc: must be a whole number"),
        (
            ["-m", "compile.mode=default,fast"],
            "compile.mode=fast: allowed: null, default, reduce-overhead, max-autotune, max-autotune-no-cudagraphs",
        ),
        (["-m", "compile=off,defalt"], "compile=defalt: no such choice; allowed: default, max-autotune, "
         "max-autotune-no-cudagraphs, off, reduce-overhead; did you mean default?"),
        (
            ["attention=eager", "attention.sdpa_backend=math"],
            "attention.sdpa_backend=math: needs attention.implementation=sdpa (it is eager); or leave it null",
        ),
        (["-m", "model.id=null,x"], "model.id=null: name a model: a group (model=tiny), a hub id or a folder"),
    ],
)  # fmt: skip
def test_a_refused_config_is_one_line_and_starts_nothing(tmp_path, arguments: list[str], line: str) -> None:
    done = run_bench(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"bench: {line}\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract
def test_options_of_the_compiler_need_no_plus(tmp_path) -> None:
    done = run_bench("--cfg", "job", "compile.mode=default", "compile.options.triton.cudagraphs=true", folder=tmp_path)
    assert "triton:\n      cudagraphs: true" in done.stdout


@pytest.mark.contract
def test_a_dry_run_prints_every_job_and_runs_none(tmp_path) -> None:
    done = run_bench(
        "-m", "attention=eager,sdpa", "compile=off,default", "sweep.dry_run=true", "sweep.repeats=2", folder=tmp_path
    )
    assert done.returncode == 0
    for name in ("eager off", "eager default", "sdpa off", "sdpa default"):
        assert done.stdout.count(name) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract
def test_a_name_in_use_is_refused(tmp_path) -> None:
    (tmp_path / "multirun/mine").mkdir(parents=True)
    (tmp_path / "multirun/mine/sweep.json").write_text("{}", encoding="utf-8")
    done = run_bench("-m", "attention=eager,sdpa", "sweep.name=mine", "tracking=off", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: sweep.name=mine: ")
    assert (tmp_path / "multirun/mine/sweep.json").read_text(encoding="utf-8") == "{}"


def test_a_single_run_ends_with_its_record_and_status(tmp_path) -> None:
    done = run_bench("tracking=off", "warmup.iterations=1", "measurement.iterations=2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "outputs").glob("*/record.json")
    record = Record.read(path)
    assert (record.status, record.sweep_id, record.repeat) == ("ok", None, 1)
    assert "\x1b" not in done.stdout + done.stderr
    assert (path.parent / ".hydra/config.yaml").is_file()
    assert (path.parent / "worker.log").is_file()


def test_a_failing_job_does_not_end_the_sweep_and_fails_it(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    faults.plant(model, {2: ("plain_exception", 1)})
    done = run_bench(
        "-m",
        *faults.arguments(model),
        "workload.batch_size=1,2",
        "sweep.repeats=2",
        "sweep.name=mixed",
        "tracking=off",
        folder=tmp_path,
    )
    assert done.returncode == 1
    records = [Record.read(path) for path in sorted((tmp_path / "multirun/mixed").glob("*/record.json"))]
    assert sorted(record.status for record in records) == ["failed", "failed", "ok", "ok"]
    assert sorted(record.repeat for record in records) == [1, 1, 2, 2]
    plan = json.loads((tmp_path / "multirun/mixed/sweep.json").read_text(encoding="utf-8"))
    assert {record.sweep_id for record in records} == {plan["sweep_id"]}
    assert "planted failure" in done.stdout


@pytest.mark.contract
@pytest.mark.parametrize(
    ("statuses", "expected"),
    [(["ok", "ok"], 0), (["ok", "skipped"], 0), (["ok", "failed"], 1), (["timeout"], 1), (["interrupted"], 1)],
)
def test_the_exit_status_is_that_of_the_worst_job(statuses: list[str], expected: int) -> None:
    assert exit_status([make_record(status=status) for status in statuses]) == expected


def test_an_unknown_key_is_shown_with_the_typed_value(monkeypatch) -> None:
    monkeypatch.setattr("bench.cli.composition.yaml_files._loaded", {})  # by earlier tests
    error = ConfigAttributeError("nope")
    error.full_key = "monitor.intervall_s"
    assert explain(error, ["monitor.intervall_s=2"]) == (
        "monitor.intervall_s=2: no such key; did you mean monitor.interval_s?"
    )


@pytest.mark.contract
def test_a_model_id_for_the_small_random_model_is_refused(tmp_path) -> None:
    done = run_bench("model.id=org/real-model", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: model.id=org/real-model: is only a label here")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_hold_a_reference_loses_no_measurement(tmp_path) -> None:
    (tmp_path / "multirun" / "guarded").mkdir(parents=True)
    (tmp_path / "multirun" / "guarded" / "references").write_text("in the way")
    few = ["warmup.iterations=0", "measurement.iterations=1", "tracking=off", "sweep.name=guarded"]
    done = run_bench("-m", "attention=eager,sdpa", *few, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "output not compared: no reference could be kept" in " ".join(done.stdout.split())


@pytest.mark.contract
@pytest.mark.parametrize("flag", ["--help", "--keys"])
def test_a_closed_output_pipe_is_no_error(tmp_path, flag: str) -> None:
    command = f"'{sys.executable}' -m bench {flag} | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


# Otherwise Python spends most of a second on a useless garbage collection of all imported modules.
END = """
import atexit, gc, sys
atexit.register(lambda: print("frozen:", gc.get_freeze_count() > 10_000))
sys.argv = ["bench", "--cfg", "job"]
from bench.__main__ import main
main()
"""


@pytest.mark.contract
def test_the_end_of_the_command_runs_no_garbage_collection(tmp_path) -> None:
    done = subprocess.run([sys.executable, "-c", END], cwd=tmp_path, capture_output=True, text=True, timeout=60)  # noqa: PLW1510
    assert done.stdout.endswith("frozen: True\n"), done.stderr
