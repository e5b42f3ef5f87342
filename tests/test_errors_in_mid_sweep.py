"""Test that an error in starting, running or showing a job fails at most that job; only a full disk ends a sweep."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, SweepConfig, TrackingConfig
from bench.jobs.launcher_return import Returned
from bench.jobs.planning.plan import Plan, Point
from bench.orchestration.sweep import sweep
from bench.results.record import Record
from bench.tracking.publisher import Publisher
from factories import make_record
from hydra_plugins.bench_launchers import slurm
from hydra_plugins.bench_launchers.slurm import reason_of
from sweep_in_fork import SWEEP, Ended, run


def os_error(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


ERRORS: dict[str, Exception] = {
    **{name: os_error(getattr(errno, name)) for name in ("EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "EIO", "EPIPE")},
    **{name: os_error(getattr(errno, name)) for name in ("ECONNRESET", "ECONNREFUSED", "ESTALE", "ETIMEDOUT")},
    "EACCES": os_error(errno.EACCES, "a/file"),
    "ENOENT": os_error(errno.ENOENT, "a/file"),
    "EOFError": EOFError(),
    "no thread": RuntimeError("can't start new thread"),
    "MemoryError": MemoryError(),
    "ConfigError": ConfigError("workload.prompt_file", "a/file", "no such file"),
}


def second_call(where: str, error: Exception, nth: int = 2, *, after: bool = False) -> Callable[[], None]:
    """Let the n-th call of a function raise, before it does anything or once it has done all."""
    module_name, _, path = where.partition(":")

    def plant() -> None:
        owner: Any = importlib.import_module(module_name)
        *parents, name = path.split(".")
        for each in parents:
            owner = getattr(owner, each)
        real, calls = getattr(owner, name), []

        def planted(*arguments: Any, **keywords: Any) -> Any:
            calls.append(name)
            result = real(*arguments, **keywords) if after or len(calls) != nth else None
            if len(calls) == nth:
                raise error
            return result

        setattr(owner, name, planted)

    return plant


# A step of a job's way → what is called there, and in which call it is the second job's.
COSTS_THE_JOB = {
    "its config is composed": ("hydra_plugins.bench_sweeper.bench_sweeper:JobLoader.load_sweep_config", 2),
    "its folder is made": ("hydra.core.utils:_save_config", 4),  # three files a job
    "its config is checked": (
        "bench.cli.composition.checked_config:to_config",
        5,
    ),  # three were checked before the first job
    "it is given its assignment": ("bench.jobs.assignment:Assignment.from_text", 2),
    "its trial id is made": ("bench.orchestration.job_run:run_sweep_job", 2),
    "it waits for its turn": ("bench.jobs.process.neighbours:among_neighbours", 2),
    "its line is opened": ("bench.report.terminal.progress:JobProgress.__enter__", 2),
    "its disk space is set aside": ("bench.jobs.folders.scratch:_take_space", 2),
    "its process is started": ("bench.jobs.job:run_job", 2),
}
COSTS_NOTHING = {
    "its reference is looked for": ("bench.jobs.reference:ensure_reference", 2),
    "its time is foreseen": ("bench.jobs.planning.history:history_of", 1),
    "its line is printed": ("bench.report.terminal.progress:print_job_line", 2),
    "its files are delivered": ("bench.jobs.launcher_return:Returned.deliver", 2),
    "the log is set up for the next": ("hydra._internal.core_plugins.basic_launcher:configure_log", 4),
}


def assert_ends_in_full(ended: Ended, statuses: dict[int, str]) -> None:
    assert ended.statuses() == statuses, ended.out
    assert "Traceback" not in ended.out
    assert (ended.folder / "report.html").exists()
    assert "\nsetting  " in ended.out
    is_well = set(statuses.values()) == {"ok"} and len(statuses) == 3
    assert ended.status == (0 if is_well else 1)
    assert (" Resume: python -m bench -m " in ended.out) is not is_well


@pytest.mark.parametrize("error", list(ERRORS))
def test_an_error_at_the_start_of_a_job_fails_it_and_is_in_its_record(tmp_path, error: str) -> None:
    planted = second_call("bench.jobs.job:run_job", ERRORS[error])
    ended = run(tmp_path, *SWEEP, prepare=planted)
    assert_ends_in_full(ended, {1: "ok", 2: "failed", 3: "ok"})
    record = ended.records()[2]
    assert (record.stage, record.error.type) == ("start", type(ERRORS[error]).__name__)
    assert "\n" not in record.error.message
    if error not in ("EIO", "ESTALE", "ETIMEDOUT"):  # no remedy is known
        assert "; " in record.error.message or isinstance(ERRORS[error], ConfigError)
    assert f"2/3  failed   batch_size=2              in start: {record.error.type}: " in ended.out


@pytest.mark.parametrize("step", list(COSTS_THE_JOB))
def test_an_error_at_any_step_before_the_measurement_fails_only_the_job(tmp_path, step: str) -> None:
    where, nth = COSTS_THE_JOB[step]
    ended = run(tmp_path, *SWEEP, prepare=second_call(where, ERRORS["EMFILE"], nth))
    assert_ends_in_full(ended, {1: "ok", 2: "failed", 3: "ok"})
    assert "ulimit -n" in ended.records()[2].error.message


@pytest.mark.parametrize("step", list(COSTS_NOTHING))
def test_an_error_outside_the_measurement_fails_no_job(tmp_path, step: str) -> None:
    where, nth = COSTS_NOTHING[step]
    typed = [each.replace("reference=none", "reference=eager") for each in SWEEP]
    ended = run(tmp_path, *typed, prepare=second_call(where, ERRORS["EMFILE"], nth))
    assert_ends_in_full(ended, {1: "ok", 2: "ok", 3: "ok"})


def test_an_error_after_a_jobs_record_fails_no_job(tmp_path) -> None:
    planted = second_call("bench.jobs.job:run_job", ERRORS["EAGAIN"], after=True)
    ended = run(tmp_path, *SWEEP, prepare=planted, with_report=True)
    assert_ends_in_full(ended, {1: "ok", 2: "ok", 3: "ok"})
    assert (ended.folder / "report.md").exists()


def test_a_job_without_a_record_gives_status_1(tmp_path) -> None:
    def plant() -> None:
        second_call("bench.jobs.job:run_job", ERRORS["EMFILE"])()
        second_call("bench.orchestration.sweep:write_unstarted", ERRORS["EMFILE"], 1)()

    ended = run(tmp_path, *SWEEP, prepare=plant)
    assert_ends_in_full(ended, {1: "ok", 3: "ok"})
    assert "job 1: its record is not written: Too many open files" in ended.out
    assert "1 of 3 jobs left no record" in ended.out


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_the_sweep(tmp_path, number: int) -> None:
    ended = run(tmp_path, *SWEEP, prepare=second_call("bench.jobs.job:run_job", os_error(number)))
    assert_ends_in_full(ended, {1: "ok"})
    assert f"Stopped: {os.strerror(number)}: no further job could keep its result" in ended.out


def test_removing_a_prompt_file_fails_only_the_jobs_without_it(tmp_path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Once upon a time", encoding="utf-8")

    def plant() -> None:
        from bench.jobs import job

        real = job.run_job

        def measure(config: Any, record: Any, *rest: Any) -> Any:
            done = real(config, record, *rest)
            prompt.unlink()
            if record.requested["workload"]["batch_size"] == 2:
                prompt.write_text("Once upon a time", encoding="utf-8")
            return done

        job.run_job = measure

    typed = (*SWEEP, f"workload.prompt_file={prompt}")
    ended = run(tmp_path, *typed, prepare=plant)
    assert_ends_in_full(ended, {1: "ok", 2: "failed", 3: "failed"})
    assert (
        ended.records()[2].error.message
        == f"workload.prompt_file={prompt}: no such file; name one that exists, or null"
    )

    prompt.write_text("Once upon a time", encoding="utf-8")
    assert_ends_in_full(run(tmp_path, *typed, "sweep.resume=true"), {1: "ok", 2: "ok", 3: "ok"})


def test_a_closed_output_pipe_ends_no_sweep(tmp_path) -> None:
    def plant() -> None:
        reads, writes = os.pipe()
        os.dup2(writes, 1)
        os.close(reads)
        os.close(writes)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)

    ended = run(tmp_path, *SWEEP, prepare=plant)
    assert ended.statuses() == {1: "ok", 2: "ok", 3: "ok"}
    assert (ended.status, "Traceback" in ended.out) == (0, False)


# ---- an engine -----------------------------------------------------------------------------------------------------


def conduct(folder: Path, launch: Any) -> int:
    """Run a sweep of three jobs under an engine."""
    config = {"sweep": SweepConfig(name="s"), "tracking": TrackingConfig(enabled=False)}
    points = [
        Point(
            overrides=(f"workload.batch_size={size}",),
            swept={"workload.batch_size": str(size)},
            config=BenchmarkConfig(batch_size=size, **config),
        )
        for size in (1, 2, 3)
    ]
    return sweep(points, folder=folder, launch=launch, is_local=False)


@pytest.mark.parametrize("error", ["EAGAIN", "ECONNRESET", "no thread", "ConfigError"])
def test_an_engine_failure_after_one_job_fails_only_the_others(tmp_path, capsys, error: str) -> None:
    def launch(plan: Plan, assignments: Any, on_return: Any) -> None:
        first = plan.jobs[0]
        record = make_record(trial_id=first.trial_id, name=first.name, requested=plan.points[0].config.to_dict())
        record.write(make(tmp_path / first.folder))
        on_return(first.number, Returned(status="ok"))
        raise ERRORS[error]

    assert conduct(tmp_path, launch) == 1
    statuses = sorted(Record.read(path).status for path in tmp_path.glob("*/record.json"))
    assert statuses == ["failed", "failed", "ok"]
    said = capsys.readouterr().out
    assert " Resume: " in said
    assert "Traceback" not in said


def test_an_engine_that_refuses_all_jobs_is_a_refusal(tmp_path) -> None:
    def launch(*_: Any) -> None:
        raise ConfigError("hydra.launcher", "submitit", "the jobs were refused: no such partition")

    with pytest.raises(ConfigError, match="no such partition"):
        conduct(tmp_path, launch)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN])
def test_an_error_on_one_node_fails_only_its_job(tmp_path, number: int) -> None:
    def launch(plan: Plan, assignments: Any, on_return: Any) -> None:
        for job in plan.jobs:
            on_return(job.number, os_error(number))

    assert conduct(tmp_path, launch) == 1
    assert [Record.read(path).status for path in tmp_path.glob("*/record.json")] == ["failed"] * 3


def test_a_batch_that_slurm_refuses_fails_only_its_jobs(tmp_path, monkeypatch) -> None:
    class Launcher(slurm.LocalLauncher):
        def _executor(self) -> None:
            return None

        def _wait(self, waiting: dict[int, Any], keep: Any, until: float = 0.0) -> None:
            for index in list(waiting):
                keep(index, waiting.pop(index))

    def submit(executor: None, job: Any, overrides: list[list[str]], numbers: list[int]) -> list[Any]:
        if 2 in numbers:
            raise ERRORS["EAGAIN"]
        done = slurm.lost(RuntimeError("ran"))
        done.job_id = str(numbers[0])
        return [done]

    monkeypatch.setattr(slurm, "_submit", submit)
    monkeypatch.setattr(slurm, "LARGEST_ARRAY", 1)
    launcher = Launcher()
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    kept = {}
    launcher.run_all(None, [["a"], ["b"], ["c"]], 1, lambda index, result: kept.update({index: result._return_value}))
    assert {index: type(each).__name__ for index, each in kept.items()} == {
        0: "RuntimeError", 1: "BlockingIOError", 2: "RuntimeError",
    }  # fmt: skip


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


# ---- references ----------------------------------------------------------------------------------------------------


def test_a_reference_run_gets_no_run_in_mlflow_and_no_row(tmp_path) -> None:
    typed = [each.replace("reference=none", "reference=eager") for each in SWEEP if each != "tracking=off"]
    ended = run(tmp_path, *typed)
    references = list(ended.folder.glob("references/*/record.json"))
    assert {Record.read(each).kind for each in references} == {"reference"}
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(each.data.tags["kind"] for each in runs) == ["sweep", "trial", "trial", "trial"]
    assert not any((each.parent / "tracking.json").exists() for each in references)
    again = Publisher(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="bench", tags={}, folder=tmp_path, warn=print)
    assert again.publish_missing([each.parent for each in references], None) == 0
    assert len(client.search_runs([experiment.experiment_id])) == 4


def test_an_exception_in_a_job_is_reported_by_the_last_traceback_line() -> None:
    text = (
        "Job (task=0) failed during processing with trace:\n----------------------\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\nValueError: no such thing\n\n----------------------\n'
        "You can check full logs with 'job.stderr(0)' and 'job.stdout(0)'or at paths:\n  - /a/0_log.err\n  - /a/0_log.out"
    )
    assert reason_of(RuntimeError(text)) == "ValueError: no such thing"
    assert reason_of(RuntimeError()) == "RuntimeError"
