"""Compose the points of a sweep with Hydra's results, but thousands of points per minute.

Hydra takes 0.1 s per point: it rereads all files, determines which of them the groups choose, merges them, and then
applies the value overrides one by one. Here files are read once (`loading`), all points that choose the same files
share one composition, and Hydra's own code applies the values to a copy of it: results, errors and messages are those
of Hydra's `load_sweep_config`.

`JobLoader` composes a job's config, including Hydra's own section, in the same way when the job is launched.

Hydra itself composes points with overrides of Hydra's own values or references to them. It composes all points if this
version lacks the required steps (`bench.compat.hydra_internals`), or if the result for the first point differs from
Hydra's. Errors are always confirmed by Hydra.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

import copy
import dataclasses
import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf, open_dict

from bench.compat import override_internals
from bench.compat.hydra_internals import steps_of
from bench.compat.omegaconf_internals import can_share_nodes, content_of, fill
from hydra_plugins.bench_sweeper.loading import Loading

# A reference such as ${hydra.job.num}, which is missing in a config without its key `hydra`. The resolver in
# ${hydra:job.num} reads Hydra's global state, independently of this composition.
_OF_HYDRA = re.compile(r"\bhydra\b(?!:)")
# Hydra's own values that the sweeper sets in each job; no other value of that section depends on them.
_PLACE = ("hydra.sweep.dir", "hydra.sweep.subdir")
_VARIABLE = "hydra.job.env_set."
_BASES_KEPT = 1000  # mostly shared sections; otherwise 0.1 MB each


@dataclasses.dataclass(frozen=True)
class _Base:
    """Hold the composition of one choice of files, before any value is overridden."""

    root: DictConfig  # empty
    sections: dict[str, Node]  # all but `hydra`; shared with returned configs, and never modified
    has_references: bool  # at least one ${...}
    has_references_to_hydra: bool


class Composer:
    """Compose points of one sweep. Use one instance for the whole sweep, because it caches what it has read."""

    def __init__(self, loader: Any, master: DictConfig) -> None:
        """Store Hydra's loader and the config that it composed for the whole sweep."""
        self._loader = loader
        self._master = master
        self._loading = _loading(loader, master)
        self._compared: set[str] = set()
        self._parsed: dict[str, Any] = {}
        self._bases: dict[tuple[str, ...], _Base] = {}

    @property
    def is_quick(self) -> bool:
        """Check whether points are composed without Hydra's loader."""
        return self._loading is not None

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of a point, without the key `hydra`, as `load_sweep_config` composes it.

        Args:
            overrides: as on the command line, each with a single value.

        Returns:
            A read-only config: sections that no override changes are shared with other results.

        Raises:
            The exceptions of Hydra and OmegaConf for the same overrides, with the same messages.
        """
        return self._compose("points", overrides, self._compose_point, self._point_by_hydra)

    def compose_job(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of a job, with the key `hydra`, as `load_sweep_config` composes it; it may be modified.

        Args:
            overrides: those of a point, and of its job's folder.

        Raises:
            The exceptions of Hydra and OmegaConf for the same overrides, with the same messages.
        """
        return self._compose("jobs", overrides, self._compose_job, self._job_by_hydra)

    def _compose(
        self,
        kind: str,
        overrides: Sequence[str],
        quickly: Callable[[Loading, Sequence[str]], DictConfig | None],
        by_hydra: Callable[[Sequence[str]], DictConfig],
    ) -> DictConfig:
        """Compose quickly; let Hydra also compose the first config of a kind, and those that fail.

        If the two results differ, or Hydra does not fail either, Hydra composes all further configs.

        Args:
            kind: "points" or "jobs"; the first config of each is compared.
            overrides: those of this config.
            quickly: composes quickly; returns None for configs that only Hydra can compose.
            by_hydra: composes with Hydra's loader.
        """
        made, has_failed = None, False
        if self._loading is not None:
            try:
                made = quickly(self._loading, overrides)
            except Exception:  # noqa: BLE001 - a step of another version may raise anything; Hydra decides
                has_failed = True
        if made is not None and kind in self._compared:
            return made
        right = by_hydra(overrides)
        if has_failed or (made is not None and not _are_same(made, right)):
            self._loading = None
            return right
        if made is None:
            return right
        self._compared.add(kind)
        return made

    def _compose_point(self, loading: Loading, overrides: Sequence[str]) -> DictConfig | None:
        parsed = [self._parse(each) for each in overrides]
        loading.steps.check_overrides([*loading.overrides, *parsed])
        groups = [each for each in parsed if loading.chooses_file(each)]
        values = [each for each in parsed if not loading.chooses_file(each)]
        if any(_concerns_hydra(each) for each in values):
            return None
        base = self._base(loading, groups)
        with_references = base.has_references or any("$" in str(each.input_line) for each in values)
        if with_references and (base.has_references_to_hydra or any(_refers_to_hydra(each) for each in values)):
            return None
        # With references, an override may affect sections that it does not name.
        changed = base.sections if with_references else {each.key_or_group.partition(".")[0] for each in values}
        config = _config(base, changed)
        loading.steps.apply(values, config)
        return _without_hydra(config)

    def _compose_job(self, loading: Loading, overrides: Sequence[str]) -> DictConfig | None:
        parsed = [*map(self._parse, overrides)]
        groups = [each for each in parsed if loading.chooses_file(each)]
        values = [each for each in parsed if not loading.chooses_file(each)]
        if any(_concerns_hydra(each) and not _is_place(each) for each in values):
            return None
        loading.steps.check_overrides([*loading.overrides, *parsed])
        merged = loading.compose(groups)
        config = copy.deepcopy(merged.root)
        fill(config, copy.deepcopy({"hydra": merged.hydra, **merged.sections}))
        loading.steps.apply(values, config)
        self._tell_of_itself(loading, config, [*loading.overrides, *parsed], merged.choices)
        loading.steps.check_plugins(self._master, config.hydra, merged.choices)
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        return config

    def _tell_of_itself(
        self, loading: Loading, config: DictConfig, overrides: Sequence[Any], choices: Mapping[str, str | None]
    ) -> None:
        """Store overrides and choices in the config, as Hydra does after it has applied all values."""
        of_the_job = [each for each in overrides if not each.is_hydra_override()]
        config.hydra.overrides.hydra.extend([each.input_line for each in overrides if each.is_hydra_override()])
        config.hydra.overrides.task.extend([each.input_line for each in of_the_job])
        with open_dict(config.hydra):
            config.hydra.runtime.choices.update(choices)
            for name in config.hydra.job.env_copy:
                config.hydra.job.env_set[name] = os.environ[name]
        for name in ("version", "version_base", "cwd", "config_sources"):  # the same for all configs of this process
            config.hydra.runtime[name] = self._master.hydra.runtime[name]
        loading.steps.name_folder(config, of_the_job)
        for name in ("name", "config_name"):
            if name not in config.hydra.job:
                config.hydra.job[name] = self._master.hydra.job[name]

    def _parse(self, line: str) -> Any:
        if line not in self._parsed:
            (self._parsed[line],) = override_internals.parse([line])
        return self._parsed[line]

    def _base(self, loading: Loading, groups: list[Any]) -> _Base:
        key = tuple(str(each.input_line) for each in groups)
        if key not in self._bases:
            if len(self._bases) == _BASES_KEPT:
                self._bases.clear()
            self._bases[key] = self._make_base(loading, groups)
        return self._bases[key]

    def _make_base(self, loading: Loading, groups: list[Any]) -> _Base:
        merged = loading.compose(groups)
        loading.steps.check_plugins(self._master, merged.hydra, merged.choices)
        text = repr(merged.sections)
        has_references = "${" in text
        return _Base(
            root=merged.root,
            sections=merged.sections,
            has_references=has_references,
            has_references_to_hydra=has_references and _OF_HYDRA.search(text) is not None,
        )

    def _point_by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        config = self._job_by_hydra(overrides)
        if can_share_nodes():
            return _without_hydra(config)
        return OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])

    def _job_by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self._loader.load_sweep_config(self._master, list(overrides))
        return config


def _loading(loader: Any, master: DictConfig) -> Loading | None:
    """Return the object that loads the files of a sweep once; None if this version of Hydra does not support it."""
    steps = steps_of(loader, master)
    if steps is None:
        return None
    try:
        return Loading(steps, master.hydra.job.config_name, list(master.hydra.overrides.hydra))
    except Exception:  # noqa: BLE001 - as in `_compose`
        return None


def _are_same(one: DictConfig, other: DictConfig) -> bool:
    one_text, other_text = (str(OmegaConf.to_yaml(each)) for each in (one, other))
    return one_text == other_text


class JobLoader:
    """Replace Hydra's loader in a launcher that runs jobs one by one in this process, to compose them faster."""

    def __init__(self, loader: Any, composer: Composer) -> None:
        self._loader = loader
        self._composer = composer

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return a job's config. `master_config` is the one that the composer already has."""
        del master_config
        return self._composer.compose_job(sweep_overrides)

    def __getattr__(self, name: str) -> Any:
        """Delegate all other attributes to Hydra's loader."""
        return getattr(self._loader, name)


def _is_place(override: Any) -> bool:
    return bool(override.key_or_group in _PLACE or override.key_or_group.startswith(_VARIABLE))


def _concerns_hydra(override: Any) -> bool:
    return bool(override.is_hydra_override() or override.key_or_group == "hydra")


def _refers_to_hydra(override: Any) -> bool:
    line = str(override.input_line)
    return "$" in line and _OF_HYDRA.search(line) is not None


def _config(base: _Base, changed: Container[str]) -> DictConfig:
    """Return a config with copies of the changed sections; it shares the others with the base."""
    config = copy.deepcopy(base.root)
    fill(config, {name: copy.deepcopy(node) if name in changed else node for name, node in base.sections.items()})
    return config


def _without_hydra(config: DictConfig) -> DictConfig:
    """Return the result of `OmegaConf.masked_copy`, but share the nodes: copying them takes most of the time."""
    kept = OmegaConf.create()
    fill(kept, {name: node for name, node in content_of(config).items() if name != "hydra"})
    return kept
