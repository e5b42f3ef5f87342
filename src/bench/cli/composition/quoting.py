"""Values with characters that Hydra's grammar does not take outside of quotes.

Of a key that is a text nobody means anything else by `#`, `~` or `é` than the character: such a value is put into
Hydra's quotes before Hydra sees it (`readable`). Where that is not so, `quoted_form` says what to type in a shell.
"""

from __future__ import annotations

import functools
import re
import shlex
import typing

from hydra.errors import HydraException

from bench.compat.override_internals import in_quotes, parse
from bench.config.schema import BenchmarkConfig, walk

# Keys of Hydra's own that are paths or texts.
TEXTS_OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher.submitit_folder")
OPEN_TEXTS = ("tracking.tags.",)  # below which every value is shown as text
UNSWEPT = ("sweep.baseline",)  # texts of which a sweep has one, so that a comma is a part of it
_KEY = re.compile(r"\+{0,2}([\w.$/@-]+)=", re.ASCII)
# What the grammar takes outside of quotes, without a meaning of its own; a comma separates the values of a sweep.
_PLAIN = r"A-Za-z0-9_/\-\\+.$%*@?|: \t"
_UNREADABLE = re.compile(rf"[^{_PLAIN},=(){{}}\[\]\"']|(?<!\$)=")
_STRUCTURE = re.compile(r"[(){}\[\]\"']|\$\{|\\[,=: ()\[\]{}\\]")  # quotes, lists, functions, references, escapes
_OFFENDING = re.compile(rf"[^{_PLAIN}]")


@functools.cache
def _texts() -> frozenset[str]:
    kinds = {path: kind for path, _, _, kind in walk(BenchmarkConfig)}
    return frozenset(path for path, kind in kinds.items() if kind is str or str in typing.get_args(kind))


def is_text(key: str) -> bool:
    """Whether a key's value is a text, so that its characters stand for themselves."""
    return key in TEXTS_OF_HYDRA or key.startswith(OPEN_TEXTS) or key in _texts()


def readable(argument: str) -> str:
    """An override as Hydra can read it: values of a text key in quotes where they hold a character that it refuses.

    Anything with a structure of its own (quotes, lists, functions, references) is left as it is.
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
    """The first character that stands for nothing outside of quotes, and its position from 1."""
    found = _OFFENDING.search(value)
    return (found[0], found.start() + 1) if found else None


def quoted_form(key: str, value: str) -> str | None:
    """What to type in a shell for exactly this value: 'key="value"'. None where there is no such form in one line.

    The form is tried: it is parsed as Hydra parses it, and must give the value.
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
