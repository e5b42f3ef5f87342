"""Check verdicts against hand-calculated intervals, Holm's original rule and simulated sweeps.

The simulations draw normally distributed log medians of processes from a seed and check rates against the targets: a
rate fails if its exact 95 % interval is entirely on the wrong side. They print their results (pytest -s).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, t, ttest_ind

from bench.analysis.comparison import (
    Comparison,
    Effect,
    compare,
    compare_sweeps,
    effect,
    holm,
    satterthwaite,
    verdicts,
)
from bench.analysis.ranking import standing_of_setting
from bench.analysis.settings import Difference, Process, Setting, settings_of
from bench.config.rules import ConfigError
from bench.results.record import Fidelity, Iteration, Record, Steadiness
from factories import make_record

TRIALS = 600
MEDIAN_NOISE = 0.0028  # of 20 calls with a coefficient of variation of 1 %


def side(medians: Sequence[float | None], noise: float | None = None) -> list[Process | None]:
    return [
        None if each is None else Process(repeat=repeat, median_s=each, noise=noise)
        for repeat, each in enumerate(medians, start=1)
    ]


def found(a: Sequence[float | None], b: Sequence[float | None], *, noise: float | None = None, **keywords) -> Effect:
    result = effect(side(a, noise), side(b, noise), **keywords)
    assert result is not None
    return result


def logs(*values: float) -> list[float]:
    """Return times whose logarithms are these hundredths."""
    return [math.exp(each / 100) for each in values]


def reach(each: Effect) -> float:
    """Return half of the interval's width on the log scale."""
    assert each.low is not None
    assert each.high is not None
    return math.log(each.high / each.low) / 2


def word(a: Sequence[float | None], b: Sequence[float | None], **keywords) -> str:
    return verdicts([found(a, b, **keywords)])[0].word


def reason(a: Sequence[float | None], b: Sequence[float | None], **keywords) -> str | None:
    return verdicts([found(a, b, **keywords)])[0].reason


# ---- effects ---------------------------------------------------------------------------------------------------------


def test_the_ratio_is_that_of_the_geometric_means():
    assert found([1.0, 4.0], [3.0, 12.0]).ratio == pytest.approx(3.0)


def test_positively_correlated_blocks_give_the_paired_interval():
    # Differences 3, 4, 5 hundredths: mean 4, SD 1, standard error 1 / √3; the blocks' levels differ much more.
    each = found(logs(0, 50, -50), logs(3, 54, -45))
    assert math.log(each.ratio) == pytest.approx(0.04)
    assert reach(each) == pytest.approx(t.ppf(0.975, 2) * 0.01 / math.sqrt(3))


def test_negatively_correlated_blocks_give_the_paired_interval_too():
    # Differences 12, 10, 8 hundredths: SD 2. Welch's interval, narrower here, would assume independent sides.
    each = found(logs(-1, 0, 1), logs(11, 10, 9))
    assert reach(each) == pytest.approx(t.ppf(0.975, 2) * 0.02 / math.sqrt(3))
    assert reach(each) > reach(found(logs(-1, 0, 1), logs(11, 10, 9), paired=False))


def test_the_ratio_is_that_of_the_two_geometric_means_of_the_blocks_used():
    each = found([1.0, 4.0, None, 9.0], [3.0, 12.0, 5.0, None])
    assert (each.geometric_mean_s, each.baseline_geometric_mean_s) == pytest.approx((6.0, 2.0))
    assert each.geometric_mean_s / each.baseline_geometric_mean_s == pytest.approx(each.ratio)


def test_two_sweeps_give_geometric_means_over_all_processes_of_each():
    each = effect(side([1.0, 4.0]), side([3.0, 12.0, 6.0]), paired=False)
    assert each is not None
    assert (each.geometric_mean_s, each.baseline_geometric_mean_s) == pytest.approx((6.0, 2.0))


def test_two_sweeps_give_welchs_interval_at_95_percent():
    a, b = logs(0, 1, 2, 5), logs(7, 7.5, 9)
    theirs = ttest_ind(np.log(b), np.log(a), equal_var=False)
    each = found(a, b, paired=False)
    interval = theirs.confidence_interval(0.95)
    assert [math.log(each.low), math.log(each.high)] == pytest.approx([interval.low, interval.high])
    assert each.p == pytest.approx(theirs.pvalue)


def test_p_is_5_percent_if_the_interval_ends_at_no_difference():
    spread = np.array([-1.0, 0.0, 1.0])
    width = 100 * reach(found(logs(*spread), logs(*-spread)))
    each = found(logs(*spread), logs(*(width - spread)))
    assert each.low == pytest.approx(1.0)
    assert each.p == pytest.approx(0.05)


def test_p_beyond_is_5_percent_if_the_interval_ends_at_the_margin():
    spread = np.array([-1.0, 0.0, 1.0])
    width = 100 * reach(found(logs(*spread), logs(*-spread)))
    each = found(logs(*spread), logs(*(width + 100 * math.log(1.01) - spread)))
    assert each.low == pytest.approx(1.01)
    assert each.p_beyond == pytest.approx(0.05)


def test_noise_within_processes_limits_how_narrow_an_interval_gets():
    # Three pairs that differ by exactly 4 hundredths, each median known to 0.3 %: standard error √2 × 0.3 / √3.
    each = found(logs(0, 1, 2), logs(4, 5, 6), noise=0.003)
    assert reach(each) == pytest.approx(t.ppf(0.975, 2) * 0.003 * math.sqrt(2 / 3))


def test_noise_within_processes_widens_the_interval_of_two_sweeps():
    each = found(logs(0, 0, 0), logs(4, 4, 4), noise=0.003, paired=False)
    assert reach(each) == pytest.approx(t.ppf(0.975, 2) * 0.003 * math.sqrt(2 / 3))


def test_unknown_noise_is_taken_from_the_other_processes():
    half = [Process(median_s=1.0, noise=0.01), Process(median_s=1.0), Process(median_s=1.0)]
    known, partly = effect(side([1.0] * 3, 0.01), side([1.0] * 3, 0.01)), effect(half, side([1.0] * 3, 0.01))
    assert reach(partly) == pytest.approx(reach(known))


def test_blocks_without_one_side_are_omitted_and_counted():
    each = found([1.0, None, 1.0, 5.0, None], [2.0, 7.0, 2.0, None, None])
    assert (each.ratio, each.processes, each.left_out) == (pytest.approx(2.0), 2, 2)


def test_unpaired_sides_may_differ_in_size():
    each = found([1.0, None, 1.0], [2.0, 2.0, 2.0, 2.0], paired=False)
    assert (each.processes, each.left_out, each.paired) == (2, 0, False)


def test_paired_sides_of_different_length_raise_an_internal_error():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        effect(side([1.0]), side([1.0, 1.0]))


def test_without_processes_there_is_no_effect():
    assert effect(side([None, 1.0]), side([1.0, None])) is None
    assert effect([], side([1.0]), paired=False) is None


def test_one_process_each_gives_only_a_ratio():
    each = found([1.0], [2.0])
    assert (each.ratio, each.low, each.high, each.p, each.p_beyond, each.inside) == (2.0, None, None, None, None, None)


def test_two_processes_each_give_an_interval_but_no_verdict():
    each = found(logs(0, 1), logs(5, 5))
    assert each.low is not None
    assert each.p is not None
    assert each.p_beyond is None


def test_processes_without_variance_have_an_interval_of_zero_width():
    equal, other = found([1.0] * 3, [1.0] * 3), found([1.0] * 3, [2.0] * 3)
    assert (equal.low, equal.high, equal.p, equal.p_beyond, equal.inside) == (1.0, 1.0, 1.0, 1.0, True)
    assert (other.p, other.p_beyond, other.inside) == (0.0, 0.0, False)


def test_degrees_of_freedom_are_between_those_of_one_side_and_of_both():
    assert satterthwaite([1.0, 1.0], [5, 5]) == pytest.approx(8)
    assert satterthwaite([1.0, 0.0], [5, 5]) == pytest.approx(4)
    # Shares 1/3 and 2/3: 1 / (1/9 / 2 + 4/9 / 4) = 6.
    assert satterthwaite([1e-200, 2e-200], [3, 5]) == pytest.approx(6)


times = st.floats(min_value=1e-3, max_value=1e3)
pairs = st.lists(st.tuples(times, times), min_size=3, max_size=6)


@given(pairs, st.booleans())
def test_swapping_the_sides_inverts_the_ratio_and_mirrors_the_verdict(values, paired):
    a, b = [one for one, _ in values], [other for _, other in values]
    there, back = found(a, b, paired=paired), found(b, a, paired=paired)
    assert [1 / back.ratio, 1 / back.high, 1 / back.low] == pytest.approx([there.ratio, there.low, there.high])
    assert (there.p, there.p_beyond) == pytest.approx((back.p, back.p_beyond))
    mirror = {"faster": "slower", "slower": "faster"}
    verdict = verdicts([there])[0].word
    assert verdicts([back])[0].word == mirror.get(verdict, verdict)


@given(pairs)
def test_milliseconds_and_seconds_give_the_same_verdict(values):
    a, b = [one for one, _ in values], [other for _, other in values]
    one, other = found(a, b), found([1e3 * each for each in a], [1e3 * each for each in b])
    assert (one.ratio, one.low, one.high) == pytest.approx((other.ratio, other.low, other.high))


@given(times, times, st.sampled_from([0.0, 0.01]))
def test_one_process_each_never_names_a_winner(a, b, noise):
    assert word([a], [b], noise=noise) == "inconclusive"
    assert word([a], [b], noise=noise, paired=False) == "inconclusive"


@given(st.lists(times, min_size=2, max_size=2), st.lists(times, min_size=2, max_size=2))
def test_two_processes_each_never_name_a_winner(a, b):
    assert word(a, b) == "inconclusive"


@given(pairs)
def test_the_order_of_blocks_does_not_matter(values):
    turned = values[::-1]
    one, other = (found([a for a, _ in each], [b for _, b in each]) for each in (values, turned))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_slower_and_faster_describe_the_setting_not_its_baseline():
    assert word(logs(0, 0.1, 0.2), logs(10.1, 10, 10.2)) == "slower"
    assert word(logs(10.1, 10, 10.2), logs(0, 0.1, 0.2)) == "faster"


def test_an_interval_within_the_margin_is_equivalent():
    assert word(logs(0, 0.1, 0.2), logs(0.3, 0.1, 0.2)) == "equivalent"


def test_a_decided_verdict_has_no_reason():
    assert reason(logs(0, 0.1, 0.2), logs(10.1, 10, 10.2)) is None


@pytest.mark.parametrize(("margin", "expected"), [(0.01, "slower"), (0.12, "equivalent"), (0.1052, "inconclusive")])
def test_the_margin_decides_which_difference_matters(margin, expected):
    effects = [found(logs(0, 0.1, 0.2), logs(10.1, 10, 10.2), margin=margin)]
    assert verdicts(effects, margin=margin)[0].word == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0], [2.0], "one process each: repeats are needed"),
        ([1.0, 1.0], [2.0, 2.0], "2 processes each; verdicts from 3 on"),
        ([1.0, 1.0, None], [2.0, 2.0, 2.0],
         "2 blocks with a result of both (1 left out: one side has no result); verdicts from 3 on"),
        ([1.0, None, 1.0], [2.0, 2.0, None],
         "1 block with a result of both (2 left out: one side has no result); verdicts from 3 on"),
        # Differences 3, 1, -1 and 2, 1.5, 1 hundredths: 1 ± 4.303 × 2 / √3, and 1.5 ± 4.303 × 0.5 / √3.
        (logs(-1, 0, 1), logs(2, 1, 0), "the interval \N{MINUS SIGN}3.9 % … +6.1 % holds both no difference and one of more than 1 %"),
        (logs(0, 0, 0), logs(2, 1.5, 1), "the interval +0.3 % … +2.8 % holds differences of less and of more than 1 %"),
    ],
)  # fmt: skip
def test_an_inconclusive_verdict_says_why(a, b, expected):
    assert reason(a, b) == expected


def test_one_process_on_a_side_of_two_sweeps_needs_repeats():
    assert reason([1.0], [2.0] * 3, paired=False) == "one process on a side: repeats are needed"


def test_an_effect_significant_only_before_the_correction_is_inconclusive():
    alone = found(logs(0, 0, 0), logs(5.5, 5, 4.5))
    others = [found(logs(-1, 0, 1), logs(1, 0, -1))] * 10
    assert verdicts([alone])[0].word == "slower"
    verdict, *_ = verdicts([alone, *others])
    assert verdict.word == "inconclusive"
    assert verdict.p == pytest.approx(11 * alone.p_beyond)
    assert verdict.reason == f"not significant after correction for 11 comparisons (p = {verdict.p:.2g})"


def test_untestable_comparisons_do_not_count_in_the_correction():
    tested = found(logs(0, 0, 0), logs(5.5, 5, 4.5))
    untested = [None, found([1.0], [2.0])] * 5
    first, *_, last = verdicts([*untested, tested])
    assert (first.word, first.p) == ("inconclusive", None)
    assert (last.word, last.p) == ("slower", tested.p_beyond)


def test_an_empty_list_of_effects_has_no_verdicts():
    assert verdicts([]) == []


def test_holms_adjusted_p_values_never_decrease():
    # 4 × 0.01, 3 × 0.02, 2 × 0.03 (equal to the one before, 0.06), 1 × 0.04 (raised to the one before).
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holms_adjusted_p_values_are_at_most_1():
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# ---- settings --------------------------------------------------------------------------------------------------------


def record(e2e_s: float, **changes) -> Record:
    """Build a record of calls that all take the same time."""
    calls = [
        Iteration(
            index=index,
            phase="measurement",
            start_s=float(index),
            e2e_s=e2e_s,
            token_times_s=[e2e_s / 4, e2e_s / 2],
            graphs=0,
            compile_s=0.0,
        )
        for index in range(5)
    ]
    return make_record(iterations=calls, **changes)


def setting(name: str, times_s: Sequence[float], **changes) -> Setting:
    """Build a setting named `x=NAME` with one process for each time."""
    return Setting(
        name=name,
        setting_id=name,
        swept={"x": name},
        records=[record(each, repeat=repeat, **changes) for repeat, each in enumerate(times_s, start=1)],
    )


def one(comparisons: list[Comparison]) -> Comparison:
    (each,) = comparisons
    return each


SLOW, FAST = logs(10.1, 10, 10.2), logs(0, 0.1, 0.2)


def test_each_setting_is_compared_with_the_first():
    comparisons = compare([setting("a", FAST), setting("b", SLOW), setting("c", FAST)])
    assert [(each.setting, each.baseline, each.verdict.word) for each in comparisons] == [
        ("b", "a", "slower"),
        ("c", "a", "equivalent"),
    ]


def test_a_baseline_can_be_named():
    each = one(compare([setting("a", FAST), setting("b", SLOW)], baseline="x=b"))
    assert (each.setting_id, each.baseline_id, each.verdict.word) == ("a", "b", "faster")


def test_a_missing_baseline_is_a_user_error():
    with pytest.raises(ConfigError, match=r"sweep\.baseline=z"):
        compare([setting("a", FAST)], baseline="z")


@pytest.mark.parametrize("metric", ["e2e", "ttft", "itl", "tpot"])
def test_each_metric_can_be_compared(metric):
    each = one(compare([setting("a", FAST), setting("b", SLOW)], metric=metric))
    assert (each.metric, each.effect.ratio) == (metric, pytest.approx(math.exp(0.1)))


def test_processes_are_paired_by_repeat_whatever_their_order():
    b = setting("b", logs(3, 54, -45))
    b.records.reverse()
    each = one(compare([setting("a", logs(0, 50, -50)), b]))
    assert reach(each.effect) == pytest.approx(t.ppf(0.975, 2) * 0.01 / math.sqrt(3))


def test_a_lost_repeat_is_omitted():
    a, b = setting("a", [*FAST, 1.0]), setting("b", SLOW)
    each = one(compare([a, b]))
    assert (each.effect.processes, each.effect.left_out, each.verdict.word) == (3, 1, "slower")


def test_steadiness_states_are_counted_for_both_sides():
    b = setting("b", SLOW)
    b.records[0].steadiness = judged(steady=True)
    assert one(compare([setting("a", FAST), b])).steady == ("–", "1 yes 2 –")


def judged(*flags: str, steady: bool | None) -> Steadiness:
    return Steadiness(steady=steady, flags=list(flags), shape=None, power="enough")


def spoil(number: int, **changes) -> Callable[[Setting], None]:
    def spoilt(each: Setting) -> None:
        for record in each.records[:number]:
            for name, value in changes.items():
                setattr(record, name, value)

    return spoilt


def move(each: Setting) -> None:
    for record in each.records:
        record.observed = dataclasses.replace(record.observed, device_name="Other")


def lose(each: Setting) -> None:
    each.records.clear()
    each.lost, each.lost_reason = {"failed": 3}, "failed in load: OSError: gone"


@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [
        (move, "not comparable: device is Test CPU and Other"),
        (lose, "no process of the setting is ok (failed in load: OSError: gone)"),
        # Only the flags that decide are reasons: cv_high does not.
        (spoil(2, steadiness=judged("trend", "cv_high", steady=False)),
         "the setting is not ranked: it was unsteady during measurement (2 of 3 processes unsteady, 1 not judged; trend)"),
        (spoil(2, warmup_status="not_converged"),
         "the setting is not ranked: its warm-up did not converge (in 2 of 3 processes)"),
        (spoil(1, fidelity=Fidelity(reference="eager", agrees=False, reason="KL too high")),
         "the setting is not ranked: its output differs from the reference's (in 1 of 3 processes; KL too high)"),
    ],
)  # fmt: skip
def test_untrusted_measurements_are_inconclusive_for_any_interval(spoilt, expected):
    b = setting("b", SLOW)
    spoilt(b)
    verdict = one(compare([setting("a", FAST), b])).verdict
    assert (verdict.word, verdict.p, verdict.reason) == ("inconclusive", None, expected)


def test_an_untrusted_baseline_is_named_in_the_reason():
    a = setting("a", FAST)
    spoil(2, steadiness=judged("event", steady=False))(a)
    assert one(compare([a, setting("b", SLOW)])).verdict.reason == (
        "the baseline is not ranked: it was unsteady during measurement (2 of 3 processes unsteady, 1 not judged; event)"
    )


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "spoilt",
    [
        {"steadiness": Steadiness(steady=False, flags=["trend"], shape=None, power="enough")},
        {"warmup_status": "not_converged"},
        {"fidelity": Fidelity(reference="eager", agrees=False, reason="KL too high")},
    ],
)
def test_a_side_is_judged_exactly_if_it_may_be_ranked(place, spoilt):
    sides = [setting("a", FAST), setting("b", SLOW)]
    for number in range(1, 4):
        spoil(number, **spoilt)(sides[place])
        is_judged = one(compare(sides)).verdict.p is not None
        assert is_judged == standing_of_setting(sides[place]).is_ranked, number


@pytest.mark.parametrize(
    "spoilt",
    [
        spoil(1, steadiness=judged("trend", steady=False)),
        spoil(1, warmup_status="not_converged"),
        spoil(3, steadiness=judged(steady=None)),
        spoil(3, fidelity=Fidelity(reference="eager", agrees=None)),
    ],
)
def test_a_few_unsteady_or_unjudged_processes_do_not_change_the_verdict(spoilt):
    b = setting("b", SLOW)
    spoilt(b)
    assert one(compare([setting("a", FAST), b])).verdict.word == "slower"


def test_half_unsteady_processes_make_a_setting_untrusted():
    a, b = setting("a", [*FAST, 1.0]), setting("b", [*SLOW, 1.1])
    spoil(2, steadiness=judged("trend", steady=False))(b)
    assert one(compare([a, b])).verdict.reason == (
        "the setting is not ranked: it was unsteady during measurement (2 of 4 processes unsteady, 2 not judged; trend)"
    )


def test_reported_differences_do_not_change_the_verdict():
    b = setting("b", SLOW, environment={"hostname": "far"})
    each = one(compare([setting("a", FAST), b]))
    assert [(one.key, one.a, one.b) for one in each.differences] == [("host", "–", "far")]
    assert each.verdict.word == "slower"


def test_settings_without_a_common_block_cannot_be_compared():
    b = setting("b", SLOW)
    for each in b.records:
        each.repeat += 10
    compared = one(compare([setting("a", FAST), b]))
    assert compared.effect is None
    assert compared.verdict.reason == "there is no pair of results to compare"


def test_a_setting_without_a_test_does_not_count_in_the_correction():
    barred = [setting(f"c{each}", logs(-1, 0, 1)) for each in range(10)]
    for each in barred:
        move(each)
    # Uncorrected, its p value is 0.5 %, and eleven times that is too high.
    first, *_ = compare([setting("a", logs(0, 0, 0)), setting("b", logs(5.5, 5, 4.5)), *barred])
    assert first.verdict.word == "slower"


def test_records_of_a_sweep_can_be_compared():
    records = [
        record(time_s, trial_id=name, name=name, swept={"x": name}, repeat=repeat)
        for repeat in (1, 2, 3)
        for name, time_s in (("a", FAST[repeat - 1]), ("b", SLOW[repeat - 1]))
    ]
    assert one(compare(settings_of(records))).verdict.word == "slower"


# ---- two sweeps ------------------------------------------------------------------------------------------------------


def test_two_sweeps_are_compared_setting_by_setting():
    before = [setting("a", FAST), setting("b", FAST), setting("gone", FAST)]
    after = [setting("new", FAST), setting("b", SLOW), setting("a", FAST)]
    comparisons = compare_sweeps(before, after)
    assert [(each.setting, each.verdict.word) for each in comparisons] == [("b", "slower"), ("a", "equivalent")]


def test_two_sweeps_are_never_paired():
    each = one(compare_sweeps([setting("a", logs(0, 50, -50))], [setting("a", logs(3, 54, -45))]))
    assert not each.effect.paired
    assert reach(each.effect) > 1


def tokens(each: Setting, *rows: list[int], same: bool = True) -> Setting:
    for record in each.records:
        record.output = dataclasses.replace(record.output, token_ids=list(rows), same_in_all_calls=same)
    return each


def test_different_tokens_of_the_same_setting_are_named():
    before, after = (tokens(setting("a", FAST), rows) for rows in ([1, 2, 3, 4], [1, 2, 9, 4]))
    each = one(compare_sweeps([before], [after]))
    assert each.differences == [
        Difference(key="generated tokens", a="4", b="3 of 4 equal to the baseline's", bars=False)
    ]
    assert each.verdict.word == "equivalent"


def test_tokens_are_compared_only_within_a_setting_and_if_constant():
    a, other = tokens(setting("a", FAST), [1]), tokens(setting("b", FAST), [2])
    assert one(compare_sweeps([a], [other])).differences == []
    assert one(compare_sweeps([a], [tokens(setting("a", FAST), [2], same=False)])).differences == []


def test_two_single_settings_are_compared_whatever_their_ids():
    each = one(compare_sweeps([setting("a", FAST)], [setting("b", SLOW)]))
    assert (each.baseline, each.setting, each.verdict.word) == ("a", "b", "slower")


# ---- simulations -----------------------------------------------------------------------------------------------------


def rate_of(name: str, hits: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % bounds (Clopper and Pearson) of a rate and print them with it."""
    low = float(beta.ppf(0.025, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, trials - hits)) if hits < trials else 1.0
    print(f"{name}: {hits / trials:.2%} of {trials} ({low:.2%} to {high:.2%})")
    return low, high


def simulated(repeats: int, process_sd: float, *, shift: float = 0.0, settings: int = 2, drift: float = 0.0):
    """Simulate sweeps of a baseline and others that take `shift` longer; yield the processes of both."""
    generator = np.random.default_rng([repeats, settings, int(process_sd * 1e4)])
    noise = MEDIAN_NOISE
    for _ in range(TRIALS):
        medians = generator.normal(scale=math.hypot(process_sd, noise), size=(settings, repeats))
        order = np.stack([generator.permutation(settings) for _ in range(repeats)], axis=1)
        medians += drift * (order + settings * np.arange(repeats)) / (settings * repeats - 1)
        medians[1:] += math.log1p(shift)
        first, *others = (side(list(np.exp(each)), noise) for each in medians)
        yield first, others


def counted(margin: float, repeats: int, process_sd: float, **keywords) -> int:
    """Count the sweeps with a verdict faster or slower."""
    hits = 0
    for first, others in simulated(repeats, process_sd, **keywords):
        found = verdicts([effect(first, each, margin=margin) for each in others], margin=margin)
        hits += any(each.word in ("faster", "slower") for each in found)
    return hits


@pytest.mark.parametrize("repeats", [3, 5])
@pytest.mark.parametrize("process_sd", [0.0, 0.002, 0.01, 0.02])
@pytest.mark.parametrize(("margin", "most"), [(0.0, 0.05), (0.01, 0.015)])
def test_identical_settings_are_rarely_called_different(repeats, process_sd, margin, most):
    hits = counted(margin, repeats, process_sd)
    low, _ = rate_of(f"identical, R = {repeats}, process SD {process_sd:.1%}, margin {margin:.0%}", hits, TRIALS)
    assert low <= most


@pytest.mark.parametrize(("margin", "fewest"), [(0.0, 0.90), (0.01, 0.60)])
@pytest.mark.parametrize("process_sd", [0.002, 0.01])
def test_a_shift_of_3_percent_is_found_by_five_repeats(margin, fewest, process_sd):
    hits = counted(margin, 5, process_sd, shift=0.03)
    _, high = rate_of(f"shift of 3 %, R = 5, process SD {process_sd:.1%}, margin {margin:.0%}", hits, TRIALS)
    assert high >= fewest


@pytest.mark.parametrize("repeats", [3, 5])
@pytest.mark.parametrize("margin", [0.0, 0.01])
def test_a_sweep_of_twelve_identical_settings_rarely_has_a_false_verdict(repeats, margin):
    hits = counted(margin, repeats, 0.02, settings=12)
    low, _ = rate_of(f"12 identical settings, R = {repeats}, margin {margin:.0%}", hits, TRIALS)
    assert low <= 0.05


@pytest.mark.parametrize("process_sd", [0.003, 0.01])
@pytest.mark.parametrize("repeats", [3, 5])
def test_drift_over_a_shuffled_sweep_causes_few_false_verdicts(repeats, process_sd):
    hits = counted(0.0, repeats, process_sd, drift=0.04)
    low, _ = rate_of(f"4 % drift, R = {repeats}, process SD {process_sd:.1%}", hits, TRIALS)
    assert low <= 0.06


def test_pairing_by_block_adds_power_if_blocks_are_correlated():
    """Welch's interval alone finds 23 % of these."""
    hits = counted(0.01, 5, 0.003, drift=0.04, shift=0.03)
    low, _ = rate_of("shift of 3 % under 4 % drift", hits, TRIALS)
    assert low > 0.8
