"""Load and merge the files that a point's groups choose, as Hydra does, but only once per choice.

Two properties allow reuse. Neither holds in all cases; where one does not, Hydra repeats the work.

- **The list of files.** A choice without a defaults list of its own has one entry in Hydra's list, and another such
  choice of the same group can replace it.
- **The merging.** Files are merged by top-level key (called *section* here), and a section depends only on the files
  that contain part of it. Therefore a section is unchanged if its files are the same.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.compat.hydra_internals import Steps
from bench.compat.omegaconf_internals import content_of

ROOT = ""  # the key of content outside all sections
HYDRA = "hydra"
_Part = tuple[str | None, str | None, bool]  # a file, its package, whether it is the primary config
_Key = tuple[str, tuple[_Part, ...]]  # a section and its files


@dataclasses.dataclass(frozen=True)
class Merged:
    """Hold a config as sections. Configs share these nodes, so they must never be modified: copy them."""

    root: DictConfig  # empty, with its type and flags
    sections: dict[str, Node]  # all but `hydra`
    hydra: Node  # Hydra's own section
    choices: dict[str, str | None]  # of each group, for `hydra.runtime.choices`


class Loading:
    """Load files for one sweep, whose own overrides and search path apply to all points."""

    def __init__(self, steps: Steps, config_name: str | None, overrides: Sequence[str]) -> None:
        """Store the steps of Hydra's loader; parse the overrides of Hydra's own config, typed for the whole sweep."""
        self.steps = steps
        self._config_name = config_name
        # A caching repository. Hydra creates one per config.
        self.overrides, self._files = steps.files(config_name, overrides)
        self._is_group: dict[str, bool] = {}
        self._copies = steps.copies_of(self._files)
        self._lists: dict[tuple[str, ...], tuple[list[Any], Any]] = {}
        self._read: dict[_Part, dict[str, bool]] = {}
        self._made: dict[_Key, Node] = {}

    def chooses_file(self, override: Any) -> bool:
        """Check whether an override chooses a group's file and sets no value, as Hydra's defaults list decides."""
        name = override.key_or_group
        if name not in self._is_group:
            self._is_group[name] = self._files.group_exists(name)
        if getattr(override, "is_value_path", False):  # Hydra 1.4: a key whose spelling excludes a group
            return False
        return self._is_group[name] and not isinstance(override.value(), dict)

    def compose(self, groups: Sequence[Any]) -> Merged:
        """Return the merged files of these choices; only Hydra's own values are overridden. Raises Hydra's errors."""
        self.steps.check_source()
        try:
            return self._merge(*self._list(groups))
        except OmegaConfBaseException as error:
            raise ConfigCompositionException from error

    # ---- the list of files -------------------------------------------------------------------------------------

    def _list(self, groups: Sequence[Any]) -> tuple[list[Any], dict[str, str | None]]:
        """Return Hydra's defaults list for these choices, and the choice of every group."""
        shape = tuple(each.get_key_element() for each in groups)
        if shape in self._lists:
            before, known = self._lists[shape]
            if (replaced := self._with_others_in_place(before, known.defaults, groups)) is not None:
                others = {
                    other.key_or_group: str(other.value())
                    for one, other in zip(before, groups, strict=True)
                    if one.value() != other.value()
                }
                return replaced, known.overrides.known_choices | others
        found = self.steps.defaults(self._files, self._config_name, [*self.overrides, *groups])
        if not any(self._has_reference(each) for each in found.defaults):
            self._lists[shape] = (list(groups), found)
        return found.defaults, found.overrides.known_choices

    def _with_others_in_place(
        self, before: Sequence[Any], defaults: Sequence[Any], groups: Sequence[Any]
    ) -> list[Any] | None:
        """Return a list made for other choices of the same groups, with these choices instead; None if impossible."""
        replaced = list(defaults)
        for one, other in zip(before, groups, strict=True):
            if one.value() == other.value():
                continue
            places = [place for place, each in enumerate(defaults) if each.override_key == other.key_or_group]
            if len(places) != 1 or not self._are_alike(one, other):
                return None
            default = copy.copy(defaults[places[0]])
            if default.config_path != f"{one.key_or_group}/{one.value()}":
                return None
            default.config_path = f"{other.key_or_group}/{other.value()}"
            replaced[places[0]] = default
        return replaced

    def _are_alike(self, one: Any, other: Any) -> bool:
        """Check whether two choices of a group differ only in the content of their files."""
        loaded = [self._choice(each) for each in (one, other)]
        if any(each is None or each.defaults_list for each in loaded):
            return False
        packages = {str(each.header["package"]) for each in loaded if each is not None}
        return len(packages) == 1 and "_name_" not in packages.pop()

    def _choice(self, override: Any) -> ConfigResult | None:
        """Return the file of a plain choice; None for any other choice, or without a file."""
        name = override.value()
        if override.get_key_element() != override.key_or_group or not isinstance(name, str):  # a sign, or a package
            return None
        if "?" in name or "$" in name:
            return None
        found: ConfigResult | None = self._files.load_config(f"{override.key_or_group}/{name}")
        return found

    def _has_reference(self, default: Any) -> bool:
        """Check whether the meaning of this file's own defaults list depends on other choices."""
        loaded = self._files.load_config(str(default.config_path))
        return loaded is None or any("${" in str(vars(each)) for each in loaded.defaults_list or [])

    # ---- the merging -------------------------------------------------------------------------------------------

    def _merge(self, defaults: list[Any], choices: dict[str, str | None]) -> Merged:
        keys = self._keys(defaults)
        if keys is not None and all(key in self._made for key in keys):
            made = {key[0]: self._made[key] for key in keys}
        else:
            made = self._merge_by_hydra(defaults)
            made |= {key[0]: self._made.setdefault(key, made[key[0]]) for key in keys or () if key[0] in made}
        root = made[ROOT]
        assert isinstance(root, DictConfig)
        sections = {name: node for name, node in made.items() if name not in (ROOT, HYDRA)}
        return Merged(root=root, sections=sections, hydra=made[HYDRA], choices=choices)

    def _merge_by_hydra(self, defaults: list[Any]) -> dict[str, Node]:
        config = self.steps.merge(defaults, self._copies)
        OmegaConf.set_struct(config, True)
        OmegaConf.set_readonly(config.hydra, False)
        values = [each for each in self.overrides if not self.chooses_file(each)]  # all of Hydra's own config
        self.steps.apply(values, config)
        sections = dict(content_of(config))
        content_of(config).clear()
        return {ROOT: config, **sections}

    def _keys(self, defaults: Sequence[Any]) -> list[_Key] | None:
        """Return the sections of a config, each with its files; None if they depend on each other."""
        sections: dict[str, list[_Part]] = {ROOT: []}
        for default in defaults:
            part = (default.config_path, default.package, default.primary)
            found = self._sections_in(default, part)
            if not default.package:
                sections[ROOT].append(part)
            for name in found:
                sections.setdefault(name, []).append(part)
        for name, parts in sections.items():
            # Content merged onto a reference is merged onto a copy of its target.
            if name not in (ROOT, HYDRA) and any(self._read[part][name] for part in parts[:-1]):
                return None
        return [(name, tuple(parts)) for name, parts in sections.items()]

    def _sections_in(self, default: Any, part: _Part) -> dict[str, bool]:
        """Return the sections in a file → whether the file's part contains references."""
        if part not in self._read:
            config = self.steps.load(default, self._copies).config
            content = content_of(config) if isinstance(config, DictConfig) else {}
            self._read[part] = {name: "${" in repr(node) for name, node in content.items()}
        return self._read[part]
