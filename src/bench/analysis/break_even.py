"""Compute the number of calls after which a compiled setting has recovered the cost of its compilation.

A compiled setting is compared with the uncompiled one that is otherwise equal. Its start costs C more, the time of the
calls before the measurement beyond the median call, and each later call saves t_u - t_c; so it breaks even after
N* = C / (t_u - t_c) calls of exactly this shape. C depends on the contents of the compiler's cache on disk, so
processes with a cold and with a warm cache are kept apart.

The unit is the process. N* is a ratio of two uncertain means, and its interval is Fieller's: the ratios that a t test
at 5 % does not reject. If the saving itself may be 0, the interval has no upper end, and the break-even point is not
established.

Not covered: calls of other shapes, which may compile again, and the time of a process before its first call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

from bench.analysis.settings import Process, Setting, asked, processes
from bench.analysis.trials.summary import batch_size, summarize
from bench.config.rules import kv_cache_kind
from bench.results.record import Record

CALLS = (10, 100, 1000)
STATUSES = ("established", "not established", "never", "descriptive")
FEWEST_PROCESSES = 3
# On the log scale, a factor of 1,000 either way: beyond it the linear approximation is invalid.
LONGEST_REACH = math.log(1000)
LEVEL = 0.05
# Sections of a request that set where, how often or how safely a job runs, but not what it measures.
_BESIDE = ("sweep", "tracking", "isolation", "profile", "fidelity", "compile")


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """Compare a compiled setting with the same one uncompiled; one each for processes with a cold and a warm cache.

    `S(N)`, the speed-up over a process of N calls, is N t_u / (C + N t_c): above 1 compilation has paid.
    """

    setting: str
    setting_id: str
    uncompiled: str
    uncompiled_id: str
    cache: str  # "cold" or "warm": the cache of the compiled processes on disk
    processes: int  # pairs by block; or, unpaired, compiled ones
    uncompiled_processes: int
    paired: bool
    mixed: int  # other compiled processes, with only some code in the cache; they do not count
    excess_s: float  # C: start-up cost beyond that of the uncompiled one
    saved_s: float  # t_u - t_c, of one call
    calls: float | None  # N* = C / (t_u - t_c), 0 if C <= 0; None if nothing is saved
    calls_low: float | None  # 95 % interval; None if there is none
    calls_high: float | None  # None: no upper end
    tokens: float | None  # calls × batch size × new tokens, at this shape
    speedup: dict[int, float] = field(default_factory=dict)  # N of CALLS → S(N)
    speedup_low: dict[int, float] = field(
        default_factory=dict
    )  # 95 % interval; none below 3 processes, or if it is unbounded
    speedup_high: dict[int, float] = field(default_factory=dict)
    status: str  # one of STATUSES
    reason: str | None  # why the status is not "established"


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Hold the processes of one setting: the time of each for its start and per call."""

    repeats: list[int]
    excess_s: NDArray[np.float64]
    call_s: NDArray[np.float64]
    noise_s: NDArray[np.float64]  # standard error of each call_s due to the noise of its calls

    def only(self, repeats: set[int]) -> _Side:
        """Return the processes of these repeats."""
        kept = [position for position, repeat in enumerate(self.repeats) if repeat in repeats]
        return _Side(
            repeats=[self.repeats[each] for each in kept],
            excess_s=self.excess_s[kept],
            call_s=self.call_s[kept],
            noise_s=self.noise_s[kept],
        )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Hold compiled and uncompiled processes; if paired, the same blocks in the same order."""

    compiled: _Side
    uncompiled: _Side
    paired: bool

    @property
    def fewest(self) -> int:
        return min(len(self.compiled.repeats), len(self.uncompiled.repeats))

    @property
    def excess_s(self) -> float:
        return float(np.mean(self.compiled.excess_s) - np.mean(self.uncompiled.excess_s))

    @property
    def saved_s(self) -> float:
        return float(np.mean(self.uncompiled.call_s) - np.mean(self.compiled.call_s))

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of the means of excess_s and saved_s. It requires two processes each.

        The variance of the saving is at least that due to the noise of the calls.
        """
        compiled = np.stack([self.compiled.excess_s, -self.compiled.call_s])
        uncompiled = np.stack([-self.uncompiled.excess_s, self.uncompiled.call_s])
        if self.paired:
            found = np.cov(compiled + uncompiled) / len(self.compiled.repeats)
        else:
            found = np.cov(compiled) / compiled.shape[1] + np.cov(uncompiled) / uncompiled.shape[1]
        floor = sum(float(np.mean(side.noise_s**2)) / len(side.repeats) for side in (self.compiled, self.uncompiled))
        found[1, 1] = max(found[1, 1], floor)
        return np.asarray(found, dtype=np.float64)


def break_evens(settings: Sequence[Setting]) -> list[BreakEven]:
    """Return the break-even points of each compiled setting with an uncompiled one that is otherwise equal.

    Settings without an ok process, and compiled ones without a process whose cache was entirely cold or warm, give
    none. The meaning of `generation.kv_cache=auto` depends on compilation: of several uncompiled settings the one with
    the same request is taken, otherwise the one with the cache that the compiled one had.
    """
    uncompiled: dict[tuple[str, str], Setting] = {}
    for setting in settings:
        if setting.records and not _is_compiled(setting):
            uncompiled.setdefault(_request(setting.records[0]), setting)
    found = []
    for setting in settings:
        if not setting.records or not _is_compiled(setting):
            continue
        rest, kv_cache = _request(setting.records[0])
        wanted = [(rest, kv_cache), (rest, kv_cache_kind(kv_cache, compiled=True))]
        other = next((uncompiled[each] for each in wanted if each in uncompiled), None)
        if other is not None:
            found.extend(_by_cache(setting, other))
    return found


def fieller(
    numerator: float, denominator: float, covariance: NDArray[np.float64], quantile: float
) -> list[tuple[float, float]]:
    """Return Fieller's set for a ratio of two means, as intervals in ascending order; a missing end is infinite.

    The set holds every ρ with (numerator - ρ denominator)² ≤ quantile² · var(numerator - ρ denominator). It is one
    bounded interval only if the denominator differs from 0 by more than quantile standard errors. Otherwise it is
    everything, or all but an open interval; then both of its parts are unbounded.

    Args:
        numerator: a mean.
        denominator: another, in any unit.
        covariance: 2 × 2, of the two means.
        quantile: of Student's t, two-sided.

    Source: Fieller, "Some problems in interval estimation", JRSS B 1954.
    """
    square = quantile**2
    leading = denominator**2 - square * float(covariance[1, 1])
    middle = numerator * denominator - square * float(covariance[0, 1])
    constant = numerator**2 - square * float(covariance[0, 0])
    discriminant = middle**2 - leading * constant
    if leading == 0 or (leading < 0 and discriminant < 0):
        return [(-math.inf, math.inf)]
    # With a leading coefficient above 0 the ratio itself solves the inequality: below 0 is rounding.
    root = math.sqrt(max(0.0, discriminant))
    low, high = sorted([(middle - root) / leading, (middle + root) / leading])
    return [(low, high)] if leading > 0 else [(-math.inf, low), (high, math.inf)]


# ---- pairs of settings -----------------------------------------------------------------------------------------------


def _is_compiled(setting: Setting) -> bool:
    return asked(setting.records[0], "compile.mode") is not None


def _request(record: Record) -> tuple[str, str]:
    """Return the request without compilation, as a text to compare, and the kind of KV cache."""
    requested = {key: value for key, value in record.requested.items() if key not in _BESIDE}
    generation = dict(requested.get("generation") or {})
    kv_cache = str(generation.pop("kv_cache", "auto"))
    rest = requested | {"generation": generation, "arm": asked(record, "sweep.label")}
    return json.dumps(rest, sort_keys=True, default=str), kv_cache


def _by_cache(setting: Setting, other: Setting) -> list[BreakEven]:
    states = {each.repeat: _cache_state(each) for each in setting.records}
    mixed = sum(state == "mixed" for state in states.values())
    compiled, uncompiled = _side(setting), _side(other)
    found = []
    for cache in ("cold", "warm"):
        side = compiled.only({repeat for repeat, state in states.items() if state == cache})
        if side.repeats and uncompiled.repeats:
            found.append(_break_even(setting, other, cache, mixed, _pair(side, uncompiled)))
    return found


def _cache_state(record: Record) -> str | None:
    compiled = record.observed.compile if record.observed is not None else None
    return compiled.cache_state if compiled is not None else None


def _side(setting: Setting) -> _Side:
    times: dict[int, tuple[Process, float]] = {}
    medians = processes(setting, "e2e")
    for record in setting.records:
        excess_s = summarize(record).compile_excess_s
        if record.repeat in medians and excess_s is not None:
            times[record.repeat] = (medians[record.repeat], excess_s)
    return _Side(
        repeats=list(times),
        excess_s=np.asarray([excess_s for _, excess_s in times.values()]),
        call_s=np.asarray([process.median_s for process, _ in times.values()]),
        noise_s=np.asarray([process.median_s * (process.noise or 0.0) for process, _ in times.values()]),
    )


def _pair(compiled: _Side, uncompiled: _Side) -> _Pair:
    """Pair the processes by block if enough or all of them remain; otherwise use all of both sides."""
    common = set(compiled.repeats) & set(uncompiled.repeats)
    if len(common) >= FEWEST_PROCESSES or common == set(compiled.repeats) == set(uncompiled.repeats):
        compiled, uncompiled = (_ordered(side.only(common)) for side in (compiled, uncompiled))
        return _Pair(compiled=compiled, uncompiled=uncompiled, paired=True)
    return _Pair(compiled=compiled, uncompiled=uncompiled, paired=False)


def _ordered(side: _Side) -> _Side:
    order = np.argsort(side.repeats)
    return _Side(
        repeats=sorted(side.repeats),
        excess_s=side.excess_s[order],
        call_s=side.call_s[order],
        noise_s=side.noise_s[order],
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


def _break_even(setting: Setting, other: Setting, cache: str, mixed: int, pair: _Pair) -> BreakEven:
    excess_s, saved_s = pair.excess_s, pair.saved_s
    calls = None if saved_s <= 0 else max(0.0, excess_s / saved_s)
    status, reason = _status(pair)
    low, high = _calls_interval(pair, status)
    speedups = {n: _speedup(pair, n) for n in CALLS}
    tokens = _tokens_of_a_call(setting.records[0])
    return BreakEven(
        setting=setting.name,
        setting_id=setting.setting_id,
        uncompiled=other.name,
        uncompiled_id=other.setting_id,
        cache=cache,
        processes=len(pair.compiled.repeats),
        uncompiled_processes=len(pair.uncompiled.repeats),
        paired=pair.paired,
        mixed=mixed,
        excess_s=excess_s,
        saved_s=saved_s,
        calls=calls,
        calls_low=low,
        calls_high=high,
        tokens=None if calls is None or tokens is None else calls * tokens,
        speedup={n: each[0] for n, each in speedups.items() if each is not None},
        speedup_low={n: each[1] for n, each in speedups.items() if each is not None and each[1] is not None},
        speedup_high={n: each[2] for n, each in speedups.items() if each is not None and each[2] is not None},
        status=status,
        reason=reason,
    )


def _quantile(pair: _Pair) -> float:
    """Return the quantile of Student's t with the smaller degrees of freedom of both sides, which is conservative."""
    return float(stdtrit(pair.fewest - 1, 1 - LEVEL / 2))


def _status(pair: _Pair) -> tuple[str, str | None]:
    if pair.fewest < FEWEST_PROCESSES:
        each = "one process each" if pair.fewest == 1 else f"{pair.fewest} processes each"
        return "descriptive", f"{each}; intervals from {FEWEST_PROCESSES} on"
    reach_s = _quantile(pair) * math.sqrt(float(pair.covariance()[1, 1]))
    if pair.saved_s + reach_s < 0:
        return "never", "the compiled calls are slower"
    if pair.saved_s - reach_s <= 0:
        return "not established", "it is not established that a compiled call is faster"
    return "established", None


def _calls_interval(pair: _Pair, status: str) -> tuple[float | None, float | None]:
    """Return the interval of N*; numbers of calls below 0 count as 0: it has paid from the first call on."""
    if status not in ("established", "not established"):
        return None, None
    found = fieller(pair.excess_s, pair.saved_s, pair.covariance(), _quantile(pair))
    possible = [(max(0.0, low), high) for low, high in found if high >= 0]
    if not possible:
        return 0.0, 0.0  # the whole interval is below 0
    low, high = possible[0][0], possible[-1][1]
    return low, high if math.isfinite(high) else None


def _speedup(pair: _Pair, n: int) -> tuple[float, float | None, float | None] | None:
    """Return S(N) with its 95 % interval, from the delta method on log S; None if the compiled time would be negative.

    With log S = log(N t_u) - log(K) and K = C + N t_c, each process counts with its share of the slope, and the
    interval is that of a mean of such values.
    """
    uncompiled_s = float(np.mean(pair.uncompiled.call_s))
    whole_s = pair.excess_s + n * float(np.mean(pair.compiled.call_s))
    if whole_s <= 0:
        return None
    ratio = n * uncompiled_s / whole_s
    if pair.fewest < FEWEST_PROCESSES:
        return ratio, None, None
    slopes = [
        -(pair.compiled.excess_s + n * pair.compiled.call_s) / whole_s,
        pair.uncompiled.call_s / uncompiled_s + pair.uncompiled.excess_s / whole_s,
    ]
    if pair.paired:
        slopes = [slopes[0] + slopes[1]]
    error = math.sqrt(sum(float(np.var(each, ddof=1)) / len(each) for each in slopes))
    reach = _quantile(pair) * error
    if reach > LONGEST_REACH:
        return ratio, None, None
    return ratio, ratio * math.exp(-reach), ratio * math.exp(reach)


def _tokens_of_a_call(record: Record) -> int | None:
    size, new = batch_size(record), asked(record, "workload.num_tokens_to_generate")
    return size * new if size is not None and isinstance(new, int) else None
