"""Hydra's loader of configs, with texts as they were typed: in overrides, and in files.

YAML decides by its looks what a value is: `name: 2024_11_29` is the number 20241129, `off` is false, 1:30 is ninety,
017 is fifteen. Where the key holds a text, the characters that stand in the file take the number's place, before a
schema makes a text of the number.
"""
# ruff: noqa: SLF001 - a step of Hydra's composition, and the nodes of a config, have no public names

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import Container, DictConfig, ListConfig, Node

from bench.typed.keys import PARAMS, TEXT_MAPPINGS, Kind, groups_and_sections, kind_of
from bench.typed.overrides import check_digits, quoted

MERGE = "tag:yaml.org,2002:merge"  # of the key <<


class TextLoader(ConfigLoaderImpl):
    """Hydra's own loader, which quotes texts in the overrides and restores those of the files."""

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        return super()._parse_overrides_and_create_caching_repo(config_name, [quoted(each) for each in overrides])

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default=default, repo=repo)
        package = loaded.header["package"] if default.package is None else default.package
        if isinstance(loaded.config, DictConfig) and any(_unsure(loaded.config, "")):
            typed = _as_in_file(loaded.path, str(default.config_path))
            for name in reversed(package.split(".") if package else []):
                typed = {name: typed}
            _restore(loaded.config, typed, "")
        return loaded


def _unsure(config: Container, key: str) -> Iterator[bool]:
    """Something for each value in a config that its file may spell differently."""
    for name, node in _nodes(config):
        path = _path(key, name)
        if isinstance(node, DictConfig | ListConfig):
            yield from () if _is_list_of_params(node, path) else _unsure(node, path)
        elif _may_differ(node._value(), path) or _is_misread_name(config, name, key):
            yield True


def _may_differ(value: object, key: str) -> bool:
    kind = _kind_in_file(key)
    if key.startswith(f"{PARAMS}.") and (value is None or isinstance(value, bool)):
        return True  # the right side of an override, in which null and off are words
    if kind is Kind.NUMBER:
        return isinstance(value, float)
    return kind is not Kind.OTHER and isinstance(value, bool | int | float)


def _kind_in_file(key: str) -> Kind:
    """The kind of a key; in `params` that of the key that is swept: no override can be typed as 0x1F is in YAML."""
    if key.startswith(f"{PARAMS}."):
        return kind_of(key.removeprefix(f"{PARAMS}.").lstrip("+"))
    if "." not in key and key in groups_and_sections():  # a file chooses groups in its defaults list alone
        return Kind.OTHER
    return kind_of(key)


def _is_list_of_params(node: Container, key: str) -> bool:
    """Whether this is a list as the one value of a key, whose elements need not be texts."""
    return isinstance(node, ListConfig) and key.startswith(f"{PARAMS}.")


def _is_misread_name(config: Container, name: object, key: str) -> bool:
    return isinstance(config, DictConfig) and not isinstance(name, str) and key in TEXT_MAPPINGS


def _restore(config: Container, typed: Any, key: str) -> None:
    """Put the characters of the file in the places of what was read of them."""
    nodes = _nodes(config)
    if isinstance(typed, dict) and any(_is_misread_name(config, name, key) for name, _ in nodes):
        nodes = [(name, node) for name, (_, node) in zip(typed, nodes, strict=True)]
        _content(config).clear()
        for name, node in nodes:
            node._set_key(name)
            _content(config)[name] = node
    for name, node in nodes:
        path = _path(key, name)
        text = _found(typed, name)
        if isinstance(node, DictConfig | ListConfig):
            if not _is_list_of_params(node, path):
                _restore(node, text, path)
        elif isinstance(text, str) and _may_differ(node._value(), path):
            _restore_value(node, text, path)


def _restore_value(node: Node, text: str, key: str) -> None:
    if node._value() is None:
        node._set_value("null")  # whatever YAML's word for it
    elif _kind_in_file(key) is not Kind.NUMBER:
        node._set_value(text)
    elif isinstance(node._value(), float):
        check_digits(key, text)


def _nodes(config: Container) -> list[tuple[Any, Any]]:
    if config._is_none() or config._is_missing() or config._is_interpolation():
        return []
    if isinstance(config, ListConfig):
        return [(position, config._get_node(position)) for position in range(len(config))]
    return list(_content(config).items())


def _content(config: Any) -> dict[Any, Any]:
    content = config._content
    assert isinstance(content, dict)
    return content


def _path(key: str, name: object) -> str:
    """The key of an element; that of a list's is the list's own."""
    if isinstance(name, int) and not isinstance(name, bool):
        return key
    return f"{key}.{name}" if key else str(name)


def _found(typed: Any, name: Any) -> Any:
    if isinstance(typed, dict):
        return typed.get(str(name))
    return typed[name] if isinstance(typed, list) and isinstance(name, int) and name < len(typed) else None


# ---- files ---------------------------------------------------------------------------------------------------------


def _as_in_file(source: str, config_path: str) -> Any:
    """What a file holds, with each value that YAML takes for a number, true, false or null as the file spells it."""
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
    """Return what a node of YAML holds as mappings and lists, every scalar as the file spells it."""
    if isinstance(node, yaml.SequenceNode):
        return [_as_texts(each) for each in node.value]
    if not isinstance(node, yaml.MappingNode):
        return None if node is None else node.value
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in node.value:
        if name.tag == MERGE:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = _as_texts(each) | merged  # of several the first wins
        else:
            own[str(name.value)] = _as_texts(value)
    return merged | own
