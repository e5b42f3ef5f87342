"""Refuse overrides that Hydra would accept but interpret differently from what the user means.

`bench.cli.refusals.message` explains what Hydra itself refuses, and is imported only then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydra.errors import HydraException

from bench.config.rules import shown
from bench.config.schema import BenchmarkConfig, no_such_key, walk

LONGEST = 200  # characters of an argument that a message repeats
# Hydra's own groups and alternative names for them → the suggested name.
OF_HYDRA = {
    "hydra/launcher": "hydra/launcher",
    "hydra/sweeper": "hydra/sweeper",
    "launcher": "hydra/launcher",
    "sweeper": "hydra/sweeper",
    "experiment": "experiment",
}
# Section → what to type instead of deleting it.
INSTEAD = {
    "tracking": "tracking=off publishes nothing",
    "compile": "compile=off compiles nothing",
    "fidelity": "fidelity.reference=none compares nothing",
    "monitor": "monitor.enabled=false samples nothing",
    "profile": "profile.num_tokens=0 profiles nothing",
    "warmup": "warmup.iterations=0 makes no warm-up calls",
}
# Prefixes of keys that may be deleted.
OPEN = ("tracking.tags.", "compile.options.", "model.architecture.", "hydra.job.env_set.", "hydra.sweeper.params.")
LONGEST_NAME = 255  # bytes of a file name; Hydra looks up a key as a file


class OverrideError(HydraException):
    """Refuse an override; the message is one line that begins with the override."""

    def __init__(self, override: str, remedy: str) -> None:
        self.override = override
        super().__init__(f"{shown(override, LONGEST)}: {remedy}")


def check_overrides(overrides: Sequence[str], names: Mapping[str, str]) -> None:
    """Refuse overrides that Hydra would misinterpret: deleted sections, missing keys, and spaces around =.

    Args:
        overrides: as typed.
        names: further names that an unknown key may mean, as for `bench.config.schema.no_such_key`.

    Raises:
        OverrideError: the first such override.
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
    """Refuse an override with a space around its =, given the previous argument, the override and the next one."""
    before, each, after = (*three, "")[:3]
    if each.startswith("=") and before and "=" not in before:
        raise OverrideError(f"{before} {each}", f"a space stands before the =; type {before}={each[1:] or after}")
    if before.endswith("=") and each and "=" not in each:
        raise OverrideError(f"{before} {each}", f"a space stands behind the =; type {before}{each}")


def _check_deletion(override: str, key: str, names: Mapping[str, str]) -> None:
    """Refuse to delete a key, section or group that every job needs."""
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
    """Return what to type instead of a function that returns no values for a sweep."""
    key, _, value = override.lstrip("+").partition("=")
    if value.startswith("glob"):
        return f"no choice of {key} matches; bench --help lists the choices of a group"
    if value.startswith("range"):
        return "write range(START,STOP,STEP), which ends before STOP; STEP is not 0, and negative where STOP is lower"
    return f"type {key}=VALUE,VALUE"
