"""Implement the sweeper plugin of a search: convert overrides to a space for `bench.orchestration.search.search`.

Chosen by `hydra/sweeper=optuna` (conf/hydra/sweeper/optuna.yaml). Hydra imports this file at every start, so nothing
heavy may be imported at its top.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.bench_sweeper.bench_sweeper import BenchSweeper, of_keys
from hydra_plugins.bench_sweeper.params import lines_of

if TYPE_CHECKING:
    from bench.config.schema import BenchmarkConfig
    from bench.jobs.planning.search_space import Choice, Range, Space


class OptunaSweeper(BenchSweeper):
    """Compose the settings that a study requests, and run them through the chosen launcher."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search; exit by SystemExit, because Hydra discards a sweeper's result."""
        from bench.cli.composition import checked_config  # noqa: PLC0415 - see above
        from bench.cli.composition.quoting import readable  # noqa: PLC0415
        from bench.cli.composition.renamed_keys import current_overrides  # noqa: PLC0415
        from bench.cli.composition.text_overrides import parse  # noqa: PLC0415
        from bench.cli.refusals.message import explain  # noqa: PLC0415
        from bench.cli.refusals.override_checks import OF_HYDRA, check_overrides  # noqa: PLC0415
        from bench.config.inactive import check_effect  # noqa: PLC0415
        from bench.config.rules import ConfigError  # noqa: PLC0415
        from bench.jobs.planning.plan import Point  # noqa: PLC0415
        from bench.orchestration.search.search import search  # noqa: PLC0415
        from bench.orchestration.search.settings import PointError  # noqa: PLC0415

        assert self.hydra_context is not None
        assert self.config is not None
        if self.settings:
            raise HydraException(
                f"hydra.sweeper.settings={self.settings[0]}: lines of overrides are no space to search; "
                "use params, or hydra/sweeper=bench"
            )
        combined = current_overrides([readable(each) for each in lines_of(self.params)])
        check_overrides(combined, OF_HYDRA)
        space = space_of(parse([*combined, *arguments], self.hydra_context.config_loader))

        composer = self._composer()

        def compose(values: dict[str, str]) -> Point:
            overrides = space.fixed | values
            typed = tuple(f"{key}={value}" for key, value in overrides.items())
            try:
                config = checked_config.to_config(composer.compose(typed), typed)
            except (HydraException, OmegaConfBaseException) as error:
                raise PointError(explain(error)) from error
            swept = {key.lstrip("+"): value for key, value in values.items()}
            return Point(overrides=typed, swept=swept, config=config)

        points: list[tuple[list[str], BenchmarkConfig]] = []
        first = {each.key: _first(each) for each in space.parameters}
        with contextlib.suppress(ConfigError, PointError):  # the search handles refused points
            point = compose(first)
            asked = {*first, *(each.partition("=")[0] for each in arguments)}
            points.append((of_keys(point.overrides, asked), point.config))
        check_effect(points, {each.lstrip("+") for each in first})
        self._check_launcher(dry_run=self.config.sweep.dry_run)
        raise SystemExit(
            search(
                space,
                compose,
                folder=self._folder(),
                launch=self._launch_plan,
                is_local=self._runs_one_by_one(),
            )
        )


def _first(parameter: Choice | Range) -> str:
    """Return one value of a free key, as typed."""
    from bench.jobs.planning.search_space import Choice  # noqa: PLC0415

    return parameter.values[0] if isinstance(parameter, Choice) else parameter.written(parameter.low)


def space_of(overrides: list[Any]) -> Space:
    """Return the search space of the overrides; a later override of a key replaces an earlier one.

    Raises:
        HydraException: a range or an interval without numbers to choose from.
    """
    from bench.cli.composition.text_overrides import last_of_each  # noqa: PLC0415
    from bench.jobs.planning.search_space import Space  # noqa: PLC0415

    fixed: dict[str, str] = {}
    free: dict[str, Choice | Range] = {}
    for key, each in last_of_each(overrides).items():
        parameter = _parameter(key, each)
        if isinstance(parameter, str):
            fixed[key] = parameter
        else:
            free[key] = parameter
    return Space(fixed=fixed, parameters=tuple(free.values()))


def _parameter(key: str, override: Any) -> Choice | Range | str:
    """Return the parameter of a free key, or the value of a key that has only one."""
    from bench.cli.composition.text_overrides import casts_of, series, values_as_typed  # noqa: PLC0415
    from bench.jobs.planning.search_space import Choice, Range  # noqa: PLC0415

    if not override.is_sweep_override():
        return values_as_typed(override)[0]
    sweep: Any = override.value()
    is_log = "log" in getattr(sweep, "tags", ())
    if override.is_interval_sweep():
        low: Any = sweep.start
        high: Any = sweep.end
        is_int = isinstance(low, int) and isinstance(high, int)
        if not low < high or (is_log and low <= 0):
            raise HydraException(f"{override.input_line}: needs a lower and a higher bound" + " > 0" * is_log)
        return Range(key=key, low=low, high=high, step=1 if is_int else None, is_int=is_int, is_log=is_log)
    if hasattr(sweep, "shuffle"):
        sweep.shuffle = False  # the study has its own order, and requires the same space at the next start
    values = values_as_typed(override)
    if not values:
        from bench.cli.refusals.override_checks import OverrideError, values_missing  # noqa: PLC0415

        raise OverrideError(str(override.input_line), f"gives no values; {values_missing(str(override.input_line))}")
    if override.is_range_sweep() and len(values) > 1:
        numbers = series(override)
        low, high = sorted([numbers[0], numbers[-1]])
        step = abs(sweep.step)
        for cast in casts_of(sweep):
            low, high, step = cast(low), cast(high), cast(step)
        if isinstance(low, float) or not casts_of(sweep):  # whole numbers or texts may not be evenly spaced
            return Range(key=key, low=low, high=high, step=step, is_int=isinstance(low, int))
    different = tuple(dict.fromkeys(values))
    return different[0] if len(different) == 1 else Choice(key=key, values=different)
