"""Test which calls did work that a steady call does not do."""

from __future__ import annotations

import dataclasses

import pytest

from bench.analysis.calls.events import disturbed_calls
from bench.results.record import CompileEvent
from factories import make_iteration


def calls(*reserved: int | None):
    """Build calls from index 3 on with these allocator reserves after them."""
    made = [make_iteration(index, "warmup") for index in range(3, 3 + len(reserved))]
    return [dataclasses.replace(call, device_reserved_bytes=each) for call, each in zip(made, reserved, strict=True)]


@pytest.mark.parametrize("kind", ["graph", "recompile", "failure", "autotune", "cudagraph_record"])
def test_a_call_that_waited_for_the_compiler_or_a_capture_is_disturbed(kind):
    assert disturbed_calls(calls(None, None), [CompileEvent(iteration=4, kind=kind)]) == {4}


@pytest.mark.parametrize("kind", ["graph_break", "cudagraph_skip"])
def test_events_without_a_duration_disturb_no_call(kind):
    assert disturbed_calls(calls(None, None), [CompileEvent(iteration=4, kind=kind)]) == set()


def test_growth_of_the_reserve_disturbs_the_call_that_caused_it():
    assert disturbed_calls(calls(10, 10, 20, 20), []) == {5}


def test_a_shrinking_reserve_disturbs_no_call():
    assert disturbed_calls(calls(20, 10), []) == set()


def test_an_unknown_reserve_has_not_grown():
    assert disturbed_calls(calls(None, 10, None, 20), []) == set()


def test_the_first_reserve_is_no_growth():
    assert disturbed_calls(calls(10), []) == set()


def test_events_of_calls_outside_the_series_do_not_count():
    assert disturbed_calls(calls(None), [CompileEvent(iteration=0, kind="graph")]) == set()
