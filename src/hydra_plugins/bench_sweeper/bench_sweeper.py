"""The sweeper plugin. Thin: it turns overrides into points and hands them to `bench.conductor.sweep`.

Hydra imports this file at every start, so nothing heavy may be imported at its top. (No postponed annotations here:
Hydra's plugin scan cannot resolve them in a dataclass.)
"""

import itertools
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class BenchSweeperConf:
    """What `hydra.sweeper` takes, kept in a file as in conf/experiment.

    `params`: override key → its values, all combined with each other. `settings`: lines of overrides as on the command
    line, each a sweep of its own, for what is no product. The overrides of the command line come on top of both.
    """

    _target_: str = "hydra_plugins.bench_sweeper.bench_sweeper.BenchSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="bench", node=BenchSweeperConf, provider="bench")


class BenchSweeper(Sweeper):
    """Composes and checks every point, plans the jobs, and runs them through the chosen launcher."""

    def __init__(self, params: dict[str, Any] | None = None, settings: list[str] | None = None) -> None:
        super().__init__()
        self.params = params or {}
        self.settings = settings or []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands a sweeper."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; leaves by SystemExit, for Hydra drops a sweeper's result."""
        from bench import cli  # noqa: PLC0415 - see above
        from bench.conductor.sweep import sweep  # noqa: PLC0415
        from bench.sweep.plan import Point  # noqa: PLC0415

        assert self.hydra_context is not None
        assert self.config is not None
        expanded = self._expand(arguments)
        swept_keys = varying(expanded)
        points = []
        for overrides in expanded:
            composed = self._compose(list(overrides.items()))
            swept = {key.lstrip("+"): value for key, value in overrides.items() if key in swept_keys}
            typed = tuple(f"{key}={value}" for key, value in overrides.items())
            points.append(Point(overrides=typed, swept=swept, config=cli.to_config(composed, typed)))
        raise SystemExit(
            sweep(points, folder=self._folder(), launch=self._launch_plan, is_local=self._runs_one_by_one())
        )

    def _folder(self) -> Path:
        assert self.config is not None
        return Path(str(self.config.hydra.sweep.dir)).absolute()

    def _runs_one_by_one(self) -> bool:
        return isinstance(self.launcher, BasicLauncher)

    def _launch_plan(self, plan: Any) -> dict[int, Exception]:
        """Run a plan's jobs that are not done; returns what they raised, by number."""
        OmegaConf.save(self.config, self._folder() / "multirun.yaml")
        pairs = [(job, point) for job, point in zip(plan.jobs, plan.points, strict=True) if not job.done]
        errors: dict[int, Exception] = {}
        # Hydra's own launcher gets them singly: it would keep each job's config until the last has run.
        for batch in [[pair] for pair in pairs] if self._runs_one_by_one() else [pairs] if pairs else []:
            errors |= self._launch(batch)
            for error in errors.values():
                if isinstance(error, OSError):  # of the disk; what a job raises is in its record
                    raise error
        return errors

    def _launch(self, batch: list[Any]) -> dict[int, Exception]:
        """Run jobs through the launcher; returns what went wrong around a measurement, by number."""
        assert self.launcher is not None
        overrides = [[*point.overrides, f"hydra.sweep.subdir='{job.folder}'"] for job, point in batch]
        results = self.launcher.launch(overrides, initial_job_idx=batch[0][0].number)
        return {
            job.number: result._return_value  # noqa: SLF001 - the public way raises it, and prints lines of its own
            for (job, _), result in zip(batch, results, strict=True)
            if result.status == JobStatus.FAILED
        }

    def _expand(self, arguments: list[str]) -> list[dict[str, str]]:
        """All points, as override key → value. Raises ConfigError when there are too many to have been meant."""
        from bench.sweep.plan import check_size  # noqa: PLC0415

        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        combined = [f"{key}={value}" for key, value in self.params.items()]
        lines = [parser.parse_overrides([*shlex.split(line), *combined, *arguments]) for line in self.settings or [""]]
        values = [values_of(line) for line in lines]
        # Before anything is composed, or held in memory: a tenth of a second each.
        points = sum(math.prod(len(each) for each in line.values()) for line in values)
        check_size(points, int(self.config.sweep.max_jobs))
        return [point for line in values for point in product(line)]

    def _compose(self, overrides: list[Any]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        composed = self.hydra_context.config_loader.load_sweep_config(
            self.config, [f"{key}={value}" for key, value in overrides]
        )
        return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def values_of(overrides: list[Override]) -> dict[str, list[str]]:
    """Each key's values (choices, ranges, globs); a later override of a key wins."""
    values: dict[str, list[str]] = {}
    for each in overrides:
        key = each.get_key_element()
        if not each.is_sweep_override():
            values[key] = [each.get_value_element_as_str()]
        elif each.is_discrete_sweep():
            values[key] = list(each.sweep_string_iterator())
        else:
            raise HydraException(f"{each.input_line}: an interval has no list of values; use a choice or a range")
    return values


def product(values: dict[str, list[str]]) -> list[dict[str, str]]:
    """Every combination, the last key fastest."""
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def varying(points: list[dict[str, str]]) -> set[str]:
    """The keys that are not the same in all points; one that only some points have is among them."""
    keys = {key for point in points for key in point}
    return {key for key in keys if len({point.get(key) for point in points}) > 1}
