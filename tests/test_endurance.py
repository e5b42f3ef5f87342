"""Test long sweeps of short jobs with a real MLflow database: leftovers of many jobs and losses after many kills."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

import faults
from bench.results.record import Record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """`python -m bench` with a folder for temporary files of its own; what it prints lands in `out`."""
    (folder / "tmp").mkdir(exist_ok=True)
    with (folder / "out").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments],
            cwd=folder,
            stdout=out,
            stderr=out,
            env=os.environ | {"TMPDIR": str(folder / "tmp")},
        )


def records(folder: Path) -> list[Record]:
    found = [Record.read(path) for path in folder.glob("multirun/long/*/record.json")]
    return sorted(found, key=lambda record: record.started_at_s)


def trials(folder: Path) -> list:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("bench")
    return client.search_runs([experiment.experiment_id], "tags.kind = 'trial'", max_results=5000)


def everything_running(folder: Path) -> list:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("bench")
    return client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")


@dataclass
class Look:
    jobs: int  # that had left a record
    rss_bytes: int
    descriptors: int
    threads: int
    processes: int
    cpu_s: float  # of the parent, since its start


def look(process: psutil.Process, folder: Path) -> Look | None:
    try:
        with process.oneshot():
            return Look(
                jobs=sum(1 for _ in folder.glob("multirun/long/*/record.json")),
                rss_bytes=process.memory_info().rss,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
                processes=len(process.children(recursive=True)),
                cpu_s=sum(process.cpu_times()[:2]),
            )
    except psutil.Error:
        return None


LONG = 100


def test_many_jobs_leave_no_files_and_their_cost_does_not_grow(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    shared_memory = set(Path("/dev/shm").iterdir())
    command = [
        "-m",
        *faults.arguments(model),
        f"model.seed=range({LONG})",
        "sweep.name=long",
        "fidelity.reference=none",
    ]
    sweep = start(tmp_path, *command)
    process, looks = psutil.Process(sweep.pid), []
    while sweep.poll() is None:
        looks += [seen] if (seen := look(process, tmp_path)) else []
        time.sleep(0.5)
    assert sweep.returncode == 0, (tmp_path / "out").read_text()[-3000:]
    found = records(tmp_path)
    assert [record.status for record in found] == ["ok"] * LONG
    assert len(trials(tmp_path)) == LONG

    early = [seen for seen in looks if 5 <= seen.jobs < 30]
    late = [seen for seen in looks if LONG - 30 <= seen.jobs < LONG]
    grown = statistics.median(seen.rss_bytes for seen in late) - statistics.median(seen.rss_bytes for seen in early)
    gaps = [after.started_at_s - before.started_at_s for before, after in itertools.pairwise(found)]
    first, last = cpu_s_a_job(looks, 5, 45), cpu_s_a_job(looks, LONG - 45, LONG - 5)
    print(f"parent RSS grew by {grown / 2**20:.1f} MiB to {late[-1].rss_bytes / 2**20:.0f} MiB; "
          f"CPU of the parent for a job: {first:.3f} s at the beginning, {last:.3f} s at the end; from start to start: "
          f"{statistics.median(gaps[:50]):.3f} s, {statistics.median(gaps[-50:]):.3f} s")  # fmt: skip
    assert grown < 30 << 20
    # The time of a job itself is constant; CPU time excludes the machine's other load.
    assert last < 1.3 * first
    for quantity in ("descriptors", "threads", "processes"):
        before, after = (statistics.median(getattr(seen, quantity) for seen in part) for part in (early, late))
        assert after <= before + 1, quantity
    # torch creates an empty folder of a fixed name there when it is imported.
    assert [path for path in (tmp_path / "tmp").rglob("*") if not path.name.startswith("torchinductor_")] == []
    assert set(Path("/dev/shm").iterdir()) <= shared_memory
    assert not [each for each in psutil.process_iter() if str(tmp_path) in " ".join(environment(each))]


def cpu_s_a_job(looks: list[Look], begin: int, end: int) -> float:
    """Return the parent's CPU time per job in the cheapest twenty in a row between these numbers of finished jobs.

    Other programs raise the CPU time only at times; a growing cost raises it in every twenty.
    """
    first = {}
    for seen in looks:
        if begin <= seen.jobs <= end:
            first.setdefault(seen.jobs, seen)
    spans = [(first[jobs], first[jobs + 20]) for jobs in first if jobs + 20 in first]
    return min(after.cpu_s - before.cpu_s for before, after in spans) / 20


def environment(process: psutil.Process) -> list[str]:
    try:
        return [process.environ().get("TMPDIR", "")]
    except psutil.Error:
        return []


JOBS = 20
KILLS = 6


def wait_at_random(chance: random.Random, sweep: subprocess.Popen, folder: Path) -> None:
    """Wait until a random time during the start or the jobs: a start takes many times as long as a job."""
    begin = time.time()
    if chance.random() < 0.4:
        time.sleep(chance.uniform(0.2, 8.0))
        return
    plan = folder / "multirun/long/sweep.json"
    while sweep.poll() is None and not (plan.exists() and plan.stat().st_mtime > begin and time.time() < begin + 120):
        time.sleep(0.05)
    wanted, deadline = len(records(folder)) + chance.randrange(5), time.time() + 60
    while sweep.poll() is None and len(records(folder)) < wanted and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(chance.uniform(0.0, 1.0))


def test_kills_of_the_parent_lose_and_duplicate_no_record(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    command = ["-m", *faults.arguments(model), f"model.seed=range({JOBS})", "sweep.name=long", "sweep.resume=true"]
    chance = random.Random(20261125)
    finished_at_kill, before = [], {}
    for _ in range(KILLS):
        sweep = start(tmp_path, *command)
        wait_at_random(chance, sweep, tmp_path)
        family = psutil.Process(sweep.pid).children(recursive=True) if sweep.poll() is None else []
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []
        found = {record.requested["model"]["seed"]: record for record in records(tmp_path) if record.status == "ok"}
        assert before.keys() <= found.keys()  # finished jobs stay finished and are not measured again
        assert all(found[seed].started_at_s == started for seed, started in before.items())
        before = {seed: record.started_at_s for seed, record in found.items()}
        finished_at_kill.append(len(before))
    assert len(set(finished_at_kill)) > 2  # kills happened during the jobs, not only during the starts
    last = start(tmp_path, *command)
    assert last.wait(600) == 0, (tmp_path / "out").read_text()[-3000:]
    print(f"finished at each kill: {finished_at_kill}")

    found = records(tmp_path)
    assert sorted(record.requested["model"]["seed"] for record in found) == list(range(JOBS))
    assert {record.status for record in found} == {"ok"}
    assert len({record.sweep_id for record in found}) == 1
    runs = {int(run.data.params["model.seed"]): run for run in trials(tmp_path)}
    assert len(trials(tmp_path)) == len(runs) == JOBS
    for record in found:
        run = runs[record.requested["model"]["seed"]]
        assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "ok")
        median_s = statistics.median(call.e2e_s for call in record.calls("measurement"))
        assert run.data.metrics["latency/e2e_median_s"] == pytest.approx(median_s)
    assert everything_running(tmp_path) == []
    assert all(json.loads(path.read_text())["published"] for path in tmp_path.glob("multirun/long/*/tracking.json"))
    assert not list((tmp_path / "tmp").glob("bench-compile-*"))
    assert "Traceback" not in (tmp_path / "out").read_text()
