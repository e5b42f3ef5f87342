"""Dataclasses from parsed JSON: what fits is taken, what does not is named with its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.plain import load


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


def test_nested_dataclasses_are_made() -> None:
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
        ({}, "missing 1 required positional argument: 'inner'"),
    ],
)
def test_what_does_not_fit_is_named(data: object, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        load(Outer, data, "it")
