"""Ctrl-C, SIGTERM and SIGHUP between the last job and the end of the command: status 130, and the way to go on."""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sweep_in_fork import SWEEP, Ended, run

STEPS = {
    "the records are read": "bench.orchestration.sweep:records_of",
    "what is missing is published": "bench.orchestration.job_run:Fake.publish_missing",
    "the sweep's run is ended": "bench.orchestration.job_run:Fake.end_sweep",
    "the table is printed": "bench.report.terminal.results_table:print_table",
    "the comparison is made": "bench.orchestration.sweep_end:_compare",
    "the comparison is printed": "bench.report.terminal.comparison_text:print_comparison",
    "the report is built": "bench.report.page.write:build",
    "the report is written": "bench.report.page.write:write",
    "the results are published": "bench.orchestration.job_run:Fake.conclude",
    "the ways on are printed": "bench.orchestration.sweep_end:print_links",
    "the status is found": "bench.orchestration.sweep:exit_status",
}


class Fake:
    """A publisher that writes the state of the sweep's run to a file."""

    unpublished = address = experiment = experiment_id = artifact_location = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: None

    def publish_missing(self, *_: Any) -> int:
        return 0

    def ways_on(self, _: str | None) -> list[str]:
        return []

    def conclude(self, *_: Any, **__: Any) -> bool:
        return True

    def end_sweep(self, run_id: str | None, records: list[Any], *, interrupted: bool) -> bool:
        Path("ended.json").write_text(json.dumps({"records": len(records), "interrupted": interrupted}))
        return True


def interrupt_in(where: str, number: int = signal.SIGINT, *, after: bool = False) -> Callable[[], None]:
    """Send a signal to the command as it enters a function, once; or as it leaves it."""
    module_name, _, path = where.partition(":")

    def plant() -> None:
        from bench.orchestration import job_run, sweep

        job_run.Fake = Fake  # type: ignore[attr-defined]
        fake = Fake()
        sweep.make_ready = job_run.open_publisher = lambda *_, **__: fake  # type: ignore[assignment]
        owner: Any = importlib.import_module(module_name)
        *parents, name = path.split(".")
        for each in parents:
            owner = getattr(owner, each)
        real, sent = getattr(owner, name), []

        def planted(*arguments: Any, **keywords: Any) -> Any:
            result = real(*arguments, **keywords) if after else None
            if not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            return result if after else real(*arguments, **keywords)

        setattr(owner, name, planted)

    return plant


def assert_is_interrupted(ended: Ended) -> None:
    assert ended.status == 130, ended.out
    assert ended.statuses() == {1: "ok", 2: "ok", 3: "ok"}
    assert ended.out.count(" Resume: python -m bench -m ") == 1, ended.out
    assert "\nsetting  " in ended.out
    assert "Traceback" not in ended.out
    assert json.loads((ended.folder.parents[1] / "ended.json").read_text())["records"] == 3


REPEATED = [each for each in SWEEP if "batch_size" not in each]
REPEATED += ["workload.batch_size=1", "sweep.repeats=3"]


@pytest.mark.parametrize("step", [each for each in STEPS if each != "the comparison is printed"])
def test_ctrl_c_at_any_step_of_the_end_is_status_130_with_the_way_to_go_on(tmp_path, step: str) -> None:
    assert_is_interrupted(run(tmp_path, *SWEEP, prepare=interrupt_in(STEPS[step])))


def test_ctrl_c_while_the_comparison_is_printed_ends_the_same_way(tmp_path) -> None:
    ended = run(tmp_path, *REPEATED, prepare=interrupt_in(STEPS["the comparison is printed"]))
    assert (ended.status, "Traceback" in ended.out) == (130, False)
    assert "not compared: interrupted" in ended.out
    assert "the report is not written: interrupted; later: python -m bench.report multirun/s" in ended.out
    assert " Resume: " in ended.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_the_same_way(tmp_path, number: int) -> None:
    assert_is_interrupted(run(tmp_path, *SWEEP, prepare=interrupt_in(STEPS["the report is written"], number)))


def test_a_signal_after_the_last_job_ends_the_same_way(tmp_path) -> None:
    planted = interrupt_in("bench.jobs.launcher_return:Returned.deliver", after=True)

    def plant() -> None:
        from bench.jobs.launcher_return import Returned

        real, taken = Returned.deliver, []
        planted()
        sending = Returned.deliver

        def deliver(self: Any, folder: Path) -> None:
            taken.append(folder)
            (sending if len(taken) == 3 else real)(self, folder)

        Returned.deliver = deliver  # type: ignore[method-assign]

    assert_is_interrupted(run(tmp_path, *SWEEP, prepare=plant))


@pytest.mark.slow
def test_an_interrupted_end_does_not_leave_the_sweeps_run_running(tmp_path) -> None:
    def plant() -> None:
        from bench.orchestration import job_run, sweep
        from bench.tracking import publisher

        sweep.make_ready = lambda configs, console, destination, *_: job_run.open_publisher(
            configs[0], console, destination
        )
        real = publisher.Publisher.end_sweep

        def end_sweep(self: Any, *arguments: Any, **keywords: Any) -> bool:
            if not hasattr(self, "sent"):
                self.sent = True
                os.kill(os.getpid(), signal.SIGINT)
            return real(self, *arguments, **keywords)

        publisher.Publisher.end_sweep = end_sweep  # type: ignore[method-assign]

    typed = [each for each in SWEEP if each != "tracking=off"]
    ended = run(tmp_path, *typed, prepare=plant)
    assert (ended.status, " Resume: " in ended.out) == (130, True), ended.out
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    (sweep,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
    assert sweep.info.status != "RUNNING"
