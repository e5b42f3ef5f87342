"""The points of a sweep composed as Hydra does it, but thousands of them in a minute.

Hydra takes a tenth of a second for one: it reads all files anew, finds out which of them the groups choose, merges
them, and then applies the overrides of values one after the other. Here files are read once (`loading`), one
composition serves all points that choose the same files, and the values go onto a copy of it, through the very code
that Hydra applies them with: the results, and the errors with their texts, are those of its `load_sweep_config`.

A job's config, with Hydra's own part, is made in the same way when the job is launched (`JobLoader`).

What cannot be told apart that way is left to Hydra itself: overrides of Hydra's own values, and references to them.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""
# ruff: noqa: SLF001 - the steps of Hydra's composition, and what a config holds unresolved, have no public names

import copy
import dataclasses
import os
import re
from collections.abc import Container, Mapping, Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf, open_dict

from hydra_plugins.bench_sweeper.loading import Loading, content_of

# A reference such as ${hydra.job.num}, to what a config without its key `hydra` no longer holds. The resolver in
# ${hydra:job.num} asks Hydra's global state, whatever is composed here.
_OF_HYDRA = re.compile(r"\bhydra\b(?!:)")
# What the sweeper sets of Hydra's own values in each job, and nothing of the rest of that section is made of.
_PLACE = ("hydra.sweep.dir", "hydra.sweep.subdir")
_VARIABLE = "hydra.job.env_set."
_BASES_KEPT = 1000  # mostly made of shared sections; where they are not, a tenth of a megabyte each


@dataclasses.dataclass(frozen=True)
class _Base:
    """What one choice of files makes, before any value is overridden."""

    root: DictConfig  # without anything in it
    sections: dict[str, Node]  # all but `hydra`; they become parts of what is handed out, and are never changed
    has_references: bool  # one ${...} at least
    has_references_to_hydra: bool


class Composer:
    """Composes points of one sweep. One instance serves the whole sweep, for it keeps what it has read."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        """Take Hydra's loader and the config that it composed for the sweep as a whole."""
        assert isinstance(loader, ConfigLoaderImpl)  # the one there is; its steps are called singly here
        self._loader = loader
        self._master = master
        self._loading = Loading(loader, master.hydra.job.config_name, list(master.hydra.overrides.hydra))
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._bases: dict[tuple[str, ...], _Base] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a point, without the key `hydra`, as `load_sweep_config` makes it of the same overrides.

        Args:
            overrides: as on the command line, one value each.

        Returns:
            A config to be read only: sections that no override touches are parts of other results, too.

        Raises:
            What Hydra and OmegaConf raise for the same overrides, in the same words.
        """
        parsed = [self._parse(each) for each in overrides]
        self._loader.validate_sweep_overrides_legal([*self._loading.overrides, *parsed], RunMode.RUN, from_shell=True)
        groups = [each for each in parsed if self._loading.chooses_file(each)]
        values = [each for each in parsed if not self._loading.chooses_file(each)]
        if any(_concerns_hydra(each) for each in values):
            return self._compose_by_hydra(overrides)
        base = self._base(groups)
        with_references = base.has_references or any("$" in str(each.input_line) for each in values)
        if with_references and (base.has_references_to_hydra or any(_refers_to_hydra(each) for each in values)):
            return self._compose_by_hydra(overrides)
        # References would lead from an override into sections that it does not name.
        changed = base.sections if with_references else {each.key_or_group.partition(".")[0] for each in values}
        config = _config(base, changed)
        self._loader._apply_overrides_to_config(values, config)
        return _without_hydra(config)

    def compose_job(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, with the key `hydra`, as `load_sweep_config` makes it; nobody else's, to be changed.

        Args:
            overrides: a point's, and where its job runs.

        Raises:
            What Hydra and OmegaConf raise for the same overrides, in the same words.
        """
        parsed = [*map(self._parse, overrides)]
        groups = [each for each in parsed if self._loading.chooses_file(each)]
        values = [each for each in parsed if not self._loading.chooses_file(each)]
        if any(_concerns_hydra(each) and not _is_place(each) for each in values):
            return self._loader.load_sweep_config(self._master, list(overrides))
        self._loader.validate_sweep_overrides_legal([*self._loading.overrides, *parsed], RunMode.RUN, from_shell=True)
        merged = self._loading.compose(groups)
        config = copy.deepcopy(merged.root)
        _fill(config, copy.deepcopy({"hydra": merged.hydra, **merged.sections}))
        self._loader._apply_overrides_to_config(values, config)
        self._tell_of_itself(config, [*self._loading.overrides, *parsed], merged.choices)
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        return config

    def _tell_of_itself(
        self, config: DictConfig, overrides: Sequence[Override], choices: Mapping[str, str | None]
    ) -> None:
        """Note what the config was composed of, as Hydra does after it has applied all values."""
        of_the_job = [each for each in overrides if not each.is_hydra_override()]
        config.hydra.overrides.hydra.extend([each.input_line for each in overrides if each.is_hydra_override()])
        config.hydra.overrides.task.extend([each.input_line for each in of_the_job])
        with open_dict(config.hydra):
            config.hydra.runtime.choices.update(choices)
            for name in config.hydra.job.env_copy:
                config.hydra.job.env_set[name] = os.environ[name]
        for name in ("version", "version_base", "cwd", "config_sources"):  # the same for all of this process
            config.hydra.runtime[name] = self._master.hydra.runtime[name]
        naming = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            overrides=of_the_job,
            kv_sep=naming.kv_sep,
            item_sep=naming.item_sep,
            exclude_keys=naming.exclude_keys,
        )
        for name in ("name", "config_name"):
            if name not in config.hydra.job:
                config.hydra.job[name] = self._master.hydra.job[name]

    def _parse(self, line: str) -> Override:
        if line not in self._parsed:
            self._parsed[line] = self._parser.parse_overrides([line])[0]
        return self._parsed[line]

    def _base(self, groups: list[Override]) -> _Base:
        key = tuple(str(each.input_line) for each in groups)
        if key not in self._bases:
            if len(self._bases) == _BASES_KEPT:
                self._bases.clear()
            self._bases[key] = self._make_base(groups)
        return self._bases[key]

    def _make_base(self, groups: list[Override]) -> _Base:
        merged = self._loading.compose(groups)
        text = repr(merged.sections)
        has_references = "${" in text
        return _Base(
            root=merged.root,
            sections=merged.sections,
            has_references=has_references,
            has_references_to_hydra=has_references and _OF_HYDRA.search(text) is not None,
        )

    def _compose_by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        return _without_hydra(self._loader.load_sweep_config(self._master, list(overrides)))


class JobLoader(ConfigLoaderImpl):
    """Hydra's loader for a launcher that runs jobs one by one in this process: it composes them the faster way."""

    def __init__(self, loader: ConfigLoader, composer: Composer) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        super().__init__(loader.config_search_path)
        self._composer = composer

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job's config. `master_config` is the one that the composer knows already."""
        del master_config
        return self._composer.compose_job(sweep_overrides)


def _is_place(override: Override) -> bool:
    return override.key_or_group in _PLACE or override.key_or_group.startswith(_VARIABLE)


def _concerns_hydra(override: Override) -> bool:
    return override.is_hydra_override() or override.key_or_group == "hydra"


def _refers_to_hydra(override: Override) -> bool:
    line = str(override.input_line)
    return "$" in line and _OF_HYDRA.search(line) is not None


def _config(base: _Base, changed: Container[str]) -> DictConfig:
    """A config of which these sections may be changed; the others are the base's own."""
    config = copy.deepcopy(base.root)
    _fill(config, {name: copy.deepcopy(node) if name in changed else node for name, node in base.sections.items()})
    return config


def _without_hydra(config: DictConfig) -> DictConfig:
    """What `OmegaConf.masked_copy` makes, but of the same nodes: copying them takes most of the time."""
    kept = OmegaConf.create()
    _fill(kept, {name: node for name, node in content_of(config).items() if name != "hydra"})
    return kept


def _fill(config: DictConfig, nodes: dict[str, Node]) -> None:
    # Setting an item would look through all that is in it.
    for node in nodes.values():
        node._set_parent(config)
    content_of(config).update(nodes)
