"""What of a plan is still to be run, whatever lies in its folder."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config import BenchmarkConfig, SweepConfig
from bench.record import Record
from bench.rules import ConfigError
from bench.sweep.plan import Plan, Point, SweepFile, make_plan
from bench.sweep.resume import check_is_free, check_is_resumable, claimed, look, put_aside, resume
from bench.sweep.sweep_folder import SWEEPER, keep_config

HERE = {"torch": "2.13.0", "cpu": "One"}


def plan_of(*sizes: int, repeats: int = 1, order: str = "given", arms: tuple[str | None, ...] = (None,)) -> Plan:
    points = [
        Point(
            overrides=(f"workload.batch_size={size}",),
            swept={"workload.batch_size": str(size)},
            config=BenchmarkConfig(batch_size=size, sweep=SweepConfig(arm=arm)),
        )
        for size in sizes
        for arm in arms
    ]
    return make_plan(points, SweepConfig(repeats=repeats, order=order), "s-1")


def leave(folder: Path, size: int, name: str, *, repeat: int = 1, status: str = "ok", arm: str | None = None, **fields):
    """A record as a job of that batch size leaves it."""
    config = BenchmarkConfig(batch_size=size, sweep=SweepConfig(arm=arm))
    record = Record(
        trial_id=config.trial_id(),
        repeat=repeat,
        status=status,
        started_at_s=1.0,
        requested=config.to_dict(),
        **{"sweep_id": "s-1", "fingerprint": HERE} | fields,
    )
    (folder / name).mkdir(parents=True)
    record.write(folder / name)


def left_of(plan: Plan, folder: Path, now: dict[str, str] | None = None):
    return resume(plan, look(folder), now or HERE)


def test_what_is_ok_or_skipped_is_done_and_lies_where_it_lay(tmp_path) -> None:
    leave(tmp_path, 1, "7_first")
    leave(tmp_path, 2, "8_second", status="skipped")
    left = left_of(plan_of(1, 2, 3), tmp_path)
    assert [(job.done, job.folder) for job in left.plan.jobs] == [
        (True, "7_first"), (True, "8_second"), (False, "2_batch_size=3"),
    ]  # fmt: skip
    assert [job.folder for job in left.plan.to_run()] == ["2_batch_size=3"]
    assert left.put_aside == []


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "crashed", "interrupted"])
def test_what_failed_runs_again_and_its_record_is_put_aside(tmp_path, status: str) -> None:
    leave(tmp_path, 1, "0_batch_size=1", status=status)
    left = left_of(plan_of(1, 2), tmp_path)
    assert [job.done for job in left.plan.jobs] == [False, False]
    assert left.again[0].status == status
    assert left.put_aside == ["0_batch_size=1"]


def test_order_repeats_and_number_of_points_may_change(tmp_path) -> None:
    for size in (1, 2, 3):
        leave(tmp_path, size, f"{size - 1}_batch_size={size}")
    left = left_of(plan_of(4, 3, 1, repeats=2, order="shuffled"), tmp_path)
    done = {(job.swept["workload.batch_size"], job.repeat) for job in left.plan.jobs if job.done}
    assert done == {("1", 1), ("3", 1)}
    assert len(left.plan.to_run()) == 4
    assert left.kept == ["1_batch_size=2"]
    assert len({job.folder for job in left.plan.jobs}) == 6  # a new job never lands in a finished one's folder


def test_repeats_are_told_apart(tmp_path) -> None:
    leave(tmp_path, 1, "a", repeat=2)
    assert [(job.repeat, job.done) for job in left_of(plan_of(1, repeats=3), tmp_path).plan.jobs] == [
        (1, False), (2, True), (3, False),
    ]  # fmt: skip


def test_two_labels_of_one_setting_are_told_apart(tmp_path) -> None:
    leave(tmp_path, 1, "x", arm="b")
    assert [job.done for job in left_of(plan_of(1, arms=("a", "b")), tmp_path).plan.jobs] == [False, True]


def test_a_changed_environment_is_said_and_measured_again(tmp_path) -> None:
    leave(tmp_path, 1, "old")
    left = left_of(plan_of(1), tmp_path, HERE | {"torch": "2.14.0", "driver": "600"})
    assert left.changed == ["torch 2.13.0 → 2.14.0", "driver – → 600"]
    assert not left.plan.jobs[0].done
    assert left.put_aside == ["old"]


def test_a_failure_in_another_environment_is_no_reason_to_speak_of_it(tmp_path) -> None:
    leave(tmp_path, 1, "old", status="crashed", fingerprint={})
    assert left_of(plan_of(1), tmp_path).changed == []


def test_a_finished_record_counts_beside_a_failed_one_of_the_same_job(tmp_path) -> None:
    leave(tmp_path, 1, "0_failed", status="failed")
    leave(tmp_path, 1, "1_fine")
    leave(tmp_path, 1, "2_fine_too")
    left = left_of(plan_of(1), tmp_path)
    assert [(job.done, job.folder) for job in left.plan.jobs] == [(True, "1_fine")]
    assert sorted(left.put_aside) == ["0_failed", "2_fine_too"]


def test_half_a_record_is_named_and_put_aside(tmp_path) -> None:
    leave(tmp_path, 1, "0_half")
    file = tmp_path / "0_half" / "record.json"
    file.write_text(file.read_text(encoding="utf-8")[:100], encoding="utf-8")
    (tmp_path / "1_begun").mkdir()
    (tmp_path / "1_begun" / "worker.log").write_text("hello")
    (tmp_path / "plots").mkdir()  # the user's own
    write_plan(tmp_path, "0_half", "1_begun")
    found = look(tmp_path)
    assert len(found.broken) == 1
    assert "0_half/record.json: not JSON" in found.broken[0]
    assert resume(plan_of(1), found, HERE).put_aside == ["0_half", "1_begun"]


def write_plan(folder: Path, *names: str) -> None:
    """A sweep's plan of one job in each of these folders."""
    job = plan_of(1).jobs[0]
    jobs = [dataclasses.replace(job, number=number, folder=name) for number, name in enumerate(names)]
    SweepFile(sweep_id="s-1", name="s", started_at_s=1.0, launched_at_s=1.0, settings=[], jobs=jobs).write(folder)


def test_the_folders_of_another_program_stay_where_they_are_and_no_job_gets_their_name(tmp_path) -> None:
    theirs = {"0_batch_size=1": ".hydra/config.yaml", "1": "worker.log", "2": "record.json", "1_batch_size=2": "notes"}
    for folder, name in theirs.items():
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / name).write_text("{}")
    (tmp_path / "2_batch_size=3").write_text("a file")
    check_is_free(tmp_path)
    left = left_of(plan_of(1, 2, 3), tmp_path)
    assert left.put_aside == []
    assert [job.folder for job in left.plan.jobs] == ["0_batch_size=1-2", "1_batch_size=2-2", "2_batch_size=3-2"]


def test_the_folders_of_another_program_stay_when_a_sweep_goes_on_beside_them(tmp_path) -> None:
    write_plan(tmp_path, "0_batch_size=1")
    (tmp_path / "0_batch_size=1").mkdir()
    (tmp_path / "0_batch_size=1/worker.log").touch()  # killed before its record
    (tmp_path / "1_batch_size=2/.hydra").mkdir(parents=True)  # of another program, since
    left = left_of(plan_of(1, 2), tmp_path)
    assert left.put_aside == ["0_batch_size=1"]
    assert [job.folder for job in left.plan.jobs] == ["0_batch_size=1", "1_batch_size=2-2"]


def test_the_record_of_a_single_run_is_never_moved(tmp_path) -> None:
    leave(tmp_path, 1, "2026-11-29_12-00-00", status="interrupted", sweep_id=None)
    assert left_of(plan_of(1), tmp_path).put_aside == []


def test_nothing_is_put_aside_over_something_that_is_there(tmp_path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/0_a").symlink_to("nowhere")
    (tmp_path / "0_a").mkdir()
    put_aside(tmp_path, ["0_a"])
    assert (tmp_path / "earlier/0_a").is_symlink()
    assert (tmp_path / "earlier/0_a.2").is_dir()


@pytest.mark.parametrize("name", ["report.html", "figures/loss.svg", "comparison.json", "search.db", "record.json"])
def test_a_folder_is_refused_in_which_a_sweep_would_overwrite_a_file(tmp_path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    for check in (check_is_free, check_is_resumable):
        with pytest.raises(ConfigError, match="choose another folder"):
            check(tmp_path)


def test_the_files_of_a_sweep_are_its_own_when_it_goes_on(tmp_path) -> None:
    leave(tmp_path, 1, "0_a")
    (tmp_path / "report.html").touch()
    check_is_resumable(tmp_path)


def test_a_file_of_the_users_is_no_plan_of_a_sweep(tmp_path) -> None:
    (tmp_path / "sweep.json").write_text('{"program": "train.py"}')
    with pytest.raises(ConfigError, match=r"holds sweep.json, which a sweep would overwrite"):
        check_is_free(tmp_path)


def test_what_a_sweep_was_composed_from_is_kept_but_not_over_another_programs_file(tmp_path) -> None:
    keep_config(tmp_path, f"_target_: {SWEEPER}.bench_sweeper.BenchSweeper\n1")
    keep_config(tmp_path, f"_target_: {SWEEPER}.bench_sweeper.BenchSweeper\n2")
    assert (tmp_path / "multirun.yaml").read_text().endswith("2")
    (tmp_path / "multirun.yaml").write_text("theirs")
    keep_config(tmp_path, SWEEPER)
    assert (tmp_path / "multirun.yaml").read_text() == "theirs"


def test_what_is_put_aside_is_kept_under_a_name_of_its_own(tmp_path) -> None:
    for text in ("first", "second"):
        (tmp_path / "0_a").mkdir()
        (tmp_path / "0_a" / "record.json").write_text(text)
        put_aside(tmp_path, ["0_a"])
    assert (tmp_path / "earlier/0_a/record.json").read_text() == "first"
    assert (tmp_path / "earlier/0_a.2/record.json").read_text() == "second"
    assert look(tmp_path).past == []


def test_a_folder_is_held_by_one_process_until_it_ends_however_it_ends(tmp_path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from bench.sweep.resume import claimed\n"
        "with claimed(Path(sys.argv[1])): print('mine', flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"mine\n"
    with pytest.raises(ConfigError, match="a sweep is running in"), claimed(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with claimed(tmp_path):
        pass


def test_a_folder_with_a_sweep_is_refused_with_both_remedies(tmp_path) -> None:
    check_is_free(tmp_path)
    (tmp_path / "sweep.json").touch()  # stopped before anything began
    check_is_free(tmp_path)
    leave(tmp_path, 1, "0_a")
    with pytest.raises(ConfigError, match=r"choose another name, or go on with it: sweep.resume=true"):
        check_is_free(tmp_path)


def test_a_broken_sweep_file_costs_no_record(tmp_path) -> None:
    leave(tmp_path, 1, "0_a")
    (tmp_path / "sweep.json").write_text('{"schema_version": 1, "sweep_id": "s-1"}')
    found = look(tmp_path)
    assert (found.file, len(found.past), len(found.broken)) == (None, 1, 1)
    assert resume(plan_of(1), found, HERE).plan.jobs[0].done


def test_the_file_of_a_sweep_is_read_back(tmp_path) -> None:
    plan = plan_of(1)
    file = SweepFile(
        sweep_id="s-1", name="s", started_at_s=1.0, launched_at_s=1.0, settings=plan.settings, jobs=plan.jobs
    )
    file.write(tmp_path)
    assert look(tmp_path).file == file
    assert dataclasses.asdict(file)["jobs"][0]["folder"] == "0_batch_size=1"
