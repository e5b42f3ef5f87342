"""Check the finished jobs of a search before it continues: a search measures no setting twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.jobs.planning.fingerprint import changes
from bench.jobs.planning.resume import FINISHED, Past


def check_environment(jobs: Collection[Past], environment: Mapping[str, str]) -> None:
    """Refuse to continue in another environment: its measurements cannot be compared with the earlier ones.

    Raises:
        ConfigError: versions or hardware differ.
    """
    changed = [text for past in jobs for text in changes(past.fingerprint, environment)]
    if changed:
        what = "; ".join(dict.fromkeys(changed))
        remedy = f"the environment has changed ({what}), and a search lives in one: start another sweep.name"
        raise ConfigError("sweep.resume", True, remedy)


def check_outputs(jobs: Collection[Past], config: BenchmarkConfig) -> None:
    """Refuse requests for more outputs than the finished jobs have. Raises ConfigError."""
    lacking = [
        missing for past in jobs if past.status in FINISHED if (missing := past.outputs.missing(config, past.status))
    ]
    if lacking:
        what = "; ".join(dict.fromkeys(lacking))
        remedy = f"of the jobs that are done {len(lacking)} would have to run again ({what}), and a search measures "
        remedy += "each setting once: ask for what they were asked for, or start another sweep.name"
        raise ConfigError("sweep.resume", True, remedy)
