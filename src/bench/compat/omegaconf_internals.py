"""Access the nodes inside an OmegaConf config, to share them between thousands of points instead of copying them."""

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
    """Check whether nodes can be moved from one config to another."""
    config = OmegaConf.create({"a": 1})
    return isinstance(CONTENT.of(config), dict) and SET_PARENT.of(config) is not MISSING


def content_of(config: DictConfig) -> dict[str, Node]:
    """Return the nodes of a mapping, unresolved: the internal dictionary itself, not a copy."""
    content = CONTENT.of(config)
    assert isinstance(content, dict)
    return typing.cast("dict[str, Node]", content)


def fill(config: DictConfig, nodes: dict[str, Node]) -> None:
    """Insert nodes into a config unchanged: setting items would traverse their whole content."""
    for node in nodes.values():
        SET_PARENT.of(node)(config)
    content_of(config).update(nodes)


def register_resolver(name: str, resolve: Callable[..., object], *, use_cache: bool = False) -> None:
    """Register the resolver of `${NAME:}`, and replace a previous one.

    OmegaConf 2.4 renames `register_new_resolver` to `register_resolver`, formerly the name of an older function.
    """
    register: Any = OmegaConf.register_resolver
    if "replace" not in inspect.signature(register).parameters:
        register = OmegaConf.register_new_resolver
    register(name, resolve, replace=True, use_cache=use_cache)
