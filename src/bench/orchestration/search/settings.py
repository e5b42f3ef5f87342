"""Check the space and the config of a search before anything starts, and compose its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.jobs.planning.plan import Point, check_size
from bench.jobs.planning.search_space import Space

FIXED_SECTIONS = ("sweep", "search", "tracking", "hydra")
LISTS = ("search.objectives", "search.directions")  # keys whose value is a list
TRIES = 20  # settings composed before a value counts as incompatible with all others

# Composes one setting of the space; raises ConfigError or PointError if that fails.
Compose = Callable[[dict[str, str]], Point]


class PointError(ValueError):
    """Hydra cannot compose a setting. The text is one line; the cause is Hydra's error."""


def check_optuna() -> None:
    """Refuse a search without Optuna. Raises ConfigError."""
    try:
        from bench.orchestration.search import study as _  # noqa: F401, PLC0415
    except ImportError as error:
        remedy = f"needs the extra `optuna`: pip install -e '.[optuna]' in the checkout ({error})"
        raise ConfigError("hydra/sweeper", "optuna", remedy) from error


def check_space(space: Space) -> None:
    """Refuse a space without choices, and keys that must be the same in every setting. Raises ConfigError."""
    if not space.parameters:
        remedy = "has nothing to choose from: give a key several values (a=1,2), a range or an interval"
        raise ConfigError("hydra/sweeper", "optuna", remedy)
    for each in space.parameters:
        key = each.key.lstrip("+")
        if key.replace("/", ".").partition(".")[0] in FIXED_SECTIONS:
            values = ",".join(each.shown())
            remedy = "is one for the whole search and cannot be searched"
            if key in LISTS:
                remedy = f"with commas alone it is a key to search; several of them are a list: '{key}=[{values}]'"
            raise ConfigError(key, values, remedy)


def check_config(config: BenchmarkConfig) -> None:
    """Refuse a config with keys that a search does not support. Raises ConfigError."""
    if config.sweep.repeats > 1:
        remedy = "a search measures each setting once; sweep what it finds with repeats, for verdicts"
        raise ConfigError("sweep.repeats", config.sweep.repeats, remedy)
    if config.sweep.baseline is not None:
        raise ConfigError("sweep.baseline", config.sweep.baseline, "a search compares with none; leave it null")
    check_size(config.search.trials, config.sweep.max_jobs)


class ComposedSettings:
    """Compose each setting of a space once: composing takes a tenth of a second."""

    def __init__(self, compose: Compose) -> None:
        """Compose nothing yet."""
        self._compose = compose
        self._known: dict[tuple[tuple[str, str], ...], Point | ConfigError | PointError] = {}

    def __call__(self, values: Mapping[str, str]) -> Point:
        """Return the setting with these values. Raises ConfigError or PointError if there is none."""
        key = tuple(sorted(values.items()))
        if key not in self._known:
            try:
                self._known[key] = self._compose(dict(values))
            except (ConfigError, PointError) as error:
                self._known[key] = error
        if isinstance(found := self._known[key], Exception):
            raise found
        return found


def examples_of(space: Space, compose: Callable[[Mapping[str, str]], Point]) -> list[Point]:
    """Return settings in which each value of each key occurs.

    Two values may exclude each other. A value that is compatible with none of the others counts as a typing mistake and
    is refused.
    """
    found: dict[str, Point] = {}
    good: dict[str, set[str]] = {each.key: set() for each in space.parameters}

    def fits(values: dict[str, str]) -> Exception | None:
        try:
            point = compose(values)
        except (ConfigError, PointError) as error:
            return error
        found.setdefault(point.config.trial_id(), point)
        for key, value in values.items():
            good[key].add(value)
        return None

    failed = [(values, error) for values in space.examples() if (error := fits(values)) is not None]
    for values, error in failed:
        for key, value in values.items():
            others = space.examples_with(key, value, TRIES)
            if value not in good[key] and all(fits(other) is not None for other in others):
                raise error.__cause__ if isinstance(error, PointError) and error.__cause__ is not None else error
    return list(found.values())
