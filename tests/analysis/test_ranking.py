"""Test which settings did the same work and the order of reasons; test_one_answer.py tests the whole ranking."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.analysis.ranking import comparable_groups, differing_keys, lowest, rank, shown_work, standing_of
from bench.analysis.settings import settings_of
from bench.results.record import Fidelity, Record, Steadiness
from factories import make_config
from sweeps import job

TREND = Steadiness(steady=False, flags=["trend", "cv_high", "autocorrelated"], shape="slowdown", power="enough")
NOISY = Steadiness(steady=None, flags=["cv_high"], shape="flat", power="too noisy to tell")


def prompted(name: str, path: str, digest: str | None, **changes: Any) -> Record:
    record = job(name, 1.0, **changes)
    requested = make_config().to_dict()
    record.requested = requested | {"workload": requested["workload"] | {"prompt_file": path}}
    assert record.observed is not None
    record.observed = dataclasses.replace(record.observed, prompt_digest=digest)
    return record


def groups(*records: Record) -> list[list[str]]:
    return [[each.name for each in group] for group in comparable_groups(settings_of(records))]


def test_prompts_with_the_same_content_are_the_same_work_at_any_path() -> None:
    assert groups(prompted("a", "/one/p.txt", "1" * 64), prompted("b", "/two/q.txt", "1" * 64)) == [["a", "b"]]


def test_a_prompt_changed_at_the_same_path_is_different_work() -> None:
    records = prompted("a", "p.txt", "1" * 64), prompted("b", "p.txt", "2" * 64)
    assert groups(*records) == [["a"], ["b"]]
    assert differing_keys(settings_of(records)) == ["workload.prompt_file"]


def test_without_the_content_the_path_decides() -> None:
    assert groups(prompted("a", "p.txt", None), prompted("b", "q.txt", None)) == [["a"], ["b"]]
    assert groups(prompted("a", "p.txt", None), prompted("b", "p.txt", None)) == [["a", "b"]]


def test_the_path_of_the_prompt_is_shown() -> None:
    (setting,) = settings_of([prompted("a", "p.txt", "1" * 64)])
    assert shown_work(setting, "workload.prompt_file") == "p.txt"


def test_among_different_work_no_setting_has_the_lowest_median() -> None:
    records = [prompted("a", "p.txt", "1" * 64), prompted("b", "q.txt", "2" * 64)]
    assert lowest(rank(settings_of(records))) == []
    assert [each.setting.name for each in lowest(rank(settings_of([job("a", 1.0), job("b", 0.9)])))] == ["b"]


def test_reasons_are_in_deciding_order_with_the_deciding_flags() -> None:
    record = job("a", 1.0, steadiness=TREND, fidelity=Fidelity(reference="eager", agrees=False, reason="other tokens"))
    record.warmup_status, record.warmup_stop = "not_converged", "after 50 calls"
    standing = standing_of([record])
    assert [each.kind for each in standing.reasons] == ["output", "warm-up", "unsteady"]
    assert standing.marks == "≠~!"
    assert [each.text for each in standing.reasons] == [
        "its output differs from the reference's (other tokens)",
        "its warm-up did not converge (after 50 calls)",
        "it was unsteady during measurement (trend)",
    ]


def test_processes_are_counted_by_their_steadiness_state() -> None:
    states = [TREND, TREND, NOISY, NOISY, TREND]
    standing = standing_of([job("a", 1.0, at + 1, steadiness=each) for at, each in enumerate(states)])
    (reason,) = standing.reasons
    told = "it was unsteady during measurement (3 of 5 processes unsteady, 2 too noisy to tell; trend)"
    assert reason.text == told


def test_cold_and_unsteady_processes_count_together() -> None:
    records = [job("a", 1.0, repeat) for repeat in range(1, 6)]
    records[0].steadiness = TREND
    records[1].warmup_status = "not_converged"
    assert standing_of(records).is_ranked
    records[2].warmup_status = "not_converged"
    assert [each.kind for each in standing_of(records).reasons] == ["warm-up", "unsteady"]
