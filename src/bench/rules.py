"""What a value of a config key may be, and how one that may not is refused.

One line for a user: key, value, remedy. Which keys there are, with which rules, is the business of `bench.config`.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from typing import Any


class ConfigError(ValueError):
    """A value that the user must change. Its text is one line: key, value, what is allowed."""

    def __init__(self, key: str, value: object, remedy: str) -> None:
        self.key, self.value, self.remedy = key, value, remedy
        super().__init__(f"{key}={_as_typed(value)}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one key means and allows. ``pattern`` is a regular expression for the whole value.

    ``reserved`` names the values that the contract keeps for later and this version refuses, so that none is
    accepted and ignored; ``(...,)`` reserves every value but the default.
    """

    doc: str
    default: object = None
    allowed: tuple[object, ...] = ()
    reserved: tuple[object, ...] = ()
    minimum: float | None = None
    above: float | None = None
    pattern: str | None = None

    def check(self, path: str, value: object) -> None:
        """Raise ConfigError when the value of the key at ``path`` breaks this rule."""
        if value == self.default:
            return
        if value in self.reserved or ... in self.reserved:
            raise ConfigError(path, value, f"not available in this version; use {_as_typed(self.default)}")
        if value is None:
            return
        if self.allowed and value not in self.allowed:
            near = nearest(str(value), [str(each) for each in self.allowed])
            values = (None, *self.allowed) if self.default is None else self.allowed
            allows = "allowed: " + ", ".join(_as_typed(each) for each in values)
            raise ConfigError(path, value, allows + (f"; did you mean {near}?" if near else ""))
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
            raise ConfigError(path, value, f"must match {self.pattern}")
        if isinstance(value, int | float):
            if not math.isfinite(value):
                raise ConfigError(path, value, "must be a finite number")
            if self.minimum is not None and value < self.minimum:
                raise ConfigError(path, value, f"must be at least {self.minimum:g}")
            if self.above is not None and value <= self.above:
                raise ConfigError(path, value, f"must be more than {self.above:g}")


def key(default: Any, doc: str, **rule: Any) -> Any:
    """One config key: its default, its documentation and its rule (the keywords of ``Rule``)."""
    metadata = {"rule": Rule(doc=doc, default=default, **rule)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def nearest(name: str, known: list[str]) -> str | None:
    """The one of the known names that a misspelt or unfinished one most likely meant; None when none is near."""
    near = [each for each in known if name and each.startswith(name)] or difflib.get_close_matches(name, known, 1)
    return near[0] if near else None


def _as_typed(value: object) -> str:
    """A value as one writes it on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
