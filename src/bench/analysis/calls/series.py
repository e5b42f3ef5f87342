"""Compute the statistics of one series of calls, in the order of the calls.

All are pure functions: any unit is accepted, and scaling the values scales the result or leaves it unchanged, so
seconds and milliseconds lead to the same judgement. They are robust, because one slow call among twenty is common and
says nothing about the other nineteen. A statistic that too few values cannot support is None.

Not covered: the interpretation of the figures (`bench.analysis.calls.steadiness`), and differences between processes,
which no series of one process can show.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# For normal noise: the standard deviation divided by the median, and by the mean, absolute deviation.
SD_PER_MAD = 1.4826
SD_PER_MEAN_DEVIATION = math.sqrt(math.pi / 2)
WINSOR_LIMIT = 5.0  # robust standard deviations from the median


def robust_sd(values: npt.ArrayLike) -> float:
    """Return the standard deviation estimated from the median absolute deviation (MAD), in the unit of the values.

    If more than half of the values are equal (a coarse clock, a level shared by more than half of the calls), the MAD
    is 0 although the series may vary; the mean absolute deviation then replaces it (Iglewicz & Hoaglin 1993, as for
    their modified z-score). Only a constant series gives 0. At least one value.
    """
    series = np.asarray(values, dtype=np.float64)
    deviations = np.abs(series - _median(series))
    mad = _median(deviations)
    return SD_PER_MAD * mad if mad > 0 else SD_PER_MEAN_DEVIATION * float(np.mean(deviations))


def noise(values: npt.ArrayLike) -> float | None:
    """Return the standard deviation from call to call, in the unit of the values; None for fewer than three.

    It is 1.4826 · MAD of the first differences / √2. Steps and slow drifts affect few differences or all of them
    alike, so they do not inflate the estimate. Positive dependence of successive calls does make it too small: for an
    AR(1) series it estimates √(1 - ρ) of the standard deviation.
    """
    series = np.asarray(values, dtype=np.float64)
    return robust_sd(series[1:] - series[:-1]) / math.sqrt(2) if len(series) > 2 else None


def winsorize(values: npt.ArrayLike) -> Array:
    """Clip the values at 5 robust standard deviations from the median. At least one value."""
    series = np.asarray(values, dtype=np.float64)
    median, reach = _median(series), WINSOR_LIMIT * robust_sd(series)
    return np.minimum(np.maximum(series, median - reach), median + reach)


def theil_sen_slope(values: npt.ArrayLike) -> float:
    """Return the median of the slopes through all pairs of values (Theil 1950, Sen 1968), per call; 0 for one value."""
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 2:
        return 0.0
    first, second = _pairs(len(series))
    return _median((series[second] - series[first]) / (second - first))


def kendall_p(values: npt.ArrayLike) -> float:
    """Return the two-sided p value of Kendall's τ against time (the Mann-Kendall test); 1 for a constant series.

    It is the normal approximation with the variance corrected for ties and with the correction for continuity (Kendall
    1975), accurate to a few per cent of p from eight values on. It assumes independent calls.
    """
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    first, second = _pairs(n)
    concordance = abs(float(np.sum(np.sign(series[second] - series[first]))))
    ties = np.unique(series, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    if variance <= 0:
        return 1.0
    return math.erfc(max(0.0, concordance - 1) / math.sqrt(2 * variance))


def lag1_autocorrelation(values: npt.ArrayLike) -> float | None:
    """Return the correlation of successive values, bias-corrected; None for fewer than three values or equal ones.

    The plain estimate of a short series is too low by about (1 + 3ρ) / n (Kendall 1954, Marriott & Pope 1954), which
    is added with the estimate in place of ρ. At most 1.
    """
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    if n < 3:
        return None
    centred = series - np.mean(series)
    power = float(centred @ centred)
    if power <= n * (1e-12 * float(np.max(np.abs(series)))) ** 2:  # only rounding errors
        return None
    plain = float(centred[1:] @ centred[:-1]) / power
    return min(1.0, plain + (1 + 3 * plain) / n)


def effective_n(n: int, autocorrelation: float | None) -> float:
    """Return the number of independent values with the same information about the level: n (1 - ρ) / (1 + ρ), 1 to n.

    That is the ratio for the mean of an AR(1) series. A negative ρ would give more than n and counts as 0: an estimate
    that happens to be negative does not make a series more reliable.
    """
    rho = max(0.0, autocorrelation or 0.0)
    return max(1.0, n * (1 - rho) / (1 + rho))


def median_rank(n: int, confidence: float = 0.95) -> int | None:
    """Return rank k: order statistics k and n + 1 - k enclose the median with this confidence, for any distribution.

    The k-th smallest value is above the median if fewer than k values are below the median; that number is binomial
    with p = 1/2. The largest k with a probability of at most (1 - confidence) / 2 is returned, 6 for n = 20; None if
    even the extremes (k = 1) are too narrow.
    """
    tail = (1 - confidence) / 2
    rank = 0
    ways = outcomes = 1  # of 2**n equally likely ones: with exactly, and with at most, `rank` values below the median
    while outcomes / 2**n <= tail:
        rank += 1
        ways = ways * (n - rank + 1) // rank
        outcomes += ways
    return rank or None


def median_interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return a confidence interval of the median between two order statistics; None for too few values (5 at 95 %).

    Without positive autocorrelation the ranks are those of `median_rank`, for any distribution. With it the distance of
    the ranks from the middle grows by √(n / effective n), rounded outwards, because the standard deviation of the
    number of values below the median grows by about that factor. The extremes are the limit: a series with fewer
    effective values than the interval requires gets its whole range, which then has less than this confidence.
    """
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    rank = median_rank(n, confidence)
    if rank is None:
        return None
    middle = (n + 1) / 2
    stretch = math.sqrt(n / effective_n(n, lag1_autocorrelation(winsorize(series))))
    rank = max(1, math.floor(middle - (middle - rank) * stretch))
    ordered = np.sort(series)
    return float(ordered[rank - 1]), float(ordered[n - rank])


def _median(series: Array) -> float:
    """Return the median without np.median, which spends most of its time on argument handling for a few values."""
    ordered = np.sort(series)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else float(ordered[half - 1] + ordered[half]) / 2


@functools.lru_cache(maxsize=64)
def _pairs(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the positions of all pairs of n values: the earlier ones and the later ones."""
    return np.triu_indices(n, k=1)
