"""List the keys of a config by dotted name, with value, rule and annotated type; flatten nested mappings."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any

from bench.config.rules import ConfigError, Rule

NOT_QUOTED = "a text stands in quotes, for of a number not all that was typed is left"


def walk(config: object, prefix: str = "") -> Iterator[tuple[str, Any, Rule, Any]]:
    """Yield dotted key, value, rule and annotated type of each key of a config; for a class, of its defaults."""
    if isinstance(config, type):
        config = config()
    for name, (kind, rule) in keys_of(type(config)).items():
        value = getattr(config, name)
        if rule is None:
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, rule, kind


_KEYS: dict[type, dict[str, tuple[Any, Rule | None]]] = {}


def keys_of(kind: type) -> dict[str, tuple[Any, Rule | None]]:
    """Return name → annotated type and rule (None: a section) of a config's fields; annotations are read once."""
    if kind not in _KEYS:
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(typing.cast("Any", kind))
        _KEYS[kind] = {each.name: (hints[each.name], each.metadata.get("rule")) for each in fields}
    return _KEYS[kind]


def flatten(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one with dotted keys, such as ``triton.cudagraphs`` in ``compile.options``."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@functools.cache
def _classes(kind: Any) -> tuple[type, ...]:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return tuple(typing.get_origin(each) or each for each in options)


def check_type(path: str, value: object, kind: Any) -> None:
    """Raise ConfigError for a value that is not of the annotated type: OmegaConf does not check Python callers."""
    plain = _classes(kind)
    fits = isinstance(value, (*plain, int) if float in plain else plain)
    # bool is an int in Python, but not for a user.
    if not fits or (isinstance(value, bool) and bool not in plain):
        names = " or ".join("null" if each is type(None) else each.__name__ for each in plain)
        is_unquoted = str in plain and int not in plain and isinstance(value, bool | int | float)
        raise ConfigError(path, value, f"must be {names}" + f"; {NOT_QUOTED}" * is_unquoted)
