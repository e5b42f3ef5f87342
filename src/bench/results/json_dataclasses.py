"""Dataclasses from the plain values of a parsed JSON file, each value checked against its annotation.

Numbers must be finite and of 63 bits at most, as readers of the dataclasses expect; JSON itself has neither bound.
Which numbers are impossible for their meaning is checked elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, NamedTuple, TypeVar

_Made = TypeVar("_Made")
PLAIN = (bool, int, float, str)
NUMBERS = (int, float)
LIMIT = 2.0**63
DEEPEST = 20  # levels of lists and mappings in a value that may be anything
LONGEST_TEXT = 300  # of an error


class _Field(NamedTuple):
    """How the value of one field is taken."""

    kind: Any  # its annotation
    plain: Any  # the class of a value that needs no further look; None where every value does
    is_number: bool  # and so has bounds
    may_be_none: bool


def load(kind: type[_Made], value: Any, where: str) -> _Made:
    """An instance of a dataclass from a mapping. Raises TypeError, with the place, where value and annotation disagree.

    Args:
        kind: the dataclass; its fields may be dataclasses, lists and dictionaries of such, and unions with None.
        value: what the JSON parser gave.
        where: the name of the value in the error's text.
    """
    try:
        return typing.cast("_Made", _load(kind, value, where))
    except TypeError as error:
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(error)[:LONGEST_TEXT])
        raise TypeError(text) from error  # the names in it are the file's, and may be anything


def _load(kind: Any, value: Any, where: str) -> Any:
    origin, arguments, may_be_none, fields = _taken_apart(kind)
    if value is None and may_be_none:
        return None
    if kind is Any:
        _check_anything([value], where)
    elif fields is not None:
        value = _load_fields(origin, fields, value, where)
    elif origin is list:
        value = _load_list(arguments[0], value, where)
    elif origin is dict:
        _expect(value, dict, where)
        value = {name: _load(arguments[1], each, f"{where}.{name}") for name, each in value.items()}
    elif origin is float and type(value) is int:
        value = _number(float(_number(value, where)), where)  # rounding may reach the bound
    else:
        _expect(value, origin, where)
        value = _number(value, where) if origin in NUMBERS else value
    return value


def _load_fields(made: type, fields: dict[str, _Field], value: Any, where: str) -> Any:
    """An instance of a dataclass. Most values are plain and right, so those take the short way."""
    _expect(value, dict, where)
    loaded: dict[str, Any] = {}
    for name, each in value.items():
        if name not in fields:
            raise TypeError(f"{where} has no field {name}")
        kind, plain, is_number, may_be_none = fields[name]
        if each is None and may_be_none:
            loaded[name] = None
        elif type(each) is plain and not (is_number and not -LIMIT < each < LIMIT):
            loaded[name] = each
        else:
            loaded[name] = _load(kind, each, f"{where}.{name}")
    return made(**loaded)


def _load_list(kind: Any, value: Any, where: str) -> list[Any]:
    _expect(value, list, where)
    if kind in NUMBERS and set(map(type, value)) == {kind} and _are_within(value):
        return typing.cast("list[Any]", value)  # most of a record are lists of times
    made, _, _, fields = _taken_apart(kind)
    if fields is not None:
        return [_load_fields(made, fields, each, f"{where}[{index}]") for index, each in enumerate(value)]
    return [_load(kind, each, f"{where}[{index}]") for index, each in enumerate(value)]


def _are_within(numbers: list[float]) -> bool:
    # One that is not a number makes their sum none; the smallest and the largest would not tell.
    return -LIMIT < sum(numbers) < LIMIT and min(numbers) > -LIMIT and max(numbers) < LIMIT


def _check_anything(value: Any, where: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise TypeError(f"{where} is nested deeper than {DEEPEST} levels")
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            _check_anything(each, where, depth + 1)
        elif type(each) in NUMBERS:
            _number(each, where)


def _number(value: Any, where: str) -> Any:
    if not -LIMIT < value < LIMIT:
        raise TypeError(f"{where} is no finite number of at most 63 bits")
    return value


@functools.cache
def _taken_apart(kind: Any) -> tuple[Any, tuple[Any, ...], bool, dict[str, _Field] | None]:
    """Class, arguments, whether None is allowed, and the fields of a dataclass. Reading annotations is slow: once."""
    may_be_none = type(None) in typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    origin = typing.get_origin(kind) or kind
    fields = None
    if dataclasses.is_dataclass(kind):
        fields = {}
        for name, hint in typing.get_type_hints(kind).items():
            whole, _, optional, inner = _taken_apart(hint)
            fields[name] = _Field(
                hint, whole if inner is None and whole in PLAIN else None, whole in (int, float), optional
            )
    return origin, typing.get_args(kind), may_be_none, fields


def _expect(value: object, kind: type, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{where} is {type(value).__name__}, not {kind.__name__}")
