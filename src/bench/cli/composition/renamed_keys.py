"""Replace old names of config keys, typed or in a file, by the new ones; print one line per old name and command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.config.renamed import MERGED, RENAMED, rename_overrides, renamed_keys, with_current_names
from bench.report.terminal import startup_line

_told: set[str] = set()  # old names whose line this command has printed


def current_overrides(overrides: Sequence[str]) -> list[str]:
    """Return overrides with the current names of their keys, and report renamed keys.

    Raises:
        ConfigError: a key is given under both names, with different values.
    """
    current = rename_overrides(overrides)
    _tell(renamed_keys(overrides))
    return current


def current_content(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the nested content of a file with the current names of its keys, and report renamed keys.

    Raises:
        ConfigError: a key is given under both names, with different values.
    """
    current = with_current_names(content)
    _tell(each for each in RENAMED if _holds(content, each))
    return current


def has_renamed(content: Mapping[Any, Any]) -> bool:
    """Check whether nested content has a key under an old name."""
    return any(_holds(content, each) for each in RENAMED)


def _holds(content: Mapping[Any, Any], key: str) -> bool:
    name, _, leaf = key.partition(".")
    section = content.get(name)
    return isinstance(section, Mapping) and leaf in section


def _tell(old_names: Iterable[str]) -> None:
    for old in old_names:
        if old in _told:
            continue
        _told.add(old)
        hint = " (auto: one process per GPU; or a number)" if old == MERGED else ""
        startup_line.erase()
        print(f"bench: {old} is now named {RENAMED[old]}{hint}; the old name works in this version only",
              file=sys.stderr)  # fmt: skip
