"""Test the data that a job returns and the assignment that lets it run on any machine."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import pytest

from bench.jobs.assignment import Assignment, assign
from bench.jobs.engine import EngineStop, LostJob, placement
from bench.jobs.job import write_lost
from bench.jobs.launcher_return import Returned
from bench.jobs.planning.plan import Plan
from bench.results.record import Placement, Record
from bench.results.sweep_file import Job, SweepFile, is_folder_of


def job(number: int = 0, **fields) -> Job:
    values = {"repeat": 1, "trial_id": f"t{number}", "name": 'it\'s a="b" \\ ${x} ü', "swept": {"a": "'b'"}}
    return Job(number=number, folder=f"{number}_x", **(values | fields))


def record(**fields) -> Record:
    return Record(trial_id="t0", started_at_s=1.0, requested={}, **fields)


def sweep_file(jobs: list[Job]) -> SweepFile:
    return SweepFile(sweep_id="night-1", name="night", started_at_s=1.0, launched_at_s=2.0, settings=["a"], jobs=jobs)


def plan(jobs: list[Job]) -> Plan:
    return Plan(sweep_id="night-1", jobs=jobs, points=[], duplicates=0, settings=["a"], baseline=None)


def test_an_assignment_survives_encoding_as_one_argument() -> None:
    (given,) = assign(plan([job()]), sweep_file([job()]), is_local=False).values()
    text = given.to_text()
    assert text.isascii()
    assert not set(text) & set(" '\"$\\={}[],:()")
    assert Assignment.from_text(text) == given


@pytest.mark.parametrize("text", ["", "nonsense", "%7B%7D", "%5B1%5D", "null"])
def test_an_invalid_assignment_is_refused(text) -> None:
    with pytest.raises(ValueError):
        Assignment.from_text(text)


def test_only_jobs_that_still_have_to_run_are_assigned_and_counted() -> None:
    jobs = [job(0, done=True), job(1), job(2, trial_id="t1", repeat=2)]
    given = assign(plan(jobs), sweep_file(jobs), is_local=True)
    assert {number: (each.behind, each.to_run, each.jobs) for number, each in given.items()} == {
        1: (0, 2, 3),
        2: (1, 2, 3),
    }
    assert all(each.is_compared for each in given.values())  # t0 and t1


def test_only_a_folder_with_the_same_sweep_id_is_the_sweeps_folder(tmp_path) -> None:
    given = assign(plan([job()]), sweep_file([job()]), is_local=False)[0]
    assert not is_folder_of(given.sweep_id, tmp_path)
    sweep_file([job()]).write(tmp_path)
    assert is_folder_of(given.sweep_id, tmp_path)
    dataclasses.replace(sweep_file([job()]), sweep_id="night-2").write(tmp_path)
    assert not is_folder_of(given.sweep_id, tmp_path)


def test_files_are_copied_only_from_another_folder(tmp_path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    record(status="ok", placement=Placement(host="node7")).write(there)
    (there / "worker.log").write_bytes(b"said \xff")
    (there / "model.bin").write_bytes(b"large")
    assert Returned.of(record(), there, with_files=False).files is None
    brought = Returned.of(Record.read(there), there, with_files=True)
    pickle.loads(pickle.dumps(brought)).deliver(here)
    assert sorted(each.name for each in here.iterdir()) == ["record.json", "worker.log"]
    assert (here / "worker.log").read_bytes() == b"said \xff"
    assert Record.read(here).placement.host == "node7"
    assert brought.host == "node7"


def test_a_too_large_file_is_not_copied_and_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.jobs.launcher_return.LARGEST_BYTES", 10)
    (tmp_path / "worker.log").write_bytes(b"x" * 11)
    brought = Returned.of(record(), tmp_path, with_files=True)
    assert brought.files == {}
    assert brought.left_there == ["worker.log"]


def test_names_that_point_outside_the_folder_are_not_written(tmp_path) -> None:
    inside = tmp_path / "inside"
    Returned(status="ok", files={"../out": b"", "/tmp/x": b"", "record.json": b"{}"}).deliver(inside)
    assert [each.name for each in tmp_path.iterdir()] == ["inside"]
    assert [each.name for each in inside.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (None, None, 1)),
        ({"SLURM_JOB_ID": "7"}, ("slurm", "7", 1)),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, ("slurm", "7_2", 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, ("slurm", "7", 3)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "x"}, ("slurm", "7", 1)),
        ({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "12"}, ("submitit_local", "12", 1)),
        ({"BENCH_ENGINE": "ray", "BENCH_ENGINE_JOB": "ab", "BENCH_ENGINE_ATTEMPT": "2"}, ("ray", "ab", 2)),
    ],
)
def test_the_location_of_a_job_is_described(variables, expected) -> None:
    found = placement(variables)
    assert (found.engine, found.job_id, found.attempt) == expected
    assert found.host == os.uname().nodename


def test_a_lost_job_keeps_its_written_results(tmp_path) -> None:
    left = record(placement=Placement(host="node7", engine="slurm", job_id="7_2", attempt=2), stage="measurement")
    left.write(tmp_path)
    lost = LostJob("oom", "slurm ended it for memory", engine="slurm", job_id="7_2")
    write_lost(record(name="x"), tmp_path, lost)
    written = Record.read(tmp_path)
    assert (written.status, written.stage, written.error.message) == ("oom", "measurement", "slurm ended it for memory")
    assert written.placement == left.placement
    assert written.ended_at_s >= written.started_at_s


def test_a_lost_job_that_wrote_nothing_has_a_record(tmp_path) -> None:
    write_lost(record(), tmp_path / "new", LostJob("interrupted", "never began", engine="slurm", job_id="7_5"))
    written = Record.read(tmp_path / "new")
    assert (written.status, written.placement.job_id, written.placement.host) == ("interrupted", "7_5", None)


def test_a_stop_by_the_engine_is_an_interrupt() -> None:
    stop = EngineStop("timeout", "near")
    assert isinstance(stop, KeyboardInterrupt)
    assert (stop.status, stop.message) == ("timeout", "near")


def test_records_of_the_previous_schema_are_read(tmp_path) -> None:
    record(status="ok").write(tmp_path)
    text = json.loads((tmp_path / "record.json").read_text())
    for name in ("placement", "neighbours", "ranks"):
        del text[name]
    (tmp_path / "record.json").write_text(json.dumps(text | {"schema_version": 4}))
    assert Record.read(tmp_path).placement is None
