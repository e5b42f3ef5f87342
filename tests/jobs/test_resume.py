"""Test which jobs of a plan still have to run, for any contents of its folder."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, FidelityConfig, ProfileConfig, SweepConfig, walk
from bench.jobs.folders.sweep_folder import SWEEPER, keep_config
from bench.jobs.planning.fingerprint import software
from bench.jobs.planning.plan import Plan, Point, make_plan
from bench.jobs.planning.resume import (
    check_is_free,
    check_is_resumable,
    claimed,
    look,
    put_aside,
    resume,
    unusable_references,
)
from bench.orchestration.dry_run import print_plan_of
from bench.results.file_names import REFERENCES
from bench.results.record import Failure, Fidelity, Record
from bench.results.sweep_file import SweepFile

pytestmark = pytest.mark.contract

HERE = {"torch": "2.13.0", "cpu": "One"}


def plan_of(
    *sizes: int, repeats: int = 1, order: str = "given", arms: tuple[str | None, ...] = (None,), **sections: object
) -> Plan:
    points = [
        Point(
            overrides=(f"workload.batch_size={size}",),
            swept={"workload.batch_size": str(size)},
            config=BenchmarkConfig(batch_size=size, sweep=SweepConfig(label=arm), **sections),
        )
        for size in sizes
        for arm in arms
    ]
    return make_plan(points, SweepConfig(repeats=repeats, order=order), "s-1")


def leave(
    folder: Path,
    size: int,
    name: str,
    *,
    repeat: int = 1,
    status: str = "ok",
    arm: str | None = None,
    sections: dict[str, object] | None = None,
    **fields,
):
    """Write a record as a job of this batch size does."""
    config = BenchmarkConfig(batch_size=size, sweep=SweepConfig(label=arm), **sections or {})
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


def test_ok_and_skipped_jobs_are_done_and_keep_their_folders(tmp_path) -> None:
    leave(tmp_path, 1, "7_first")
    leave(tmp_path, 2, "8_second", status="skipped")
    left = left_of(plan_of(1, 2, 3), tmp_path)
    assert [(job.done, job.folder) for job in left.plan.jobs] == [
        (True, "7_first"), (True, "8_second"), (False, "2_batch_size=3"),
    ]  # fmt: skip
    assert [job.folder for job in left.plan.to_run()] == ["2_batch_size=3"]
    assert left.put_aside == []


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "crashed", "interrupted"])
def test_failed_jobs_run_again_and_their_records_are_set_aside(tmp_path, status: str) -> None:
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
    assert len({job.folder for job in left.plan.jobs}) == 6  # a new job never gets a finished job's folder


def test_repeats_are_distinguished(tmp_path) -> None:
    leave(tmp_path, 1, "a", repeat=2)
    assert [(job.repeat, job.done) for job in left_of(plan_of(1, repeats=3), tmp_path).plan.jobs] == [
        (1, False), (2, True), (3, False),
    ]  # fmt: skip


def test_two_labels_of_one_setting_are_distinguished(tmp_path) -> None:
    leave(tmp_path, 1, "x", arm="b")
    assert [job.done for job in left_of(plan_of(1, arms=("a", "b")), tmp_path).plan.jobs] == [False, True]


def test_a_changed_environment_is_reported_and_measured_again(tmp_path) -> None:
    leave(tmp_path, 1, "old")
    left = left_of(plan_of(1), tmp_path, HERE | {"torch": "2.14.0", "driver": "600"})
    assert left.changed == ["torch 2.13.0 → 2.14.0", "driver – → 600"]
    assert not left.plan.jobs[0].done
    assert left.put_aside == ["old"]


def test_a_failure_in_another_environment_does_not_report_the_change(tmp_path) -> None:
    leave(tmp_path, 1, "old", status="crashed", fingerprint={})
    assert left_of(plan_of(1), tmp_path).changed == []


def test_a_finished_record_counts_beside_a_failed_one_of_the_same_job(tmp_path) -> None:
    leave(tmp_path, 1, "0_failed", status="failed")
    leave(tmp_path, 1, "1_fine")
    leave(tmp_path, 1, "2_fine_too")
    left = left_of(plan_of(1), tmp_path)
    assert [(job.done, job.folder) for job in left.plan.jobs] == [(True, "1_fine")]
    assert sorted(left.put_aside) == ["0_failed", "2_fine_too"]


def test_a_new_job_never_gets_the_folder_of_a_finished_one(tmp_path) -> None:
    leave(tmp_path, 1, "0_batch_size=2")  # named like the first job of this plan, but it holds another job's record
    left = left_of(plan_of(2, 1), tmp_path)
    assert [(job.done, job.folder) for job in left.plan.jobs] == [(False, "0_batch_size=2-2"), (True, "0_batch_size=2")]
    assert left.put_aside == []


# ---- further outputs -----------------------------------------------------------------------------------------------

ASKED = {
    "profile.num_tokens": ({"profile": ProfileConfig(num_tokens=8)}, {}, "no profile"),
    "profile.memory_snapshot": ({"profile": ProfileConfig(memory_snapshot=True)}, {}, "no memory snapshot"),
    "fidelity.reference": (
        {"fidelity": FidelityConfig(reference="eager")},
        {"fidelity": Fidelity(reference="eager", agrees=True)},
        "not compared with a reference",
    ),
}
# Keys that are not part of the trial id and request no further output in a record.
ASKS_NOTHING = ("sweep.", "search.", "tracking.", "isolation.")


def test_each_key_outside_the_trial_id_requests_an_output_or_nothing() -> None:
    plain = BenchmarkConfig()
    outside = set()
    for path, value, *_ in walk(plain):
        section, _, leaf = path.rpartition(".")
        kept = getattr(plain, section) if section else plain
        setattr(kept, leaf, "another" if not isinstance(value, bool | int | float) else value + 1)
        try:
            if plain.trial_id() == BenchmarkConfig().trial_id():
                outside.add(path)
        except OSError:  # a prompt file counts by its content
            pass
        setattr(kept, leaf, value)
    of_rules = {"warmup", "measurement", "compile", "model"}  # a key may have no effect there, and then adds nothing
    left = {each for each in outside if each.partition(".")[0] not in of_rules}
    assert {each for each in left if not each.startswith(ASKS_NOTHING)} == set(ASKED)


@pytest.mark.parametrize("key", list(ASKED))
def test_a_missing_output_requested_on_resume_is_made_by_another_run(tmp_path, key: str) -> None:
    sections, _, reason = ASKED[key]
    leave(tmp_path, 1, "first")
    left = left_of(plan_of(1, **sections), tmp_path)
    assert [job.done for job in left.plan.jobs] == [False]
    assert left.put_aside == ["first"]
    assert left.lacking == {0: reason}
    assert left.changed == []


@pytest.mark.parametrize("key", list(ASKED))
def test_an_existing_output_is_not_made_again(tmp_path, key: str) -> None:
    sections, fields, _ = ASKED[key]
    leave(tmp_path, 1, "first", sections=sections, **fields)
    for now in (sections, {}):  # still requested, and nothing else
        left = left_of(plan_of(1, **now), tmp_path)
        assert ([job.done for job in left.plan.jobs], left.put_aside, left.lacking) == ([True], [], {})


def test_a_longer_profile_needs_another_run_and_a_shorter_one_does_not(tmp_path) -> None:
    leave(tmp_path, 1, "first", sections={"profile": ProfileConfig(num_tokens=4)})
    assert left_of(plan_of(1, profile=ProfileConfig(num_tokens=2)), tmp_path).lacking == {}
    left = left_of(plan_of(1, profile=ProfileConfig(num_tokens=8)), tmp_path)
    assert left.lacking == {0: "a profile of 4 tokens only"}


def test_an_impossible_comparison_is_not_requested_again(tmp_path) -> None:
    eager = {"fidelity": FidelityConfig(reference="eager")}
    told = Fidelity(reference="eager", reason="the reference run ended oom: no room")
    leave(tmp_path, 1, "first", sections=eager, fidelity=told)
    assert left_of(plan_of(1, **eager), tmp_path).plan.jobs[0].done


def test_a_skipped_job_cannot_have_outputs_and_is_done(tmp_path) -> None:
    leave(tmp_path, 1, "first", status="skipped")
    assert left_of(plan_of(1, profile=ProfileConfig(num_tokens=8)), tmp_path).plan.jobs[0].done


def test_a_job_skipped_for_an_output_that_is_no_longer_requested_runs(tmp_path) -> None:
    snapshot = {"profile": ProfileConfig(memory_snapshot=True)}
    why = Failure(type="Skipped", message="profile.memory_snapshot=true cannot run here: none on cpu; set it to false")
    leave(tmp_path, 1, "first", status="skipped", sections=snapshot, error=why)
    assert left_of(plan_of(1, **snapshot), tmp_path).plan.jobs[0].done
    left = left_of(plan_of(1), tmp_path)
    assert left.lacking == {0: "skipped for profile.memory_snapshot=true"}


def test_of_two_records_the_one_with_the_requested_output_counts(tmp_path) -> None:
    profiled = {"profile": ProfileConfig(num_tokens=8)}
    leave(tmp_path, 1, "0_without")
    leave(tmp_path, 1, "1_with", sections=profiled)
    left = left_of(plan_of(1, **profiled), tmp_path)
    assert [(job.done, job.folder) for job in left.plan.jobs] == [(True, "1_with")]
    assert left.put_aside == ["0_without"]


def test_a_plan_says_why_a_finished_job_runs_again(tmp_path) -> None:
    leave(tmp_path, 1, "first")
    console = Console(record=True, width=120, file=io.StringIO())
    print_plan_of(console, left_of(plan_of(1, profile=ProfileConfig(num_tokens=8)), tmp_path), tmp_path)
    assert "again: no profile" in console.export_text()


# ---- what cannot be read -------------------------------------------------------------------------------------------


def test_a_truncated_record_is_named_and_set_aside(tmp_path) -> None:
    leave(tmp_path, 1, "0_half")
    file = tmp_path / "0_half" / "record.json"
    file.write_text(file.read_text(encoding="utf-8")[:100], encoding="utf-8")
    (tmp_path / "1_begun").mkdir()
    (tmp_path / "1_begun" / "worker.log").write_text("hello")
    (tmp_path / "plots").mkdir()  # the user's own file
    write_plan(tmp_path, "0_half", "1_begun")
    found = look(tmp_path)
    assert len(found.broken) == 1
    assert "0_half/record.json: not JSON" in found.broken[0]
    assert resume(plan_of(1), found, HERE).put_aside == ["0_half", "1_begun"]


def write_plan(folder: Path, *names: str) -> None:
    """Write the plan of a sweep with one job in each of these folders."""
    job = plan_of(1).jobs[0]
    jobs = [dataclasses.replace(job, number=number, folder=name) for number, name in enumerate(names)]
    SweepFile(sweep_id="s-1", name="s", started_at_s=1.0, launched_at_s=1.0, settings=[], jobs=jobs).write(folder)


def test_folders_of_another_program_stay_and_no_job_gets_their_names(tmp_path) -> None:
    theirs = {"0_batch_size=1": ".hydra/config.yaml", "1": "worker.log", "2": "record.json", "1_batch_size=2": "notes"}
    for folder, name in theirs.items():
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / name).write_text("{}")
    (tmp_path / "2_batch_size=3").write_text("a file")
    check_is_free(tmp_path)
    left = left_of(plan_of(1, 2, 3), tmp_path)
    assert left.put_aside == []
    assert [job.folder for job in left.plan.jobs] == ["0_batch_size=1-2", "1_batch_size=2-2", "2_batch_size=3-2"]


def test_folders_of_another_program_stay_when_a_sweep_resumes(tmp_path) -> None:
    write_plan(tmp_path, "0_batch_size=1")
    (tmp_path / "0_batch_size=1").mkdir()
    (tmp_path / "0_batch_size=1/worker.log").touch()  # killed before its record
    (tmp_path / "1_batch_size=2/.hydra").mkdir(parents=True)  # created since by another program
    left = left_of(plan_of(1, 2), tmp_path)
    assert left.put_aside == ["0_batch_size=1"]
    assert [job.folder for job in left.plan.jobs] == ["0_batch_size=1", "1_batch_size=2-2"]


def test_the_record_of_a_single_run_is_never_moved(tmp_path) -> None:
    leave(tmp_path, 1, "2026-11-29_12-00-00", status="interrupted", sweep_id=None)
    assert left_of(plan_of(1), tmp_path).put_aside == []


def test_setting_aside_overwrites_nothing(tmp_path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/0_a").symlink_to("nowhere")
    (tmp_path / "0_a").mkdir()
    put_aside(tmp_path, ["0_a"])
    assert (tmp_path / "earlier/0_a").is_symlink()
    assert (tmp_path / "earlier/0_a.2").is_dir()


def test_a_users_file_in_place_of_the_earlier_attempts_folder_is_reported(tmp_path) -> None:
    (tmp_path / "earlier").write_text("mine")
    leave(tmp_path, 1, "0_a", status="failed")
    with pytest.raises(ConfigError, match="earlier is no folder"):
        put_aside(tmp_path, ["0_a"])
    assert ((tmp_path / "earlier").read_text(), (tmp_path / "0_a").is_dir()) == ("mine", True)


@pytest.mark.parametrize("name", ["report.html", "figures/loss.svg", "comparison.json", "search.db", "record.json"])
def test_a_folder_in_which_a_sweep_would_overwrite_a_file_is_refused(tmp_path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    for check in (check_is_free, check_is_resumable):
        with pytest.raises(ConfigError, match="choose another folder"):
            check(tmp_path)


def test_a_resumed_sweep_recognises_its_own_files(tmp_path) -> None:
    leave(tmp_path, 1, "0_a")
    (tmp_path / "report.html").touch()
    check_is_resumable(tmp_path)


def test_a_users_file_is_not_taken_for_a_sweep_plan(tmp_path) -> None:
    (tmp_path / "sweep.json").write_text('{"program": "train.py"}')
    with pytest.raises(ConfigError, match=r"holds sweep.json, which a sweep would overwrite"):
        check_is_free(tmp_path)


def test_composed_configs_are_kept_without_overwriting_other_programs_files(tmp_path) -> None:
    keep_config(tmp_path, f"_target_: {SWEEPER}.bench_sweeper.BenchSweeper\n1")
    keep_config(tmp_path, f"_target_: {SWEEPER}.bench_sweeper.BenchSweeper\n2")
    assert (tmp_path / "multirun.yaml").read_text().endswith("2")
    (tmp_path / "multirun.yaml").write_text("theirs")
    keep_config(tmp_path, SWEEPER)
    assert (tmp_path / "multirun.yaml").read_text() == "theirs"


def test_records_set_aside_get_unique_names(tmp_path) -> None:
    for text in ("first", "second"):
        (tmp_path / "0_a").mkdir()
        (tmp_path / "0_a" / "record.json").write_text(text)
        put_aside(tmp_path, ["0_a"])
    assert (tmp_path / "earlier/0_a/record.json").read_text() == "first"
    assert (tmp_path / "earlier/0_a.2/record.json").read_text() == "second"
    assert look(tmp_path).past == []


def test_an_unusable_reference_is_set_aside_without_an_earlier_folder(tmp_path) -> None:
    (tmp_path / REFERENCES).mkdir()
    leave(tmp_path / REFERENCES, 1, "failed", status="oom", kind="reference")
    put_aside(tmp_path, unusable_references(tmp_path, HERE))
    assert (tmp_path / "earlier/references/failed/record.json").exists()
    assert not (tmp_path / "references/failed").exists()


def test_a_reference_of_another_environment_is_not_reused(tmp_path) -> None:
    (tmp_path / REFERENCES).mkdir()
    leave(tmp_path / REFERENCES, 1, "same", kind="reference")
    leave(tmp_path / REFERENCES, 2, "other", kind="reference", fingerprint=HERE | {"torch": "2.12.0"})
    assert unusable_references(tmp_path, HERE) == ["references/other"]


def test_one_process_locks_a_folder_until_it_ends_in_any_way(tmp_path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from bench.jobs.planning.resume import claimed\n"
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


def test_a_broken_sweep_file_loses_no_record(tmp_path) -> None:
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


def test_a_failed_record_beside_a_finished_one_of_the_same_job_is_set_aside(tmp_path) -> None:
    """In either order: each setting and repeat has one record in the sweep."""
    for failed, finished in (("0_a", "1_b"), ("3_b", "2_a")):
        folder = tmp_path / failed
        leave(folder, 1, failed, status="crashed")
        leave(folder, 1, finished)
        left = left_of(plan_of(1), folder)
        assert [(job.done, job.folder) for job in left.plan.jobs] == [(True, finished)]
        assert left.put_aside == [failed]


def test_for_remote_jobs_only_software_changes_the_environment(tmp_path) -> None:
    """A login node has another processor and none of its jobs' cards."""
    there = HERE | {"cpu": "Two", "gpus": "H100", "driver": "600"}
    leave(tmp_path, 1, "a", fingerprint=there)
    leave(tmp_path, 2, "b", fingerprint=there | {"torch": "2.12.0"})
    found = look(tmp_path, is_local=False)
    assert [job.done for job in resume(plan_of(1, 2), found, software(HERE)).plan.jobs] == [True, False]
    assert [job.done for job in left_of(plan_of(1, 2), tmp_path).plan.jobs] == [False, False]
