"""Dataclasses from the plain values of a parsed JSON file, each value checked against its annotation."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, NamedTuple, TypeVar

_Made = TypeVar("_Made")
PLAIN = (bool, int, float, str)


class _Field(NamedTuple):
    """How the value of one field is taken."""

    kind: Any  # its annotation
    plain: type | None  # the class of a value that needs no further look; None where every value does
    may_be_none: bool


def load(kind: type[_Made], value: Any, where: str) -> _Made:
    """An instance of a dataclass from a mapping. Raises TypeError, with the place, where value and annotation disagree.

    Args:
        kind: the dataclass; its fields may be dataclasses, lists and dictionaries of such, and unions with None.
        value: what the JSON parser gave.
        where: the name of the value in the error's text.
    """
    return typing.cast("_Made", _load(kind, value, where))


def _load(kind: Any, value: Any, where: str) -> Any:
    origin, arguments, may_be_none, fields = _taken_apart(kind)
    if kind is Any or (value is None and may_be_none):
        return value
    if fields is not None:
        return _load_fields(origin, fields, value, where)
    if origin is list:
        return _load_list(arguments[0], value, where)
    if origin is dict:
        _expect(value, dict, where)
        return {name: _load(arguments[1], each, f"{where}.{name}") for name, each in value.items()}
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _expect(value, origin, where)
    return value


def _load_fields(made: type, fields: dict[str, _Field], value: Any, where: str) -> Any:
    """An instance of a dataclass. Most values are plain and right, so those take the short way."""
    _expect(value, dict, where)
    loaded = {}
    for name, each in value.items():
        if name not in fields:
            raise TypeError(f"{where} has no field {name}")
        kind, plain, may_be_none = fields[name]
        if type(each) is plain or (each is None and may_be_none):
            loaded[name] = each
        else:
            loaded[name] = _load(kind, each, f"{where}.{name}")
    return made(**loaded)


def _load_list(kind: Any, value: Any, where: str) -> list[Any]:
    _expect(value, list, where)
    if kind is float and all(type(each) is float for each in value):
        return typing.cast("list[Any]", value)  # most of a record are lists of times
    return [_load(kind, each, f"{where}[{index}]") for index, each in enumerate(value)]


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
            fields[name] = _Field(hint, whole if inner is None and whole in PLAIN else None, optional)
    return origin, typing.get_args(kind), may_be_none, fields


def _expect(value: object, kind: type, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{where} is {type(value).__name__}, not {kind.__name__}")
