"""Test which setting is the baseline of which."""

from __future__ import annotations

import pytest

from bench.cli.compare import _parser as compare_parser
from bench.config.baseline import find_baselines
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, walk
from refusals import answer

COMPILE_X_BATCH = [
    (f"{mode} batch_size={size}", {"compile": mode, "workload.batch_size": size})
    for mode in ("off", "default", "max-autotune")
    for size in ("1", "4")
]


def test_the_first_setting_is_the_default_baseline() -> None:
    settings = [("eager", {"attention": "eager"}), ("sdpa", {"attention": "sdpa"}), ("flex", {"attention": "flex"})]
    assert find_baselines(settings, None) == [None, 0, 0]


def test_the_baseline_does_the_same_work() -> None:
    assert find_baselines(COMPILE_X_BATCH, None) == [None, None, 0, 1, 0, 1]
    assert find_baselines(COMPILE_X_BATCH, "compile=default") == [2, 3, None, None, 2, 3]
    assert find_baselines(COMPILE_X_BATCH, "default batch_size=4") == [2, 3, None, None, 2, 3]


def test_a_named_value_keeps_the_other_swept_values() -> None:
    settings = [
        (f"{attention} {mode}", {"attention": attention, "compile": mode})
        for attention in ("eager", "sdpa")
        for mode in ("off", "default")
    ]
    assert find_baselines(settings, "compile=off") == [None, 0, None, 2]
    assert find_baselines(settings, "attention=eager compile=off") == [None, 0, 0, 0]
    assert find_baselines(settings, "attention=eager,compile=off") == [None, 0, 0, 0]
    assert find_baselines(settings, "attention:sdpa") == [2, 3, None, None]
    assert find_baselines(settings, "sdpa off") == [2, 2, None, 2]


def test_settings_that_do_different_work_have_no_baseline() -> None:
    settings = [(size, {"workload.batch_size": size}) for size in ("1", "4")]
    assert find_baselines(settings, None) == [None, None]


def test_settings_of_different_dtypes_share_a_baseline() -> None:
    settings = [(dtype, {"model.dtype": dtype}) for dtype in ("float32", "bfloat16")]
    assert find_baselines(settings, "float32") == [None, 0]


def test_quotes_and_plus_signs_are_not_part_of_a_value() -> None:
    settings = [("a", {"+x": "'a'"}), ("b", {"+x": "b"})]
    assert find_baselines(settings, "x=a") == [None, 0]


@pytest.mark.parametrize("wanted", ["nonsense", "compile=none", "attention=eager", ""])
def test_a_baseline_outside_the_settings_is_refused_with_their_names(wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep.baseline=.*off batch_size=1, off batch_size=4"):
        find_baselines(COMPILE_X_BATCH, wanted)


@pytest.mark.parametrize(
    "wanted", ["off batch_size=4", "compile=off", "compile:off", "compile=off,workload.batch_size=4"]
)
def test_the_key_and_the_flag_accept_the_same_values(tmp_path, wanted: str) -> None:
    expected = find_baselines(COMPILE_X_BATCH, wanted)
    typed = answer(tmp_path, "-m", "compile=off,default", f"sweep.baseline={wanted}").points[0].config.sweep.baseline
    flag = compare_parser().parse_args(["multirun/night", "--baseline", wanted]).baseline
    assert find_baselines(COMPILE_X_BATCH, typed) == find_baselines(COMPILE_X_BATCH, flag) == expected


def test_the_key_the_flag_and_the_error_have_the_same_text() -> None:
    with pytest.raises(ConfigError, match=r"name one, or a swept value as key=value, such as compile=off; settings: "):
        find_baselines(COMPILE_X_BATCH, "nonsense")
    (key,) = [rule.doc for path, _, rule, _ in walk(BenchmarkConfig) if path == "sweep.baseline"]
    assert "a setting's name or key=value" in key
    assert "--baseline NAME|KEY=VALUE" in compare_parser().format_help()


def test_a_single_setting_is_compared_with_nothing() -> None:
    assert find_baselines([("", {})], None) == [None]
    assert find_baselines([], None) == []
