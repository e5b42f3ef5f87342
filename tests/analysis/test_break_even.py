"""Check break-even points against hand-calculated figures and simulated sweeps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, t

from bench.analysis.break_even import BreakEven, break_evens, fieller
from bench.analysis.settings import Setting, settings_of
from bench.results.record import CompileObserved, Iteration, Record
from factories import BATCH_SIZE, NEW_TOKENS, make_config, make_record

COLD = CompileObserved(graphs=1, cache_misses=2)
WARM = CompileObserved(graphs=1, cache_hits=2)
MIXED = CompileObserved(graphs=1, cache_hits=1, cache_misses=1)


def record(mode: str | None, excess_s: float, call_s: float, *, compiled: CompileObserved = COLD, **changes) -> Record:
    """Build a job whose first call took `excess_s` more than the others, which are all equal."""
    durations_s = [excess_s + call_s] + [call_s] * 4
    calls = [
        Iteration(
            index=index,
            phase="measurement" if index else "validation",
            start_s=float(index),
            e2e_s=e2e_s,
            token_times_s=[e2e_s],
            graphs=0,
            compile_s=0.0,
        )
        for index, e2e_s in enumerate(durations_s)
    ]
    config = make_config(compile_kwargs={"mode": mode} if mode else None)
    known: dict[str, Any] = {
        "trial_id": str(mode),
        "name": str(mode),
        "requested": config.to_dict(),
        "iterations": calls,
    }
    made = make_record(**known | changes)
    assert made.observed is not None
    made.observed = dataclasses.replace(made.observed, compile=compiled)
    return made


def setting(mode: str | None, starts: Sequence[tuple[float, float]], **changes) -> Setting:
    """Build a setting with one process for each pair of excess and call time."""
    records = [record(mode, *each, repeat=repeat, **changes) for repeat, each in enumerate(starts, start=1)]
    (made,) = settings_of(records)
    return made


def asking(each: Setting, section: str, **values) -> Setting:
    for one in each.records:
        one.requested[section].update(values)
    return each


def only(*settings: Setting) -> BreakEven:
    (found,) = break_evens(settings)
    return found


# Compiled processes start 10, 11 and 12 s slower and take 1 s per call; uncompiled ones 1 s slower, 1.9, 2 and 2.1 s.
PLAIN = [(1.0, 1.9), (1.0, 2.0), (1.0, 2.1)]
COMPILED = [(11.0, 1.0), (12.0, 1.0), (13.0, 1.0)]


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_the_break_even_point_is_the_excess_over_what_a_call_saves():
    found = only(setting(None, PLAIN), setting("default", COMPILED))
    assert (found.excess_s, found.saved_s, found.calls) == pytest.approx((11.0, 1.0, 11.0))
    assert found.tokens == pytest.approx(11 * BATCH_SIZE * NEW_TOKENS)
    assert (found.setting, found.uncompiled, found.status, found.reason) == ("default", "None", "established", None)
    assert (found.cache, found.processes, found.uncompiled_processes, found.paired) == ("cold", 3, 3, True)


def test_the_interval_is_fiellers():
    found = only(setting(None, PLAIN), setting("default", COMPILED))
    # Differences by block: C = 10, 11, 12 and D = 0.9, 1, 1.1, so variances of means 1/3 and 0.01/3, covariance 0.1/3.
    square = t.ppf(0.975, 2) ** 2
    roots = np.roots([1 - square * 0.01 / 3, -2 * (11 - square * 0.1 / 3), 121 - square / 3])
    assert (found.calls_low, found.calls_high) == pytest.approx((min(roots), max(roots)))


def correlated(generator, processes: int, excess_s: float, call_s: float, slope: float) -> list[tuple[float, float]]:
    """Build processes whose start and call times correlate positively (slope > 0) or negatively."""
    noise = generator.normal(0.0, 1.0, processes)
    return [(excess_s + each, call_s + slope * each) for each in noise.tolist()]


@pytest.mark.parametrize("slope", [0.08, -0.08])
@pytest.mark.parametrize("side", ["compiled", "uncompiled", "both"])
@pytest.mark.parametrize("processes", [(6, 6), (5, 8)], ids=["paired", "unpaired"])
def test_at_each_end_of_the_interval_the_difference_is_t_standard_errors(processes, side, slope):
    """After ρ calls a process has taken excess + ρ call: an end is a ρ at which the sides just differ at 5 %."""
    generator = np.random.default_rng(8)
    compiled = correlated(generator, processes[0], 20.0, 1.0, slope if side != "uncompiled" else 0.01)
    plain = correlated(generator, processes[1], 9.0, 2.0, slope if side != "compiled" else 0.01)
    plain_setting = setting(None, plain)
    if processes[0] != processes[1]:  # of other repeats
        for each in plain_setting.records:
            each.repeat += 100
    found = only(plain_setting, setting("default", compiled))
    assert (found.status, found.paired) == ("established", processes[0] == processes[1])
    quantile = t.ppf(0.975, min(processes) - 1)
    for calls in (found.calls_low, found.calls_high):
        one, other = (np.array([excess + calls * call for excess, call in each]) for each in (compiled, plain))
        if found.paired:
            variance = (one - other).var(ddof=1) / len(one)
        else:
            variance = one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)
        assert abs(one.mean() - other.mean()) == pytest.approx(quantile * math.sqrt(variance))
    assert found.calls_low < found.calls < found.calls_high


def test_the_speed_up_counts_the_start():
    found = only(setting(None, PLAIN), setting("default", COMPILED))
    assert list(found.speedup) == [10, 100, 1000]
    assert list(found.speedup.values()) == pytest.approx([20 / 21, 200 / 111, 2000 / 1011])


def test_the_speed_ups_interval_is_that_of_a_mean_of_slopes():
    found = only(setting(None, PLAIN), setting("default", COMPILED))
    # At N = 10: log S = log(10 t_u) - log(C + 10 t_c), so a block counts t_u / 2 - C / 21: SD |0.05 - 1 / 21|.
    reach = t.ppf(0.975, 2) * abs(0.05 - 1 / 21) / math.sqrt(3)
    assert math.log(found.speedup[10] / found.speedup_low[10]) == pytest.approx(reach)
    assert math.log(found.speedup_high[10] / found.speedup[10]) == pytest.approx(reach)


def jackknife(sides: Sequence[np.ndarray], speedup, *, paired: bool) -> float:
    """The standard error of log S from leaving out one process, or one block, at a time (Tukey 1958)."""
    variance = 0.0
    for left in [(0, 1)] if paired else [(0,), (1,)]:
        n = len(sides[left[0]])
        found = np.array(
            [
                math.log(
                    speedup(
                        *[
                            np.delete(side, each, axis=0) if number in left else side
                            for number, side in enumerate(sides)
                        ]
                    )
                )
                for each in range(n)
            ]
        )
        variance += (n - 1) / n * float(np.sum((found - found.mean()) ** 2))
    return math.sqrt(variance)


@pytest.mark.parametrize("slope", [0.02, -0.02])
@pytest.mark.parametrize("processes", [(30, 30), (30, 36)], ids=["paired", "unpaired"])
def test_the_speed_ups_interval_is_as_wide_as_the_jackknife_says(processes, slope):
    """On both sides start and call times correlate positively or negatively."""
    generator = np.random.default_rng(5)
    compiled = correlated(generator, processes[0], 20.0, 1.0, slope)
    plain = correlated(generator, processes[1], 9.0, 2.0, slope)
    plain_setting = setting(None, plain)
    if processes[0] != processes[1]:  # of other repeats
        for each in plain_setting.records:
            each.repeat += 100
    found = only(plain_setting, setting("default", compiled))
    quantile = t.ppf(0.975, min(processes) - 1)
    for n in found.speedup:

        def speedup(one, other, n=n):
            return n * other[:, 1].mean() / (one[:, 0].mean() - other[:, 0].mean() + n * one[:, 1].mean())

        error = jackknife([np.array(compiled), np.array(plain)], speedup, paired=found.paired)
        assert math.log(found.speedup_high[n] / found.speedup[n]) == pytest.approx(quantile * error, rel=0.03)


def test_a_speed_up_whose_interval_has_no_end_has_none():
    # Over 10 calls the compiled side takes 10 s for its calls and 9.99 s less for its start: all but nothing.
    plain = [(11.0, 2.0), (12.0, 2.0), (13.0, 2.0)]
    compiled = [(2.0, 1.0), (2.01, 1.0), (2.02, 1.0)]
    found = only(setting(None, plain), setting("default", compiled))
    assert found.speedup[10] == pytest.approx(2000)
    assert 10 not in found.speedup_low
    assert 10 not in found.speedup_high
    assert found.speedup_low[1000] < found.speedup[1000] < found.speedup_high[1000]


def test_a_speed_up_with_a_negative_cost_is_omitted():
    found = only(setting(None, [(50.0, 2.0)]), setting("default", [(0.0, 1.0)]))
    assert list(found.speedup) == [100, 1000]


def test_blocks_that_do_not_match_are_compared_unpaired():
    plain, compiled = setting(None, PLAIN), setting("default", COMPILED)
    for each in compiled.records:
        each.repeat += 10
    found = only(plain, compiled)
    # Variances of means: C 1/3 and D 0.01/3, which do not vary together.
    square = t.ppf(0.975, 2) ** 2
    roots = np.roots([1 - square * 0.01 / 3, -2 * 11, 121 - square / 3])
    assert not found.paired
    assert (found.calls_low, found.calls_high) == pytest.approx((min(roots), max(roots)))


def test_blocks_are_matched_by_repeat_whatever_their_order():
    plain, compiled = setting(None, PLAIN), setting("default", COMPILED)
    compiled.records.reverse()
    assert only(plain, compiled) == only(setting(None, PLAIN), setting("default", COMPILED))


def test_a_block_without_one_side_is_omitted():
    found = only(setting(None, [*PLAIN, (9.0, 9.0)]), setting("default", COMPILED))
    assert (found.processes, found.uncompiled_processes, found.calls) == (3, 3, pytest.approx(11.0))


# ---- status ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "reason"), [(1, "one process each"), (2, "2 processes each")])
def test_few_processes_give_only_a_description(number, reason):
    found = only(setting(None, PLAIN[:number]), setting("default", COMPILED[:number]))
    assert (found.status, found.reason) == ("descriptive", f"{reason}; intervals from 3 on")
    assert found.calls is not None
    assert (found.calls_low, found.calls_high, found.speedup_low, found.speedup_high) == (None, None, {}, {})


def test_a_compiled_setting_that_is_slower_never_pays():
    found = only(setting(None, PLAIN), setting("default", [(11.0, 2.9), (12.0, 3.0), (13.0, 3.2)]))
    assert (found.status, found.calls, found.calls_low, found.tokens) == ("never", None, None, None)
    assert found.reason == "the compiled calls are slower"


def test_a_saving_that_may_be_zero_has_no_upper_end():
    found = only(setting(None, PLAIN), setting("default", [(10.9, 1.9), (11.0, 1.8), (11.1, 2.0)]))
    assert (found.status, found.calls_high) == ("not established", None)
    assert found.calls is not None
    assert found.calls_low is not None
    assert 0 < found.calls_low < found.calls


def test_a_negative_saving_that_may_be_zero_has_a_lower_end_too():
    found = only(setting(None, PLAIN), setting("default", [(10.9, 1.9), (11.0, 2.2), (11.1, 2.1)]))
    assert (found.status, found.calls, found.calls_high) == ("not established", None, None)
    assert found.calls_low > 0


def test_a_confidence_set_with_a_gap_above_0_extends_from_0_without_end():
    # C = 0, 1, 2 and D = 0.5, 1.5, 2.5: what Fieller rejects lies between 0.88 and 1.5 calls.
    compiled = [(1.0, 2.5), (2.0, 1.5), (3.0, 0.5)]
    found = only(setting(None, [(1.0, 3.0)] * 3), setting("default", compiled))
    assert (found.status, found.calls_low, found.calls_high) == ("not established", 0.0, None)


def test_a_start_without_extra_cost_pays_from_the_first_call():
    found = only(setting(None, PLAIN), setting("default", [(0.5, 1.0), (0.4, 1.0), (0.6, 1.0)]))
    assert (found.status, found.calls, found.calls_low, found.calls_high, found.tokens) == ("established", 0, 0, 0, 0)


def test_noise_within_processes_widens_the_interval_of_a_saving():
    plain = setting(None, [(1.0, 1.01)] * 3)
    assert only(plain, setting("default", [(5.0, 1.0)] * 3)).status == "established"
    for each in plain.records:  # Half of the calls are 5 % faster, the other half as much slower: the median stays.
        each.iterations[1:] = [
            dataclasses.replace(one, e2e_s=1.01 * (0.95 if index % 2 else 1.05))
            for index, one in enumerate(each.iterations[1:])
        ]
    assert only(plain, setting("default", [(5.0, 1.0)] * 3)).status == "not established"


# ---- compared settings -----------------------------------------------------------------------------------------------


def test_cold_and_warm_starts_are_distinguished():
    compiled = setting("default", [*COMPILED, *[(3.0, 1.0)] * 4, (7.0, 1.0)])
    for each, state in zip(compiled.records, [COLD] * 3 + [WARM] * 4 + [MIXED], strict=True):
        each.observed = dataclasses.replace(each.observed, compile=state)
    cold, warm = break_evens([setting(None, [(1.0, 2.0)] * 8), compiled])
    assert [(each.cache, each.processes, each.mixed, each.excess_s) for each in (cold, warm)] == [
        ("cold", 3, 1, pytest.approx(11.0)),
        ("warm", 4, 1, pytest.approx(2.0)),
    ]


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("attention", {"implementation": "eager"}),
        ("workload", {"batch_size": 7}),
        ("model", {"dtype": "float16"}),
        ("generation", {"kernelize": True}),
        ("sweep", {"label": "b"}),
        ("warmup", {"iterations": 9}),
    ],
)
def test_settings_that_differ_in_another_key_are_not_compared(section, values):
    assert break_evens([setting(None, PLAIN), asking(setting("default", COMPILED), section, **values)]) == []


@pytest.mark.parametrize("section", ["tracking", "isolation", "fidelity"])
def test_keys_that_do_not_change_the_measurement_may_differ(section):
    assert break_evens([setting(None, PLAIN), asking(setting("default", COMPILED), section, anything=1)])


@pytest.mark.parametrize(
    ("compiled", "plain", "chosen"),
    [
        ("auto", ["auto"], "auto"),
        ("auto", ["static", "auto"], "auto"),
        ("auto", ["dynamic", "static"], "static"),
        ("auto", ["dynamic"], None),
        ("static", ["auto", "static"], "static"),
        ("static", ["auto"], None),
    ],
)
def test_the_compared_kv_cache_is_the_requested_one_or_the_compilers_choice(compiled, plain, chosen):
    others = [asking(setting(None, PLAIN, trial_id=each, name=each), "generation", kv_cache=each) for each in plain]
    found = break_evens([*others, asking(setting("default", COMPILED), "generation", kv_cache=compiled)])
    assert [each.uncompiled for each in found] == ([chosen] if chosen else [])


def test_each_compiled_setting_is_compared():
    found = break_evens([setting("default", COMPILED), setting(None, PLAIN), setting("max-autotune", COMPILED)])
    assert [each.setting for each in found] == ["default", "max-autotune"]


def test_settings_without_results_are_omitted():
    nothing = Setting(name="", setting_id="")
    assert break_evens([nothing, setting("default", COMPILED)]) == []
    assert break_evens([setting(None, PLAIN), nothing]) == []


def test_processes_that_compiled_nothing_have_no_cache_state():
    assert break_evens([setting(None, PLAIN), setting("default", COMPILED, compiled=CompileObserved())]) == []


# ---- Fieller ---------------------------------------------------------------------------------------------------------


def test_a_clear_denominator_gives_an_interval():
    # (10 - ρ)² ≤ 4 (1 + 0.04 ρ²): 0.84 ρ² - 20 ρ + 96 ≤ 0.
    ((low, high),) = fieller(10.0, 1.0, np.diag([1.0, 0.04]), 2.0)
    assert (low, high) == pytest.approx(((20 - math.sqrt(77.44)) / 1.68, (20 + math.sqrt(77.44)) / 1.68))


def test_a_denominator_that_may_be_0_gives_the_complement_of_an_interval():
    # (10 - ρ)² ≤ 4 (1 + ρ²): 3 ρ² + 20 ρ - 96 ≥ 0.
    (_, low), (high, _) = found = fieller(10.0, 1.0, np.diag([1.0, 1.0]), 2.0)
    assert (low, high) == pytest.approx(((-20 - math.sqrt(1552)) / 6, (-20 + math.sqrt(1552)) / 6))
    assert (found[0][0], found[1][1]) == (-math.inf, math.inf)


def test_two_means_that_may_both_be_0_give_the_whole_line():
    assert fieller(1.0, 1.0, np.diag([1.0, 1.0]), 2.0) == [(-math.inf, math.inf)]


def test_means_without_variance_give_their_ratio():
    assert fieller(3.0, 0.7, np.zeros((2, 2)), 4.3) == [pytest.approx((3 / 0.7, 3 / 0.7))]


@pytest.mark.parametrize("saved_s", [0.2, 0.03])
def test_fiellers_set_holds_the_true_ratio_in_95_percent(saved_s):
    """For means of 5 blocks, with a saving of many standard errors and with one of about two."""
    generator = np.random.default_rng(3)
    trials, hits, quantile = 2000, 0, t.ppf(0.975, 4)
    for _ in range(trials):
        excess, saved = generator.normal(10.0, 0.5, 5), generator.normal(saved_s, 0.03, 5)
        found = fieller(excess.mean(), saved.mean(), np.cov(excess, saved) / 5, quantile)
        hits += any(low <= 10.0 / saved_s <= high for low, high in found)
    low, high = beta.ppf(0.025, hits, trials - hits + 1), beta.ppf(0.975, hits + 1, trials - hits)
    print(f"coverage at a saving of {saved_s} s: {hits / trials:.2%} ({low:.2%} to {high:.2%})")
    assert low <= 0.95 <= high
