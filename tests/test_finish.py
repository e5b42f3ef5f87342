"""Test the last lines of a sweep: records missing in MLflow, unverified keys and the answer."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import factories
from bench.jobs import job
from bench.orchestration import job_run
from bench.orchestration.sweep_end import Concluded, finish
from bench.orchestration.sweep_state import SweepState
from bench.results.record import Record, Steadiness, Unverified
from sweep_in_fork import SWEEP, measure_nothing, run

ALIKE = [each.replace("workload.batch_size", "warmup.iterations") for each in SWEEP]  # settings that do the same work


class Publisher:
    """A publisher that reports the given results."""

    def __init__(self, *, missing: int, is_ended: bool, is_concluded: bool) -> None:
        self.missing, self.is_ended, self.is_concluded = missing, is_ended, is_concluded

    def publish_missing(self, *_: Any) -> int:
        return self.missing

    def end_sweep(self, *_: Any, interrupted: bool) -> bool:
        return self.is_ended and not interrupted

    def conclude(self, *_: Any, **__: Any) -> bool:
        return self.is_concluded

    def ways_on(self, _: str) -> list[str]:
        return []


def said(folder: Path, publisher: Publisher) -> list[str]:
    console = Console(file=io.StringIO(), width=300)
    plan: Any = SimpleNamespace(jobs=[], sweep_id="s", settings=[], baseline=None)
    state: Any = SweepState(
        console=console,
        config=SimpleNamespace(),  # type: ignore[arg-type]
        folder=folder,
        found=SimpleNamespace(),  # type: ignore[arg-type]
        left=SimpleNamespace(plan=plan),  # type: ignore[arg-type]
        publisher=publisher,  # type: ignore[arg-type]
        is_local=True,
        destination=SimpleNamespace(),  # type: ignore[arg-type]
    )
    finish(state, "run", [], interrupted=False, conclude=lambda _: Concluded())
    return [line for line in console.file.getvalue().splitlines() if "bench.tracking.sync" in line]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("is_ended", "is_concluded"), [(False, True), (True, False)])
def test_an_incomplete_sweep_run_suggests_sync(tmp_path, is_ended: bool, is_concluded: bool) -> None:
    folder = tmp_path / "a place"
    (line,) = said(folder, Publisher(missing=0, is_ended=is_ended, is_concluded=is_concluded))
    assert line == f"the sweep's own run in MLflow is not complete; later: python -m bench.tracking.sync '{folder}'"


def test_missing_records_are_counted_in_one_line(tmp_path) -> None:
    (line,) = said(tmp_path, Publisher(missing=2, is_ended=False, is_concluded=False))
    assert line.startswith("2 records are not published; later: ")


def test_a_completely_published_sweep_prints_nothing(tmp_path) -> None:
    assert said(tmp_path, Publisher(missing=0, is_ended=True, is_concluded=True)) == []


def seen_in_part(*, keys: tuple[str, ...]) -> None:
    """From now on, in this process, built records have no evidence for these keys."""
    whole = factories.make_record

    def make_record(**changes: Any) -> Record:
        record = whole(**changes)
        assert record.observed is not None
        unverified = [Unverified(key=key, reason="the profiler cannot run: no CUPTI") for key in keys]
        return dataclasses.replace(record, observed=dataclasses.replace(record.observed, unverified=unverified))

    factories.make_record = make_record


def last_block(out: str) -> list[str]:
    """Return the text below the last empty line."""
    return out.rstrip("\n").rpartition("\n\n")[2].splitlines()


def answer(out: str) -> list[str]:
    """Return the lines between the last empty line and the links; fail if the block has any other line."""
    block = last_block(out)
    (first, *_) = [place for place, line in enumerate(block) if line.startswith((" Report: ", "Records: "))]
    links = (" Report: ", "Records: ", " Resume: ")
    assert [line for line in block[first:] if not line.startswith(links)] == []
    assert 1 <= first <= 3
    assert max(map(len, block[:first])) <= 100
    return block[:first]


def above_answer(out: str) -> str:
    """Return the line above the last empty line."""
    return out.rstrip("\n").rpartition("\n\n")[0].splitlines()[-1]


@pytest.mark.parametrize("sweep", [SWEEP, (*SWEEP, "hydra/sweeper=optuna", "search.trials=3")])
def test_a_sweep_names_unverified_keys_above_its_answer_and_ends_with_0(tmp_path, sweep: tuple[str, ...]) -> None:
    ended = run(tmp_path, *sweep, prepare=lambda: seen_in_part(keys=("attention.implementation", "compile.mode")))
    assert ended.status == 0, ended.out
    line = "3 settings unverified: attention.implementation, compile.mode: the profiler cannot run: no CUPTI"
    assert above_answer(ended.out) == line
    assert ended.out.count("  unverified  E2E") == 3


def test_a_single_run_names_unverified_keys_above_its_answer_and_ends_with_0(tmp_path) -> None:
    def prepare() -> None:
        seen_in_part(keys=("compile.mode",))
        job_run.make_ready = lambda *_: None  # without torch

    ended = run(tmp_path, "tracking=off", "fidelity.reference=none", prepare=prepare)
    assert ended.status == 0, ended.out
    assert above_answer(ended.out) == "1 setting unverified: compile.mode: the profiler cannot run: no CUPTI"
    assert answer(ended.out) == ["tiny: 948.0 ms a call, 5.274 tok/s"]


def test_a_fully_verified_sweep_ends_with_its_links(tmp_path) -> None:
    ended = run(tmp_path, *SWEEP)
    assert ended.out.splitlines()[-1].startswith("Records: ")


def unsteady() -> None:
    """From now on, in this process, the jobs are unsteady."""

    def measure(config: Any, record: Record, folder: Path, *others: Any) -> Record:
        measure_nothing(config, record, folder, *others)
        record.steadiness = Steadiness(steady=False, flags=["trend"], shape="slowdown", power="enough")
        record.write(folder)
        return record

    job.run_job = measure  # type: ignore[assignment]


def test_a_sweep_ends_with_its_answer_and_the_links(tmp_path) -> None:
    ended = run(tmp_path, *ALIKE)
    assert " ".join(answer(ended.out)).startswith("Lowest median, no verdict: ")
    assert "sweep.repeats=5" in " ".join(answer(ended.out))


def test_the_answer_equals_that_of_the_report(tmp_path) -> None:
    whole = run(tmp_path / "with", *ALIKE, with_report=True)
    without = run(tmp_path / "without", *ALIKE)
    assert answer(whole.out) == answer(without.out)
    assert " ".join(answer(whole.out)).split(".")[0] in (whole.folder / "report.md").read_text(encoding="utf-8")


def test_a_sweep_without_ranked_settings_ends_with_the_command_to_type(tmp_path) -> None:
    ended = run(tmp_path, *ALIKE, prepare=unsteady)
    text = " ".join(answer(ended.out))
    assert text.startswith("No setting can be called ")
    assert text.endswith("Run again with warmup=auto measurement=adaptive; a quieter machine helps more.")


def test_a_search_ends_with_its_best_setting(tmp_path) -> None:
    search = ("hydra/sweeper=optuna", "search.trials=3", "search.objectives=tok_per_s")
    ended = run(tmp_path, *SWEEP, *search)
    assert " ".join(answer(ended.out)).startswith("Best of 3 trials, tok_per_s maximized: batch_size=")


def test_a_search_without_ranked_trials_ends_with_the_command_to_type(tmp_path) -> None:
    ended = run(tmp_path, *SWEEP, "hydra/sweeper=optuna", "search.trials=3", prepare=unsteady)
    text = " ".join(answer(ended.out))
    assert text.startswith("No setting can be called best, e2e_ms minimized: none of 3 trials is ranked.")
    assert text.endswith("Search again with warmup=auto measurement=adaptive; a quieter machine helps more.")


def test_an_aa_sweep_ends_with_the_detectable_difference(tmp_path) -> None:
    ended = run(tmp_path, "-m", "experiment=aa", "sweep.name=s", "tracking=off", "fidelity.reference=none")
    assert " ".join(answer(ended.out)).startswith("On this machine, with 5 repeats, 80 % power needs a difference of ")


def test_a_sweep_of_failures_ends_with_an_answer_too(tmp_path) -> None:
    def fail() -> None:
        def raising(*_: Any, **__: Any) -> Record:
            raise RuntimeError("planted")

        job.run_job = raising

    ended = run(tmp_path, *SWEEP, prepare=fail)
    assert ended.status == 1
    assert " ".join(answer(ended.out)).startswith("No setting came through. 3 jobs: 3 failed.")


def test_an_interrupted_sweep_ends_with_an_answer_too(tmp_path) -> None:
    def interrupt() -> None:
        real, done = job.run_job, []

        def once(*arguments: Any, **keywords: Any) -> Record:
            if done:
                raise KeyboardInterrupt
            done.append(real(*arguments, **keywords))
            return done[0]

        job.run_job = once

    ended = run(tmp_path, *SWEEP, prepare=interrupt)
    assert ended.status == 130, ended.out
    assert " jobs left no record." in " ".join(answer(ended.out))
    assert last_block(ended.out)[-1].startswith(" Resume: ")
