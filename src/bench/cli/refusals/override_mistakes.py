"""Explain overrides that Hydra's grammar refuses: the mistake, and what to type instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from bench.cli.composition.quoting import is_text, offending, quoted_form
from bench.cli.refusals.config_mistakes import kinds_of
from bench.cli.refusals.override_checks import LONGEST
from bench.config.rules import shown
from bench.config.schema import no_such_key
from bench.host.command_line import COMMANDS

TYPE_NO_PLUS = "the key is there already; type {0}"
# Functions of a sweep → their syntax.
FUNCTIONS = {
    "range": "range takes numbers: range(START,STOP) or range(START,STOP,STEP)",
    "interval": "interval takes two numbers: interval(LOWEST,HIGHEST), with hydra/sweeper=optuna",
    "choice": "choice takes one value at least: choice(A,B)",
    "glob": "glob takes patterns of choices: glob(*) or glob([A*,B*],exclude=C)",
    "sort": "sort takes values: sort(A,B) or sort(A,B,reverse=true)",
    "shuffle": "shuffle takes values: shuffle(A,B)",
}
CASTS = ("int", "float", "str", "bool", "json_str", "tag", "extend_list")
CLOSING = {"[": "]", "{": "}", "(": ")"}
COMMAND_TYPO = 0.75  # least similarity of a word to a command, as some are similar to sections: compare, compile


def unreadable(override: str, names: Mapping[str, str]) -> str:
    """Return one line for an override that cannot be parsed: the override, the offending character, what to type.

    Args:
        override: as typed, or as generated from a sweep's params and settings.
        names: further names that an unknown key may mean, as for `bench.config.schema.no_such_key`.
    """
    typed = shown(override, LONGEST)
    bare = override.lstrip("+~")
    key, equals, value = bare.partition("=")
    if not equals:
        return f"{typed}: {_without_value(bare, names)}"
    if not re.fullmatch(r"[A-Za-z_$][\w$-]*([./][\w$-]+)*(@[\w.$:-]*)?", key, re.ASCII):
        if re.fullmatch(r"[\w./@-]+", key.strip(), re.ASCII) and key != key.strip():
            return f"{typed}: a space stands before the =; type {key.strip()}={value.strip()}"
        return f"{typed}: {no_such_key(key.strip(), names)}"
    if value.startswith("="):
        return f"{typed}: = stands twice; type {key}={value.lstrip('= ')}"
    return f"{typed}: {_unreadable_value(key, value)}"


def _without_value(bare: str, names: Mapping[str, str]) -> str:
    parts = re.fullmatch(r"([A-Za-z_][\w./-]*?)\s*[:\s]\s*(\S.*)", bare, re.ASCII)
    if parts:
        return f"is no key=value; type {parts[1]}={parts[2]}"
    if is_text(bare):
        return f"has no value; type {bare}=VALUE"
    if meant := difflib.get_close_matches(bare, COMMANDS, 1, COMMAND_TYPO):
        return f"is no key=value; a command stands first: bench {meant[0]}"
    near = no_such_key(bare, names)
    if kinds_of(bare) is None and "hydra" not in bare and "mean" in near and f"mean {bare}?" not in near:
        return f"{near} An override is key=value"
    if kinds_of(bare) is None and "mean" not in near and not bare.startswith("hydra"):
        return "is no key=value; bench --help shows examples"
    return f"has no value; type {bare}=VALUE"


def _unreadable_value(key: str, value: str) -> str:
    if told := _structure(key, value):
        return told
    if not is_text(key) and (kinds := kinds_of(key)) is not None:
        return f"must be {kinds}"
    found = offending(value)
    where = f"{_in_quotes(found[0])} (character {found[1]} of the value) needs quotes" if found else "needs quotes"
    return f"{where}; {_quoted(key, value)}"


def _structure(key: str, value: str) -> str | None:
    """Return the mistake in a function, a reference, a list or commas; None for a plain value."""
    call = re.match(r"(\w+)\s*\(", value)
    opened = _not_closed(value)
    told = None
    if call and value.rstrip().endswith(")") and call[1] in FUNCTIONS:
        told = FUNCTIONS[call[1]]
    elif call and not is_text(key):
        known = ", ".join((*FUNCTIONS, *CASTS))
        told = f"{call[1]}(…) cannot be read; functions here: {known}, each with its brackets closed"
    elif re.search(r"\$\{[^}]*$", value):
        told = "a reference is not closed; type ${KEY}, or \\${ for these characters themselves"
    elif re.search(r"\s[A-Za-z_][\w.]*=", value) and not is_text(key):
        told = "two overrides in one argument; take the quotes off, so that each is one"
    elif (missing := _comma(value)) is not None:
        told = f"a value is missing beside a comma; type {key}={missing}"
    elif opened is not None and value[:1] in CLOSING and not (is_text(key) and value[:1] == "("):
        hint = f", or {_quoted(key, value)}" if is_text(key) else ""
        told = f'"{opened}" is not closed; close it with "{CLOSING[opened]}"{hint}'
    return told


def _in_quotes(character: str) -> str:
    return f"'{character}'" if character == '"' else f'"{shown(character)}"'


def _quoted(key: str, value: str) -> str:
    form = quoted_form(key, value) if len(value) <= LONGEST else None
    if form is None:
        return f"write it in a YAML file (bench --config-dir DIR experiment=NAME), as the value of {key}"
    return f"type {form}"


def _comma(value: str) -> str | None:
    """Return the values without the empty ones; None if none is empty."""
    if re.search(r"[()\[\]{}\"']", value) or not re.search(r"^\s*,|,\s*,|,\s*$", value):
        return None
    return ",".join(each.strip() for each in value.split(",") if each.strip())


def _not_closed(value: str) -> str | None:
    """Return the first bracket that is opened and never closed; None without one."""
    opened: list[str] = []
    for each in value:
        if each in CLOSING:
            opened.append(each)
        elif opened and each == CLOSING[opened[-1]]:
            opened.pop()
    return opened[0] if opened else None
