"""How overrides become points, as Hydra's users know it."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conftest import run_bench
from hydra_plugins.bench_sweeper.bench_sweeper import expand


def points(*overrides: str) -> list[dict[str, str]]:
    return expand(OverridesParser.create().parse_overrides(list(overrides)))


def test_a_sweep_is_the_product_of_its_keys() -> None:
    assert points("a=1,2", "b=x,y", "c=3") == [
        {"a": "1", "b": "x", "c": "3"},
        {"a": "1", "b": "y", "c": "3"},
        {"a": "2", "b": "x", "c": "3"},
        {"a": "2", "b": "y", "c": "3"},
    ]


def test_a_range_is_its_values() -> None:
    assert [point["a"] for point in points("a=range(1,9,4)")] == ["1", "5"]


def test_the_last_of_two_overrides_of_a_key_counts() -> None:
    assert points("a=1,2", "a=3") == [{"a": "3"}]


def test_nothing_swept_is_one_point() -> None:
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
