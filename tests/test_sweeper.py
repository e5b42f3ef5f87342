"""Test that overrides become points as in Hydra."""

from __future__ import annotations

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conftest import run_bench
from hydra_plugins.bench_sweeper.bench_sweeper import product, values_of, varying
from hydra_plugins.bench_sweeper.optuna_sweeper import space_of


def points(*overrides: str) -> list[dict[str, str]]:
    return product(values_of(OverridesParser.create().parse_overrides(list(overrides))))


def test_a_sweep_is_the_product_of_its_keys() -> None:
    assert points("a=1,2", "b=x,y", "c=3") == [
        {"a": "1", "b": "x", "c": "3"},
        {"a": "1", "b": "y", "c": "3"},
        {"a": "2", "b": "x", "c": "3"},
        {"a": "2", "b": "y", "c": "3"},
    ]


def test_a_range_is_expanded_to_its_values() -> None:
    assert [point["a"] for point in points("a=range(1,9,4)")] == ["1", "5"]


def test_the_last_of_two_overrides_of_a_key_counts() -> None:
    assert points("a=1,2", "a=3") == [{"a": "3"}]


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["a=1,2", "a=3,4"], {"a": ["3", "4"]}),
        (["a=1,2", "b=x", "a=3"], {"a": ["3"], "b": ["x"]}),
        (["a=1", "a=choice(3,4)", "a=range(5,7)"], {"a": ["5", "6"]}),
        (["a=1,2", "++a=3"], {"++a": ["3"]}),
        (["+a.b=1,2", "a.b=3"], {"+a.b": ["3"]}),
        (["attention=eager,sdpa", "attention=flex"], {"attention": ["flex"]}),
    ],
)
def test_a_later_choice_replaces_an_earlier_one(overrides: list[str], values: dict[str, list[str]]) -> None:
    parsed = OverridesParser.create().parse_overrides(overrides)
    assert {key: list(each) for key, each in values_of(parsed).items()} == values
    space = space_of(parsed)
    assert space.fixed == {key: each[0] for key, each in values.items() if len(each) == 1}
    assert space.shown() == {key.lstrip("+"): each for key, each in values.items() if len(each) > 1}


def test_a_choice_on_the_command_line_replaces_an_experiments(tmp_path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    params = "    params: {warmup.iterations: '1,2', model.seed: '3,4'}"
    text = f"# @package _global_\nhydra:\n  sweeper:\n{params}\n"
    (tmp_path / "conf/experiment/mine.yaml").write_text(text, encoding="utf-8")
    typed = ["--config-dir", "conf", "experiment=mine", "sweep.dry_run=true", "sweep.order=given"]
    for key in ("warmup.iterations", "++warmup.iterations"):
        done = run_bench("-m", *typed, f"{key}=5,6", "model.seed=7", folder=tmp_path)
        names = [re.split("  +", line.strip())[1] for line in done.stdout.splitlines()[1:-1]]
        assert names == ["iterations=5", "iterations=6"], done.stdout + done.stderr


def test_without_swept_keys_there_is_one_point() -> None:
    assert points("a=1") == [{"a": "1"}]
    assert points() == [{}]


def test_an_interval_has_no_list_of_values() -> None:
    with pytest.raises(HydraException, match="use a choice or a range"):
        points("a=interval(0,1)")


def test_a_glob_means_every_choice_of_the_group(tmp_path) -> None:
    done = run_bench("-m", "compile=glob(max*)", "sweep.dry_run=true", "sweep.order=given", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "max-autotune-no-cudagraphs" in done.stdout
    assert "default" not in done.stdout


def test_an_experiment_file_is_a_whole_sweep(tmp_path) -> None:
    done = run_bench("-m", "experiment=attention_x_compile", "sweep.dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for attention in ("eager", "sdpa", "flex", "flash2"):
        for mode in ("off", "default", "reduce-overhead", "max-autotune"):
            assert f"{attention} {mode}" in done.stdout


def test_only_keys_that_vary_name_the_settings() -> None:
    assert varying([{"a": "1", "b": "x"}, {"a": "2", "b": "x"}]) == {"a"}
    assert varying([{"a": "1", "b": "x"}, {"a": "1"}]) == {"b"}
    assert varying([{"a": "1"}]) == set()


def test_listed_settings_are_not_multiplied(tmp_path) -> None:
    done = run_bench("-m", "experiment=level1", "sweep.dry_run=true", "sweep.order=given", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [re.split("  +", line.strip())[1] for line in done.stdout.splitlines()[1:-1]]
    assert names == [
        "flex default",
        "eager default",
        "flash2 off continuous_batching=False",
        "flash2 off continuous_batching=True",
    ]


def test_a_key_swept_on_the_command_line_multiplies_listed_settings(tmp_path) -> None:
    done = run_bench("-m", "experiment=level0", "workload.batch_size=1,4", "sweep.dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 2 + 1
    assert "batch_size=4" in done.stdout


@pytest.mark.parametrize(("level", "settings"), [(0, 1), (1, 4), (2, 9), (3, 12), (4, 24)])
def test_each_level_composes(level: int, settings: int, tmp_path) -> None:
    done = run_bench("-m", f"experiment=level{level}", "sweep.dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + settings + 1


def test_the_same_setting_under_two_labels_runs_twice(tmp_path) -> None:
    done = run_bench("-m", "experiment=aa", "sweep.repeats=2", "sweep.dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    assert sorted(row[1] for row in rows) == ["a", "a", "b", "b"]
    assert len({row[3] for row in rows}) == 1


def test_a_baseline_outside_the_settings_is_refused_before_anything_runs(tmp_path) -> None:
    done = run_bench("-m", "compile=off,default", "sweep.baseline=max", folder=tmp_path)
    assert done.returncode == 2
    line = "bench: sweep.baseline=max: no such setting; name one, or a swept value as key=value, such as compile=off; settings: off, default"
    assert done.stderr.strip() == line
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_may_be_typed_as_a_key_and_its_value(tmp_path) -> None:
    dry = ("sweep.baseline=compile=off", "sweep.dry_run=true")
    done = run_bench("-m", "compile=off,default", *dry, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_needs_quotes_is_named_with_the_remedy(tmp_path) -> None:
    done = run_bench("-m", "compile=off,default", "sweep.baseline=off (a", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: sweep.baseline=off (a: ")
    assert """type 'sweep.baseline="off (a"'""" in done.stderr
    assert len(done.stderr.splitlines()) == 1
