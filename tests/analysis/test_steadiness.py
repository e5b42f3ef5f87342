"""Test whether a series stays on one level: each flag with a series just above its limit and one just below."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bench.analysis.calls import steadiness
from bench.analysis.calls.series import kendall_p
from bench.analysis.calls.steadiness import judge, judge_series, levels, optimal_partition, smallest_step
from bench.results.record import CompileEvent, Monitor, MonitorSample, Record, Segment
from factories import MEASURED, make_iterations, make_record

N = 20
CALLS = np.arange(N)
# Twenty draws without a trend: known values, so that each test below uses the same noise of 1 %.
NOISE = 0.01 * np.random.default_rng(11).standard_normal(N)
LEVEL = 1 + NOISE


def flags(series, **keywords) -> list[str]:
    return judge_series(list(series), **keywords).flags


def test_a_level_series_is_steady():
    found = judge_series(list(LEVEL))
    assert (found.steady, found.flags, found.shape, found.power) == (True, [], "flat", "enough")


def test_a_step_is_a_changepoint():
    found = judge_series(list(LEVEL + 0.05 * (CALLS >= 10)))
    assert found.steady is False
    assert "changepoint" in found.flags
    assert [(each.start, each.calls) for each in found.segments] == [(0, 10), (10, 10)]


def test_three_calls_are_enough_for_a_level():
    found = judge_series(list(LEVEL + 0.05 * (CALLS >= 17)))
    assert "changepoint" in found.flags
    assert [each.calls for each in found.segments] == [17, 3]


def test_a_significant_but_negligible_step_is_ignored():
    assert flags(1 + 0.05 * NOISE + 0.019 * (CALLS >= 10)) == ["autocorrelated"]


def test_two_slow_calls_are_too_few_for_a_level():
    assert flags(LEVEL + 0.5 * ((CALLS == 7) | (CALLS == 8))) == ["cv_high"]


def test_a_step_is_found_without_noise_too():
    assert "changepoint" in flags([1.0] * 12 + [1.05] * 8)


def test_a_ramp_is_a_trend():
    assert "trend" in flags(LEVEL + 0.05 * CALLS / (N - 1))


@pytest.mark.parametrize(("fall", "seen"), [(0.025, True), (0.015, False)])
def test_a_trend_counts_up_to_a_p_value_of_one_percent(fall, seen):
    series = 1 + 1.5 * NOISE - 1.5 * fall * CALLS / (N - 1)
    assert abs(judge_series(list(series)).drift) > 0.02
    assert (kendall_p(series) < 0.01) is seen
    assert flags(series) == (["trend", "autocorrelated"] if seen else [])


def test_a_significant_but_negligible_trend_is_ignored():
    assert flags(1 + 0.05 * NOISE + 0.019 * CALLS / (N - 1)) == ["autocorrelated"]


def test_drift_is_from_the_first_call_to_the_last():
    found = judge_series([1.0 + 0.001 * number for number in range(21)])
    assert found.drift == pytest.approx(0.02 / 1.01)


def test_two_levels_that_alternate_are_bimodal():
    # An irregular order without three equal values in a row: neither a cycle nor changepoints.
    order = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1])
    assert flags(LEVEL + 0.1 * order) == ["bimodal", "cv_high"]


def test_a_few_slow_calls_are_not_bimodal():
    slow = np.isin(CALLS, [2, 8, 15])  # 15 % of all
    assert "bimodal" not in flags(LEVEL + 0.1 * slow)
    assert "bimodal" in flags(LEVEL + 0.1 * (slow | (CALLS == 18)))


def test_two_calls_of_a_short_series_are_too_few_for_a_level():
    slow = np.isin(np.arange(10), [3, 7])
    assert flags(LEVEL[:10] + 0.1 * slow) == []
    assert flags(LEVEL[:10] + 0.1 * (slow | (np.arange(10) == 5))) == ["bimodal"]


def test_negligibly_different_levels_are_not_bimodal():
    assert "bimodal" not in flags(1 + 0.05 * NOISE + 0.019 * (CALLS % 2))


def test_a_fast_smooth_cycle_is_found_only_by_the_cycle_test():
    assert flags(LEVEL + 0.05 * np.sin(2 * np.pi * (CALLS / 3.7 + 0.1))) == ["cycle"]


def test_a_negligible_cycle_is_ignored():
    assert flags(1 + 0.05 * NOISE + 0.0125 * np.sin(2 * np.pi * (CALLS / 3.7 + 0.1))) == []


def test_the_false_positive_rate_of_cycles_is_below_their_significance(monkeypatch):
    monkeypatch.setattr(steadiness, "CYCLE_P", 0.05)
    rng = np.random.default_rng(5)
    found = [steadiness.is_cycle(series) for series in 1 + 0.1 * rng.standard_normal((2000, N))]
    assert 0.02 < np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_reported_event_or_throttling_makes_a_level_series_unsteady():
    for name in ("event", "throttled"):
        found = judge_series(list(LEVEL), **{name: True})
        assert (found.steady, found.flags, found.power) == (False, [name], "enough")


def test_high_variation_is_reported_and_leaves_open_whether_the_series_is_steady():
    found = judge_series(list(1 + 8 * NOISE))
    assert (found.steady, found.flags, found.power) == (None, ["cv_high"], "too noisy to tell")


def test_noise_above_two_percent_prevents_a_judgement():
    noisy = 1 + NOISE * (0.021 / np.std(NOISE, ddof=1))
    assert judge_series(list(noisy)).power == "too noisy to tell"
    assert judge_series(list(1 + (noisy - 1) * 0.9)).power == "enough"


def test_a_found_step_does_not_count_as_hiding_noise():
    found = judge_series(list(LEVEL + 0.3 * (CALLS >= 10)))
    assert (found.steady, found.power) == (False, "enough")
    assert found.cv > 0.02


def test_one_outlier_does_not_make_a_low_noise_series_too_noisy():
    found = judge_series(list(LEVEL + 0.5 * (CALLS == 4)))
    assert (found.steady, found.flags, found.power) == (True, ["cv_high"], "enough")
    assert found.cv == pytest.approx(np.std(LEVEL + 0.5 * (CALLS == 4), ddof=1) / np.mean(LEVEL + 0.5 * (CALLS == 4)))


def test_autocorrelation_is_reported_and_does_not_make_a_series_unsteady():
    found = judge_series([1.0, 1.001, 1.002, 1.001, 1.0] * 4)
    assert (found.steady, found.flags) == (True, ["autocorrelated"])


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_too_few_calls_prevent_a_judgement(n):
    found = judge_series(list(LEVEL[:n]))
    assert (found.steady, found.power, found.shape, found.segments) == (None, "too few calls", None, [])
    assert found.smallest_step is None


def test_few_calls_do_not_hide_an_event():
    found = judge_series([1.0, 1.0], event=True)
    assert (found.steady, found.power) == (False, "too few calls")


@pytest.mark.parametrize("n", [1, 2, 3, 8, 20, 100])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_series_has_no_variation(n, value):
    found = judge_series([value] * n)
    assert found.flags == []
    assert found.steady is (True if n >= 8 else None)


def test_the_smallest_detectable_step_has_a_gain_equal_to_the_penalty():
    # 20 calls: 20 δ² / 4 = 6 ln 20 · σ².
    assert smallest_step(0.02, 20) == pytest.approx(0.02 * math.sqrt(6 * math.log(20) / 5))


def test_no_step_below_two_percent_is_found_at_any_noise():
    assert smallest_step(0.001, 20) == 0.02


@pytest.mark.parametrize(("factor", "segments"), [(0.99, 1), (1.01, 2)])
def test_the_partition_finds_the_smallest_detectable_step(factor, segments):
    variance = 0.02**2
    step = factor * smallest_step(0.02, N)
    assert len(optimal_partition(1 + step * (CALLS >= 10), variance)) == segments


def test_the_partition_has_the_lowest_cost():
    rng = np.random.default_rng(2)
    series = rng.standard_normal(11)
    penalty = 6 * math.log(11) * 0.05

    def cost(starts: list[int]) -> float:
        parts = np.split(series, starts[1:])
        return sum(float(np.sum((part - part.mean()) ** 2)) for part in parts) + penalty * len(parts)

    def divisions(start: int):
        yield [start]
        for cut in range(start + 3, 9):
            yield from ([start, *rest] for rest in divisions(cut))

    assert optimal_partition(series, 0.05) == min(divisions(0), key=cost)


def test_negligibly_different_segments_are_joined():
    series = [1.0] * 10 + [1.01] * 10 + [1.05] * 10
    assert [(each.start, each.calls) for each in levels(series, first_index=4)] == [(4, 20), (24, 10)]


def test_the_closest_segments_are_joined_first():
    series = [1.0] * 10 + [1.05] * 10 + [1.06] * 10
    assert [(each.start, each.calls) for each in levels(series)] == [(0, 10), (10, 20)]


def test_a_return_to_nearly_the_fastest_level_is_a_warm_up():
    assert judge_series([1.01] * N, before_s=[1.0] * 8 + [1.3] * 8).shape == "warm-up"


def test_a_slow_start_is_a_warm_up():
    found = judge_series(list(LEVEL), before_s=[1.5, 1.52, 1.49, 1.5], first_index=1)
    assert (found.steady, found.shape) == (True, "warm-up")
    assert found.segments == [
        Segment(start=1, calls=4, median_s=1.5),
        Segment(start=5, calls=20, median_s=float(np.median(LEVEL))),
    ]


def test_a_level_above_an_earlier_one_is_a_slowdown():
    assert judge_series(list(LEVEL), before_s=[0.9, 0.89, 0.91, 0.9]).shape == "slowdown"


def test_a_last_level_of_less_than_a_quarter_is_no_steady_state():
    assert judge_series(list(LEVEL - 0.1 * (CALLS >= 16))).shape == "no steady state"
    assert judge_series(list(LEVEL - 0.1 * (CALLS >= 15))).shape == "warm-up"


def test_calls_that_switch_between_levels_are_no_steady_state():
    order = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1])
    assert judge_series(list(LEVEL + 0.1 * order)).shape == "no steady state"


@pytest.mark.parametrize("series", [LEVEL, LEVEL + 0.05 * (CALLS >= 10), LEVEL + 0.05 * CALLS / 19, 1 + 3 * NOISE])
def test_the_unit_changes_no_judgement(series):
    seconds = judge_series(list(series), before_s=[2.0, 1.9])
    milliseconds = judge_series(list(1000 * series), before_s=[2000.0, 1900.0])
    assert [each.median_s for each in milliseconds.segments] == pytest.approx(
        [1000 * each.median_s for each in seconds.segments]
    )
    for name in ("steady", "flags", "shape", "power"):
        assert getattr(milliseconds, name) == getattr(seconds, name)
    for name in ("cv", "lag1", "drift", "smallest_step"):
        assert getattr(milliseconds, name) == pytest.approx(getattr(seconds, name))


# ---- throttling ------------------------------------------------------------------------------------------------------

POWER_CAP, HARDWARE, THERMAL, BRAKE = 0x4, 0x8, 0x20, 0x80
EVERY_BIT = [0x4, 0x8, 0x20, 0x40, 0x80]
LATER = CALLS >= 10


def on_gpu(*calls: list[MonitorSample]) -> Monitor:
    return Monitor(source="nvml", interval_s=0.1, samples=list(calls))


def sample(bits: int | None = None, clock: float | None = None) -> MonitorSample:
    return MonitorSample(time_s=0.0, throttle_bits=bits, sm_clock_mhz=clock)


def monitored(bits, clocks=None) -> Monitor:
    """Build three samples per call: the bits are set in one of them, the clock is that of the median."""
    clocks = [None] * len(bits) if clocks is None else list(clocks)
    return on_gpu(
        *([sample(0, each), sample(bit, each), sample(0, each)] for bit, each in zip(bits, clocks, strict=True))
    )


def where(seen, bit: int) -> list[int]:
    return [bit if each else 0 for each in seen]


@pytest.mark.parametrize("bit", EVERY_BIT)
@pytest.mark.parametrize(
    "seen", [CALLS >= 0, LATER, CALLS == 7, CALLS % 2 == 0], ids=["all", "half", "one", "every second"]
)
@pytest.mark.parametrize("clocks", [[1410.0] * N, None], ids=["constant clock", "no clock"])
def test_a_limit_that_changes_neither_clock_nor_time_does_not_throttle(bit, seen, clocks):
    assert not steadiness.was_throttled(monitored(where(seen, bit), clocks), list(LEVEL))


@pytest.mark.parametrize("bit", EVERY_BIT)
@pytest.mark.parametrize(
    "seen", [LATER, CALLS < 3, CALLS == 7, CALLS % 2 == 0], ids=["half", "first", "one", "every second"]
)
@pytest.mark.parametrize("what", ["clock", "time", "time, no clock"])
def test_calls_with_a_bit_that_are_slower_or_at_a_lower_clock_are_throttled(bit, seen, what):
    clocks = None if what == "time, no clock" else 1410.0 * (1 - 0.05 * (seen if what == "clock" else 0 * CALLS))
    times = LEVEL + 0.05 * (seen if what != "clock" else 0 * CALLS)
    assert steadiness.was_throttled(monitored(where(seen, bit), clocks), list(times))


@pytest.mark.parametrize("clock", [0.05, 0.0])
def test_calls_with_a_bit_that_are_faster_are_not_throttled(clock):
    clocks = 1410.0 * (1 + clock * LATER)
    assert not steadiness.was_throttled(monitored(where(LATER, POWER_CAP), clocks), list(LEVEL - 0.05 * LATER))


def test_a_difference_of_less_than_two_percent_is_ignored():
    quiet = 1 + 0.05 * NOISE
    assert not steadiness.was_throttled(monitored(where(LATER, THERMAL)), list(quiet + 0.018 * LATER))
    assert steadiness.was_throttled(monitored(where(LATER, THERMAL)), list(quiet + 0.022 * LATER))


def test_one_slow_call_of_a_noisy_series_is_chance():
    noisy = 1 + 4 * NOISE
    slow = int(np.argsort(noisy)[-5])  # slower than the median by more than 2 %
    assert noisy[slow] > 1.02 * np.median(noisy)
    assert not steadiness.was_throttled(monitored(where(slow == CALLS, POWER_CAP)), list(noisy))


def test_a_slowdown_during_a_constant_power_limit_is_found_by_its_own_bit():
    bits = [POWER_CAP | (THERMAL if late else 0) for late in LATER]
    seen = monitored(bits, [1410.0] * N)
    assert steadiness.was_throttled(seen, list(LEVEL + 0.05 * LATER))
    assert not steadiness.was_throttled(seen, list(LEVEL))


@pytest.mark.parametrize("change", [LATER, CALLS / 19, np.isin(CALLS, [1, 2, 5, 8, 9, 12, 16, 17])])
def test_a_varying_clock_with_a_limit_in_all_calls_is_throttled(change):
    clocks = 1410.0 * (1 - 0.05 * change)
    assert steadiness.was_throttled(monitored([BRAKE] * N, clocks), list(LEVEL))
    assert not steadiness.was_throttled(monitored([0] * N, clocks), list(LEVEL))


def test_without_a_clock_varying_times_with_a_limit_in_all_calls_are_throttled():
    moved = list(LEVEL + 0.05 * LATER)
    assert steadiness.was_throttled(monitored([HARDWARE] * N), moved)
    assert not steadiness.was_throttled(monitored([HARDWARE] * N, [1410.0] * N), moved)  # something else changed it


def test_calls_without_samples_are_in_neither_group():
    """The monitor had ended: nothing is known of the later calls."""
    seen = monitored([POWER_CAP] * 10).samples + [[]] * 10
    assert not steadiness.was_throttled(on_gpu(*seen), list(LEVEL - 0.05 * LATER))


def test_samples_of_more_or_fewer_calls_than_timed_are_used_where_they_match():
    assert not steadiness.was_throttled(monitored([POWER_CAP] * N), list(LEVEL[:3]))
    assert not steadiness.was_throttled(monitored([POWER_CAP] * 3), list(LEVEL))


@pytest.mark.parametrize("bits", [None, 0, 0x1, 0x2, 0x10, 0x100])
def test_an_idle_device_or_one_on_set_clocks_is_not_throttled(bits):
    seen = monitored([bits if late else 0 for late in LATER])
    assert not steadiness.was_throttled(seen, list(LEVEL + 0.05 * LATER))
    assert not steadiness.reports_throttling(seen)


def test_a_call_far_below_the_highest_clock_is_throttled():
    fast = [sample(0, 1980.0)]
    assert steadiness.was_throttled(on_gpu(fast, [sample(0, 1484.0), sample(0, 1480.0), sample(0, 1980.0)]))
    assert not steadiness.was_throttled(on_gpu(fast, [sample(0, 1486.0)]))


def test_one_low_sample_in_a_call_is_no_throttling():
    assert not steadiness.was_throttled(on_gpu([sample(0, 1980.0), sample(0, 210.0), sample(0, 1980.0)], []))


def test_a_short_boost_at_the_start_of_every_call_is_no_throttling():
    call = [sample(POWER_CAP, 1980.0), *[sample(POWER_CAP, 1200.0)] * 4]
    assert not steadiness.was_throttled(on_gpu(*[call] * N), list(LEVEL))


def test_varying_clocks_of_cpu_cores_are_no_throttling():
    low = Monitor(source="psutil", interval_s=0.1, samples=[[sample(4, 3000.0)], [sample(4, 800.0)]])
    assert not steadiness.was_throttled(low, [1.0, 2.0])
    assert not steadiness.reports_throttling(low)


@pytest.mark.parametrize("bit", EVERY_BIT)
def test_bits_without_an_effect_are_only_noted(bit):
    found = judge(constant(monitored([bit, *[0] * (N - 1)], [1410.0] * N)))
    assert (found.steady, found.flags) == (True, ["throttle_bits"])
    assert steadiness.deciding_flags(found) == []


def test_bits_with_an_effect_are_flagged_without_a_note():
    found = judge(constant(monitored(where(LATER, THERMAL), 1410.0 * (1 - 0.05 * LATER))))
    assert (found.steady, found.flags) == (False, ["throttled"])


def constant(monitor: Monitor) -> Record:
    """Build a record whose measured calls all take the same time."""
    calls = [dataclasses.replace(each, e2e_s=1.0) for each in make_iterations() if each.phase == "measurement"]
    return make_record(iterations=calls, monitor=monitor)


def test_a_record_is_judged_by_its_measured_calls():
    found = judge(make_record())
    assert found is not None
    # The factory's calls rise by 4 ms each: 19 × 4 ms over a median of 0.948 s.
    assert found.drift == pytest.approx(0.076 / 0.948)
    assert "trend" in found.flags


def test_the_segments_of_a_record_start_at_its_first_warm_up_call():
    found = judge(make_record())
    assert found is not None
    assert found.segments[0].start == 1
    assert sum(each.calls for each in found.segments) == 5 + MEASURED


def test_a_record_without_measured_calls_is_not_judged():
    assert judge(make_record(iterations=make_iterations(0))) is None


@pytest.mark.parametrize(("index", "seen"), [(0, False), (5, False), (6, True), (25, True)])
def test_only_events_of_measured_calls_count(index, seen):
    record = make_record()
    compiled = dataclasses.replace(record.observed.compile, events=[CompileEvent(iteration=index, kind="recompile")])
    record.observed = dataclasses.replace(record.observed, compile=compiled)
    assert ("event" in judge(record).flags) is seen


def test_growth_from_the_last_warm_up_to_the_first_measured_call_is_an_event():
    iterations = [
        dataclasses.replace(call, device_reserved_bytes=200 if call.phase == "measurement" else 100)
        for call in make_iterations()
    ]
    assert "event" in judge(make_record(iterations=iterations)).flags


def test_the_calls_of_a_record_are_compared_with_their_own_samples():
    """The factory's calls rise by 4 ms each, so that the later ones take 4 % longer."""
    for seen, throttled in ((LATER, True), (~LATER, False)):
        monitor = monitored(where(seen, THERMAL), [1410.0] * N)
        assert ("throttled" in judge(make_record(monitor=monitor)).flags) is throttled
