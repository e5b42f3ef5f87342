"""Marks of folders, and what a sweep's folder tells."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing

import pytest
from filelock import FileLock

from bench.config.schema import SweepConfig
from bench.results.sweep_file import SweepInfo, is_locked, read_sweep
from bench.tracking.publish_mark import Mark, read_mark, record_key, sweep_key, write_mark
from factories import STARTED_AT_S, make_config, make_record

MARK = Mark(published=True, uri="http://host:5000", experiment="bench", run_id="ab12", record_key="s/t/1/7.000")


def test_a_mark_is_read_back_and_nothing_else_is_left(tmp_path):
    write_mark(tmp_path, MARK)
    assert read_mark(tmp_path) == MARK
    assert [each.name for each in tmp_path.iterdir()] == ["tracking.json"]


def test_a_mark_says_so_of_one_record_in_one_place_only(tmp_path):
    here = {"key": MARK.record_key, "uri": MARK.uri, "experiment": MARK.experiment}
    assert MARK.says(**here)
    for other in ({"key": "s/t/1/8.000"}, {"uri": "http://other"}, {"experiment": "nights"}):
        assert not MARK.says(**here | other)
    assert not dataclasses.replace(MARK, published=False).says(**here)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"published": true}'])
def test_a_mark_that_makes_no_sense_is_none(tmp_path, text):
    (tmp_path / "tracking.json").write_text(text)
    assert read_mark(tmp_path) is None


def test_a_folder_that_cannot_be_written_costs_the_mark_alone(tmp_path):
    write_mark(tmp_path / "gone", MARK)
    assert read_mark(tmp_path / "gone") is None


def test_keys_tell_attempts_repeats_and_arms_apart():
    arms = [make_config(sweep=SweepConfig(label=arm)).to_dict() for arm in ("a", "b")]
    records = [
        make_record(sweep_id="s"),
        make_record(sweep_id="s", started_at_s=STARTED_AT_S + 1),
        make_record(sweep_id="s", repeat=2),
        make_record(sweep_id="s", requested=arms[0]),
        make_record(sweep_id="s", requested=arms[1]),
        make_record(),
    ]
    assert len({record_key(each) for each in records}) == len(records)
    assert record_key(records[0]) == f"s/{make_record().trial_id}/1/{STARTED_AT_S:.3f}"


def test_a_sweeps_key_changes_with_its_records():
    first, second = make_record(), make_record(started_at_s=STARTED_AT_S + 1)
    assert len({sweep_key("s", each) for each in ([], [first], [second], [first, second])}) == 4


# ---- sweep.json --------------------------------------------------------------------------------------------------


def test_a_sweep_is_read_with_all_that_its_plan_tells(tmp_path, sweep_on_disk):
    sweep_on_disk(tmp_path, uri="http://host:5000")
    assert read_sweep(tmp_path / "multirun" / "night-1") == SweepInfo(
        sweep_id="night-1",
        name="night",
        swept={"compile.mode": ["default"]},
        settings=["default"],
        started_at_s=STARTED_AT_S - 1,
        tags={"team": "x"},
        jobs=3,
        uri="http://host:5000",
        experiment="bench",
    )


def test_a_plan_of_few_words_is_enough(tmp_path):
    jobs = [{"swept": {"device": "cpu"}}, {"swept": {"device": "cuda"}}, {"swept": {"device": "cpu"}}, 7]
    (tmp_path / "sweep.json").write_text(json.dumps({"sweep_id": "s", "jobs": jobs, "tracking": 5, "settings": None}))
    sweep = read_sweep(tmp_path)
    assert sweep is not None
    assert (sweep.name, sweep.swept, sweep.jobs) == ("s", {"device": ["cpu", "cuda"]}, 4)
    assert sweep.uri is None
    assert sweep.started_at_s > STARTED_AT_S  # when the file was made


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sweep_id": 7}'])
def test_a_plan_without_a_sweep_is_none(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    assert read_sweep(tmp_path) is None


def hold(path: str, held, release) -> None:
    with FileLock(path):
        held.set()
        release.wait(60)


def test_a_sweep_is_running_while_a_process_holds_its_lock(tmp_path):
    assert is_locked(tmp_path) is None
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / ".lock"), held, release))
    process.start()
    assert held.wait(60)
    assert is_locked(tmp_path) is True
    process.kill()
    process.join(60)
    assert is_locked(tmp_path) is False
    with FileLock(tmp_path / ".lock", timeout=0):  # looking left nothing behind
        pass


@pytest.mark.parametrize("text", ['{"run": 7, "published": true}', "[1]", "epoch 1"])
def test_a_users_file_of_the_marks_name_stays(tmp_path, text):
    (tmp_path / "tracking.json").write_text(text)
    write_mark(tmp_path, MARK)
    assert (tmp_path / "tracking.json").read_text() == text


@pytest.mark.parametrize("text", ["", "{}", '{"published": true}'])
def test_a_mark_that_makes_no_sense_is_written_anew(tmp_path, text):
    (tmp_path / "tracking.json").write_text(text)
    write_mark(tmp_path, MARK)
    assert read_mark(tmp_path) == MARK
