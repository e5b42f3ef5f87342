"""Test the operating points of a setting under the roofline."""

from __future__ import annotations

import dataclasses

import pytest

from bench.analysis.trials.operating_points import operating_points
from bench.results.record import Record, Roofline
from factories import make_record

COSTS = Roofline(rates=None, prefill_bytes=1e6, prefill_flops=4e8, decode_bytes=1e6, decode_flops=2e6)


def record(**changes: object) -> Record:
    """Build a record with first tokens after 0.1 s and a median of 0.2095 s between tokens."""
    return make_record(roofline=dataclasses.replace(COSTS, **changes))


def test_intensity_is_flops_over_bytes_and_speed_flops_over_the_median_time():
    prefill, decode = operating_points(record())
    assert (prefill.stage, prefill.flops_per_byte) == ("prefill", 400.0)
    assert prefill.flops_per_s == pytest.approx(4e9)
    assert (decode.stage, decode.flops_per_byte) == ("decode", 2.0)
    assert decode.flops_per_s == pytest.approx(2e6 / 0.2095)


def test_a_stage_above_the_devices_limits_has_no_point():
    assert [each.stage for each in operating_points(record(rejected={"prefill_mfu": 1.4}))] == ["decode"]


def test_unknown_costs_give_no_point():
    assert [each.stage for each in operating_points(record(decode_flops=None))] == ["prefill"]
    assert operating_points(make_record(roofline=None)) == []


def test_without_measured_calls_there_is_no_point():
    made = record()
    made.iterations = made.iterations[:3]
    assert operating_points(made) == []
