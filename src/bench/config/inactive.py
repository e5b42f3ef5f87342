"""Refuse keys that have no effect because another key does not have the required value.

Only keys that the user requested are refused. Other values in a file are not checked.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """Declare keys of one section that depend on the value of a policy."""

    section: str
    leaves: tuple[str, ...]
    policy: str
    needs: str | None  # the only value with which the keys have an effect; None: any except `idle`
    idle: object = None
    example: str | None = None  # what to type if several values are possible

    def is_met(self, config: BenchmarkConfig) -> bool:
        """Check whether the keys have an effect in a config."""
        value = _value(config, self.policy)
        return bool(value != self.idle if self.needs is None else value == self.needs)

    def holds(self, key: str) -> bool:
        """Check whether a dotted key, or the mapping that contains it, is one of the keys."""
        return any(f"{key}.".startswith(f"{self.section}.{leaf}.") for leaf in self.leaves)


DEPENDENCES = (
    Dependence(section="warmup", leaves=("iterations",), policy="warmup.policy", needs="fixed"),
    Dependence(
        section="warmup", leaves=("min_iterations", "max_iterations", "window", "max_s"), policy="warmup.policy",
        needs="auto",
    ),
    Dependence(section="measurement", leaves=("iterations",), policy="measurement.policy", needs="fixed"),
    Dependence(
        section="measurement", leaves=("min_iterations", "max_iterations", "step", "half_width", "max_s"),
        policy="measurement.policy", needs="adaptive",
    ),
    Dependence(
        section="compile", leaves=("fullgraph", "dynamic", "backend", "options", "cache"), policy="compile.mode",
        needs=None, example="compile.mode=default",
    ),
    Dependence(
        section="monitor", leaves=("interval_s",), policy="monitor.enabled", needs=None, idle=False,
        example="monitor.enabled=true",
    ),
    Dependence(
        section="isolation", leaves=("timeout_s",), policy="isolation.mode", needs=None, idle="none",
        example="isolation.mode=forkserver",
    ),
    Dependence(section="sweep", leaves=("seed",), policy="sweep.order", needs="shuffled"),
)  # fmt: skip


def check_effect(points: Sequence[tuple[Sequence[str], BenchmarkConfig]], free: Container[str] = ()) -> None:
    """Refuse a key that has an effect in none of the points that set it.

    A sweep may vary the policy itself: then the key must have an effect in at least one point.

    Args:
        points: for each point, the overrides to check (key=value) and the config that contains them.
        free: keys and groups whose value is chosen later; keys that depend on them are not refused.

    Raises:
        ConfigError: the first such key, with the value of the policy.
    """
    active: set[str] = set()
    inactive: dict[str, ConfigError] = {}
    for overrides, config in points:
        for override in overrides:
            key, equals, value = override.lstrip("+").partition("=")
            if equals and key not in active:
                if (refusal := _refusal(key, value, config, free)) is None:
                    active.add(key)
                    inactive.pop(key, None)
                else:
                    inactive.setdefault(key, refusal)
    for refusal in inactive.values():
        raise refusal


def _refusal(key: str, value: str, config: BenchmarkConfig, free: Container[str]) -> ConfigError | None:
    found = next((each for each in DEPENDENCES if each.holds(key)), None)
    if found is None or found.is_met(config) or found.policy in free or found.section in free:
        return None
    if key == "compile.cache" and (config.attention.compiles_itself or "attention" in free):
        return None
    policy = _value(config, found.policy)
    shown = "null" if policy is None else str(policy).lower() if isinstance(policy, bool) else policy
    wanted = found.example or f"{found.policy}={found.needs}"
    return ConfigError(key, value, f"has no effect with {found.policy}={shown}; leave it out, or set {wanted}")


def _value(config: BenchmarkConfig, key: str) -> Any:
    section, _, leaf = key.partition(".")
    return getattr(getattr(config, section), leaf)
