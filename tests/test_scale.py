"""Test ten thousand jobs: planned within a minute and a gigabyte, and found again when the sweep is resumed.

The minute is one of the process's own time (user and system), which does not depend on what else the machine does.
How long each stage takes: scripts/plan-scale.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.schema import SweepConfig
from bench.jobs.planning.plan import Plan, Point, make_plan
from bench.jobs.planning.resume import look, resume
from bench.results.file_names import RECORD_NAME
from bench.results.sweep_file import SweepFile
from factories import make_iterations, make_record

MOST_CPU_S, MOST_BYTES = 60, 10**9
TIMEOUT_S = 800  # of the clock on the wall: the promise by thirteen, for tests run side by side on few cores
FINGERPRINT = {"torch": "2.13.0"}
GROUPS = ("attention", "compile", "workload", "warmup", "measurement", "model")


# Runs the given command and adds a line: processor time (s) and peak memory (KiB). It is a separate process because a
# child's peak starts at that of its parent, and a test process holds torch and much else.
ASK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss, flush=True)
sys.exit(status)
"""


def planned(folder: Path, *overrides: str) -> tuple[list[str], float, int]:
    """Return the lines of a user's dry run, its processor time in seconds and its peak memory in bytes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "MLFLOW_"))}
    always = ["-m", "sweep.dry_run=true", "sweep.max_jobs=20000", "tracking=off"]
    output, errors = folder / "output", folder / "errors"
    with output.open("w") as out, errors.open("w") as err:
        command = [sys.executable, "-c", ASK, sys.executable, "-m", "bench", *always, *overrides]
        child = subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=err, check=False)
    assert child.returncode == 0, errors.read_text(encoding="utf-8")
    *lines, usage = output.read_text(encoding="utf-8").splitlines()
    cpu_s, peak_kib = usage.split()
    return lines, float(cpu_s), int(peak_kib) * 1024


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_ten_thousand_values_are_planned_in_a_minute_and_a_gigabyte(tmp_path) -> None:
    sizes = ",".join([*map(str, range(1, 101)), "'1'"])  # the last one is the first once more
    lines, cpu_s, peak = planned(tmp_path, f"workload.batch_size={sizes}", "workload.sequence_length=range(1,101)")
    assert lines[0] == "100 of 10100 points repeat another and are left out"
    assert lines[-1] == "10000 jobs: 10000 to run; no earlier record tells how long that takes"
    assert len({line.split()[-1] for line in lines[2:-1]}) == 10_000
    assert cpu_s < MOST_CPU_S
    assert peak < MOST_BYTES


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_ten_thousand_combinations_of_groups_are_no_slower(tmp_path) -> None:
    lines, cpu_s, peak = planned(
        tmp_path, *(f"{each}=glob(*)" for each in GROUPS), "workload.batch_size=range(1,9)", "sweep.order=given"
    )
    assert lines[-1].startswith("9600 jobs: ")
    assert cpu_s < MOST_CPU_S
    assert peak < MOST_BYTES


def points(tiny, number: int) -> list[Point]:
    """Build this many settings with the same config and different ids."""
    config = tiny()
    return [
        Point(overrides=(), swept={"model.seed": str(each)}, config=_Numbered(config, f"{each:016x}"))
        for each in range(number)
    ]


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """A config with its own id; the test above builds ten thousand complete ones."""

    config: object
    id: str

    def trial_id(self) -> str:
        return self.id

    @property
    def sweep(self) -> SweepConfig:
        return SweepConfig()

    def __getattr__(self, name: str) -> object:
        return getattr(self.config, name)


def whole_plan(tiny, number: int) -> Plan:
    return make_plan(points(tiny, number), SweepConfig(max_jobs=number), "big-1")


def test_the_values_of_ten_thousand_jobs_are_listed_once_and_in_order(tiny) -> None:
    plan = whole_plan(tiny, 10_000)
    assert plan.swept() == {"model.seed": [job.swept["model.seed"] for job in plan.jobs]}


@pytest.mark.slow
def test_ten_thousand_finished_jobs_are_found_again(tiny, tmp_path) -> None:
    plan = whole_plan(tiny, 10_000)
    finished_but_one(plan, tmp_path)
    SweepFile(
        sweep_id="big-1", name="big", started_at_s=1.0, launched_at_s=1.0, settings=plan.settings, jobs=plan.jobs
    ).write(tmp_path)
    found = look(tmp_path)
    assert found.file is not None
    assert found.file.jobs == plan.jobs
    left = resume(plan, found, FINGERPRINT)
    assert left.plan.to_run() == [plan.jobs[-1]]
    assert (left.again, left.kept, left.changed, left.put_aside) == ({}, [], [], [])


def finished_but_one(plan: Plan, folder: Path) -> None:
    """Write a small record for each job except the last."""
    record = make_record(iterations=make_iterations(1), fingerprint=FINGERPRINT)
    text = json.dumps(record.to_dict())
    for job in plan.jobs[:-1]:
        (folder / job.folder).mkdir()
        of_job = text.replace(record.trial_id, job.trial_id)
        (folder / job.folder / RECORD_NAME).write_text(of_job, encoding="utf-8")
