"""Test when the warm-up and the measurement end."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.calls.stopping import (
    MOST_DISTURBED,
    MeasurementRule,
    Stop,
    WarmupRule,
    levelness,
    relative_half_width,
)


def warm_up(rule: WarmupRule, e2e_s, disturbed=()) -> tuple[int, Stop | None]:
    """Return how many calls of a series the rule uses and why it ends."""
    for n in range(1, len(e2e_s) + 1):
        if stop := rule.decide(e2e_s[:n], {each for each in disturbed if each < n}):
            return n, stop
    return len(e2e_s), None


def noisy(count: int, *, cv: float = 0.005, seed: int = 0) -> np.ndarray:
    return 1 + cv * np.random.default_rng(seed).standard_normal(count)


def test_steady_calls_end_the_warm_up_with_the_first_full_window() -> None:
    n, stop = warm_up(WarmupRule(), [1.0] * 60)
    assert (n, stop.status) == (8, "converged")
    assert stop.reason == "the last 8 calls are level (second half +0.0%, along the line +0.0%)"


def test_a_compilation_restarts_the_window() -> None:
    assert warm_up(WarmupRule(), [1.0] * 60, disturbed=[3])[0] == 4 + 8
    assert warm_up(WarmupRule(), [1.0] * 60, disturbed=[0, 6])[0] == 7 + 8


def test_a_single_slow_call_without_an_event_does_not_extend_the_warm_up() -> None:
    """One slow call changes neither half's median nor the Theil-Sen line: both estimators are robust."""
    assert warm_up(WarmupRule(), [9.0] + [1.0] * 59)[0] == 8


def test_a_falling_series_is_not_warm_and_a_rising_one_is() -> None:
    falling = [2.0 * 0.99**k for k in range(60)]  # 6.8 % over a window
    rising = [1.0 * 1.005**k for k in range(60)]  # 3.5 % over a window
    assert warm_up(WarmupRule(), falling)[1].status == "not_converged"
    assert warm_up(WarmupRule(), rising)[1].status == "converged"


def test_the_limits_are_those_of_the_half_medians_and_of_the_line() -> None:
    # Halves [1, 1, 1, 1] and [x, x, x, x]: the gain is (1 - x) / ((1 + x) / 2).
    assert levelness(np.array([1.0] * 4 + [0.98] * 4))[0] == pytest.approx(0.02 / 0.99)
    assert WarmupRule().decide([0.95] * 4 + [0.95 * 0.984] * 4, set()).status == "converged"
    assert WarmupRule().decide([1.0] * 4 + [0.979] * 4, set()) is None
    assert WarmupRule().decide([1.0] * 4 + [1.049] * 4, set()).status == "converged"
    assert WarmupRule().decide([1.0] * 4 + [1.053] * 4, set()) is None
    # A straight line: the halves' medians are four calls apart, first and last seven.
    line = np.linspace(1.0, 0.975, 8)
    gain, fall = levelness(line)
    assert fall == pytest.approx(0.025 / 0.9875)
    assert gain == pytest.approx(0.025 * 4 / 7 / 0.9875)
    assert WarmupRule().decide(line, set()) is None  # the halves alone would pass


def test_the_cap_on_calls_counts_from_the_last_event() -> None:
    falling = [0.97**k for k in range(90)]
    n, stop = warm_up(WarmupRule(), falling, disturbed=[20])
    assert (n, stop.status) == (21 + 50, "not_converged")
    assert stop.reason.startswith("after 50 calls the last 8 calls are not level (second half -12.2%")


def test_the_cap_on_time_counts_from_the_last_event_and_leaves_a_full_window() -> None:
    falling = [4 * 0.97**k for k in range(90)]
    n, stop = warm_up(WarmupRule(max_s=40.0), [1000.0, *falling], disturbed=[0])
    assert n == 1 + 12  # 4 × (1 - 0.97^12) / 0.03 = 40.8 s
    assert "40.8 s" in stop.reason
    assert warm_up(WarmupRule(max_s=1.0), falling)[0] == 8


def test_the_warm_up_takes_no_longer_than_three_times_the_measurement() -> None:
    falling = [4 * 0.97**k for k in range(90)]
    assert warm_up(WarmupRule(planned_calls=4), falling)[0] == 12  # three times four calls


def test_an_unexplained_slow_call_does_not_use_up_the_warm_up() -> None:
    n, stop = warm_up(WarmupRule(planned_calls=20), [5.0, 5.0, 3.0, *[0.08] * 57])
    assert (n, stop.status) == (10, "converged")


def test_slow_calls_get_a_shorter_window() -> None:
    assert warm_up(WarmupRule(), [10.1] * 60)[0] == 5
    assert warm_up(WarmupRule(), [9.9] * 60)[0] == 8
    assert warm_up(WarmupRule(min_calls=7), [10.1] * 60)[0] == 7


def test_the_minimum_number_of_calls_counts_from_the_last_event() -> None:
    assert warm_up(WarmupRule(min_calls=12), [1.0] * 60, disturbed=[4])[0] == 5 + 12


def test_endless_events_end_the_warm_up() -> None:
    n, stop = warm_up(WarmupRule(), [1.0] * 200, disturbed=range(200))
    assert (n, stop.status) == (MOST_DISTURBED + 1, "not_converged")
    assert stop.reason == "a compilation, graph capture or growth of memory in 17 of 17 calls"


def test_seconds_and_milliseconds_stop_at_the_same_call() -> None:
    series = noisy(60, cv=0.02) + 0.3 * np.exp(-np.arange(60) / 4)
    short = WarmupRule(max_s=1e9)
    assert warm_up(short, series)[0] == warm_up(short, series / 1000)[0]


# ---- measurement -------------------------------------------------------------------------------------------------


def measure(rule: MeasurementRule, e2e_s) -> tuple[int, Stop | None]:
    for n in range(1, len(e2e_s) + 1):
        if stop := rule.decide(list(e2e_s[:n])):
            return n, stop
    return len(e2e_s), None


def test_low_noise_ends_the_measurement_at_the_second_check() -> None:
    n, stop = measure(MeasurementRule(), noisy(100))
    assert (n, stop.status) == (25, "converged")
    assert stop.reason.endswith("after 25 calls")


def test_one_check_with_a_narrow_interval_is_not_enough() -> None:
    """Narrow at 20 calls, wide at 25, narrow at 30 and 35."""
    quiet = [1.0] * 20
    wild = [1.2, 0.8, 1.2, 0.8, 1.2]
    assert MeasurementRule().decide(quiet) is None
    series = [*quiet, *wild, *[1.0] * 75]
    looks = [relative_half_width(series[:n]) for n in (20, 25, 30)]
    assert measure(MeasurementRule(), series)[0] == 25 + 5 * (looks[1] > 0.01) + 5 * (looks[1] > 0.01)


def test_persistent_noise_ends_at_the_cap_with_the_interval_reached() -> None:
    n, stop = measure(MeasurementRule(), noisy(100, cv=0.3, seed=1))
    assert (n, stop.status) == (100, "not_converged")
    assert stop.reason.startswith("after 100 calls the median is known to ±")
    assert stop.reason.endswith("not to ±1.00% at two looks in a row")


def test_the_cap_on_time_keeps_the_minimum_number_of_calls() -> None:
    wild = 10 * noisy(100, cv=0.3, seed=1)
    assert measure(MeasurementRule(max_s=1.0), wild)[0] == 20
    assert 30 < measure(MeasurementRule(max_s=400.0), wild)[0] < 50


def test_a_cap_between_two_checks_is_respected() -> None:
    assert measure(MeasurementRule(max_calls=22), noisy(100, cv=0.3))[0] == 22


def test_correlated_calls_are_measured_longer() -> None:
    rng = np.random.default_rng(3)
    independent, correlated = [], []
    for _ in range(20):
        shocks = rng.standard_normal(100)
        chain = [shocks[0]]
        for each in shocks[1:]:
            chain.append(0.6 * chain[-1] + 0.8 * each)  # the same variance
        independent.append(measure(MeasurementRule(), 1 + 0.02 * shocks)[0])
        correlated.append(measure(MeasurementRule(), 1 + 0.02 * np.array(chain))[0])
    assert np.mean(correlated) > 1.3 * np.mean(independent)
