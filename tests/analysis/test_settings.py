"""Test how records become settings and processes, and which differences of two settings are reported."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from bench.analysis.settings import Setting, differences, noise_of_median, processes, settings_of
from bench.results.record import Failure, Fidelity, Iteration, Neighbours, Record, Steadiness
from factories import MEDIAN_E2E_S, MEDIAN_GAP_S, TTFT_S, make_config, make_record


def only(records: list[Record]) -> Setting:
    (found,) = settings_of(records)
    return found


def call(token_times_s: list[float], index: int = 0) -> Iteration:
    return Iteration(
        index=index,
        phase="measurement",
        start_s=0.0,
        e2e_s=token_times_s[-1] + 1.0,
        token_times_s=token_times_s,
        graphs=0,
        compile_s=0.0,
    )


def between(left: Record, right: Record) -> list[tuple[str, str, str, bool]]:
    """Return the differences of two settings of one record each, with equal names."""
    found = differences(
        *(Setting(name="", setting_id=each, records=[one]) for each, one in (("a", left), ("b", right)))
    )
    return [(each.key, each.a, each.b, each.bars) for each in found]


def observing(**changes) -> Record:
    record = make_record()
    assert record.observed is not None
    record.observed = dataclasses.replace(record.observed, **changes)
    return record


# ---- grouping --------------------------------------------------------------------------------------------------------


def test_repeats_of_a_trial_are_one_setting_and_settings_keep_their_order():
    records = [make_record(trial_id=trial, repeat=repeat) for repeat in (1, 2) for trial in ("b", "a")]
    found = settings_of(records)
    assert [(each.setting_id, len(each.records)) for each in found] == [("b", 2), ("a", 2)]


def test_labels_of_a_trial_are_separate_settings():
    records = []
    for arm in ("one", "two"):
        config = make_config()
        config.sweep.label = arm
        records.append(make_record(trial_id="a", requested=config.to_dict()))
    assert [each.setting_id for each in settings_of(records)] == ["a-one", "a-two"]


def test_reference_runs_are_no_settings():
    assert settings_of([make_record(kind="reference")]) == []


def test_failed_jobs_are_counted_by_status():
    statuses = ["ok", "failed", "oom", "failed"]
    setting = only([make_record(repeat=repeat, status=status) for repeat, status in enumerate(statuses, start=1)])
    assert [each.repeat for each in setting.records] == [1]
    assert setting.lost == {"failed": 2, "oom": 1}


def test_the_last_ok_record_of_a_repeat_counts():
    first, second = make_record(started_at_s=1.0), make_record(started_at_s=2.0)
    setting = only([first, second, make_record(status="failed")])
    assert [each.started_at_s for each in setting.records] == [2.0]
    assert setting.lost == {}


def test_a_repeat_that_succeeded_later_is_not_lost():
    setting = only([make_record(status="timeout"), make_record()])
    assert (len(setting.records), setting.lost) == (1, {})


@pytest.mark.parametrize(
    ("status", "stage", "expected"),
    [
        ("failed", "load", "failed in load: OSError: no such file"),
        ("oom", None, "oom: OSError: no such file"),
        ("skipped", "load", "skipped: no such file"),
    ],
)
def test_the_reason_of_a_loss_is_one_line(status, stage, expected):
    error = Failure(type="OSError", message="no\n such  file")
    assert only([make_record(status=status, stage=stage, error=error)]).lost_reason == expected


def test_a_loss_without_an_error_names_its_stage():
    assert only([make_record(status="interrupted", stage="warmup")]).lost_reason == "interrupted in warmup"


def test_a_setting_without_a_name_is_named_by_its_model():
    assert [each.name for each in settings_of([make_record(trial_id="a"), make_record(trial_id="b", name="x")])] == [
        "org/tiny",
        "x",
    ]


def test_steady_and_unjudged_processes_are_counted_separately():
    judged = [Steadiness(steady=each, flags=[], shape=None, power="enough") for each in (True, False, None)]
    setting = only([make_record(repeat=repeat, steadiness=each) for repeat, each in enumerate([*judged, None])])
    assert setting.steady == (1, 4)
    assert [each.repeat for each in setting.unsteady] == [1]


def test_output_that_could_not_be_compared_is_not_wrong():
    fidelities = [Fidelity(reference="eager", agrees=each) for each in (True, False, None)]
    setting = only([make_record(repeat=repeat, fidelity=each) for repeat, each in enumerate(fidelities)])
    assert [each.repeat for each in setting.wrong] == [1]


def test_an_incomplete_warmup_is_not_warm():
    statuses = ["fixed", "converged", "not_converged", None]
    setting = only([make_record(repeat=repeat, warmup_status=each) for repeat, each in enumerate(statuses)])
    assert [each.repeat for each in setting.not_warm] == [2]


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "expected"), [("e2e", MEDIAN_E2E_S), ("ttft", TTFT_S), ("itl", MEDIAN_GAP_S), ("tpot", MEDIAN_GAP_S)]
)
def test_a_process_has_the_median_of_its_measured_calls(metric, expected):
    found = processes(only([make_record(repeat=3)]), metric)
    assert list(found) == [3]
    assert (found[3].repeat, found[3].median_s) == (3, pytest.approx(expected))


def test_itls_are_pooled_over_calls_of_different_length():
    # Gaps 1, 1, 1 and 5: the median of all is 1, the median of the calls' medians would be 3.
    record = make_record(iterations=[call([1.0, 2.0, 3.0, 4.0]), call([1.0, 6.0], index=1)])
    assert processes(only([record]), "itl")[1].median_s == 1.0


def test_a_process_without_token_times_has_no_ttft_and_no_itl():
    bare = dataclasses.replace(call([1.0]), token_times_s=[])
    setting = only([make_record(iterations=[bare])])
    assert [list(processes(setting, metric)) for metric in ("e2e", "ttft", "itl", "tpot")] == [[1], [], [], []]


def test_a_process_without_measured_calls_has_no_metrics():
    assert processes(only([make_record(iterations=[])]), "e2e") == {}


def test_an_unknown_metric_raises_an_internal_error():
    with pytest.raises(AssertionError, match="latency"):
        processes(only([make_record()]), "latency")


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_the_rank_intervals_width_over_that_of_a_normal_distribution():
    # e^0 … e^0.19, alternating so that there is no autocorrelation; ranks 6 and 15 are 0.09 apart on the log scale.
    order = [each // 2 if each % 2 else 19 - each // 2 for each in range(20)]
    values = [math.exp(each / 100) for each in order]
    z = -norm.ppf(binom.cdf(5, 20, 0.5))
    assert noise_of_median(values) == pytest.approx(0.09 / (2 * z))


def test_noise_of_few_calls_assumes_a_normal_distribution():
    values = [math.exp(each) for each in (0.01, -0.01, 0.01)]
    assert noise_of_median(values) == pytest.approx(math.sqrt(math.pi / 2 / 3) * np.std([1, -1, 1], ddof=1) / 100)


def test_noise_has_no_unit():
    values = list(np.random.default_rng(0).lognormal(sigma=0.02, size=20))
    assert noise_of_median([1000 * each for each in values]) == pytest.approx(noise_of_median(values))


def test_noise_of_autocorrelated_calls_is_larger():
    rising = [math.exp(each / 100) for each in range(20)]
    mixed = [rising[each] for each in np.random.default_rng(2).permutation(20)]
    assert noise_of_median(rising) > 2 * noise_of_median(mixed)


def test_noise_estimates_the_standard_deviation_of_medians():
    generator = np.random.default_rng(5)
    series = generator.lognormal(sigma=0.01, size=(2000, 20))
    scatter = np.std(np.log(np.median(series, axis=1)))
    noises = [noise_of_median(list(each)) for each in series]
    # The rank interval adds a tenth, the correction for an absent correlation another one.
    assert 1 <= math.sqrt(np.mean(np.square(noises))) / scatter < 1.35


def test_a_known_correlation_replaces_the_series_own():
    rising = [math.exp(each / 100) for each in range(20)]
    independent = noise_of_median(rising, correlation=0.0)
    assert independent < noise_of_median(rising)
    assert noise_of_median(rising, correlation=0.6) == pytest.approx(2 * independent)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.0]])
def test_noise_needs_two_times(values):
    assert noise_of_median(values) is None


def test_equal_calls_have_no_noise():
    assert noise_of_median([2.0] * 20) == 0.0


# ---- differences -----------------------------------------------------------------------------------------------------


def test_equal_records_do_not_differ():
    assert between(make_record(), make_record()) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "id", "org/other"),
        ("model", "revision", "abc"),
        ("model", "seed", 1),
        ("workload", "batch_size", 4),
        ("workload", "prompt_file", "a.txt"),
    ],
)
def test_another_model_or_workload_prevents_a_verdict(section, key, value):
    other = make_record()
    before = other.requested[section][key]
    other.requested[section][key] = value
    expected = "–" if before is None else str(before)
    assert between(make_record(), other) == [(f"{section}.{key}", expected, str(value), True)]


@pytest.mark.parametrize(
    ("section", "key", "value"), [("model", "dtype", "bfloat16"), ("attention", "implementation", "eager")]
)
def test_the_compared_keys_are_no_difference(section, key, value):
    other = make_record()
    other.requested[section][key] = value
    assert between(make_record(), other) == []


def test_another_device_prevents_a_verdict():
    assert between(make_record(), observing(device_name="Other")) == [("device", "Test CPU", "Other", True)]


def test_another_commit_of_the_model_prevents_a_verdict():
    assert between(observing(revision="aa"), observing(revision="bb")) == [("model commit", "aa", "bb", True)]


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"versions": {"torch": "X"}}, "torch"),
        ({"gpu": {"driver": "X"}}, "driver"),
        ({"hostname": "X"}, "host"),
        ({"variables": {"OMP_NUM_THREADS": "X"}}, "OMP_NUM_THREADS"),
    ],
)
def test_other_circumstances_are_only_reported(environment, key):
    plain = make_record(environment={"versions": {}, "gpu": None, "variables": {}})
    assert between(plain, make_record(environment=environment)) == [(key, "–", "X", False)]


def test_another_kv_cache_is_only_reported():
    assert between(make_record(), observing(kv_cache="DynamicCache")) == [
        ("KV cache", "StaticCache", "DynamicCache", False)
    ]


def test_jobs_on_the_same_host_are_reported_if_one_side_had_more():
    quiet, old, beside = (
        make_record(neighbours=each and Neighbours(at_start=each[0], came=each[1], waited_s=0.0))
        for each in ((0, 0), None, (1, 2))
    )
    assert between(quiet, old) == []
    assert between(quiet, beside) == between(old, beside) == [("jobs beside it", "none known", "3", False)]


def test_the_number_of_a_gpu_is_no_difference():
    left, right = (make_record(environment={"variables": {"CUDA_VISIBLE_DEVICES": each}}) for each in "01")
    assert between(left, right) == []


def test_differences_that_prevent_a_verdict_come_first():
    other = observing(device_name="Other", kv_cache="DynamicCache")
    other.environment["hostname"] = "far"
    assert [each[3] for each in between(make_record(), other)] == [True, False, False]


def test_processes_on_several_hosts_are_all_named():
    several = Setting(
        name="", setting_id="a", records=[make_record(environment={"hostname": each}) for each in ("y", "x")]
    )
    one = Setting(name="", setting_id="b", records=[make_record(environment={"hostname": "x"})])
    assert [(each.key, each.a, each.b) for each in differences(several, one)] == [("host", "x, y", "x")]


def test_a_setting_without_processes_has_no_differences():
    assert differences(only([make_record()]), Setting(name="", setting_id="b")) == []
