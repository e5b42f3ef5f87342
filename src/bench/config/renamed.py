"""Map old names of config keys to new ones: an old name still works in this version, wherever a key is accepted.

A value keeps its meaning under the new name. `model.tp_plan` and `model.tp_size` are now one key: the plan `auto` is
the size `auto`, or the number of processes if one is given.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.config.rules import ConfigError

RENAMED = {
    "isolation.overlap": "isolation.share_device",
    "model.tp_plan": "model.tp_size",
    "sweep.arm": "sweep.label",
}
MERGED = "model.tp_plan"  # a number under the new name has priority over its value `auto`
_OVERRIDE = re.compile(r"(?P<sign>[+~]*)(?P<key>[\w.]+)(?P<rest>(@|=|$).*)", re.DOTALL)


def current_name(key: str) -> str:
    """Return the name of a dotted key in this version. Signs such as + in front of it are kept."""
    bare = key.lstrip("+~")
    return key.removesuffix(bare) + RENAMED.get(bare, bare)


def with_current_names(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a nested config with the current key names; parts without old names are shared with `config`.

    Raises:
        ConfigError: a key is given under both names, with different values.
    """
    current = dict(config)
    for old, new in RENAMED.items():
        name, _, old_leaf = old.partition(".")
        section = current.get(name)
        if not isinstance(section, Mapping) or old_leaf not in section:
            continue
        values = copy.copy(dict(section))
        leaf = new.partition(".")[2]
        given = {leaf: values[leaf]} if leaf in values else {}
        value = values.pop(old_leaf)
        values[leaf] = _merged(old, value, given.get(leaf)) if given else value
        current[name] = values
    return current


def rename_swept(swept: Mapping[str, Any]) -> dict[str, Any]:
    """Return swept values by current key names."""
    renamed = {}
    for key, value in swept.items():
        new = current_name(key)
        if new == key or new not in swept:  # a number is more specific than a plan
            renamed[new] = value
    return renamed


def rename_overrides(overrides: Sequence[str]) -> list[str]:
    """Return overrides as typed, but with the current key names.

    Raises:
        ConfigError: a key is given under both names, with different values.
    """
    pairs = [_split(each) for each in overrides]
    typed = {key: rest for _, key, rest in pairs}
    if not typed.keys() & RENAMED.keys():
        return list(overrides)
    renamed = []
    for override, (sign, key, rest) in zip(overrides, pairs, strict=True):
        new = current_name(key)
        if new != key and rest.startswith("=") and typed.get(new, "").startswith("="):
            renamed.append(f"{sign}{new}={_merged(key, rest[1:], typed[new][1:])}")
        elif new != key:
            renamed.append(f"{sign}{new}{rest}")
        elif MERGED in typed and (key, rest, typed[MERGED]) == (RENAMED[MERGED], "=null", "=auto"):
            continue  # null together with the plan `auto` meant one process per GPU
        else:
            renamed.append(override)
    return renamed


def renamed_keys(overrides: Sequence[str]) -> list[str]:
    """Return the old names that are used in overrides, each once."""
    return list(dict.fromkeys(key for _, key, _ in map(_split, overrides) if key in RENAMED))


def _split(override: str) -> tuple[str, str, str]:
    """Return sign, key, and the rest of an override; an empty key for any other text."""
    found = _OVERRIDE.fullmatch(override)
    return (found["sign"], found["key"], found["rest"]) if found else ("", "", override)


def _merged(old: str, value: object, current: object) -> object:
    """Return the value of a key that is given under its old and its new name. ConfigError if the values differ."""
    if old == MERGED and value == "auto":
        return "auto" if current in (None, "null") else current
    if value == current:
        return current
    shown = "null" if current is None else str(current).lower() if isinstance(current, bool) else current
    raise ConfigError(old, value, f"is now named {RENAMED[old]}, which is also given, as {shown}; leave {old} out")
