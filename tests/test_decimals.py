"""Test that ranges contain the exact decimal values in every sweeper."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.composition.text_overrides import parse, values_as_typed
from bench.config.decimals import Series
from bench.jobs.planning.search_space import Range
from hydra_plugins.bench_sweeper.optuna_sweeper import space_of


def values(override: str) -> list[str]:
    return list(values_as_typed(parse([override])[0]))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("warmup.max_s=range(1.1,1.4,0.1)", ["1.1", "1.2", "1.3"]),
        ("warmup.max_s=range(0.1,0.5,0.1)", ["0.1", "0.2", "0.3", "0.4"]),
        ("warmup.max_s=range(0,0.9,0.3)", ["0.0", "0.3", "0.6"]),  # 0.9 is the end, though 3 · 0.3 is less as a float
        ("warmup.max_s=range(1.4,1.1,-0.1)", ["1.4", "1.3", "1.2"]),
        ("warmup.max_s=range(0.3,-0.3,-0.1)", ["0.3", "0.2", "0.1", "0.0", "-0.1", "-0.2"]),
        ("warmup.max_s=range(1e-10,4e-10,1e-10)", ["1e-10", "2e-10", "3e-10"]),
        ("warmup.max_s=range(1000000.1,1000000.4,0.1)", ["1000000.1", "1000000.2", "1000000.3"]),
        ("warmup.max_s=sort(range(0,1,0.3),reverse=true)", ["0.9", "0.6", "0.3", "0.0"]),
        ("warmup.max_s=sort(range(1.4,1.1,-0.1))", ["1.2", "1.3", "1.4"]),
        ("model.seed=range(1,4)", ["1", "2", "3"]),
        ("model.seed=sort(range(0,10,3),reverse=true)", ["9", "6", "3", "0"]),
        ("warmup.max_s=float(range(1,3))", ["1.0", "2.0"]),
        ("model.seed=range(3,1)", []),
    ],
)
def test_a_range_in_a_grid(override: str, expected: list[str]) -> None:
    assert values(override) == expected


def test_a_shuffled_range_has_the_same_values() -> None:
    assert sorted(values("warmup.max_s=shuffle(range(1.1,1.4,0.1))")) == ["1.1", "1.2", "1.3"]


@pytest.mark.parametrize("override", ["warmup.max_s=range(1.1,1.4,0.1)", "warmup.max_s=range(1.3,1.05,-0.1)"])
def test_a_range_in_a_search(override: str) -> None:
    (found,) = space_of(parse([override])).parameters
    assert found.shown() == ["1.1", "1.2", "1.3"]
    assert [found.written(each) for each in (1.1, 1.1 + 0.1, 1.1 + 2 * 0.1)] == ["1.1", "1.2", "1.3"]


def test_a_long_range_in_a_search_is_shown_with_its_step() -> None:
    (found,) = space_of(parse(["warmup.max_s=range(0.1,100,0.1)"])).parameters
    assert found.shown() == ["0.1..99.9 step 0.1"]
    assert found.text(2) == "0.3"


def test_an_interval_keeps_its_bounds_and_stays_between_them() -> None:
    (found,) = space_of(parse(["warmup.max_s=interval(1234567.1,1234567.9)"])).parameters
    assert found.shown() == ["1234567.1..1234567.9"]
    assert found.written(1234567.123456789) == "1234567.123457"
    assert Range(key="a", low=0.0, high=1.0, step=None, is_int=False).written(0.123456789) == "0.123457"


@pytest.mark.parametrize("override", ["a=range(0,inf)", "a=range(0,1,nan)", "a=range(0,1.5,0)", "a=range(0,1,0)"])
def test_a_range_without_an_end_is_one_line(override: str) -> None:
    with pytest.raises(HydraException) as refused:
        values(override)
    assert str(refused.value).startswith(f"{override}: a range needs ")


def test_a_huge_range_is_counted_without_being_expanded() -> None:
    assert len(Series(0, 10**15, 1)) == 10**15
    assert len(values_as_typed(parse(["warmup.max_s=range(0,1e15)"])[0])) == 10**15
    assert Series(0, 1e15, 0.1)[10**15 + 1] == 100000000000000.1


HUNDREDTHS = st.integers(-10_000, 10_000)


@given(start=HUNDREDTHS, count=st.integers(0, 50), step=st.integers(1, 500), sign=st.sampled_from([1, -1]))
def test_any_range_of_hundredths_has_exact_decimal_values(start: int, count: int, step: int, sign: int) -> None:
    expected = [(start + sign * step * each) / 100 for each in range(count)]
    stop = start + sign * step * count
    assert list(Series(start / 100, stop / 100, sign * step / 100)) == expected
