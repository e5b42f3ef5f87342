"""The nodes that OmegaConf keeps in a config: composing thousands of points shares them instead of copying them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf

from bench.compat.private_name import MISSING, PrivateName

_SLOWER = "each point of a sweep is composed by Hydra itself, which takes a tenth of a second"

CONTENT = PrivateName(where="omegaconf:DictConfig._content", since="2.3.0", until="2.4.1rc1", lost=_SLOWER)
SET_PARENT = PrivateName(where="omegaconf:Node._set_parent", since="2.3.0", until="2.4.1rc1", lost=_SLOWER)


def can_share_nodes() -> bool:
    """Whether nodes can be taken out of one config and put into another."""
    config = OmegaConf.create({"a": 1})
    return isinstance(CONTENT.of(config), dict) and SET_PARENT.of(config) is not MISSING


def content_of(config: DictConfig) -> dict[str, Node]:
    """The nodes of a mapping, unresolved: those themselves, in its own dictionary."""
    content = CONTENT.of(config)
    assert isinstance(content, dict)
    return typing.cast("dict[str, Node]", content)


def fill(config: DictConfig, nodes: dict[str, Node]) -> None:
    """Put nodes into a config as they are: setting an item would look through all that is in it."""
    for node in nodes.values():
        SET_PARENT.of(node)(config)
    content_of(config).update(nodes)


def register_resolver(name: str, resolve: Callable[..., object], *, use_cache: bool = False) -> None:
    """Register what `${NAME:}` stands for, in place of what did before.

    OmegaConf 2.4 gives the name `register_resolver`, which was that of an older way, to `register_new_resolver`.
    """
    register: Any = OmegaConf.register_resolver
    if "replace" not in inspect.signature(register).parameters:
        register = OmegaConf.register_new_resolver
    register(name, resolve, replace=True, use_cache=use_cache)
