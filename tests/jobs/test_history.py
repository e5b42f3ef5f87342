"""Test what a plan learns from earlier records: durations and settings that this machine cannot run."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.jobs.planning import history as module
from bench.jobs.planning.history import History, history_of, read_history, remember
from bench.orchestration import job_run
from bench.results.file_names import RECORD_NAME
from bench.results.record import Failure, Record
from factories import make_record

HERE = {"torch": "2.13.0", "cpu": "One"}


def setting(size: int = 1, *, model: str = "org/tiny", mode: str | None = None) -> BenchmarkConfig:
    keywords = {} if mode is None else {"compile_kwargs": {"mode": mode}}
    return BenchmarkConfig(model=ModelConfig(id=model), batch_size=size, **keywords)


def leave(folder: Path, config: BenchmarkConfig, seconds: float | None, *, at_s: float = 1000.0, **fields) -> Path:
    """Write a record of a job with this duration into its own folder; its file has the given age."""
    record = Record(
        trial_id=config.trial_id(),
        started_at_s=at_s,
        ended_at_s=None if seconds is None else at_s + seconds,
        **{"status": "ok", "fingerprint": HERE, "requested": config.to_dict()} | fields,
    )
    folder.mkdir(parents=True)
    path = record.write(folder)
    os.utime(path, (at_s, at_s))
    return path


@pytest.fixture
def read(tmp_path):
    return lambda: read_history([tmp_path / "multirun", tmp_path / "outputs"], HERE)


def test_a_known_setting_is_estimated_by_the_median_of_its_jobs(tmp_path, read) -> None:
    for number, seconds in enumerate((5.0, 7.0, 100.0)):
        leave(tmp_path / "multirun" / "s" / str(number), setting(), seconds)
    assert read().estimate_s(setting()) == (7.0, True)


def test_single_runs_and_sweeps_count_equally(tmp_path, read) -> None:
    leave(tmp_path / "multirun" / "s" / "0", setting(), 4.0)
    leave(tmp_path / "outputs" / "2026-11-24", setting(), 6.0)
    assert read().estimate_s(setting()) == (5.0, True)


def test_a_new_setting_is_estimated_from_its_models_jobs_with_equal_compilation(tmp_path, read) -> None:
    leave(tmp_path / "outputs" / "a", setting(2), 5.0)
    leave(tmp_path / "outputs" / "b", setting(3), 7.0)
    leave(tmp_path / "outputs" / "c", setting(2, mode="default"), 60.0)
    leave(tmp_path / "outputs" / "d", setting(2, model="org/large"), 900.0)
    history = read()
    assert history.estimate_s(setting(4)) == (6.0, False)
    assert history.estimate_s(setting(4, mode="max-autotune")) == (60.0, False)
    assert history.estimate_s(setting(4, model="org/large")) == (900.0, False)
    assert history.estimate_s(setting(4, model="org/unknown")) == (None, False)
    assert history.estimate_s(setting(4, model="org/large", mode="default")) == (None, False)


def test_the_total_uses_known_durations_and_their_mean_for_unknown_jobs(tmp_path, read) -> None:
    leave(tmp_path / "outputs" / "a", setting(2), 5.0)
    leave(tmp_path / "outputs" / "b", setting(3, mode="default"), 15.0)
    history, known = read(), [setting(2).trial_id(), setting(3, mode="default").trial_id()]
    assert history.total_s(setting(2), known, 2) == 20.0
    assert history.total_s(setting(2), [*known, setting(9).trial_id()], 3) == 30.0
    assert history.total_s(setting(9), [setting(9).trial_id()], 4) == 4 * 5.0  # as similar ones
    assert history.total_s(setting(9, model="org/unknown"), ["unknown"], 4) is None


def test_without_records_nothing_is_known(tmp_path, read) -> None:
    assert read() == History()
    assert read().estimate_s(setting()) == (None, False)


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "crashed", "interrupted"])
def test_failed_jobs_give_no_duration(tmp_path, read, status: str) -> None:
    leave(tmp_path / "outputs" / "a", setting(), 3.0, status=status, error=Failure(type="X", message="planted"))
    assert read() == History()


def test_a_job_without_an_end_time_gives_no_duration(tmp_path, read) -> None:
    leave(tmp_path / "outputs" / "a", setting(), None)
    assert read() == History()


def test_a_skipped_setting_is_a_limit_with_its_reason(tmp_path, read) -> None:
    reason = "attention.implementation=flash_attention_2: flash-attn is not installed"
    leave(tmp_path / "outputs" / "a", setting(), 1.0, status="skipped", error=Failure(type="Skipped", message=reason))
    history = read()
    assert history.limits == {setting().trial_id(): reason}
    assert history.estimate_s(setting()) == (None, False)  # the second spent on checking is not a job's duration


def test_the_newest_reason_counts(tmp_path, read) -> None:
    for number, at_s in enumerate((1000.0, 3000.0, 2000.0)):
        error = Failure(type="Skipped", message=f"as of {at_s:g}")
        leave(tmp_path / "outputs" / str(number), setting(), 1.0, at_s=at_s, status="skipped", error=error)
    assert read().limits == {setting().trial_id(): "as of 3000"}


def test_the_newest_of_run_and_skip_decides_whether_a_setting_is_a_limit(tmp_path, read) -> None:
    skipped = {"status": "skipped", "error": Failure(type="Skipped", message="no")}
    leave(tmp_path / "outputs" / "a", setting(1), 1.0, at_s=1000, **skipped)
    leave(tmp_path / "outputs" / "b", setting(1), 5.0, at_s=2000)
    leave(tmp_path / "outputs" / "c", setting(2), 5.0, at_s=1000)
    leave(tmp_path / "outputs" / "d", setting(2), 1.0, at_s=2000, **skipped)
    assert read().limits == {setting(2).trial_id(): "no"}


def test_records_of_another_environment_do_not_count(tmp_path, read) -> None:
    skipped = {"status": "skipped", "error": Failure(type="Skipped", message="no")}
    leave(tmp_path / "outputs" / "a", setting(), 3.0, fingerprint=HERE | {"torch": "2.12.0"})
    leave(tmp_path / "outputs" / "b", setting(2), 3.0, fingerprint=HERE | {"torch": "2.12.0"}, **skipped)
    leave(tmp_path / "outputs" / "c", setting(3), 3.0, fingerprint={})
    assert read() == History()


def test_reference_runs_do_not_count(tmp_path, read) -> None:
    leave(tmp_path / "outputs" / "a", setting(), 3.0, kind="reference")
    assert read() == History()


def test_records_of_earlier_attempts_and_references_are_not_read(tmp_path, read) -> None:
    leave(tmp_path / "multirun" / "s" / "earlier" / "0", setting(), 3.0)
    leave(tmp_path / "multirun" / "s" / "references" / "ab", setting(), 3.0)
    assert read() == History()


def test_broken_records_are_ignored(tmp_path, read) -> None:
    leave(tmp_path / "outputs" / "good", setting(), 3.0)
    texts = ["", "{", "[]", "null", '{"schema_version": 1}', '{"schema_version": 4}', "\0" * 100]
    for number, text in enumerate(texts):
        (tmp_path / "outputs" / str(number)).mkdir()
        (tmp_path / "outputs" / str(number) / RECORD_NAME).write_text(text, encoding="utf-8")
    (tmp_path / "outputs" / "bytes").mkdir()
    (tmp_path / "outputs" / "bytes" / RECORD_NAME).write_bytes(b"\xff\xfe\xff")
    (tmp_path / "outputs" / "folder" / RECORD_NAME).mkdir(parents=True)
    (tmp_path / "outputs" / "dangling").mkdir()
    (tmp_path / "outputs" / "dangling" / RECORD_NAME).symlink_to(tmp_path / "nowhere")
    (tmp_path / "outputs" / "a file").touch()
    assert read().estimate_s(setting()) == (3.0, True)


def test_requests_in_an_unknown_format_only_lose_the_similarity_estimate(tmp_path, read) -> None:
    leave(tmp_path / "outputs" / "a", setting(), 3.0, requested={})
    history = read()
    assert history.estimate_s(setting()) == (3.0, True)
    assert history.alike_s == {}


def test_a_file_in_place_of_the_folder_gives_no_history(tmp_path) -> None:
    (tmp_path / "multirun").touch()
    assert read_history([tmp_path / "multirun"], HERE) == History()


def test_the_newest_500_are_read(tmp_path, read, monkeypatch) -> None:
    monkeypatch.setattr(module, "RECORDS_READ", 5)
    for number in range(8):  # the older, the longer
        leave(tmp_path / "outputs" / str(number), setting(), 10.0 - number, at_s=1000.0 + number)
    assert read().durations_s == {setting().trial_id(): [3.0, 4.0, 5.0, 6.0, 7.0]}
    monkeypatch.undo()
    assert module.RECORDS_READ == 500


def test_reading_stops_before_it_takes_longer_than_a_job(tmp_path, read, monkeypatch) -> None:
    sizes = [
        leave(tmp_path / "outputs" / str(number), setting(), 10.0 - number, at_s=1000.0 + number).stat().st_size
        for number in range(4)
    ]
    monkeypatch.setattr(module, "BYTES_READ", sum(sizes[2:]) + 10)
    assert read().durations_s == {setting().trial_id(): [7.0, 8.0]}


def test_records_are_ordered_by_age_not_by_name(tmp_path, read, monkeypatch) -> None:
    monkeypatch.setattr(module, "RECORDS_READ", 1)
    leave(tmp_path / "outputs" / "a", setting(), 1.0, at_s=3000)
    leave(tmp_path / "multirun" / "s" / "z", setting(), 2.0, at_s=2000)
    assert read().estimate_s(setting()) == (1.0, True)


def test_a_real_record_is_read(tmp_path, read) -> None:
    record = dataclasses.replace(make_record(), fingerprint=HERE)
    (tmp_path / "outputs" / "a").mkdir(parents=True)
    record.write(tmp_path / "outputs" / "a")
    config = BenchmarkConfig.from_dict(record.requested)
    assert read().estimate_s(config) == (pytest.approx(record.ended_at_s - record.started_at_s), True)


# ---- once in a process ---------------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """Record each record that is read, one entry each."""
    made: list[Path] = []
    real = Record.read

    def read(path: Path) -> Record:
        made.append(path)
        return real(path)

    monkeypatch.setattr(Record, "read", read)
    monkeypatch.setattr(module, "_kept", {})
    return made


def test_records_are_read_once_however_many_jobs_a_search_has(tmp_path, reads, monkeypatch) -> None:
    monkeypatch.setattr("bench.jobs.planning.fingerprint.fingerprint", lambda: HERE)
    for name in ("CI", "FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), force_terminal=True)
    for number in range(5):
        leave(tmp_path / "multirun" / "s" / str(number), setting(number + 1), 5.0)
    told = [job_run._foreseen_s(console, setting(1), [tmp_path / "multirun"]) for _ in range(10)]
    assert told == [5.0] * 10
    assert len(reads) == 5


def test_a_job_that_ended_in_this_process_is_known_without_reading_its_record(tmp_path, reads) -> None:
    leave(tmp_path / "outputs" / "a", setting(1), 5.0)
    history = history_of([tmp_path / "outputs"], HERE)
    config = setting(2)
    remember(make_record(trial_id=config.trial_id(), requested=config.to_dict(), started_at_s=0.0, ended_at_s=9.0))
    assert history_of([tmp_path / "outputs"], HERE).estimate_s(config) == (9.0, True)
    assert history is history_of([tmp_path / "outputs"], HERE)
    assert len(reads) == 1


def test_a_setting_that_has_run_since_it_was_skipped_is_no_limit(tmp_path, reads) -> None:
    leave(tmp_path / "outputs" / "a", setting(1), None, status="skipped", error=Failure(type="Skipped", message="no"))
    history = history_of([tmp_path / "outputs"], HERE)
    assert history.limits == {setting(1).trial_id(): "no"}
    done = make_record(trial_id=setting(1).trial_id(), requested=setting(1).to_dict(), started_at_s=0.0, ended_at_s=9.0)
    remember(done)
    assert history.limits == {}


def test_reference_runs_are_not_remembered(tmp_path, reads) -> None:
    history = history_of([tmp_path / "outputs"], HERE)
    remember(make_record(kind="reference", started_at_s=0.0, ended_at_s=9.0))
    assert history.durations_s == {}
