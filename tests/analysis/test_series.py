"""Check the statistics of one series against hand-calculated figures and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, kendalltau, theilslopes

from bench.analysis.calls.series import (
    SD_PER_MAD,
    effective_n,
    kendall_p,
    lag1_autocorrelation,
    median_interval,
    median_rank,
    noise,
    robust_sd,
    theil_sen_slope,
    winsorize,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_robust_sd_is_the_scaled_median_distance_from_the_median():
    assert robust_sd([1.0, 2.0, 3.0, 4.0, 10.0]) == pytest.approx(1.4826)


def test_with_more_than_half_equal_the_mean_distance_is_used():
    assert robust_sd([1.0] * 6 + [2.0] * 4) == pytest.approx(0.4 * math.sqrt(math.pi / 2))


def test_noise_is_estimated_from_differences_of_successive_values():
    # Differences 1, 3, -2, 2: median 1.5, distances 0.5, 1.5, 3.5, 0.5.
    assert noise([0.0, 1.0, 4.0, 2.0, 4.0]) == pytest.approx(1.4826 * 1.0 / math.sqrt(2))


def test_a_step_does_not_count_as_noise(rng):
    level = rng.normal(1.0, 0.01, 40)
    stepped = level + 0.1 * (np.arange(40) >= 20)
    assert noise(stepped) == pytest.approx(noise(level), rel=0.1)


def test_noise_estimates_the_standard_deviation(rng):
    assert noise(rng.normal(1.0, 0.01, 20_000)) == pytest.approx(0.01, rel=0.03)


def test_a_step_in_a_series_without_noise_leaves_some_noise():
    """With zero noise every penalty would be 0, and splitting the series would be free."""
    assert noise([1.0] * 10 + [1.05] * 10) == pytest.approx(0.05 / 19 * math.sqrt(math.pi) / 2)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_fewer_than_two_differences_have_no_noise(values):
    assert noise(values) is None


def test_winsorizing_clips_values_beyond_five_deviations():
    values = [9.0, 10.0, 10.0, 11.0, 9.0, 10.0, 11.0, 100.0, -100.0]
    reach = 5 * SD_PER_MAD
    assert winsorize(values).tolist() == pytest.approx([*values[:7], 10 + reach, 10 - reach])


def test_winsorizing_keeps_a_second_level_of_two_fifths_of_the_calls():
    values = [1.0] * 12 + [1.05] * 8
    assert winsorize(values).tolist() == values


def test_the_slope_is_the_median_of_all_pairs():
    # Slopes: 1, 0.5, 3 between neighbours' distances 1, 2, 3 …: (2-1), (2-1)/2, (11-1)/3, 0, 9/2, 9.
    assert theil_sen_slope([1.0, 2.0, 2.0, 11.0]) == pytest.approx((1 + 10 / 3) / 2)


def test_the_slope_agrees_with_scipy(rng):
    values = rng.normal(1.0, 0.1, 21)
    assert theil_sen_slope(values) == pytest.approx(theilslopes(values).slope)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_constant_series_has_no_slope_and_no_trend(n):
    assert (theil_sen_slope([2.0] * n), kendall_p([2.0] * n)) == (0.0, 1.0)


@pytest.mark.parametrize("trend", [0.0, 0.005, 0.02, -0.01])
def test_the_p_value_is_near_the_exact_one(rng, trend):
    values = rng.normal(1.0, 0.05, 20) + trend * np.arange(20)
    assert kendall_p(values) == pytest.approx(kendalltau(range(20), values, method="exact").pvalue, rel=0.1, abs=1e-4)


def test_a_trend_with_ties_agrees_with_the_hand_calculation():
    # Eight rises, one fall, one tie among ten pairs; variance (5·4·15 - 2·1·9) / 18 = 15.667.
    values = [1.0, 2.0, 2.0, 4.0, 3.0]
    assert kendall_p(values) == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(6 / math.sqrt(2 * 282 / 18)))), rel=1e-9)


def test_the_autocorrelation_is_corrected_for_its_bias():
    # Around the mean 3: -2 -1 0 1 2, products 2 + 0 + 0 + 2 over 10 = 0.4; plus (1 + 1.2) / 5.
    assert lag1_autocorrelation([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(0.4 + 0.44)


def test_the_correction_removes_the_bias(rng):
    noise_of_call = rng.standard_normal((4000, 20))
    found = [lag1_autocorrelation(values) for values in noise_of_call]
    assert np.mean(found) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [0.1] * 20])
def test_a_constant_series_has_no_autocorrelation(values):
    assert lag1_autocorrelation(values) is None


def test_an_autocorrelation_is_at_most_one():
    assert lag1_autocorrelation([float(number) for number in range(12)]) == 1.0


@pytest.mark.parametrize(("rho", "expected"), [(None, 20), (-0.5, 20), (0.0, 20), (0.6, 5), (1 / 3, 10), (1.0, 1)])
def test_positive_autocorrelation_reduces_the_effective_sample_size(rho, expected):
    assert effective_n(20, rho) == pytest.approx(expected)


@pytest.mark.parametrize("n", [6, 7, 8, 9, 20, 21, 50, 100, 1023, 1024, 3000])
def test_the_rank_interval_is_the_narrowest_that_covers_95_percent(n):
    rank = median_rank(n)
    assert rank is not None
    assert binom.cdf(rank - 1, n, 0.5) <= 0.025 < binom.cdf(rank, n, 0.5)


def test_fewer_than_six_values_have_no_rank():
    assert [median_rank(n) for n in range(7)] == [None] * 6 + [1]


def test_twenty_values_without_positive_autocorrelation_give_ranks_6_and_15():
    low_and_high = [value for pair in zip(range(1, 11), range(20, 10, -1), strict=True) for value in pair]
    assert median_interval(low_and_high) == (6, 15)


@pytest.mark.parametrize("n", [6, 7, 20, 21, 50, 51, 100])
def test_without_positive_autocorrelation_the_ranks_are_binomial(n):
    values = [(-1.0) ** number * (1 + number) for number in range(n)]
    rank = median_rank(n)
    assert median_interval(values) == (sorted(values)[rank - 1], sorted(values)[n - rank])


def test_autocorrelation_widens_the_interval_by_the_root_of_the_lost_calls():
    # Pairs of equal values: ρ = 29.25 / 165, with its correction 0.254; 4.5 ranks from the middle become 5.8.
    values = np.repeat([5.0, 1.0, 8.0, 3.0, 10.0, 2.0, 7.0, 4.0, 9.0, 6.0], 2)
    assert lag1_autocorrelation(values) == pytest.approx(0.17727 + (1 + 3 * 0.17727) / 20, abs=1e-5)
    assert median_interval(values) == (np.sort(values)[3], np.sort(values)[16])


def test_an_outlier_does_not_hide_the_autocorrelation():
    values = [float(number) for number in range(20)]
    values[9] = 1000.0
    assert lag1_autocorrelation(values) < 0.1
    assert median_interval(values)[0] == 3.0  # 5.0 as if independent


def test_a_monotonic_series_gets_its_whole_range():
    assert median_interval([float(number) for number in range(20)]) == (0.0, 19.0)


def test_a_constant_series_has_an_interval_of_zero_width():
    assert median_interval([2.0] * 20) == (2.0, 2.0)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_values_have_no_interval(n):
    assert median_interval([1.0] * n) is None


def test_the_unit_only_scales_the_results(rng):
    seconds = rng.normal(1.0, 0.02, 20)
    milliseconds = 1000 * seconds
    assert median_interval(milliseconds) == pytest.approx([1000 * end for end in median_interval(seconds)])
    assert (noise(milliseconds), theil_sen_slope(milliseconds)) == pytest.approx(
        (1000 * noise(seconds), 1000 * theil_sen_slope(seconds))
    )
    assert (kendall_p(milliseconds), lag1_autocorrelation(milliseconds)) == pytest.approx(
        (kendall_p(seconds), lag1_autocorrelation(seconds))
    )
