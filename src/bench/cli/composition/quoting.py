"""Quote values with characters that Hydra's grammar does not accept unquoted.

In the value of a text key, `#`, `~` or `é` can only mean the character itself: `readable` quotes such a value before
Hydra parses it. For other keys, `quoted_form` returns what to type in a shell.
"""

from __future__ import annotations

import functools
import re
import shlex
import typing

from hydra.errors import HydraException

from bench.compat.override_internals import in_quotes, parse
from bench.config.schema import BenchmarkConfig, walk

# Hydra's own keys that are paths or texts.
TEXTS_OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher.submitit_folder")
OPEN_TEXTS = ("tracking.tags.",)  # prefixes of keys whose values are all texts
UNSWEPT = ("sweep.baseline",)  # texts with one value per sweep, so that a comma is part of the value
_KEY = re.compile(r"\+{0,2}([\w.$/@-]+)=", re.ASCII)
# Characters that the grammar accepts unquoted, without a special meaning; a comma separates the values of a sweep.
_PLAIN = r"A-Za-z0-9_/\-\\+.$%*@?|: \t"
_UNREADABLE = re.compile(rf"[^{_PLAIN},=(){{}}\[\]\"']|(?<!\$)=")
_STRUCTURE = re.compile(r"[(){}\[\]\"']|\$\{|\\[,=: ()\[\]{}\\]")  # quotes, lists, functions, references, escapes
_OFFENDING = re.compile(rf"[^{_PLAIN}]")


@functools.cache
def _texts() -> frozenset[str]:
    kinds = {path: kind for path, _, _, kind in walk(BenchmarkConfig)}
    return frozenset(path for path, kind in kinds.items() if kind is str or str in typing.get_args(kind))


def is_text(key: str) -> bool:
    """Check whether a key's value is a text, so that its characters are literal."""
    return key in TEXTS_OF_HYDRA or key.startswith(OPEN_TEXTS) or key in _texts()


def readable(argument: str) -> str:
    """Return an override that Hydra can parse: values of a text key with characters that it refuses are quoted.

    Values with syntax (quotes, lists, functions, references) are left unchanged.
    """
    found = _KEY.match(argument)
    if found is None or not is_text(found[1]):
        return argument
    value = argument[found.end() :]
    if _STRUCTURE.search(value) or value.startswith("="):
        return argument
    if found[1] in UNSWEPT and "," in value:
        return argument[: found.end()] + _quoted(value)
    if not _UNREADABLE.search(value):
        return argument
    values = [_quoted(each) if _UNREADABLE.search(each) else each for each in value.split(",")]
    return argument[: found.end()] + ",".join(values)


def _quoted(text: str) -> str:
    return in_quotes(text, '"')


def offending(value: str) -> tuple[str, int] | None:
    """Return the first character that is invalid outside quotes, and its position, counted from 1."""
    found = _OFFENDING.search(value)
    return (found[0], found.start() + 1) if found else None


def quoted_form(key: str, value: str) -> str | None:
    """Return what to type in a shell for exactly this value: 'key="value"'. None if there is no such form in one line.

    The form is verified: Hydra's parser must return the value from it.
    """
    if not value.isprintable():
        return None
    override = f"{key}={_quoted(value)}"
    try:
        (parsed,) = parse([override])
        if "${" in value or parsed.value() != value:
            return None
    except (HydraException, ValueError):
        return None
    return shlex.quote(override)
