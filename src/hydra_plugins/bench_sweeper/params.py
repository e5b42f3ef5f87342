"""Convert `hydra.sweeper.params` and `hydra.sweeper.settings` to overrides.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import Container, OmegaConf

from bench.compat.override_internals import in_quotes

# Text that Hydra's grammar reads as one value without quotes.
_PLAIN = re.compile(r"[\w./+@%$*-]+( [\w./+@%$*-]+)*", re.ASCII)


def lines_of(params: Mapping[str, Any] | Container) -> list[str]:
    """Return one override per key: key=value,value.

    A text is read as on the command line, including commas and functions. A list contains several values, and nested
    keys are joined with dots: `workload: {batch_size: [1, 2]}` is workload.batch_size=1,2.
    """
    plain: Any = OmegaConf.to_container(params, resolve=True) if isinstance(params, Container) else params
    return [f"{key}={text}" for key, text in _pairs(plain)]


def words_of(line: str) -> list[str]:
    """Return the overrides of a line of settings. OverrideError if a quote is not closed."""
    from bench.cli.refusals.override_checks import OverrideError  # noqa: PLC0415 - see above

    try:
        return shlex.split(line)
    except ValueError as error:
        raise OverrideError(line, "a quote in this line of settings is not closed; close it") from error


def _pairs(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _pairs(value, f"{key}.")
        elif isinstance(value, str):
            yield key, value
        elif isinstance(value, Sequence):
            if not value:
                raise HydraException(f"{key}=[]: has no values; write {key}: VALUE,VALUE, or leave it out")
            yield key, ",".join(map(_element, value))
        else:
            yield key, _element(value)


def _element(value: Any) -> str:
    """Return one value of a sweep in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) or re.fullmatch(r"\$\{[^}]*\}", value)
        return value if plain else in_quotes(value, '"')
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_element(each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return f"[{','.join(map(_element, value))}]"
    return str(value)
