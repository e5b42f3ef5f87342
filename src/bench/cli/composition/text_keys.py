"""Decide which keys hold text: bench's own, Hydra's, the choices of groups, and the free names in mappings."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any

from hydra.conf import HydraConf

from bench.config.renamed import current_name
from bench.config.schema import BenchmarkConfig, flatten, walk

# Mappings with user-defined names and text values. A value in `params` is the right-hand side of an override.
TEXT_MAPPINGS = ("tracking.tags", "hydra.sweeper.params", "hydra.job.env_set")
NUMBER_MAPPINGS = ("compile.options", "model.architecture")  # their numbers, true and false keep their types
PARAMS = "hydra.sweeper.params"
# The launchers' files in conf/ declare no types.
OF_LAUNCHERS = (
    "submitit_folder", "name", "partition", "account", "qos", "constraint", "exclude", "setup", "init.address"
)  # fmt: skip


class Kind(enum.Enum):
    """Classify keys by whether the exact characters of their values matter."""

    TEXT = "a text, or a list of texts"  # the schema also converts numbers to texts
    FREE_TEXT = "a text, of which no schema knows"
    NUMBER = "a value whose looks decide its type"
    OTHER = "another type, a section, or no key"


@functools.cache
def kind_of(key: str) -> Kind:
    """Return the kind of a dotted key, or of a group's name.

    Args:
        key: without signs and package.
    """
    if (declared := _declared().get(current_name(key))) is not None:
        return declared
    for mappings, kind in ((TEXT_MAPPINGS, Kind.FREE_TEXT), (NUMBER_MAPPINGS, Kind.NUMBER)):
        if any(key == each or key.startswith(f"{each}.") for each in mappings):
            return kind
    if "." not in key:  # a word given to a section, or to any other name, can only be a group's choice
        return Kind.TEXT if key in groups_and_sections() else Kind.FREE_TEXT
    return Kind.FREE_TEXT if "/" in key else Kind.OTHER


def as_tags(tags: Any) -> Any:
    """Return tags under dotted names, with text values. References may resolve to numbers; null omits a tag."""
    if not isinstance(tags, dict) or not all(isinstance(name, str) for name in tags):
        return tags  # the config refuses it
    return {name: _as_text(value) for name, value in flatten(tags).items() if value is not None}


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


@functools.cache
def _declared() -> dict[str, Kind]:
    ours = {path: Kind.TEXT for path, _, _, kind in walk(BenchmarkConfig) if _is_text(kind)}
    of_hydra = {path: Kind.TEXT for path, kind in _fields(HydraConf, "hydra.") if _is_text(kind)}
    of_launchers = {f"hydra.launcher.{each}": Kind.TEXT for each in OF_LAUNCHERS}
    return {**ours, **of_hydra, **of_launchers, "hydra.sweeper.settings": Kind.TEXT}


@functools.cache
def groups_and_sections() -> frozenset[str]:
    """Return the top-level names that contain keys and accept a group's choice in an override."""
    return frozenset(path.partition(".")[0] for path, *_ in walk(BenchmarkConfig) if "." in path) | {"hydra"}


def _fields(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and annotated type of all values of a dataclass and its nested dataclasses."""
    hints = typing.get_type_hints(kind)
    for each in dataclasses.fields(typing.cast("Any", kind)):
        if dataclasses.is_dataclass(hints[each.name]):
            yield from _fields(hints[each.name], f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", hints[each.name]


def _is_text(kind: Any) -> bool:
    """Check whether an annotation is a text, an optional text, or a list of texts."""
    if kind is str:
        return True
    if typing.get_origin(kind) in (typing.Union, types.UnionType, list):
        options = [each for each in typing.get_args(kind) if each is not type(None)]
        return len(options) == 1 and _is_text(options[0])
    return False
