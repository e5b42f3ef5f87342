"""Judge whether the measured calls stayed on one level, and classify the course of warm-up and measurement.

A median predicts the next call only if all calls are on one level. Each kind of violation has its own test, because no
test detects all: a *changepoint* between two levels, a *trend*, two levels between which the calls switch (*bimodal*),
a *cycle*; and two reports of the machine and the libraries: a GPU that was *throttled*, a call with an *event* (see
`bench.analysis.calls.events`). Any of those makes a series unsteady. *cv_high*, *autocorrelated* and *throttle_bits*
are also reported but do not: a noisy series may be level, the interval of the median includes the dependence between
calls, and a GPU that works at its power limit from the first call to the last reports throttling although nothing
changes.

A clean series is called steady only if the tests had enough power: not with fewer than MIN_CALLS calls, and not above a
coefficient of variation of MOST_CV.

Every test uses the series divided by its median and clipped at 5 robust standard deviations, because one slow call is
not a level. A difference counts from SMALLEST_DIFFERENCE on, however certain it is.

Not covered: differences between processes; and dependence between calls on a constant level, which the tests treat as
independent noise: strongly autocorrelated series are called unsteady more often than they should be.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.analysis.calls.events import disturbed_calls
from bench.analysis.calls.series import (
    Array,
    kendall_p,
    lag1_autocorrelation,
    noise,
    robust_sd,
    theil_sen_slope,
    winsorize,
)
from bench.results.record import Monitor, MonitorSample, Record, Segment, Steadiness

STRUCTURAL = ("changepoint", "trend", "bimodal", "cycle", "throttled", "event")  # flags that make a series unsteady
SMALLEST_DIFFERENCE = 0.02  # between levels, as a fraction of the median
# The tests need at least this many calls: two segments and a little more, to find a step of 2.5 noise deviations, and
# seven differences to estimate the noise. At a CV of 1 % they call 1 % of level series of 8 unsteady, at 2 % it is 10 %
# (20 calls: 0.5 % and 2.5 %).
MIN_CALLS = 8
MIN_SEGMENT = 3  # calls on one level: fewer are outliers
PENALTY_PER_LOG_N = 6.0  # times ln n, in units of the noise's variance, for each changepoint
TREND_P = 0.01
LEAST_CLUSTER = 0.2  # of all calls, required on each of two levels
MIN_CLUSTER = 3  # calls: two are too easily close together by chance
ASHMAN_D = 4.5  # distance between two levels, in units of their spread
CYCLE_P = 0.001
MOST_CV = 0.02  # above it a clean series is too noisy to tell
CV_HIGH = 0.05
LAG1_HIGH = 0.3
LAST_LEVEL_SHARE = 0.25  # of all calls, required on the last level (500 of 2,000 in Barrett et al., OOPSLA 2017)
# NVML's clocks-event reasons that state throttling of the device: SwPowerCap, HwSlowdown, SwThermalSlowdown,
# HwThermalSlowdown, HwPowerBrakeSlowdown.
THROTTLE_REASONS = (0x4, 0x8, 0x20, 0x40, 0x80)
THROTTLE_BITS = sum(THROTTLE_REASONS)
LOWEST_CLOCK = 0.75  # of the highest median SM clock of a call
CHANCE = 3.0  # standard errors by which the calls with a bit must differ from those without


def judge(record: Record) -> Steadiness | None:
    """Judge the E2E of a record's measured calls; None if there are none.

    The warm-up calls count only for the shape and the segments; the validation call does not count.
    """
    measured, warmup = record.calls("measurement"), record.calls("warmup")
    if not measured:
        return None
    compiled = record.observed.compile if record.observed is not None else None
    disturbed = disturbed_calls(record.iterations, compiled.events if compiled is not None else [])
    return judge_series(
        [call.e2e_s for call in measured],
        before_s=[call.e2e_s for call in warmup],
        first_index=(warmup or measured)[0].index,
        event=any(call.index in disturbed for call in measured),
        throttled=record.monitor is not None and was_throttled(record.monitor, [call.e2e_s for call in measured]),
        throttle_bits=record.monitor is not None and reports_throttling(record.monitor),
    )


def judge_series(
    measured_s: Sequence[float],
    *,
    before_s: Sequence[float] = (),
    first_index: int = 0,
    event: bool = False,
    throttled: bool = False,
    throttle_bits: bool = False,
) -> Steadiness:
    """Judge a series of measured calls.

    Args:
        measured_s: E2E of each, in order, positive; at least one.
        before_s: of the warm-up calls before them, for the shape and the segments.
        first_index: index in the job of the first of all these calls.
        event: whether a measured call held a compilation, graph capture or growth of the allocator's reserve.
        throttled: whether throttling moved the clock or the time of measured calls.
        throttle_bits: whether the GPU reported throttling; noted if `throttled` is false.
    """
    n = len(measured_s)
    raw = np.asarray(measured_s, dtype=np.float64) / _scale(measured_s)
    series = winsorize(raw)
    noise_sd = noise(series)
    lag1 = lag1_autocorrelation(series)
    cv = _cv(raw)
    drift = theil_sen_slope(series) * (n - 1) if n > 1 else None
    found = {"throttled": throttled, "event": event}
    own_levels = levels(measured_s, first_index=first_index) if n >= MIN_CALLS else []
    if own_levels:
        found |= {
            "changepoint": len(own_levels) > 1,
            "trend": abs(drift or 0.0) > SMALLEST_DIFFERENCE and kendall_p(series) < TREND_P,
            "bimodal": is_bimodal(raw),
            "cycle": is_cycle(series),
        }
    structural = [flag for flag in STRUCTURAL if found.get(flag)]
    noted = {
        "cv_high": (cv or 0.0) > CV_HIGH,
        "autocorrelated": (lag1 or 0.0) > LAG1_HIGH,
        "throttle_bits": throttle_bits and not throttled,
    }
    power = _power(n, _cv(series), clean=not structural)
    segments = own_levels
    if before_s and len(before_s) + n >= MIN_CALLS:
        segments = levels([*before_s, *measured_s], first_index=first_index)
    return Steadiness(
        steady=False if structural else (True if power == "enough" else None),
        flags=[*structural, *(flag for flag, holds in noted.items() if holds)],
        shape=shape_of(segments, moving=any(found.get(each) for each in ("trend", "bimodal", "cycle"))),
        power=power,
        cv=cv,
        lag1=lag1,
        drift=drift,
        smallest_step=smallest_step(noise_sd, n) if noise_sd is not None and n >= MIN_CALLS else None,
        segments=segments,
    )


def deciding_flags(judged: Steadiness) -> list[str]:
    """Return the flags that make a series unsteady; the others are only notes."""
    return [flag for flag in judged.flags if flag in STRUCTURAL]


def _power(n: int, cv: float | None, *, clean: bool) -> str:
    """Tell whether the tests had enough power; `cv` is that of the winsorised series.

    The tests see clipped outliers, so outliers do not count as noise here either.
    """
    if n < MIN_CALLS:
        return "too few calls"
    return "too noisy to tell" if clean and (cv or 0.0) > MOST_CV else "enough"


def _cv(series: Array) -> float | None:
    mean = float(np.mean(series))
    return float(np.std(series, ddof=1)) / mean if len(series) > 1 and mean > 0 else None


def _scale(values_s: Sequence[float]) -> float:
    """Return the median; 1 if a clock too coarse for the calls makes it 0."""
    return float(np.median(values_s)) or 1.0


def smallest_step(noise_sd: float, n: int) -> float:
    """Return the smallest step in the middle of n calls that the changepoint test finds, in the unit of the noise.

    A division into n/2 calls on either side of a step δ lowers the sum of squares by n δ² / 4; it is made from the
    penalty 6 ln n · σ² on, so δ = 2σ √(6 ln n / n), and it counts from SMALLEST_DIFFERENCE on. With the call's own
    noise on top, a step of just this size is found about every second time.
    """
    return max(SMALLEST_DIFFERENCE, 2 * noise_sd * math.sqrt(PENALTY_PER_LOG_N * math.log(n) / n))


def levels(values_s: Sequence[float], *, first_index: int = 0) -> list[Segment]:
    """Return the segments of calls on one level; their medians differ by more than SMALLEST_DIFFERENCE of the median.

    Closer neighbours in the optimal partition are joined, the closest first: in a long series or one with little noise,
    differences are significant long before they matter. At least three calls.
    """
    raw = np.asarray(values_s, dtype=np.float64)
    scale = _scale(values_s)
    series = winsorize(raw / scale)
    starts = optimal_partition(series, (noise(series) or 0.0) ** 2)
    while len(starts) > 1:
        medians = [float(np.median(part)) / scale for part in np.split(raw, starts[1:])]
        gaps = [abs(after - before) for before, after in itertools.pairwise(medians)]
        closest = int(np.argmin(gaps))
        if gaps[closest] > SMALLEST_DIFFERENCE:
            break
        del starts[closest + 1]
    return [
        Segment(start=first_index + start, calls=len(part), median_s=float(np.median(part)))
        for start, part in zip(starts, np.split(raw, starts[1:]), strict=True)
    ]


def optimal_partition(series: Array, variance: float) -> list[int]:
    """Return the starts of the segments that minimise the sum of squares around their means plus the penalties.

    It is exact, by dynamic programming over all divisions into segments of at least MIN_SEGMENT values (optimal
    partitioning: Jackson et al. 2005). Each segment after the first costs PENALTY_PER_LOG_N · ln n · variance. Barrett
    et al. use 15 ln n on 2,000 calls; on 20 that misses most steps of 5 %.
    """
    n = len(series)
    penalty = PENALTY_PER_LOG_N * math.log(n) * variance
    centred = series - np.mean(series)  # against cancellation in the sums of squares
    sums = np.concatenate(([0.0], np.cumsum(centred)))
    squares = np.concatenate(([0.0], np.cumsum(centred**2)))
    best = np.full(n + 1, np.inf)  # cost of the first values, each segment with its penalty
    best[0] = 0.0
    start_of_last = np.zeros(n + 1, dtype=np.intp)
    places = np.arange(n)
    for end in range(MIN_SEGMENT, n + 1):
        starts = end - MIN_SEGMENT + 1  # the last segment may start at any place before
        within = squares[end] - squares[:starts] - (sums[end] - sums[:starts]) ** 2 / (end - places[:starts])
        costs = best[:starts] + within + penalty
        # The earliest among equals, or among those that differ only by rounding: fewer segments.
        start_of_last[end] = int(np.argmax(costs <= costs.min() + 1e-12 * squares[n]))
        best[end] = costs[start_of_last[end]]
    found, end = [], n
    while end > 0:
        end = int(start_of_last[end])
        found.append(end)
    return found[::-1]


def shape_of(segments: Sequence[Segment], *, moving: bool) -> str | None:
    """Return the course of all calls in the classes of Barrett et al. (OOPSLA 2017); None without segments.

    Levels within SMALLEST_DIFFERENCE of the last one count as the last level. "no steady state" also means a single
    level on which the measured calls drift or switch (`moving`), which segments do not show.
    """
    if not segments:
        return None
    if len(segments) == 1:
        return "no steady state" if moving else "flat"
    last = segments[-1].median_s
    on_last = 0
    for segment in reversed(segments):
        if abs(segment.median_s / last - 1) > SMALLEST_DIFFERENCE:
            break
        on_last += segment.calls
    if on_last < LAST_LEVEL_SHARE * sum(segment.calls for segment in segments):
        return "no steady state"
    fastest = min(segment.median_s for segment in segments)
    return "warm-up" if last <= fastest * (1 + SMALLEST_DIFFERENCE) else "slowdown"


def is_bimodal(raw: Array) -> bool:
    """Tell whether the calls fall into two levels, in any order.

    Of all divisions of the sorted values into two, the one with the smallest sum of squares counts, if each side has at
    least LEAST_CLUSTER of the calls. The levels must be clearly apart: Ashman's D = √2 |μ₁ - μ₂| / √(σ₁² + σ₂²) above
    4.5 (Ashman et al. 1994 call 2 a clean separation, but nearly every normal series of 20 reaches it when divided at
    the best place, and one in a hundred reaches 4.5), and the gap between them, which contains no call, must be wider
    than SMALLEST_DIFFERENCE. The series is divided by its median; outliers are clipped only for D.
    """
    n = len(raw)
    ordered, drawn = np.sort(raw), np.sort(winsorize(raw))
    least = max(MIN_CLUSTER, math.ceil(LEAST_CLUSTER * n))
    if n < 2 * least:
        return False
    splits = np.arange(least, n - least + 1)
    sums, total = np.cumsum(drawn)[splits - 1], float(np.sum(drawn))
    # The least sum of squares within is the largest between.
    split = int(splits[np.argmax(sums**2 / splits + (total - sums) ** 2 / (n - splits))])
    low, high = drawn[:split], drawn[split:]
    if ordered[split] - ordered[split - 1] <= SMALLEST_DIFFERENCE:
        return False
    spread = math.sqrt(float(np.var(low, ddof=1)) + float(np.var(high, ddof=1)))
    return math.sqrt(2) * float(np.mean(high) - np.mean(low)) > ASHMAN_D * spread


def is_cycle(series: Array) -> bool:
    """Tell whether the calls follow a sinusoid of any period from two calls to the whole series.

    The other tests miss a smooth cycle of few calls: its segments are too short for changepoints, its values are
    between the extremes as often as at them, and it counts as noise in the first differences. So a sinusoid is fitted
    by least squares at each frequency of a fine grid (the Lomb-Scargle periodogram with a floating mean). The best one
    counts when its peak-to-peak amplitude is above 4/π · SMALLEST_DIFFERENCE, which is that of the fundamental of a
    square wave between levels just so far apart, and when independent noise would reach its share of the variance, r²,
    with less probability than CYCLE_P. After Baluev (MNRAS 2008) that is at most
    (1 - r²)^((n-3)/2) + W (1 - r²)^((n-4)/2) √(n r² / 2), where W = f_max √(4π var(t)) = n √(π / 12) counts the
    independent frequencies. Fisher's g test on the n/2 Fourier frequencies halves the power for frequencies between two
    of them, which matters at 20 calls.
    """
    n = len(series)
    centred = series - np.mean(series)
    power = float(centred @ centred)
    if power <= n * 1e-24:
        return False
    bases = _sinusoids(n)
    projections = bases @ centred
    shares = np.sum(projections**2, axis=1) / power
    best = int(np.argmax(shares))
    fitted = projections[best] @ bases[best]
    if float(np.ptp(fitted)) <= SMALLEST_DIFFERENCE * 4 / math.pi:
        return False
    share = min(1.0, float(shares[best]))
    single = (1 - share) ** ((n - 3) / 2)
    among_all = n * math.sqrt(math.pi / 12) * (1 - share) ** ((n - 4) / 2) * math.sqrt(n * share / 2)
    return bool(single + among_all < CYCLE_P)


@functools.lru_cache(maxsize=16)
def _sinusoids(n: int) -> npt.NDArray[np.float64]:
    """Return per frequency of the grid two orthonormal series of n values that span its sinusoids minus their means."""
    time = np.arange(n)
    bases = []
    for frequency in np.arange(4, 2 * n) / (4 * n):  # a quarter of the Fourier spacing, up to just below 1/2
        angles = 2 * np.pi * frequency * time
        pair = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        bases.append(np.linalg.qr(pair - np.mean(pair, axis=0))[0].T)
    return np.stack(bases)


# ---- throttling ------------------------------------------------------------------------------------------------------


def was_throttled(monitor: Monitor, e2e_s: Sequence[float] = ()) -> bool:
    """Tell whether throttling of the GPU changed clock or E2E between the measured calls.

    NVML's bits alone say only that a limit is active, which may be true of all calls alike. One of these must be true:

    - the median SM clock of a call is below LOWEST_CLOCK of the highest such median, with or without bits;
    - the calls with an observed bit have a lower clock, or a longer E2E, than those without;
    - among the calls with a bit the clock left its level, or the E2E if no clock is known.

    Calls without known bits count on neither side. Always False for a monitor of the CPU, whose clock follows
    the load of all programs.

    Args:
        monitor: with the samples of each measured call.
        e2e_s: of the same calls, in the same order; () if not known.
    """
    if monitor.source != "nvml":
        return False
    clocks = [_median_clock(call) for call in monitor.samples]
    known = [clock for clock in clocks if clock is not None]
    if known and min(known) < LOWEST_CLOCK * max(known):
        return True
    bits = [_throttle_bits(call) for call in monitor.samples]
    times = list(e2e_s[: len(bits)]) + [None] * (len(bits) - len(e2e_s))
    # Each bit is also tested separately: a thermal slowdown may begin while the power limit is always active.
    return any(
        _differs(bits, clocks, mask, lower=True)
        or _differs(bits, times, mask, lower=False)
        or _moved(bits, clocks if known else times, mask)
        for mask in (THROTTLE_BITS, *THROTTLE_REASONS)
        if any(each is not None and each & mask for each in bits)
    )


def reports_throttling(monitor: Monitor) -> bool:
    """Tell whether the GPU reported throttling in any measured call."""
    return monitor.source == "nvml" and any(_throttle_bits(call) for call in monitor.samples)


def _throttle_bits(call: Sequence[MonitorSample]) -> int | None:
    """Return all throttling bits that were set in a call at any time; None if no sample has them."""
    known = [sample.throttle_bits for sample in call if sample.throttle_bits is not None]
    return functools.reduce(operator.or_, known) & THROTTLE_BITS if known else None


def _median_clock(call: Sequence[MonitorSample]) -> float | None:
    """Return the median SM clock of a call in MHz; the few samples at its ends do not affect the median."""
    known = [sample.sm_clock_mhz for sample in call if sample.sm_clock_mhz]
    return float(np.median(known)) if known else None


def _differs(bits: Sequence[int | None], values: Sequence[float | None], mask: int, *, lower: bool) -> bool:
    """Tell whether the calls with a bit have lower (or higher) values than those without.

    The medians must be more than SMALLEST_DIFFERENCE apart, and more than CHANCE standard errors of that difference,
    from the deviations of all calls from the median of their side.
    """
    pairs = [
        (each & mask, value) for each, value in zip(bits, values, strict=True) if each is not None and value is not None
    ]
    with_bit = np.asarray([value for each, value in pairs if each], dtype=np.float64)
    without = np.asarray([value for each, value in pairs if not each], dtype=np.float64)
    if not len(with_bit) or not len(without):
        return False
    middle = float(np.median(without))
    drop = (middle - float(np.median(with_bit))) * (1 if lower else -1)
    spread = robust_sd(np.concatenate([with_bit - np.median(with_bit), without - middle]))
    error = spread * math.sqrt(math.pi / 2 * (1 / len(with_bit) + 1 / len(without)))
    return drop > max(SMALLEST_DIFFERENCE * middle, CHANCE * error)


def _moved(bits: Sequence[int | None], values: Sequence[float | None], mask: int) -> bool:
    """Tell whether the values of the calls with a bit left their level, by the tests that judge the E2E."""
    found = [value for each, value in zip(bits, values, strict=True) if each is not None and each & mask]
    known = [value for value in found if value is not None]
    return bool(known) and judge_series(known).steady is False
