"""Implement the sweeper plugin: convert overrides to points and pass them to `bench.orchestration.sweep`.

Hydra imports this file at every start, so nothing heavy may be imported at its top. (No postponed annotations here:
Hydra's plugin scan cannot resolve them in a dataclass.)
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bench.compat.hydra_internals import returned
from bench.compat.override_internals import in_quotes
from hydra_plugins.bench_launchers.engine import EngineLauncher
from hydra_plugins.bench_sweeper.composing import Composer, JobLoader
from hydra_plugins.bench_sweeper.params import lines_of, words_of


@dataclass
class BenchSweeperConf:
    """Declare the keys of `hydra.sweeper`, which a file such as those in conf/experiment can set.

    `params`: override key → its values, combined as a Cartesian product. `settings`: lines of overrides as on the
    command line, each a separate sweep, for settings that are not a product. The command line's overrides have
    priority over both.
    """

    _target_: str = "hydra_plugins.bench_sweeper.bench_sweeper.BenchSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="bench", node=BenchSweeperConf, provider="bench")


class BenchSweeper(Sweeper):
    """Compose and check every point, plan the jobs, and run them through the chosen launcher."""

    def __init__(self, params: dict[str, Any] | None = None, settings: list[str] | None = None) -> None:
        super().__init__()
        self.params = params or {}
        self.settings = settings or []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the objects that Hydra passes to a sweeper."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; exit by SystemExit, because Hydra discards a sweeper's result."""
        from bench.cli.composition import checked_config  # noqa: PLC0415 - see above
        from bench.config.inactive import check_effect  # noqa: PLC0415
        from bench.jobs.planning.plan import Point  # noqa: PLC0415

        assert self.config is not None
        expanded = self._expand(arguments)
        swept_keys = varying(expanded)
        composer = self._composer()
        points = []
        for overrides in expanded:
            swept = {key.lstrip("+"): value for key, value in overrides.items() if key in swept_keys}
            typed = tuple(f"{key}={value}" for key, value in overrides.items())
            points.append(
                Point(overrides=typed, swept=swept, config=checked_config.to_config(composer.compose(typed), typed))
            )
        asked = swept_keys | {each.partition("=")[0] for each in arguments}  # excludes other keys of a file
        check_effect([(of_keys(each.overrides, asked), each.config) for each in points])
        folder = self._folder()
        self._check_launcher(dry_run=self.config.sweep.dry_run)
        from bench.orchestration.sweep import sweep  # noqa: PLC0415 - unused if a point is refused

        raise SystemExit(sweep(points, folder=folder, launch=self._launch_plan, is_local=self._runs_one_by_one()))

    def _composer(self) -> Composer:
        """Return the composer of the sweep's points, which also composes the jobs if this process runs them."""
        assert self.hydra_context is not None
        assert self.config is not None
        composer = Composer(self.hydra_context.config_loader, self.config)
        if self._runs_one_by_one():  # other launchers compose a job where it runs
            loader: Any = JobLoader(self.hydra_context.config_loader, composer)
            launcher: Any = self.launcher
            launcher.hydra_context = dataclasses.replace(self.hydra_context, config_loader=loader)
        return composer

    def _check_launcher(self, *, dry_run: bool) -> None:
        """Refuse an engine that cannot be used, before anything is created."""
        if isinstance(self.launcher, EngineLauncher) and not dry_run:
            self.launcher.check(self._folder())

    def _folder(self) -> Path:
        assert self.config is not None
        return Path(str(self.config.hydra.sweep.dir)).absolute()

    def _runs_one_by_one(self) -> bool:
        """Check whether Hydra's own launcher runs the jobs, in this process."""
        return type(self.launcher).__name__ == "BasicLauncher"

    def _launch_plan(self, plan: Any, assignments: Any, on_return: Any) -> None:
        """Run those jobs of a plan that are not done."""
        from bench.cli.composition.redacted_yaml import to_yaml  # noqa: PLC0415 - used only if jobs run
        from bench.jobs.folders.sweep_folder import keep_config  # noqa: PLC0415

        assert self.config is not None
        folder = self._folder()
        with contextlib.suppress(OSError):  # only for the user; the jobs will report an unwritable folder
            keep_config(folder, to_yaml(self.config))
        pairs = [(job, point) for job, point in zip(plan.jobs, plan.points, strict=True) if not job.done]
        # Hydra's own launcher gets one at a time: it would keep each job's config in memory until the last has run.
        for batch in [[pair] for pair in pairs] if self._runs_one_by_one() else [pairs] if pairs else []:
            numbers = [job.number for job, _ in batch]
            places = [_place(folder, job.folder, assignments[job.number]) for job, _ in batch]
            overrides = [[*point.overrides, *place] for (_, point), place in zip(batch, places, strict=True)]
            self._launch(numbers, overrides, on_return)

    def _launch(self, numbers: list[int], overrides: list[list[str]], on_return: Any) -> None:
        """Run jobs through the launcher, and pass on each result as soon as the launcher has it."""
        assert self.launcher is not None
        passed_on = set()

        def pass_on(index: int, result: JobReturn) -> None:
            passed_on.add(index)
            on_return(numbers[index], returned(result))

        if isinstance(self.launcher, EngineLauncher):
            self.launcher.on_return = pass_on
        try:
            results = self.launcher.launch(overrides, initial_job_idx=numbers[0])
        except Exception as error:
            if not self._runs_one_by_one():  # several jobs: the caller knows which have returned
                raise
            on_return(numbers[0], error)  # for example, composing its config or creating its folder failed
            return
        for index, result in enumerate(results):
            if index not in passed_on:
                pass_on(index, result)

    def _expand(self, arguments: list[str]) -> list[dict[str, str]]:
        """Return all points, as override key → value. ConfigError for more than sweep.max_jobs."""
        from bench.cli.composition.quoting import readable  # noqa: PLC0415
        from bench.cli.composition.renamed_keys import current_overrides  # noqa: PLC0415
        from bench.cli.composition.text_overrides import parse  # noqa: PLC0415
        from bench.cli.refusals.override_checks import OF_HYDRA, check_overrides  # noqa: PLC0415
        from bench.jobs.planning.plan import check_size  # noqa: PLC0415

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        combined = current_overrides([readable(each) for each in lines_of(self.params)])
        check_overrides([*combined, *(word for line in self.settings for word in words_of(line))], OF_HYDRA)
        own = [current_overrides([readable(each) for each in words_of(line)]) for line in self.settings or [""]]
        lines = [parse([*words, *combined, *arguments], loader) for words in own]
        values = [values_of(line) for line in lines]
        # Before anything is composed or stored in memory.
        points = sum(math.prod(len(each) for each in line.values()) for line in values)
        check_size(points, int(self.config.sweep.max_jobs))
        return [point for line in values for point in product(line)]


def _place(sweep_folder: Path, folder: str, assignment: Any) -> list[str]:
    """Return the overrides that set a job's folder and its assignment."""
    from bench.jobs.assignment import VARIABLE  # noqa: PLC0415

    return [
        f"hydra.sweep.dir={in_quotes(str(sweep_folder))}",
        f"hydra.sweep.subdir={in_quotes(folder)}",
        f"+hydra.job.env_set.{VARIABLE}={in_quotes(assignment.to_text())}",
    ]


def of_keys(overrides: Sequence[str], keys: set[str]) -> list[str]:
    """Return the overrides that set one of the keys, with any signs in front."""
    bare = {each.lstrip("+") for each in keys}
    return [each for each in overrides if each.lstrip("+").partition("=")[0] in bare]


def values_of(overrides: list[Any]) -> dict[str, Sequence[str]]:
    """Return each key's values (choices, ranges, globs); a later override of a key replaces an earlier one."""
    from bench.cli.composition.text_overrides import last_of_each, values_as_typed  # noqa: PLC0415
    from bench.cli.refusals.override_checks import OverrideError, values_missing  # noqa: PLC0415 - see above

    values: dict[str, Sequence[str]] = {}
    for key, each in last_of_each(overrides).items():
        line = str(each.input_line)
        if each.is_sweep_override() and not each.is_discrete_sweep():
            remedy = "an interval has no list of values; use a choice or a range, or search it: hydra/sweeper=optuna"
            raise OverrideError(line, remedy)
        try:
            values[key] = found = values_as_typed(each)
        except (HydraException, ValueError, TypeError) as error:
            reason = f"gives no values ({error.__cause__ or error})"
            raise OverrideError(line, f"{reason}; {values_missing(line)}") from error
        if not found:
            raise OverrideError(line, f"gives no values; {values_missing(line)}")
    return values


def product(values: dict[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination; the last key varies fastest."""
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def varying(points: list[dict[str, str]]) -> set[str]:
    """Return the keys whose values differ between points, including keys that only some points have."""
    keys = {key for point in points for key in point}
    return {key for key in keys if len({point.get(key) for point in points}) > 1}
