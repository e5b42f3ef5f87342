"""Check whether this machine can run a setting, as far as that is known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.jobs.planning.preflight import preflight, question
from bench.orchestration.job_run import make_ready

if TYPE_CHECKING:
    from bench.tracking.publisher import Publisher
    from bench.tracking.store.destination import Destination


class Examination:
    """Examine each setting of a search once.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._refusals: dict[str, str | None] = {}  # examined properties of a setting → why it is refused

    def make_ready(
        self, configs: Sequence[BenchmarkConfig], console: Console, destination: Destination
    ) -> Publisher | None:
        """Examine settings, and connect to MLflow meanwhile. Raises ConfigError if none of them can work."""
        good = list(configs)
        try:
            publisher = make_ready(good, console, destination)
        except ConfigError:
            good = [each for each in good if self.refusal(each) is None]
            if not good:
                raise
            publisher = make_ready(good, console, destination)
        self._refusals |= dict.fromkeys(map(question, good))
        return publisher

    def refusal(self, config: BenchmarkConfig) -> str | None:
        """Return why this machine cannot run a setting; None if it can, or if that is not known."""
        asked = question(config)
        if asked not in self._refusals:
            try:
                if (unexamined := preflight([config])) is not None:
                    self._say(f"not examined beforehand: {unexamined}")
                self._refusals[asked] = None
            except ConfigError as error:
                self._refusals[asked] = str(error)
        return self._refusals[asked]
