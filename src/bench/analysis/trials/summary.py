"""Derive the statistics of one trial from its record.

Only measured calls count for latencies and rates; the validation call and the warm-up calls give the cold start and the
compile excess. Nothing is trimmed, not even outliers, and figures that the data cannot support are None: a quantile
requires enough calls on both sides, a deviation two values. Other modules decide whether the series is steady and
whether two settings differ: the figures of one process cannot show that.

Units are seconds and bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis.calls.series import median_interval
from bench.results.record import Iteration, Record

# Percentile → calls from which on its two-sided 95 % interval has two ends; with fewer, only the maximum is known.
QUANTILE_NEEDS = {90: 36, 95: 72, 99: 368}


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Describe a series of values in their own unit. The 50th percentile is the median."""

    n: int
    median: float
    mad: float  # median absolute deviation, raw: × 1.4826 estimates the standard deviation of normal noise
    mean: float
    sd: float | None  # sample standard deviation; None for one value
    cv: float | None  # sd / mean; None without sd, or if the mean is 0
    minimum: float
    maximum: float
    p90: float | None  # None below the number of calls in QUANTILE_NEEDS
    p95: float | None
    p99: float | None
    median_low: float | None  # 95 % interval of the median; None for fewer than 6 values and for pooled ones
    median_high: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Hold the statistics of one trial; None if the record has no call to derive them from."""

    e2e_s: Stats | None
    ttft_s: Stats | None
    itl_s: Stats | None  # the gaps of all measured calls, pooled
    tpot_s: Stats | None
    output_tokens_per_s: float | None  # batch size × new tokens of all measured calls / the sum of their E2E
    decode_tokens_per_s: float | None  # the same without each call's first token, over first to last token
    cold_start_s: float | None  # the validation call's E2E; None for a warm start
    compile_excess_s: float | None  # time of the calls before the measurement beyond the median E2E
    peak_bytes: int | None
    decode_mbu: float | None  # fraction of the device's memory bandwidth; None without a measured bandwidth
    joules_per_token: float | None  # of all measured calls together; None unless each of them has its energy


def summarize(record: Record) -> Summary:
    """Derive the statistics of a record with any status: the measurements of a failed job are kept."""
    measured = record.calls("measurement")
    decoded = [call for call in measured if len(call.token_times_s) > 1]
    e2e_s = stats([call.e2e_s for call in measured])
    validation = record.calls("validation")
    size = batch_size(record)
    return Summary(
        e2e_s=e2e_s,
        ttft_s=stats([call.ttft_s for call in measured if call.token_times_s]),
        itl_s=stats([gap for call in decoded for gap in call.itl_s], clusters=len(decoded)),
        tpot_s=stats([call.tpot_s for call in decoded]),
        output_tokens_per_s=_rate(size, [(len(call.token_times_s), call.e2e_s) for call in measured]),
        decode_tokens_per_s=_rate(size, [(len(call.token_times_s) - 1, call.decode_s) for call in decoded]),
        cold_start_s=validation[0].e2e_s if validation and not record.warm_start else None,
        compile_excess_s=_compile_excess([*validation, *record.calls("warmup")], e2e_s),
        peak_bytes=record.peak_bytes,
        decode_mbu=record.roofline.decode_mbu if record.roofline is not None else None,
        joules_per_token=_joules_per_token(record, size),
    )


def compiled_while_measured(record: Record) -> int:
    """Return how many measured calls included a compilation."""
    compiled = record.observed.compile if record.observed is not None else None
    if compiled is None:
        return 0
    return len(compiled.compiling_calls() & {call.index for call in record.calls("measurement")})


def _joules_per_token(record: Record, size: int | None) -> float | None:
    """Return joules per token, totals over totals."""
    calls, energy = record.calls("measurement"), record.energy
    if energy is None or size is None or len(energy.joules) != len(calls) or None in energy.joules:
        return None
    tokens = size * sum(len(call.token_times_s) for call in calls)
    spent_j = sum(each for each in energy.joules if each is not None)
    return spent_j / tokens if tokens and spent_j > 0 else None  # 0: too short for the counter's steps


def stats(values: Sequence[float], *, clusters: int | None = None) -> Stats | None:
    """Describe a series; None if it is empty.

    Args:
        values: in any unit, in the order in which they were measured: the interval of the median is wider when
            successive values depend on each other.
        clusters: number of calls from which the values are pooled. Values of one call depend on each other, so
            quantiles then require that many calls rather than values, and the median has no rank interval.
    """
    if not values:
        return None
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    median = float(np.median(series))
    mean = float(np.mean(series))
    sd = float(np.std(series, ddof=1)) if n > 1 else None
    quantiles = {
        percent: float(np.percentile(series, percent)) if (n if clusters is None else clusters) >= needed else None
        for percent, needed in QUANTILE_NEEDS.items()
    }
    low, high = (median_interval(series) if clusters is None else None) or (None, None)
    return Stats(
        n=n,
        median=median,
        mad=float(np.median(np.abs(series - median))),
        mean=mean,
        sd=sd,
        cv=sd / mean if sd is not None and mean != 0 else None,
        minimum=float(np.min(series)),
        maximum=float(np.max(series)),
        p90=quantiles[90],
        p95=quantiles[95],
        p99=quantiles[99],
        median_low=low,
        median_high=high,
    )


def batch_size(record: Record) -> int | None:
    """Return the requested prompts per call; None if the request does not contain it."""
    workload = record.requested.get("workload")
    size = workload.get("batch_size") if isinstance(workload, dict) else None
    return size if isinstance(size, int) and size > 0 else None


def _rate(size: int | None, calls: list[tuple[int, float]]) -> float | None:
    """Return batch size × steps over seconds, totals over totals; None without a batch size or without time."""
    steps, duration_s = sum(call[0] for call in calls), sum(call[1] for call in calls)
    return size * steps / duration_s if size is not None and steps > 0 and duration_s > 0 else None


def _compile_excess(before: list[Iteration], steady: Stats | None) -> float | None:
    """Return the sum over validation and warm-up calls of the time beyond the steady median.

    The validation call is included: it is the first call of the process and contains most of the compilation. A call
    faster than the median does not offset the cost of another one, so it counts as 0.
    """
    if not before or steady is None:
        return None
    return sum(max(0.0, call.e2e_s - steady.median) for call in before)
