"""What the end of a sweep says of what MLflow lacks."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import factories
from bench.conductor import jobs
from bench.conductor.course import Course
from bench.conductor.finish import finish
from bench.record import Record, Unverified
from sweep_in_fork import SWEEP, run


class Publisher:
    """Reports what it was told to."""

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
    course: Any = Course(
        console=console,
        config=SimpleNamespace(),  # type: ignore[arg-type]
        folder=folder,
        found=SimpleNamespace(),  # type: ignore[arg-type]
        left=SimpleNamespace(plan=plan),  # type: ignore[arg-type]
        publisher=publisher,  # type: ignore[arg-type]
        is_local=True,
        destination=SimpleNamespace(),  # type: ignore[arg-type]
    )
    finish(course, "run", [], interrupted=False, conclude=lambda _: ([], []))
    return [line for line in console.file.getvalue().splitlines() if "bench.tracking.sync" in line]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("is_ended", "is_concluded"), [(False, True), (True, False)])
def test_a_sweeps_run_that_is_not_complete_leads_to_sync(tmp_path, is_ended: bool, is_concluded: bool) -> None:
    folder = tmp_path / "a place"
    (line,) = said(folder, Publisher(missing=0, is_ended=is_ended, is_concluded=is_concluded))
    assert line == f"the sweep's own run in MLflow is not complete; later: python -m bench.tracking.sync '{folder}'"


def test_records_that_are_missing_are_counted_in_one_line(tmp_path) -> None:
    (line,) = said(tmp_path, Publisher(missing=2, is_ended=False, is_concluded=False))
    assert line.startswith("2 records are not published; later: ")


def test_a_sweep_that_is_all_there_says_nothing(tmp_path) -> None:
    assert said(tmp_path, Publisher(missing=0, is_ended=True, is_concluded=True)) == []


def seen_in_part(*, keys: tuple[str, ...]) -> None:
    """From here on, in this process, made records say that nothing shows whether these keys were honoured."""
    whole = factories.make_record

    def make_record(**changes: Any) -> Record:
        record = whole(**changes)
        assert record.observed is not None
        unverified = [Unverified(key=key, reason="the profiler cannot run: no CUPTI") for key in keys]
        return dataclasses.replace(record, observed=dataclasses.replace(record.observed, unverified=unverified))

    factories.make_record = make_record


@pytest.mark.parametrize("sweep", [SWEEP, (*SWEEP, "hydra/sweeper=optuna", "search.trials=3")])
def test_a_sweep_says_in_its_last_line_what_is_unverified_and_ends_well(tmp_path, sweep: tuple[str, ...]) -> None:
    ended = run(tmp_path, *sweep, prepare=lambda: seen_in_part(keys=("attention.implementation", "compile.mode")))
    assert ended.status == 0, ended.out
    line = "3 settings unverified: attention.implementation, compile.mode: the profiler cannot run: no CUPTI"
    assert ended.out.splitlines()[-1] == line
    assert ended.out.count("  unverified  E2E") == 3


def test_a_single_run_says_in_its_last_line_what_is_unverified_and_ends_well(tmp_path) -> None:
    def prepare() -> None:
        seen_in_part(keys=("compile.mode",))
        jobs.make_ready = lambda *_: None  # without torch

    ended = run(tmp_path, "tracking=off", "fidelity.reference=none", prepare=prepare)
    assert ended.status == 0, ended.out
    assert ended.out.splitlines()[-1] == "1 setting unverified: compile.mode: the profiler cannot run: no CUPTI"


def test_a_sweep_whose_evidence_saw_all_ends_with_the_ways_on(tmp_path) -> None:
    ended = run(tmp_path, *SWEEP)
    assert ended.out.splitlines()[-1].startswith("Records: ")
