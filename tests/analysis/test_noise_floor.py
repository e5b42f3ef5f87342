"""Check the noise floor against hand-calculated variances, the noncentral t of scipy.stats and simulated sweeps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import nct, t

from bench.analysis.comparison import effect
from bench.analysis.noise_floor import NoiseFloor, detectable_errors, noise_floor
from bench.analysis.settings import Process, Setting, noise_of_median
from bench.results.record import Iteration, Record
from factories import make_record


def record(times_s: Sequence[float], *, start_s: float = 8.0, **changes) -> Record:
    """Build a record of measured calls without gaps after a start of `start_s`."""
    starts_s = start_s + np.concatenate([[0.0], np.cumsum(times_s)[:-1]])
    calls = [
        Iteration(
            index=index,
            phase="measurement",
            start_s=float(start),
            e2e_s=float(e2e_s),
            token_times_s=[float(e2e_s)],
            graphs=0,
            compile_s=0.0,
        )
        for index, (start, e2e_s) in enumerate(zip(starts_s, times_s, strict=True))
    ]
    return make_record(iterations=calls, **changes)


def setting(series: Sequence[Sequence[float]]) -> Setting:
    """Build a setting with one process for each series of calls, given as hundredths on the log scale."""
    records = [record(np.exp(np.array(each) / 100), repeat=repeat) for repeat, each in enumerate(series, start=1)]
    return Setting(name="a", setting_id="a", records=records)


def floor(*settings: Setting, **keywords) -> NoiseFloor:
    found = noise_floor(settings, **keywords)
    assert found is not None
    return found


def drawn(processes: int, calls: int, *, process_sd: float, call_sd: float) -> Setting:
    """Draw series in hundredths; the levels of the processes have exactly this deviation."""
    generator = np.random.default_rng(1)
    levels = generator.normal(size=(processes, 1))
    levels *= process_sd / np.std(levels, ddof=1)
    return setting(levels + generator.normal(scale=call_sd, size=(processes, calls)))


def test_without_three_processes_there_is_no_noise_floor():
    assert noise_floor([]) is None
    assert noise_floor([setting([[0.0], [1.0]])]) is None


def test_variance_not_explained_by_calls_is_between_processes():
    found = floor(setting([[-1.0] * 4, [0.0] * 4, [1.0] * 4]))
    assert (found.process_sd, found.call_sd, found.median_noise) == (pytest.approx(0.01), pytest.approx(0), 0.0)
    assert found.process_share == 1.0
    assert (found.settings, found.processes, found.repeats, found.calls) == (1, 3, 3, 4)


def test_variance_explained_by_calls_is_subtracted():
    calls = np.array([0.2, -0.2, 0.2, -0.2])
    found = floor(setting([calls - 1, calls, calls + 1]))
    noise = noise_of_median(list(np.exp(calls / 100)))
    assert found.median_noise == pytest.approx(noise)
    assert found.process_sd == pytest.approx(math.sqrt(0.01**2 - noise**2))
    assert found.process_share == pytest.approx(1 - (noise / 0.01) ** 2)
    assert found.call_sd == pytest.approx(0.002 * math.sqrt(4 / 3))


def test_differences_smaller_than_call_noise_give_no_variance_between_processes():
    calls = np.array([5.0, -5.0, 5.0, -5.0])
    found = floor(setting([calls - 1, calls, calls + 1]))
    assert (found.process_sd, found.process_share) == (0.0, 0.0)
    assert found.best_calls is None


def test_with_one_call_per_process_all_noise_is_between_processes():
    found = floor(setting([[-1.0], [0.0], [1.0]]))
    assert (found.call_sd, found.median_noise, found.process_sd) == (None, None, pytest.approx(0.01))


def test_without_variance_there_is_no_share():
    found = floor(setting([[0.0] * 4] * 3))
    assert (found.process_share, found.detectable[3]) == (None, 0.0)
    assert found.repeats_for == {0.01: 3, 0.02: 3, 0.05: 3}
    assert len(found.advice()) == 2


def test_settings_are_pooled_by_degrees_of_freedom_without_small_ones():
    # Variances 1 with 2 degrees of freedom and 10 / 3 with 3, at different levels: (2 + 10) / 5.
    first, second = setting([[-1.0], [0.0], [1.0]]), setting([[50 + each] for each in (-2.0, -1.0, 1.0, 2.0)])
    found = floor(first, second, setting([[0.0], [99.0]]))
    assert found.process_sd == pytest.approx(0.01 * math.sqrt(12 / 5))
    assert (found.settings, found.processes, found.repeats) == (2, 7, 3)


def test_the_split_recovers_the_simulated_variances():
    found = floor(drawn(300, 20, process_sd=1.0, call_sd=1.0))
    assert found.process_sd == pytest.approx(0.01, rel=0.05)
    assert found.call_sd == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("repeats", [2, 3, 5, 20, 200])
def test_the_noncentrality_gives_80_percent_power(repeats, paired):
    freedom = (repeats - 1) * (1 if paired else 2)
    found = nct.sf(t.ppf(0.975, freedom), freedom, detectable_errors(repeats, paired=paired))
    assert found == pytest.approx(0.8, abs=1e-5)


def test_two_sweeps_are_compared_by_welchs_test():
    made = setting([[-1.0], [0.0], [1.0], [0.0]])
    error = 0.01 * math.sqrt(2 / 3) * math.sqrt(2 / 5)
    found = floor(made, paired=False)
    assert not found.paired
    assert math.log1p(found.detectable[5]) == pytest.approx(detectable_errors(5, paired=False) * error)
    assert found.detectable[5] < floor(made).detectable[5]


def test_the_detectable_difference_is_a_multiple_of_the_standard_error():
    found = floor(setting([[-1.0], [0.0], [1.0], [0.0]]))  # variance 2/3 of a squared hundredth
    assert list(found.detectable) == [3, 4, 5, 10, 20]
    error = 0.01 * math.sqrt(2 / 3) * math.sqrt(2 / 5)
    assert math.log1p(found.detectable[5]) == pytest.approx(detectable_errors(5) * error)
    assert 1 + found.detectable_beyond[5] == pytest.approx(1.01 * (1 + found.detectable[5]))


@pytest.mark.parametrize("repeats", [3, 5, 10])
def test_the_detectable_difference_is_found_with_80_percent_power(repeats):
    generator = np.random.default_rng(repeats)
    difference = detectable_errors(repeats) * 0.01 * math.sqrt(2 / repeats)
    hits, trials = 0, 1500
    for _ in range(trials):
        logs = generator.normal(scale=0.01, size=(2, repeats))
        logs[1] += difference
        found = effect(*([Process(median_s=math.exp(each)) for each in side] for side in logs), margin=0.0)
        hits += found.p <= 0.05
    print(f"power at the detectable difference, R = {repeats}: {hits / trials:.2%}")
    assert 0.77 < hits / trials < 0.83  # three standard errors either way


def test_the_suggested_repeats_are_the_fewest_that_find_a_difference():
    found = floor(setting([[-1.0], [0.0], [1.0]]))
    error = 0.01 * math.sqrt(2)
    for difference, repeats in found.repeats_for.items():
        assert detectable_errors(repeats) * error / math.sqrt(repeats) <= math.log1p(difference)
        fewer = repeats - 1
        assert repeats == 3 or detectable_errors(fewer) * error / math.sqrt(fewer) > math.log1p(difference)
    assert list(found.repeats_for) == [0.01, 0.02, 0.05]


def test_a_difference_that_no_number_of_repeats_finds_gives_none():
    found = floor(setting([[-20.0], [0.0], [20.0]]))
    assert found.repeats_for[0.01] is None
    assert found.repeats_for[0.05] is not None


def test_costs_are_the_start_and_the_time_between_calls():
    found = floor(Setting(name="a", setting_id="a", records=[
        record([2.0, 4.0], start_s=start_s, repeat=repeat) for repeat, start_s in enumerate((9.0, 10.0, 11.0))
    ]))  # fmt: skip
    assert (found.process_cost_s, found.call_cost_s) == (10.0, 3.0)


def test_the_cost_of_a_process_includes_its_start_and_its_imports():
    found = floor(Setting(name="a", setting_id="a", records=[
        record([2.0, 4.0], start_s=10.0, repeat=repeat, phases_s={"start": 2.0, "import": 8.0, "load": 1.0})
        for repeat in range(3)
    ]))  # fmt: skip
    assert (found.process_cost_s, found.call_cost_s) == (20.0, 3.0)


def test_the_best_number_of_calls_depends_on_costs_and_variances():
    calls = np.array([0.5, -0.5, 0.5, -0.5])
    made = setting([calls - 1, calls, calls + 1])
    found = floor(made)
    per_call = 4 * noise_of_median(list(np.exp(calls / 100))) ** 2
    exact = math.sqrt(found.process_cost_s / found.call_cost_s * per_call / found.process_sd**2)
    assert found.best_calls == math.ceil(exact)
    for each in made.records:  # A hundred times the start: ten times the calls.
        each.iterations[:] = [dataclasses.replace(one, start_s=one.start_s + 99 * 8.0) for one in each.iterations]
    assert floor(made).best_calls == math.ceil(10 * exact)


def test_advice_names_the_figures():
    lines = floor(setting([[-1.0] * 4, [0.0] * 4, [1.0] * 4])).advice()
    assert lines == [
        "With 3 repeats, 80 % power needs a difference of 4.7 %; a verdict beyond 1 % needs 5.8 %",
        "For 80 % power a difference of 1 % needs 18 repeats, 2 % needs 7 repeats, 5 % needs 3 repeats",
        "100 % of the variance of a process's median is between processes: only more repeats help, more calls do not",
    ]


@pytest.mark.parametrize(
    ("call_sd", "expected"), [(0.1, "only more repeats help"), (3.0, "a little"), (30.0, "as much as more repeats")]
)
def test_advice_depends_on_the_source_of_the_noise(call_sd, expected):
    assert any(expected in each for each in floor(drawn(200, 20, process_sd=0.7, call_sd=call_sd)).advice())


def test_each_metric_has_its_own_noise_floor():
    made = setting([[-1.0], [0.0], [1.0]])
    assert floor(made, metric="ttft").metric == "ttft"
    assert noise_floor([made], metric="tpot") is None
