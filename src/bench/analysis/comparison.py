"""Judge whether one setting is faster than another, from processes and not from calls.

Each process gives one number, the logarithm of its median time. The effect is the difference between the means of the
two settings; as a ratio it has no unit and is inverted when the settings change places. A verdict requires more than an
interval without 0: the whole interval must be beyond a margin, 1 % by default, because smaller differences may
disappear with the next driver.

Within one sweep the interval is the paired t interval of the R blocks (repeats), with R - 1 degrees of freedom; between
two sweeps, which share no block, it is Welch's. All settings of a block run one after the other in random order, so
their processes may be correlated: positively if the whole machine is slow for a while, negatively if one process leaves
heat or a full cache to the next. The paired interval is wrong in 5 % of cases for any such correlation and for sides of
different variance. Welch's assumes independent sides: it is wrong more often if the correlation is negative, and so is
the narrower of the two. A Welch interval that allows for a correlation of -0.6 must be wider by sqrt(1.6) and has
1.5 (R - 1) degrees of freedom, so it is no narrower than the paired one. The cost of pairing is power if blocks share
nothing; ``python -m bench.analysis.calibrate`` measures both.

No standard error is smaller than that due to the noise of the calls alone: three processes may agree by chance far
better than their own medians are known.

Not covered: whether a setting may be compared at all. ``bench.analysis.ranking`` decides that, and a setting that is
not ranked makes the verdict "inconclusive" here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from bench.analysis.ranking import standing_of_setting
from bench.analysis.settings import Difference, Process, Setting, differences, processes, steady_words
from bench.config.baseline import find_baselines

MARGIN = 0.01  # as a fraction
LEVEL = 0.05
FEWEST_PROCESSES = 3  # per side, for a verdict
TOKENS_KEY = "generated tokens"  # of the difference named if two sweeps generated different tokens
WORDS = ("faster", "slower", "equivalent", "inconclusive")
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Hold the ratio of b's time to a's (the baseline's): below 1 b is faster."""

    ratio: float  # geometric_mean_s / baseline_geometric_mean_s
    geometric_mean_s: float  # of b: over the medians of exactly the processes in the ratio
    baseline_geometric_mean_s: float  # of a
    low: float | None  # 95 % interval; None from one process of a side
    high: float | None
    processes: int  # per side: pairs; or, unpaired, those of the smaller side
    left_out: int  # blocks with a result of only one side; 0 if unpaired
    paired: bool  # paired t interval by block (within one sweep); else Welch's (two sweeps)
    p: float | None  # two-sided, of no difference; None without an interval
    p_beyond: float | None  # of one within the margin: 2 × the smaller one-sided p, at most 1; None if too few
    inside: bool | None  # whether the whole interval is within the margin; None without one


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """State the verdict on b compared with its baseline."""

    word: str  # one of WORDS
    p: float | None  # p_beyond after Holm's correction; None if no verdict was possible
    reason: str | None  # why it is inconclusive


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compare one setting with its baseline."""

    setting: str
    baseline: str
    setting_id: str
    baseline_id: str
    metric: str  # one of METRICS
    effect: Effect | None  # None if a side has no ok process
    verdict: Verdict
    differences: list[Difference]  # `a` is the baseline's side
    steady: tuple[str, str]  # of the baseline and of the setting, as `steady_words` gives them: "yes", or "2 no 3 yes"


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """State the uncertainty of a difference of means."""

    error: float  # standard error, on the log scale
    freedom: float  # degrees of freedom

    def reach(self) -> float:
        """Return half of the interval's width."""
        return float(reach_of(np.float64(self.error), self.freedom))

    def p(self, distance: float) -> float:
        """Return the two-sided p value of a difference this large."""
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return min(1.0, 2 * float(stdtr(self.freedom, -distance / self.error)))


def effect(
    a: Sequence[Process | None], b: Sequence[Process | None], *, paired: bool = True, margin: float = MARGIN
) -> Effect | None:
    """Compare b with a, the baseline; None if a side has no process left.

    Args:
        a: its processes; paired: aligned with `b` by block, None for a block without result.
        b: the same for b.
        paired: whether position i of both ran in the same block of one sweep; blocks that lack a side are left out.
        margin: the smallest relevant difference, as a fraction; differences within ±log(1 + margin) do not matter.
    """
    blocks = list(zip(a, b, strict=True)) if paired else []
    left_out = sum((one is None) != (other is None) for one, other in blocks)
    if paired:
        pairs = [(one, other) for one, other in blocks if one is not None and other is not None]
        first, second = [one for one, _ in pairs], [other for _, other in pairs]
    else:
        first, second = ([each for each in side if each is not None] for side in (a, b))
    if not first or not second:
        return None
    logs_a, logs_b = (np.log([each.median_s for each in side]) for side in (first, second))
    mean_a, mean_b = float(np.mean(logs_a)), float(np.mean(logs_b))
    difference = mean_b - mean_a
    fewest, limit = min(len(first), len(second)), math.log1p(margin)
    spread = _spread(logs_a, logs_b, floor=math.hypot(_floor(first), _floor(second)), paired=paired)
    reach = None if spread is None else spread.reach()
    return Effect(
        ratio=math.exp(difference),
        geometric_mean_s=math.exp(mean_b),
        baseline_geometric_mean_s=math.exp(mean_a),
        low=None if reach is None else math.exp(difference - reach),
        high=None if reach is None else math.exp(difference + reach),
        processes=fewest,
        left_out=left_out,
        paired=paired,
        p=None if spread is None else spread.p(abs(difference)),
        p_beyond=None if spread is None or fewest < FEWEST_PROCESSES else spread.p(abs(difference) - limit),
        inside=None if reach is None else abs(difference) + reach < limit,
    )


def verdicts(effects: Sequence[Effect | None], *, margin: float = MARGIN) -> list[Verdict]:
    """Return a verdict for each effect; p values are corrected over all that have one (Holm 1979, step-down).

    Args:
        effects: of one family of comparisons; None counts as none.
        margin: the margin with which the effects were computed.
    """
    adjusted = iter(holm([each.p_beyond for each in effects if each is not None and each.p_beyond is not None]))
    tested = sum(each is not None and each.p_beyond is not None for each in effects)
    found = []
    for each in effects:
        if each is None:
            found.append(_inconclusive("no process is ok on one side"))
        elif each.p_beyond is None:
            found.append(_inconclusive(_too_few(each)))
        else:
            found.append(_verdict(each, next(adjusted), tested, margin))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction, in the given order: the k-th smallest of m times m - k + 1, monotonic, ≤ 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979. It controls the
    probability of any false rejection for any dependence of the tests.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def compare(
    settings: Sequence[Setting], *, baseline: str | None = None, metric: str = "e2e", margin: float = MARGIN
) -> list[Comparison]:
    """Compare each setting of a sweep with its baseline, paired by repeat; settings without a baseline are left out.

    Args:
        settings: in the order in which they were typed.
        baseline: a setting's name or swept values, as `find_baselines` accepts them; None: the first.
        metric: one of METRICS.
        margin: the difference that matters, as a fraction.

    Raises:
        ConfigError: `baseline` is no setting and no swept value.
    """
    found = find_baselines([(each.name, each.swept) for each in settings], baseline)
    times = [processes(each, metric) for each in settings]
    pairs, effects = [], []
    for position, other in enumerate(found):
        if other is None:
            continue
        a, b = times[other], times[position]
        repeats = sorted(a | b)
        pairs.append((settings[other], settings[position]))
        effects.append(effect([a.get(each) for each in repeats], [b.get(each) for each in repeats], margin=margin))
    return _comparisons(pairs, effects, metric, margin)


def compare_sweeps(
    before: Sequence[Setting], after: Sequence[Setting], *, metric: str = "e2e", margin: float = MARGIN
) -> list[Comparison]:
    """Compare the settings of `after` with the same ones of `before`, unpaired; two single settings always match.

    Settings in only one of them are left out. Two sweeps share no block, so changes of the machine between them count
    as a difference of the settings.
    """
    known = {each.setting_id: each for each in before}
    pairs = [(known[each.setting_id], each) for each in after if each.setting_id in known]
    if len(before) == len(after) == 1:
        pairs = [(before[0], after[0])]
    effects = []
    for a, b in pairs:
        sides = [list(processes(each, metric).values()) for each in (a, b)]
        effects.append(effect(sides[0], sides[1], paired=False, margin=margin))
    return _comparisons(pairs, effects, metric, margin)


# ---- effects ---------------------------------------------------------------------------------------------------------


def _spread(a: NDArray[np.float64], b: NDArray[np.float64], *, floor: float, paired: bool) -> _Spread | None:
    """Return the uncertainty of the difference of the means of two sides' log medians; None for one process."""
    if min(len(a), len(b)) < 2:
        return None
    if paired:
        return _Spread(error=float(paired_error(b - a, np.float64(floor))), freedom=len(a) - 1)
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (a, b)]
    return _Spread(error=max(math.sqrt(sum(parts)), floor), freedom=satterthwaite(parts, [len(a), len(b)]))


def paired_error(differences: NDArray[np.float64], floor: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Return the standard error of the mean of differences by block, over the last axis.

    Args:
        differences: of log medians; any axes before the last one are of other comparisons.
        floor: the minimum of each error, due to the noise of the calls (`error_of_calls` of both sides, added as
            squares).
    """
    errors = np.std(differences, axis=-1, ddof=1) / math.sqrt(differences.shape[-1])
    return np.asarray(np.maximum(errors, floor), dtype=np.float64)


def reach_of(error: NDArray[np.float64] | np.float64, freedom: float) -> NDArray[np.float64]:
    """Return half the width of the 95 % t interval for each standard error."""
    return np.asarray(-error * float(stdtrit(freedom, LEVEL / 2)), dtype=np.float64)


def error_of_calls(noises: NDArray[np.float64], numbers: int) -> NDArray[np.float64]:
    """Return the standard error of the mean of log medians that differ only by the noise of their calls.

    Args:
        noises: standard errors of the medians, over the last axis; only known ones.
        numbers: of medians.
    """
    return np.asarray(np.sqrt(np.mean(noises**2, axis=-1) / numbers), dtype=np.float64)


def satterthwaite(variances: Sequence[float], numbers: Sequence[int]) -> float:
    """Return the degrees of freedom of a sum of independent means' variances (Welch 1947, Satterthwaite 1946).

    Args:
        variances: of each mean (not of the values), in any unit.
        numbers: of values in each mean, at least 2.
    """
    whole = sum(variances)
    if whole == 0:
        return min(numbers) - 1
    # Shares, not squares of the variances themselves: those of nearly constant series are too small for a float.
    return 1 / sum((each / whole) ** 2 / (n - 1) for each, n in zip(variances, numbers, strict=True))


def _floor(side: Sequence[Process]) -> float:
    """Return the standard error of the mean of a side's log medians if its processes differed only by call noise."""
    known = [each.noise for each in side if each.noise is not None]
    return float(error_of_calls(np.asarray(known), len(side))) if known else 0.0


# ---- verdicts --------------------------------------------------------------------------------------------------------


def _verdict(each: Effect, p: float, tested: int, margin: float) -> Verdict:
    assert each.low is not None
    assert each.high is not None
    limit = math.log1p(margin)
    low, high = math.log(each.low), math.log(each.high)
    if each.inside:
        return Verdict(word="equivalent", p=p, reason=None)
    if low > limit or high < -limit:
        if p <= LEVEL:
            return Verdict(word="slower" if low > limit else "faster", p=p, reason=None)
        return _inconclusive(f"not significant after correction for {tested} comparisons (p = {p:.2g})", p)
    interval = f"the interval {_change(each.low)} … {_change(each.high)}"
    if low <= 0 <= high:
        return _inconclusive(f"{interval} holds both no difference and one of more than {margin * 100:g} %", p)
    return _inconclusive(f"{interval} holds differences of less and of more than {margin * 100:g} %", p)


def _inconclusive(reason: str, p: float | None = None) -> Verdict:
    return Verdict(word="inconclusive", p=p, reason=reason)


def _too_few(each: Effect) -> str:
    left_out = f" ({each.left_out} left out: one side has no result)" if each.left_out else ""
    if each.paired and left_out:
        blocks = "1 block" if each.processes == 1 else f"{each.processes} blocks"
        return f"{blocks} with a result of both{left_out}; verdicts from {FEWEST_PROCESSES} on"
    if each.processes == 1:
        return "one process each: repeats are needed" if each.paired else "one process on a side: repeats are needed"
    return f"{each.processes} processes each; verdicts from {FEWEST_PROCESSES} on"


def _change(ratio: float) -> str:
    """Write a ratio as a signed change in percent, with one decimal."""
    percent = (ratio - 1) * 100
    return f"{_MINUS if percent < 0 else '+'}{abs(percent):.1f} %"


# ---- comparisons -----------------------------------------------------------------------------------------------------


def _comparisons(
    pairs: Sequence[tuple[Setting, Setting]], effects: Sequence[Effect | None], metric: str, margin: float
) -> list[Comparison]:
    found = [[*differences(a, b), *_changed_tokens(a, b)] for a, b in pairs]
    barred = [_barred(a, b, differing, each) for (a, b), differing, each in zip(pairs, found, effects, strict=True)]
    # Comparisons excluded beforehand are not tested, so the others need no correction for them.
    judged = verdicts([None if reason else each for reason, each in zip(barred, effects, strict=True)], margin=margin)
    return [
        Comparison(
            setting=b.name,
            baseline=a.name,
            setting_id=b.setting_id,
            baseline_id=a.setting_id,
            metric=metric,
            effect=each,
            verdict=_inconclusive(reason) if reason else verdict,
            differences=differing,
            steady=(steady_words(a.records), steady_words(b.records)),
        )
        for (a, b), differing, reason, each, verdict in zip(pairs, found, barred, effects, judged, strict=True)
    ]


def _changed_tokens(a: Setting, b: Setting) -> list[Difference]:
    """Name the differences in the tokens of the same setting in another sweep; they do not prevent a verdict.

    Other libraries may round differently. Settings whose tokens differ from call to call are not mentioned.
    """
    outputs = [each.output for side in (a, b) for each in side.records]
    if a is b or a.setting_id != b.setting_id or any(each is None or not each.same_in_all_calls for each in outputs):
        return []
    first, second = (
        {tuple(map(tuple, each.output.token_ids)) for each in side.records if each.output is not None}
        for side in (a, b)
    )
    if not first or second <= first:
        return []
    before, after = min(first), min(second - first)
    pairs = [pair for rows in zip(before, after, strict=False) for pair in zip(*rows, strict=False)]
    equal = sum(one == other for one, other in pairs)
    number = sum(map(len, before))
    told = f"{equal} of {number} equal to the baseline's"
    return [Difference(key=TOKENS_KEY, a=str(number), b=told, bars=False)]


def _barred(a: Setting, b: Setting, differing: Sequence[Difference], each: Effect | None) -> str | None:
    """Say why the two cannot be judged, for any interval; None if they can.

    A side that is not ranked (`bench.analysis.ranking`) prevents the verdict, for the first reason given there.
    """
    sides = (("baseline", a), ("setting", b))
    for role, setting in sides:
        if not setting.records:
            ending = f" ({setting.lost_reason})" if setting.lost_reason else ""
            return f"no process of the {role} is ok{ending}"
    if barring := [one for one in differing if one.bars]:
        return "not comparable: " + "; ".join(f"{one.key} is {one.a} and {one.b}" for one in barring)
    for role, setting in sides:
        if reasons := standing_of_setting(setting).reasons:
            return f"the {role} is not ranked: {reasons[0].text}"
    if each is None:
        return "there is no pair of results to compare"
    return None
