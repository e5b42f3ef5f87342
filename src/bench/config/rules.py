"""Check the values of config keys, and refuse invalid ones.

A refusal is one line: key, value, remedy. `bench.config.schema` declares the keys and their rules. This module defines
what applies to all of them: a value must survive a round trip through JSON.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Characters of a key, a value and a remedy in an error's line.
LONGEST_KEY, LONGEST_VALUE, LONGEST_REMEDY = 80, 120, 360
SUGGESTED = 3  # maximum number of names, if several are equally near
DEEPEST = 20  # levels of lists and mappings in a value
LARGEST = 2**63  # smaller integers fit wherever they are passed on


class ConfigError(ValueError):
    """Refuse a value that the user must change. The message is one line: key, value, what is allowed."""

    def __init__(self, key: str, value: object, remedy: str) -> None:
        self.key, self.value, self.remedy = key, value, remedy
        super().__init__(f"{shown(key, LONGEST_KEY)}={_as_typed(value)}: {shown(remedy, LONGEST_REMEDY)}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        """Return the constructor's arguments: an engine pickles the error in a job and unpickles it in the sweep."""
        return type(self), (self.key, self.value, self.remedy)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Define what one key means and allows. ``pattern`` is a regular expression for the value, ``form`` its wording."""

    doc: str
    default: object = None
    allowed: tuple[object, ...] = ()
    minimum: float | None = None
    above: float | None = None
    pattern: str | None = None
    form: str | None = None
    words: bool = False  # a list of texts; a single text is accepted as well

    def check(self, path: str, value: object) -> None:
        """Raise ConfigError if the value of the key at ``path`` breaks this rule."""
        check_plain(path, value)
        if value == self.default:
            return
        if self.words:
            _check_words(path, value)
        if value is None:
            return
        if self.allowed and value not in self.allowed:
            near = nearest(_as_typed(value), [str(each) for each in self.allowed])
            values = (None, *self.allowed) if self.default is None else self.allowed
            allows = "allowed: " + ", ".join(_as_typed(each) for each in values)
            raise ConfigError(path, value, allows + (f"; did you mean {near}?" if near else ""))
        if self.pattern and not re.fullmatch(self.pattern, str(value), re.ASCII):
            raise ConfigError(path, value, f"must be {self.form}" if self.form else f"must match {self.pattern}")
        if isinstance(value, int | float):
            if self.minimum is not None and value < self.minimum:
                raise ConfigError(path, value, f"must be at least {self.minimum:g}")
            if self.above is not None and value <= self.above:
                raise ConfigError(path, value, f"must be more than {self.above:g}")


def key(default: Any, doc: str, **rule: Any) -> Any:
    """Declare one config key: its default, its documentation and its rule (the keywords of ``Rule``)."""
    metadata = {"rule": Rule(doc=doc, default=default, **rule)}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_plain(path: str, value: object, depth: int = 0) -> None:
    """Raise ConfigError if a value, or one nested in it, cannot be written as JSON and read back."""
    if isinstance(value, list | tuple | dict):
        if depth == DEEPEST:
            raise ConfigError(path, "...", f"must not be nested deeper than {DEEPEST} levels")
        for name, each in value.items() if isinstance(value, dict) else ((None, each) for each in value):
            if isinstance(value, dict) and not isinstance(name, str):
                raise ConfigError(f"{path}.{_as_typed(name)}", each, "must have a text for its key; quote it")
            check_plain(path, name)
            check_plain(path if name is None else f"{path}.{name}", each, depth + 1)
    elif problem := _problem(value):
        raise ConfigError(path, value, problem)


def _check_words(path: str, value: object) -> None:
    """Raise ConfigError for a value that is neither a text nor a list of texts."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
        raise ConfigError(path, value, "must be a word, or a list of words: [A,B]")


def _problem(value: object) -> str | None:
    """Return the problem of a scalar value; None without one."""
    match value:
        case str():
            broken = "\0" in value or (not value.isascii() and re.search("[\ud800-\udfff]", value))
            return "must be text that UTF-8 can write, without NUL" if broken else None
        case float():
            return None if math.isfinite(value) else "must be a finite number"
        case bool() | None:
            return None
        case int():
            return None if abs(value) < LARGEST else "must be a number of at most 63 bits"
        case _:
            return "must be null, true or false, a number, a text, a list or a mapping"


def nearest(name: str, known: list[str]) -> str | None:
    """Return the known name that a misspelt or incomplete one most likely means; None if none is near.

    If an incomplete one is the beginning of several, return up to SUGGESTED of them: "a or b".
    """
    if len(name) > LONGEST_KEY:  # comparing takes quadratic time
        return None
    begun = [each for each in known if name and each.startswith(name)]
    near = begun[:SUGGESTED] or difflib.get_close_matches(name, known, 1)
    return " or ".join(near) or None


def _as_typed(value: object) -> str:
    """Return a value as typed on the command line, truncated if it is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= LARGEST:
        return f"({'-' if value < 0 else ''}a number of {value.bit_length()} bits)"  # Python prints no larger ones
    try:
        return shown(str(value))
    except (RecursionError, ValueError):  # nested too deeply, or contains such a number
        return f"(a {type(value).__name__})"


def shown(text: str, limit: int = LONGEST_VALUE) -> str:
    """Return a text on one line, with escaped control characters, truncated to the limit."""
    line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[: limit + 1])
    return line if len(line) <= limit else f"{line[:limit]}..."


def unusable_cache(folder: Path, error: OSError) -> ConfigError:
    """Return the refusal of a shared compile cache whose folder cannot be written."""
    remedy = f"{folder} cannot be written ({error.strerror or error}); set XDG_CACHE_HOME to the path of a folder that "
    return ConfigError("compile.cache", "shared", remedy + "can, or leave compile.cache=fresh")


def kv_cache_kind(requested: str, *, compiled: bool) -> str:
    """Return the KV cache that `generation.kv_cache` requests: auto means static when compiled, else dynamic."""
    if requested != "auto":
        return requested
    return "static" if compiled else "dynamic"
