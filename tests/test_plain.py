"""Test dataclasses from parsed JSON: valid values are accepted, invalid ones are named with their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.results.json_dataclasses import load


@dataclass
class Inner:
    times: list[float]
    label: str | None = None


@dataclass
class Outer:
    inner: Inner
    many: list[Inner] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    anything: Any = None
    weight: float | None = None


def test_nested_dataclasses_are_built() -> None:
    data = {"inner": {"times": [1, 2.5], "label": None}, "many": [{"times": []}], "named": {"a": 1}, "anything": [{}]}
    made = load(Outer, data, "it")
    assert made == Outer(Inner([1.0, 2.5]), [Inner([])], {"a": 1}, [{}])
    assert isinstance(made.inner.times[0], float)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ([], "it is list, not dict"),
        ({"inner": {"times": [0.1, "x"]}}, r"it.inner.times\[1\] is str, not float"),
        ({"inner": {"times": [0.1, True]}}, r"it.inner.times\[1\] is bool, not float"),
        ({"inner": {"times": [0.1, None]}}, r"it.inner.times\[1\] is NoneType, not float"),
        ({"inner": {"times": []}, "named": {"a": 1.5}}, "it.named.a is float, not int"),
        ({"inner": {"times": []}, "other": 1}, "it has no field other"),
        ({"inner": {"times": [0.1, float("nan")]}}, r"it.inner.times\[1\] is no finite number"),
        ({"inner": {"times": [float("inf"), float("-inf")]}}, r"it.inner.times\[0\] is no finite number"),
        ({"inner": {"times": [1e300, -1e300]}}, r"it.inner.times\[0\] is no finite number"),
        ({"inner": {"times": [10**400]}}, r"it.inner.times\[0\] is no finite number"),
        ({"inner": {"times": [2**63 - 1]}}, r"it.inner.times\[0\] is no finite number"),
        ({"inner": {"times": []}, "named": {"a": 2**63}}, "it.named.a is no finite number"),
        ({"inner": {"times": []}, "anything": {"a": [{"b": float("inf")}]}}, "it.anything is no finite number"),
        ({"inner": {"times": []}, "weight": float("nan")}, "it.weight is no finite number"),
        ({"inner": {"times": []}, "weight": True}, "it.weight is bool, not float"),
        ({}, "missing 1 required positional argument: 'inner'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(data: object, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        load(Outer, data, "it")


def test_a_too_deeply_nested_value_is_refused() -> None:
    deep: object = 1
    for _ in range(30):
        deep = {"a": [deep]}
    with pytest.raises(TypeError, match=r"it\.anything is nested deeper than 20 levels"):
        load(Outer, {"inner": {"times": []}, "anything": deep}, "it")


def test_a_name_from_the_file_does_not_break_the_line() -> None:
    with pytest.raises(TypeError) as caught:
        load(Outer, {"inner": {"times": []}, "a\nb\x1b[31m\ud800" * 100: 1}, "it")
    assert str(caught.value).startswith(r"it has no field a\nb\x1b[31m\ud800a")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
