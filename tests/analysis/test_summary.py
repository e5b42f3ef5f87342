"""Check the statistics of one trial against hand-calculated figures and scipy."""

from __future__ import annotations

import dataclasses
import math

import pytest

from bench.analysis.trials.summary import Stats, Summary, compiled_while_measured, stats, summarize
from bench.results.record import CompileEvent, Energy
from factories import (
    BATCH_SIZE,
    COLD_START_S,
    COMPILE_EXCESS_S,
    MEASURED,
    MEDIAN_E2E_S,
    MEDIAN_GAP_S,
    NEW_TOKENS,
    PEAK_MIB,
    TOTAL_DECODE_S,
    TOTAL_E2E_S,
    TTFT_S,
    make_iteration,
    make_iterations,
    make_record,
)


def described(values: list[float], clusters: int | None = None) -> Stats:
    found = stats(values, clusters=clusters)
    assert found is not None
    return found


def test_a_series_is_described_by_its_own_values():
    found = described([1.0, 2.0, 3.0, 4.0, 10.0])
    assert (found.n, found.median, found.mean, found.minimum, found.maximum) == (5, 3.0, 4.0, 1.0, 10.0)


def test_the_median_of_an_even_number_is_between_the_middle_two():
    assert described([4.0, 1.0, 3.0, 2.0]).median == 2.5


def test_mad_is_the_raw_median_distance_from_the_median():
    assert described([1.0, 2.0, 3.0, 4.0, 10.0]).mad == 1.0


def test_sd_divides_by_n_minus_one():
    assert described([1.0, 2.0, 3.0, 4.0, 10.0]).sd == pytest.approx(math.sqrt(50 / 4))


def test_cv_is_sd_over_mean():
    assert described([1.0, 2.0, 3.0, 4.0, 10.0]).cv == pytest.approx(math.sqrt(50 / 4) / 4)


def test_no_values_have_no_statistics():
    assert stats([]) is None


def test_one_value_has_no_deviation_and_no_interval():
    found = described([2.0])
    assert (found.median, found.mad) == (2.0, 0.0)
    assert (found.sd, found.cv, found.median_low, found.median_high, found.p90) == (None,) * 5


def test_a_constant_series_has_no_variation():
    found = described([2.0] * 20)
    assert (found.sd, found.cv, found.mad, found.median_low, found.median_high) == (0.0, 0.0, 0.0, 2.0, 2.0)


def test_cv_is_undefined_around_zero():
    assert described([-1.0, 1.0]).cv is None


@pytest.mark.parametrize(("name", "needed"), [("p90", 36), ("p95", 72), ("p99", 368)])
def test_a_quantile_is_given_from_the_needed_number_of_values_on(name, needed):
    series = [float(number) for number in range(needed)]
    assert getattr(described(series[:-1]), name) is None
    assert getattr(described(series), name) == pytest.approx(int(name[1:]) / 100 * (needed - 1))


@pytest.mark.parametrize(("quantile", "needed"), [(0.90, 36), (0.95, 72), (0.99, 368)])
def test_the_needed_numbers_give_the_interval_two_ends(quantile, needed):
    # An upper end exists once all n values lie below the quantile with at most 2.5 % probability.
    assert quantile**needed <= 0.025 < quantile ** (needed - 1)


def test_quantiles_of_pooled_values_need_that_many_calls():
    assert described([1.0] * 1000, clusters=35).p90 is None
    assert described([1.0] * 1000, clusters=36).p90 == 1.0


def test_the_median_of_pooled_values_has_no_rank_interval():
    found = described([1.0, 2.0] * 50, clusters=20)
    assert (found.median_low, found.median_high) == (None, None)


def test_the_interval_of_20_independent_values_runs_from_rank_6_to_15():
    found = described([float(value) for pair in zip(range(1, 11), range(20, 10, -1), strict=True) for value in pair])
    assert (found.median_low, found.median_high) == (6.0, 15.0)


def test_latencies_are_medians_over_the_measured_calls_only():
    summary = summarize(make_record())
    series = [summary.e2e_s, summary.ttft_s, summary.itl_s, summary.tpot_s]
    medians = [each.median for each in series if each is not None]
    assert medians == pytest.approx([MEDIAN_E2E_S, TTFT_S, MEDIAN_GAP_S, MEDIAN_GAP_S])


def test_itl_pools_the_gaps_of_all_measured_calls():
    summary = summarize(make_record())
    assert summary.itl_s is not None
    assert summary.itl_s.n == MEASURED * (NEW_TOKENS - 1)
    assert summary.itl_s.p90 is None  # 80 gaps, but from only 20 calls


def test_output_throughput_is_all_tokens_over_all_time():
    assert summarize(make_record()).output_tokens_per_s == pytest.approx(
        BATCH_SIZE * NEW_TOKENS * MEASURED / TOTAL_E2E_S
    )


def test_decode_throughput_excludes_the_first_token():
    expected = BATCH_SIZE * (NEW_TOKENS - 1) * MEASURED / TOTAL_DECODE_S
    assert summarize(make_record()).decode_tokens_per_s == pytest.approx(expected)


def test_cold_start_is_the_validation_call():
    assert summarize(make_record()).cold_start_s == pytest.approx(COLD_START_S)


def test_compile_excess_adds_validation_and_warmup_time_beyond_the_median():
    assert summarize(make_record()).compile_excess_s == pytest.approx(COMPILE_EXCESS_S)


def test_peak_memory_is_the_hosts_without_a_device():
    assert summarize(make_record()).peak_bytes == PEAK_MIB * 2**20


def test_a_job_without_calls_has_an_empty_summary():
    summary = summarize(make_record(status="crashed", stage="load", iterations=[], observed=None))
    assert summary == Summary(
        e2e_s=None,
        ttft_s=None,
        itl_s=None,
        tpot_s=None,
        output_tokens_per_s=None,
        decode_tokens_per_s=None,
        cold_start_s=None,
        compile_excess_s=None,
        peak_bytes=PEAK_MIB * 2**20,
        decode_mbu=None,
        joules_per_token=None,
    )


def test_energy_per_token_is_all_joules_over_all_tokens():
    energy = Energy(source="nvml", joules=[2.0] * MEASURED)
    found = summarize(make_record(energy=energy)).joules_per_token
    assert found == pytest.approx(2.0 * MEASURED / (BATCH_SIZE * NEW_TOKENS * MEASURED))


@pytest.mark.parametrize("joules", [[], [2.0] * (MEASURED - 1), [2.0] * (MEASURED - 1) + [None]])
def test_energy_missing_for_a_call_gives_no_figure(joules):
    assert summarize(make_record(energy=Energy(source="nvml", joules=joules))).joules_per_token is None


def test_a_counter_that_never_stepped_gives_no_figure():
    """NVML's advances in steps of tens of milliseconds: short calls can end before the first."""
    assert summarize(make_record(energy=Energy(source="nvml", joules=[0.0] * MEASURED))).joules_per_token is None


def test_a_compilation_in_a_measured_call_is_counted_once_per_call():
    record = make_record()
    first = record.calls("measurement")[0].index
    events = [CompileEvent(iteration=index, kind="recompile") for index in (0, first, first, first + 1)]
    compiled = dataclasses.replace(record.observed.compile, events=events)
    record.observed = dataclasses.replace(record.observed, compile=compiled)
    assert compiled_while_measured(record) == 2


def test_a_job_that_ended_in_warmup_keeps_its_cold_start():
    summary = summarize(make_record(status="timeout", stage="warmup", iterations=make_iterations(0)))
    assert summary.cold_start_s == pytest.approx(COLD_START_S)
    assert (summary.e2e_s, summary.compile_excess_s) == (None, None)


def test_calls_without_token_times_count_only_for_e2e():
    call = make_iteration(0, "measurement")
    bare = type(call)(index=0, phase="measurement", start_s=0.0, e2e_s=1.0, token_times_s=[], graphs=0, compile_s=0.0)
    summary = summarize(make_record(iterations=[bare]))
    assert summary.e2e_s is not None
    assert (summary.ttft_s, summary.itl_s, summary.tpot_s, summary.output_tokens_per_s) == (None,) * 4


@pytest.mark.parametrize("requested", [{}, {"workload": None}, {"workload": {}}, {"workload": {"batch_size": "two"}}])
def test_without_a_batch_size_there_is_no_rate(requested):
    summary = summarize(make_record(requested=requested))
    assert (summary.output_tokens_per_s, summary.decode_tokens_per_s) == (None, None)


def test_the_interval_is_wider_if_successive_calls_are_correlated():
    found = described([float(number) for number in range(20, 0, -1)])
    assert (found.median_low, found.median_high) == (1.0, 20.0)


def test_reversing_the_measured_calls_changes_no_statistic():
    iterations = make_iterations()
    turned = [*iterations[:6], *reversed(iterations[6:])]
    first, second = summarize(make_record()).e2e_s, summarize(make_record(iterations=turned)).e2e_s
    assert first is not None
    assert second is not None
    assert (first.median, first.median_low, first.median_high) == (second.median, second.median_low, second.median_high)
