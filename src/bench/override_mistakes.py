"""Overrides that Hydra's grammar does not take: what is wrong with one, and what to type instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hydra.errors import HydraException

from bench.config import BenchmarkConfig, no_such_key, walk
from bench.config_mistakes import kinds_of
from bench.quoting import is_text, offending, quoted_form
from bench.rules import shown

TYPE_NO_PLUS = "the key is there already; type {0}"
# Functions of a sweep → how each is written.
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
LONGEST = 200  # characters of an argument that is repeated in quotes


# How to do without what deleting a section would do.
INSTEAD = {
    "tracking": "tracking=off publishes nothing",
    "compile": "compile=off compiles nothing",
    "fidelity": "fidelity.reference=none compares nothing",
    "monitor": "monitor.enabled=false samples nothing",
    "profile": "profile.num_tokens=0 profiles nothing",
    "warmup": "warmup.iterations=0 makes no warm-up calls",
}
# Below which keys may be deleted.
OPEN = ("tracking.tags.", "compile.options.", "model.architecture.", "hydra.job.env_set.", "hydra.sweeper.params.")
LONGEST_NAME = 255  # bytes of a file's name, for which Hydra takes a key


class OverrideError(HydraException):
    """An override that is refused as it is; its text is one line that begins with it."""

    def __init__(self, override: str, remedy: str) -> None:
        self.override = override
        super().__init__(f"{shown(override, LONGEST)}: {remedy}")


def check_overrides(overrides: Sequence[str], names: Mapping[str, str]) -> None:
    """Refuse what Hydra would take and do something else with: deleted sections, and keys that are none.

    Args:
        overrides: as typed.
        names: further names that may be meant by an unknown key, as `bench.config.no_such_key` takes them.

    Raises:
        OverrideError: the first of them.
    """
    for place, each in enumerate(overrides):
        key, equals, value = each.partition("=")
        _check_spaces(overrides[place - 1 : place + 2] if place else ["", *overrides[:2]])
        if not key.strip("+~ ") and equals:
            raise OverrideError(each, f"has no key; type KEY={value or 'VALUE'}")
        if len(key.encode(errors="replace")) > LONGEST_NAME:
            raise OverrideError(each, f"{no_such_key(key, names)}")
        if each.startswith("~"):
            _check_deletion(each, key[1:].partition("@")[0], names)


def _check_spaces(three: Sequence[str]) -> None:
    """Refuse an override whose = stands apart: what stands before it, it, and what follows."""
    before, each, after = (*three, "")[:3]
    if each.startswith("=") and before and "=" not in before:
        raise OverrideError(f"{before} {each}", f"a space stands before the =; type {before}={each[1:] or after}")
    if before.endswith("=") and each and "=" not in each:
        raise OverrideError(f"{before} {each}", f"a space stands behind the =; type {before}{each}")


def _check_deletion(override: str, key: str, names: Mapping[str, str]) -> None:
    """Refuse to delete what every job needs."""
    if key.startswith(OPEN):
        return
    defaults = {path: rule.default for path, _, rule, _ in walk(BenchmarkConfig)}
    sections = {path.partition(".")[0] for path in defaults if "." in path}
    if key in defaults:
        default = defaults[key]
        word = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        raise OverrideError(override, f"a key cannot be deleted; {key}={word} is its default")
    if key in sections:
        instead = INSTEAD.get(key, "leave it out for the defaults")
        raise OverrideError(override, f"a section cannot be deleted; {instead}")
    if key.startswith("hydra."):
        raise OverrideError(override, f"a key of Hydra's own cannot be deleted; give it another value: {key}=VALUE")
    if key in names or key.startswith("hydra/"):
        raise OverrideError(override, "a group cannot be deleted; leave it out, or make another choice")
    raise OverrideError(override, no_such_key(key, names))


def values_missing(override: str) -> str:
    """What to type instead of a function that gives no values for a sweep."""
    key, _, value = override.lstrip("+").partition("=")
    if value.startswith("glob"):
        return f"no choice of {key} matches; bench --help lists the choices of a group"
    if value.startswith("range"):
        return "write range(START,STOP,STEP), which ends before STOP; STEP is not 0, and negative where STOP is lower"
    return f"type {key}=VALUE,VALUE"


def unreadable(override: str, names: Mapping[str, str]) -> str:
    """One line for an override that cannot be parsed: the override, the offending character, what to type.

    Args:
        override: as typed, or as a sweep's params and settings make it.
        names: further names that may be meant by an unknown key, as `bench.config.no_such_key` takes them.
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
    """What is wrong with a function, a reference, a list or commas; None where it is a plain value."""
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
    """The values without an empty one among them; None where none is empty."""
    if re.search(r"[()\[\]{}\"']", value) or not re.search(r"^\s*,|,\s*,|,\s*$", value):
        return None
    return ",".join(each.strip() for each in value.split(",") if each.strip())


def _not_closed(value: str) -> str | None:
    """The first bracket that is opened and never closed."""
    opened: list[str] = []
    for each in value:
        if each in CLOSING:
            opened.append(each)
        elif opened and each == CLOSING[opened[-1]]:
            opened.pop()
    return opened[0] if opened else None
