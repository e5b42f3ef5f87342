"""Describe the plan of a search in lines: its space, and how many jobs are done and left."""

from __future__ import annotations

from collections.abc import Iterator

from bench.config.schema import SearchConfig
from bench.jobs.planning.search_space import Space


def lines_of_plan(space: Space, config: SearchConfig, done: int) -> Iterator[str]:
    """Yield the lines; `done` is the number of jobs that count so far."""
    size = space.size()
    yield f"Search for {', '.join(f'{name} ({goal})' for name, goal in config.goals().items())}; hydra/sweeper=optuna"
    for key, values in space.shown().items():
        yield f"  {key}: {', '.join(values)}"
    for key, value in space.fixed.items():
        yield f"  {key}={value} in all"
    left = max(0, (config.trials if size is None else min(config.trials, size)) - done)
    of = "no end of settings" if size is None else f"{size} settings"
    yield f"{of}, {config.trials} jobs at most: {done} done, {left} to run, {config.parallel} at once"
