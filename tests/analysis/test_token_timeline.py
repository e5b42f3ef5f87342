"""Test the time of each token by its position in the output."""

from __future__ import annotations

import dataclasses

import pytest

from bench.analysis.trials.token_timeline import token_timeline
from bench.results.record import Record
from factories import make_iteration, make_record


def record(*token_times_s: list[float]) -> Record:
    calls = [make_iteration(index, "measurement", start_s=10.0 * index) for index in range(len(token_times_s))]
    changed = [
        dataclasses.replace(each, token_times_s=own, e2e_s=9.0) for each, own in zip(calls, token_times_s, strict=True)
    ]
    return make_record(iterations=changed)


def test_the_first_token_is_separate_and_the_others_are_gaps():
    found = token_timeline([record([0.5, 0.6, 0.8])])
    assert found is not None
    assert found.ttft_s == 0.5
    assert found.gaps_s == pytest.approx([0.1, 0.2])


def test_each_position_has_the_median_over_the_calls():
    found = token_timeline([record([0.5, 0.6], [0.5, 0.7], [0.5, 5.5])])
    assert found is not None
    assert found.gaps_s == pytest.approx([0.2])


def test_several_processes_give_the_median_of_their_medians():
    found = token_timeline([record([1.0, 1.1]), record([2.0, 2.2]), record([9.0, 9.9], [9.0, 9.9])])
    assert found is not None
    assert found.ttft_s == 2.0
    assert found.gaps_s == pytest.approx([0.2])


def test_calls_of_other_lengths_count_for_their_positions():
    found = token_timeline([record([0.5, 0.6, 0.9], [0.5, 0.8])])
    assert found is not None
    assert found.gaps_s == pytest.approx([0.2, 0.3])


def test_the_warm_up_does_not_count():
    made = record([0.5, 0.6], [0.5, 0.7])
    made.iterations[0] = dataclasses.replace(made.iterations[0], phase="warmup")
    found = token_timeline([made])
    assert found is not None
    assert found.gaps_s == pytest.approx([0.2])


def test_requests_of_a_continuous_batch_have_no_common_steps():
    made = record([0.5, 0.6])
    made.iterations[0] = dataclasses.replace(made.iterations[0], request_times_s=[[0.5, 0.6]])
    assert token_timeline([made]) is None


def test_without_token_times_there_is_no_timeline():
    assert token_timeline([record([])]) is None
    assert token_timeline([]) is None
