"""Test the phases of a trial's time."""

from __future__ import annotations

from typing import Any

import pytest

from bench.analysis.trials.phases import NAMES, in_generate_s, outside_generate_s, phases_of
from bench.results.record import Record
from factories import STARTED_AT_S, TOTAL_E2E_S, WARMUP_E2E_S, make_record

CALLS_S = 5.0 + sum(WARMUP_E2E_S) + TOTAL_E2E_S
JOURNEY = {
    "wait": 3.0, "start": 0.5, "import": 4.0, "load": 2.0, "validation": 6.0, "warmup": 7.0, "measurement": 20.0,
    "evidence": 1.0, "publish": 0.25,
}  # fmt: skip


def trial(lasted_s: float | None = 50.0, **phases_s: float) -> Record:
    changes: dict[str, Any] = {"ended_at_s": None if lasted_s is None else STARTED_AT_S + lasted_s}
    return make_record(phases_s=phases_s, **changes)


def test_phases_are_in_running_order_whatever_the_order_of_the_record() -> None:
    assert tuple(phases_of(trial(**dict(reversed(JOURNEY.items()))))) == NAMES


def test_wait_and_publish_are_outside_the_span_and_do_not_change_other() -> None:
    without = {name: seconds for name, seconds in JOURNEY.items() if name not in ("wait", "publish")}
    assert phases_of(trial(**JOURNEY))["other"] == pytest.approx(9.5)
    assert phases_of(trial(**without))["other"] == pytest.approx(9.5)


def test_a_phase_within_another_is_not_counted_twice() -> None:
    assert phases_of(trial(**JOURNEY, total=45.0, batching_setup=2.0)) == phases_of(trial(**JOURNEY))


def test_all_evidence_steps_are_one_phase() -> None:
    found = phases_of(trial(evidence=1.0, fidelity=2.0, roofline=3.0, profile=4.0))
    assert found == pytest.approx({"evidence": 10.0, "other": 40.0})


def test_untimed_phases_are_omitted_and_count_in_other() -> None:
    assert phases_of(trial(load=2.0)) == pytest.approx({"load": 2.0, "other": 48.0})


def test_other_is_never_negative() -> None:
    assert phases_of(trial(lasted_s=1.0, load=2.0)) == {"load": 2.0, "other": 0.0}


def test_without_an_end_there_is_no_other() -> None:
    assert phases_of(trial(lasted_s=None, load=2.0)) == {"load": 2.0}


def test_time_in_generate_includes_all_recorded_calls() -> None:
    assert in_generate_s(trial()) == pytest.approx(CALLS_S)


def test_time_outside_generate_excludes_the_calls_and_the_wait() -> None:
    assert outside_generate_s(trial(**JOURNEY)) == pytest.approx(50.0 + 0.25 - CALLS_S)


def test_time_outside_generate_is_unknown_without_timed_phases() -> None:
    assert outside_generate_s(make_record(phases_s={"wait": 3.0}, ended_at_s=None, iterations=[])) is None


def test_time_outside_generate_is_unknown_if_phases_do_not_cover_the_calls() -> None:
    assert outside_generate_s(trial(lasted_s=None, load=2.0)) is None
