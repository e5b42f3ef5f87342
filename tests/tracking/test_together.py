"""Several sweeps on one database that none of them finds there."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from bench.tracking import publisher as publisher_module
from bench.tracking.publisher import Publisher
from bench.tracking.store.opening import open_store
from factories import MEDIAN_E2E_S, STARTED_AT_S, make_record

# Forked, so that MLflow's import, seconds long, neither costs time nor keeps the processes apart.
FORK = multiprocessing.get_context("fork")
PROCESSES = 4
RECORDS = 5

_start: Barrier


def remember(barrier: Barrier) -> None:
    global _start  # noqa: PLW0603
    _start = barrier


def sweep(start: Path, number: int) -> tuple[int, list[str]]:
    """A sweep of several jobs, each in a folder of its own; returns how many are missing, and what was said."""
    warnings: list[str] = []
    folder = start / "multirun" / f"sweep-{number}"
    with (start / f"said-{number}").open("w") as said:
        sys.stdout = sys.stderr = said
        _start.wait(60)
        publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=warnings.append)
        names = {"name": "night", "swept": {}, "settings": [], "baseline": None}
        run_id = publisher.begin_sweep(sweep_id=f"sweep-{number}", **names)
        records, folders = [], []
        for repeat in range(1, RECORDS + 1):
            job = folder / str(repeat)
            job.mkdir(parents=True)
            record = make_record(sweep_id=f"sweep-{number}", repeat=repeat, started_at_s=STARTED_AT_S + repeat)
            record.write(job)
            publisher.publish(record, job, run_id)
            records.append(record)
            folders.append(job)
        missing = publisher.publish_missing(folders, run_id)
        publisher.end_sweep(run_id, records, interrupted=False)
    return missing, warnings


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, list[str]]]]:
    start = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patched:  # what the processes inherit
        patched.setattr(publisher_module, "OPEN_S", 120.0)
        patched.setattr(publisher_module, "JOB_S", 60.0)
        return start, run_all(start)


def run_all(start: Path) -> list[tuple[int, list[str]]]:
    """What came of each process."""
    barrier = FORK.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=FORK, initializer=remember, initargs=(barrier,)) as pool:
        futures = [pool.submit(sweep, start, number) for number in range(PROCESSES)]
        return [each.result(timeout=300) for each in futures]


def test_four_sweeps_that_start_at_once_lose_nothing(together):
    start, outcomes = together
    assert [missing for missing, _ in outcomes] == [0] * PROCESSES, outcomes
    store = open_store(None, "bench", start)
    trials = store.find_runs(kind="trial")
    found = sorted((run.data.tags["sweep_id"], run.data.tags["repeat"]) for run in trials)
    assert found == sorted((f"sweep-{number}", str(repeat)) for number in range(4) for repeat in range(1, RECORDS + 1))
    assert [run.data.metrics["e2e_ms"] for run in trials] == pytest.approx([MEDIAN_E2E_S * 1000] * len(trials))
    assert store.running() == []


def test_each_of_them_has_one_run_that_holds_its_trials(together):
    store = open_store(None, "bench", together[0])
    parents = {run.data.tags["sweep_id"]: run.info for run in store.find_runs(kind="sweep")}
    assert len(parents) == len(store.find_runs(kind="sweep")) == PROCESSES
    assert {each.status for each in parents.values()} == {"FINISHED"}
    for run in store.find_runs(kind="trial"):
        assert run.data.tags["mlflow.parentRunId"] == parents[run.data.tags["sweep_id"]].run_id


def test_mlflow_says_nothing_meanwhile(together):
    start, _ = together
    assert [(start / f"said-{number}").read_text() for number in range(PROCESSES)] == [""] * PROCESSES
