"""The sweeper plugin. Thin: it turns overrides into points and hands them to `bench.cli.sweep`.

Hydra imports this file at every start, so nothing heavy may be imported at its top. (No postponed annotations here:
Hydra's plugin scan cannot resolve them in a dataclass.)
"""

import itertools
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        from bench.sweep.plan import Plan, Point  # noqa: PLC0415

        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        combined = [f"{key}={value}" for key, value in self.params.items()]
        expanded: list[dict[str, str]] = []
        for line in self.settings or [""]:
            expanded += expand(parser.parse_overrides([*shlex.split(line), *combined, *arguments]))
        swept_keys = varying(expanded)
        points = []
        for overrides in expanded:
            composed = self._compose(list(overrides.items()))
            swept = {key.lstrip("+"): value for key, value in overrides.items() if key in swept_keys}
            typed = tuple(f"{key}={value}" for key, value in overrides.items())
            points.append(Point(overrides=typed, swept=swept, config=cli.to_config(composed, typed)))
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()

        def launch(plan: Plan) -> dict[int, Exception]:
            OmegaConf.save(self.config, folder / "multirun.yaml")
            batch = [
                [*point.overrides, f"hydra.sweep.subdir='{job.folder}'"]
                for point, job in zip(plan.points, plan.jobs, strict=True)
            ]
            assert self.launcher is not None
            results = self.launcher.launch(batch, initial_job_idx=0)
            # What a measurement raised is in its record; here is what went wrong around one.
            return {
                number: result._return_value  # noqa: SLF001 - the public way raises it, and prints lines of its own
                for number, result in enumerate(results)
                if result.status == JobStatus.FAILED
            }

        raise SystemExit(cli.sweep(points, folder=folder, launch=launch))

    def _compose(self, overrides: list[Any]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        composed = self.hydra_context.config_loader.load_sweep_config(
            self.config, [f"{key}={value}" for key, value in overrides]
        )
        return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def expand(overrides: list[Override]) -> list[dict[str, str]]:
    """The product of all sweeps (choices, ranges, globs), the last key fastest; a later override of a key wins."""
    values: dict[str, list[str]] = {}
    for each in overrides:
        key = each.get_key_element()
        if not each.is_sweep_override():
            values[key] = [each.get_value_element_as_str()]
        elif each.is_discrete_sweep():
            values[key] = list(each.sweep_string_iterator())
        else:
            raise HydraException(f"{each.input_line}: an interval has no list of values; use a choice or a range")
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def varying(points: list[dict[str, str]]) -> set[str]:
    """The keys that are not the same in all points; one that only some points have is among them."""
    keys = {key for point in points for key in point}
    return {key for key in keys if len({point.get(key) for point in points}) > 1}
