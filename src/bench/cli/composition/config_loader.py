"""Load configs with Hydra's loader, but keep texts as typed, in overrides and in files.

YAML infers a value's type from its form: `name: 2024_11_29` is the number 20241129, `off` is false, 1:30 is ninety,
017 is fifteen. If the key holds a text, the characters of the file replace the number before a schema converts the
number to a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from bench.cli.composition.renamed_keys import current_content, has_renamed
from bench.cli.composition.text_keys import PARAMS, TEXT_MAPPINGS, Kind, groups_and_sections, kind_of
from bench.cli.composition.text_overrides import check_digits, quoted
from bench.compat.hydra_internals import AsTyped, typed_loader

MERGE = "tag:yaml.org,2002:merge"  # of the key <<


def text_loader(search_path: Any) -> Any:
    """Return Hydra's own loader, extended to quote texts in the overrides and to restore those of the files.

    Args:
        search_path: where Hydra looks for configs.

    Returns:
        The loader; None if this version of Hydra does not have the required methods.
    """
    return typed_loader(search_path, AsTyped(quoted, restore))


def restore(loaded: ConfigResult, package: str | None, config_path: str) -> None:
    """Replace values that YAML converted by the file's characters, and old key names by the current ones.

    Args:
        loaded: the content of the file, nested under its package; changed in place.
        package: the dotted key under which the file's content is placed.
        config_path: the file, relative to the folder of configs.
    """
    if not isinstance(loaded.config, DictConfig) or loaded.path.partition("://")[0] not in ("file", "pkg"):
        return
    plain: Any = OmegaConf.to_container(loaded.config, resolve=False)
    is_unsure = any(_unsure(plain, ""))
    if is_unsure:
        typed = _as_in_file(loaded.path, config_path)
        for name in reversed(package.split(".") if package else []):
            typed = {name: typed}
        plain = _restored(plain, typed, "")
    if has_renamed(plain):
        plain = current_content(plain)
    elif not is_unsure:
        return
    loaded.config = OmegaConf.create(plain)


def _unsure(value: Any, key: str) -> Iterator[bool]:
    """Yield True for each value in a config that its file may spell differently."""
    for name, each in _pairs(value):
        path = _path(key, name)
        if isinstance(each, dict | list):
            yield from () if _is_list_of_params(each, path) else _unsure(each, path)
        if _is_misread_name(value, name, key) or (not isinstance(each, dict | list) and _may_differ(each, path)):
            yield True


def _may_differ(value: object, key: str) -> bool:
    kind = _kind_in_file(key)
    if key.startswith(f"{PARAMS}.") and (value is None or isinstance(value, bool)):
        return True  # the right-hand side of an override, in which null and off are words
    if kind is Kind.NUMBER:
        return isinstance(value, float)
    return kind is not Kind.OTHER and isinstance(value, bool | int | float)


def _kind_in_file(key: str) -> Kind:
    """Return the kind of a key; in `params`, that of the swept key: an override cannot express 0x1F as YAML does."""
    if key.startswith(f"{PARAMS}."):
        return kind_of(key.removeprefix(f"{PARAMS}.").lstrip("+"))
    if "." not in key and key in groups_and_sections():  # a file chooses groups only in its defaults list
        return Kind.OTHER
    return kind_of(key)


def _is_list_of_params(value: Any, key: str) -> bool:
    """Check whether this is a list as the single value of a swept key, whose elements need not be texts."""
    return isinstance(value, list) and key.startswith(f"{PARAMS}.")


def _is_misread_name(container: Any, name: object, key: str) -> bool:
    return isinstance(container, dict) and not isinstance(name, str) and key in TEXT_MAPPINGS


def _restored(value: Any, typed: Any, key: str) -> Any:
    """Return a value in which converted scalars are replaced by the characters of the file."""
    names = [name for name, _ in _pairs(value)]
    if (
        isinstance(typed, dict)
        and len(typed) == len(names)
        and any(_is_misread_name(value, each, key) for each in names)
    ):
        value = dict(zip(typed, value.values(), strict=True))
    made = []
    for name, each in _pairs(value):
        path = _path(key, name)
        text = _found(typed, name)
        if isinstance(each, dict | list):
            made.append((name, each if _is_list_of_params(each, path) else _restored(each, text, path)))
        else:
            made.append((name, _restored_value(each, text, path) if isinstance(text, str) else each))
    return dict(made) if isinstance(value, dict) else [each for _, each in made]


def _restored_value(value: Any, text: str, key: str) -> Any:
    if not _may_differ(value, key):
        return value
    if value is None:
        return "null"  # whichever spelling of null the file uses
    if _kind_in_file(key) is not Kind.NUMBER:
        return text
    if isinstance(value, float):
        check_digits(key, text)
    return value


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return names and values of a mapping, or positions and values of a list."""
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value))


def _path(key: str, name: object) -> str:
    """Return the dotted key of an element; an element of a list has the list's key."""
    if isinstance(name, int) and not isinstance(name, bool):
        return key
    return f"{key}.{name}" if key else str(name)


def _found(typed: Any, name: Any) -> Any:
    if isinstance(typed, dict):
        return typed.get(str(name))
    return typed[name] if isinstance(typed, list) and isinstance(name, int) and name < len(typed) else None


# ---- files ---------------------------------------------------------------------------------------------------------


def _as_in_file(source: str, config_path: str) -> Any:
    """Return a file's content, with the file's spelling of values that YAML reads as a number, true, false or null."""
    scheme, _, place = source.partition("://")
    name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
    if scheme == "file":
        text = (Path(place) / name).read_text(encoding="utf-8")
    elif scheme == "pkg":
        text = resources.files(place.replace("/", ".")).joinpath(name).read_text(encoding="utf-8")
    else:
        return None
    return _as_texts(yaml.compose(text, Loader=yaml.SafeLoader))


def _as_texts(node: yaml.Node | None) -> Any:
    """Return a YAML node as mappings and lists, with every scalar as the file spells it."""
    if isinstance(node, yaml.SequenceNode):
        return [_as_texts(each) for each in node.value]
    if not isinstance(node, yaml.MappingNode):
        return None if node is None else node.value
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in node.value:
        if name.tag == MERGE:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = _as_texts(each) | merged  # the first of several has priority
        else:
            own[str(name.value)] = _as_texts(value)
    return merged | own
