"""Test from which call on a process is steady."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bench.analysis.calls.steadiness import judge
from bench.analysis.calls.steady_point import steady_point
from bench.results.record import CompileEvent, CompileObserved, Record
from factories import make_iteration, make_record

NOISE = np.random.default_rng(7).normal(0.0, 0.004, 60)


def record(warmup: list[float], measured: list[float], *, noise: float = 1.0, **changes: Any) -> Record:
    """Build a job whose calls take these seconds, each ± 0.4 %, after a validation call of 30 s."""
    times = [30.0, *warmup, *measured]
    phases = ["validation", *["warmup"] * len(warmup), *["measurement"] * len(measured)]
    calls = []
    for index, (time_s, phase) in enumerate(zip(times, phases, strict=True)):
        e2e_s = time_s * (1 + noise * NOISE[index])
        calls.append(make_iteration(index, phase, ttft_s=e2e_s - 0.81, start_s=100.0 * index))
    made = make_record(iterations=calls, warmup_status="fixed", **changes)
    made.steadiness = judge(made)
    return made


def call(made: Record) -> int | None:
    point = steady_point(made)
    return None if point is None else point.call


def test_a_level_series_is_steady_from_the_first_call_after_the_validation():
    assert call(record([1.0] * 5, [1.0] * 20)) == 1


def test_slow_first_calls_too_few_for_a_level_are_excluded():
    assert call(record([3.0, 2.0, 1.0, 1.0, 1.0], [1.0] * 20)) == 3


def test_the_last_of_two_levels_counts():
    assert call(record([2.0] * 5, [1.0] * 20)) == 6


def test_a_step_within_the_measurement_is_the_steady_point():
    made = record([1.3] * 5, [1.3] * 6 + [1.0] * 14)
    assert made.steadiness is not None
    assert made.steadiness.steady is False
    assert call(made) == 12


def test_negligibly_different_levels_are_one():
    assert call(record([1.015] * 5, [1.0] * 20)) == 1


def test_the_level_is_the_median_from_the_steady_point_on():
    point = steady_point(record([2.0] * 5, [1.0] * 20))
    assert point is not None
    assert point.level_s == pytest.approx(1.0, rel=0.005)
    assert point.certain


def test_a_series_that_drifts_to_its_end_never_settles():
    assert call(record([1.0] * 5, [1.0 + 0.02 * step for step in range(20)])) is None


def test_a_series_that_switches_between_two_levels_never_settles():
    assert call(record([1.0] * 5, [1.0, 1.3] * 10)) is None


def test_a_step_too_near_the_end_starts_no_level():
    assert call(record([1.0] * 5, [1.0] * 17 + [1.5] * 3)) is None


def test_a_compilation_in_a_measured_call_delays_the_steady_point():
    event = CompileEvent(iteration=10, kind="recompile")
    made = record([1.0] * 5, [1.0] * 20)
    assert made.observed is not None
    made.observed = dataclasses.replace(made.observed, compile=CompileObserved(graphs=1, events=[event]))
    made.steadiness = judge(made)
    assert call(made) == 11


def test_a_compilation_in_the_last_call_leaves_no_steady_point():
    made = record([1.0] * 5, [1.0] * 20)
    assert made.observed is not None
    compiled = CompileObserved(graphs=1, events=[CompileEvent(iteration=25, kind="graph")])
    made.observed = dataclasses.replace(made.observed, compile=compiled)
    assert call(made) is None


def test_a_warm_up_whose_rule_was_never_met_has_no_steady_point():
    made = record([1.0] * 5, [1.0] * 20)
    made.warmup_status = "not_converged"
    assert call(made) is None


def test_a_throttled_device_has_no_steady_point():
    made = record([1.0] * 5, [1.0] * 20)
    assert made.steadiness is not None
    made.steadiness = dataclasses.replace(made.steadiness, flags=["throttled"])
    assert call(made) is None


def test_a_noisy_steady_point_is_reported_as_uncertain():
    point = steady_point(record([1.0] * 5, [1.0] * 20, noise=10.0))
    assert point is not None
    assert not point.certain


def test_without_measured_calls_there_is_no_steady_point():
    assert call(record([1.0] * 5, [])) is None


def test_segments_of_other_calls_are_ignored():
    made = record([1.0] * 5, [1.0] * 20)
    made.iterations = made.iterations[:1]
    assert call(made) is None
