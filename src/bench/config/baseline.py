"""Determine the baseline of each setting of a sweep.

A baseline is named once per sweep (`sweep.baseline`) and resolved for each setting, so that model and workload are
the same on both sides: in a sweep over `compile` and `workload.batch_size`, the baseline `compile=off` of the compiled
setting with batch size 4 is the uncompiled one with batch size 4.

Settings are identified only by their swept values (override key → value as typed); nothing is computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.config.renamed import current_name
from bench.config.rules import ConfigError

KEY = "sweep.baseline"
Swept = Mapping[str, str]


def find_baselines(settings: Sequence[tuple[str, Swept]], wanted: str | None) -> list[int | None]:
    """Return the position of each setting's baseline; None for a baseline itself, and for a setting without one.

    Args:
        settings: name and swept values of each, in the order in which they were typed.
        wanted: a setting's name; or swept values as `key=value` (also `key:value`), separated by commas or spaces,
            which leave the other swept values unchanged; None: the first setting.

    Raises:
        ConfigError: `wanted` is neither the name nor a value of any setting.
    """
    if not settings:
        return []
    plain = [{key.lstrip("+"): _bare(value) for key, value in swept.items()} for _, swept in settings]
    where: dict[tuple[tuple[str, str], ...], int] = {}
    for position, swept in enumerate(plain):
        where.setdefault(_identity(swept), position)
    values = _values(wanted) if wanted is not None else None
    names = [name for name, _ in settings]
    if wanted is None or wanted in names:
        chosen = plain[0 if wanted is None else names.index(wanted)]
        sought = [_of(swept, in_context=True) | _of(chosen, in_context=False) for swept in plain]
    elif values and any(values.items() <= swept.items() for swept in plain):
        sought = [swept | values for swept in plain]
    else:
        shown = ", ".join(dict.fromkeys(name for name in names if name)) or "none: nothing is swept"
        example = next((f", such as {key}={value}" for key, value in plain[0].items()), "")
        remedy = f"no such setting; name one, or a swept value as key=value{example}; settings: {shown}"
        raise ConfigError(KEY, wanted, remedy)
    found = [where.get(_identity(each)) for each in sought]
    return [None if each == position else each for position, each in enumerate(found)]


def is_context(key: str) -> bool:
    """Check whether a swept key changes the work itself, so that settings with different values are not comparable."""
    return key.split(".", maxsplit=1)[0] in ("workload", "model") and key != "model.dtype"


def _of(swept: Swept, *, in_context: bool) -> dict[str, str]:
    return {key: value for key, value in swept.items() if is_context(key) == in_context}


def _identity(swept: Swept) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(swept.items()))


def _values(wanted: str) -> dict[str, str] | None:
    """Parse `key=value` pairs; None for any other text."""
    parts = [re.fullmatch(r"([^=:]+)[=:](.*)", part) for part in re.split(r"[,\s]+", wanted.strip()) if part]
    if not all(parts):
        return None
    return {current_name(part[1].lstrip("+")): _bare(part[2]) for part in parts if part}


def _bare(value: str) -> str:
    return value.strip().strip("'\"")
