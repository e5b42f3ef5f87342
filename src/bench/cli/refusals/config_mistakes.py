"""Find the wrong line in the YAML files, only after Hydra or a rule has refused a config.

Hydra's own messages use its internal terms, and name at most a group. `find_mistake` searches the loaded files again
for mistakes that show in a single file: its structure, its keys and the types of its values. If a rule refuses a
value, `bench.cli.refusals.yaml_places` finds the file that sets it.

Not covered: values that other files change, and packages other than `_global_` or a section.
"""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence

import yaml

from bench.cli.composition.yaml_files import LoadedFile, compose, shortened
from bench.cli.refusals.yaml_places import GLOBAL, NULL, OF_SWEEPER, last_first, params_of, prefix_of, short
from bench.config.renamed import RENAMED
from bench.config.rules import Rule
from bench.config.schema import BenchmarkConfig, no_such_key, walk

BOOL = "tag:yaml.org,2002:bool"
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list in brackets, [A,B]",
}
BOOLS = ("true", "false", "on", "off", "yes", "no", "y", "n", "1", "0")  # as OmegaConf reads them
HEADER = "# @package _global_"
PACKAGES = (GLOBAL, "_group_", "_name_")


def find_mistake(groups: Sequence[str], names: Mapping[str, str]) -> str | None:
    """Return the first mistake in the loaded files, starting with the last file: FILE:LINE: key=value: remedy.

    Args:
        groups: the groups that accept choices, such as compile and hydra/launcher.
        names: further names that an unknown key may mean, as for `bench.config.schema.no_such_key`.
    """
    for file in last_first():
        for line, text in _Look(file, groups, names).mistakes():
            return f"{file.place(line)}: {text}"
    return None


def kinds_of(key: str) -> str | None:
    """Return the types that a key accepts, in words; None for an unknown key."""
    kind = next((kind for path, _, _, kind in walk(BenchmarkConfig) if path == key), None)
    return None if kind is None else _kinds(_classes(kind))


# ---- what is wrong in a file -------------------------------------------------------------------------------------


class _Look:
    """Check one file. Mistakes are pairs of a line and a text: key=value: remedy."""

    def __init__(self, file: LoadedFile, groups: Sequence[str], names: Mapping[str, str]) -> None:
        self.file, self.groups, self.names = file, groups, names
        self.keys = {path: (kind, rule) for path, _, rule, kind in walk(BenchmarkConfig)}
        self.keys |= {old: self.keys[new] for old, new in RENAMED.items()}
        self.sections = {path.partition(".")[0] for path in self.keys if "." in path}

    def mistakes(self) -> Iterator[tuple[int, str]]:
        root = compose(self.file.text)
        prefix = prefix_of(self.file)
        folder = self.file.config_path.rpartition("/")[0]
        if prefix is None and (self.file.package or "").partition(".")[0] not in PACKAGES:
            yield 1, f"@package {self.file.package}: no such package; write {HEADER}"
            return
        if prefix and prefix[0] not in (*self.sections, "hydra"):
            what = "is empty" if root is None else f"its keys are put below {'.'.join(prefix)}, which is no section"
            if self.file.package is None:
                yield 1, f"{what}; its first line must be {HEADER}"
            else:
                yield 1, f"@package {self.file.package}: {what}; write {HEADER}"
            return
        if root is None or prefix is None:
            return
        if not isinstance(root, yaml.MappingNode):
            kind = "a list" if isinstance(root, yaml.SequenceNode) else "a text"
            yield root.start_mark.line + 1, f"{shortened(short(root), 60)}: is {kind}; write KEY: VALUE in each line"
            return
        for name, value in root.value:
            if getattr(name, "value", None) == "defaults":
                yield from self._defaults(value, folder)
        yield from self._mapping(root, prefix)

    def _mapping(self, node: yaml.MappingNode, prefix: list[str]) -> Iterator[tuple[int, str]]:
        if prefix[:2] == ["hydra", "sweeper"] and len(prefix) == 2:
            yield from self._sweeper(node)
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode) or (not prefix and name.value == "defaults") or name.value == "<<":
                continue
            path = ".".join([*prefix, name.value])
            line = name.start_mark.line + 1
            if prefix[:1] == ["hydra"] or path == "hydra":
                yield from self._of_hydra(value, path, line)
            elif "." in name.value and not self._is_open(path):
                yield line, self._dotted(value, path)
            elif path in self.sections:
                yield from self._section(value, path, line)
            elif path in self.keys:
                yield from self._leaf(value, path, line)
            elif not self._is_open(path):
                yield line, self._unknown(value, path)

    def _of_hydra(self, value: yaml.Node, path: str, line: int) -> Iterator[tuple[int, str]]:
        if path not in ("hydra", "hydra.sweeper"):
            return
        if isinstance(value, yaml.MappingNode):
            yield from self._mapping(value, path.split("."))
        else:
            yield line, f"{path}={short(value)}: is a section; write its keys below it, indented"

    def _is_open(self, path: str) -> bool:
        """Check whether a key is in a mapping that accepts any key."""
        return any(path.startswith(f"{key}.") and dict in _classes(kind) for key, (kind, _) in self.keys.items())

    def _section(self, value: yaml.Node, path: str, line: int) -> Iterator[tuple[int, str]]:
        if isinstance(value, yaml.MappingNode):
            yield from self._mapping(value, [path])
            return
        typed = short(value)
        text = (
            f"{path}={typed}: {path} is a section; write its keys below it, indented (bench --keys {path} lists them)"
        )
        if isinstance(value, yaml.ScalarNode) and value.tag == NULL:
            text = f"{path}={typed}: the section is empty; write its keys below it, indented, or leave it out"
        elif isinstance(value, yaml.ScalarNode) and path in self.groups:
            text += f", or choose a file in the defaults list: - override /{path}: {typed}"
        yield line, text

    def _leaf(self, value: yaml.Node, path: str, line: int) -> Iterator[tuple[int, str]]:
        kind, rule = self.keys[path]
        classes = _classes(kind)
        typed = short(value)
        if isinstance(value, yaml.ScalarNode):
            wrong = None
            if value.tag == NULL and value.style is None:
                if type(None) not in classes:
                    default = _default(rule)
                    wrong = f"needs a value; leave it out for its default ({default})"
            elif "${" not in value.value and not rule.words and not _fits(value, classes):
                wrong = f"must be {_kinds(classes)}"
            if wrong:
                yield line, f"{path}={typed}: {wrong}"
        elif isinstance(value, yaml.SequenceNode) and list not in classes:
            wrong = f"is a list, and must be {_kinds(classes)}"
            if dict not in classes:
                values = ",".join(short(each) for each in value.value)
                wrong += f"; several values make a sweep: under hydra.sweeper.params write {path}: {values}"
            yield line, f"{path}={typed}: {wrong}"
        elif isinstance(value, yaml.MappingNode) and dict not in classes:
            yield line, f"{path}={typed}: has keys below it, and must be {_kinds(classes)}"

    def _unknown(self, value: yaml.Node, path: str) -> str:
        typed = f"{path}={short(value)}" if isinstance(value, yaml.ScalarNode) else path
        if path in OF_SWEEPER or path == "sweeper":
            whole = "hydra.sweeper" if path == "sweeper" else f"hydra.sweeper.{path}"
            return f"{path}: no such key here; what a sweep varies belongs under {whole}, each part a line, indented"
        return f"{typed}: {no_such_key(path, self.names)}"

    def _dotted(self, value: yaml.Node, path: str) -> str:
        typed = f"{path}={short(value)}"
        if path not in self.keys:
            return f"{typed}: {no_such_key(path, self.names)}"
        section, _, leaf = path.partition(".")
        return f"{typed}: keys are nested in a file; write {section}: and below it, indented, {leaf}: {short(value)}"

    # ---- defaults list, params, settings -------------------------------------------------------------------------

    def _defaults(self, node: yaml.Node, folder: str) -> Iterator[tuple[int, str]]:
        if not isinstance(node, yaml.SequenceNode):
            example = "- override /compile: default"
            yield node.start_mark.line + 1, f"defaults={short(node)}: must be a list of choices, such as {example}"
            return
        for each in node.value:
            line = each.start_mark.line + 1
            if isinstance(each, yaml.ScalarNode) and "=" in each.value:
                group, _, choice = each.value.partition("=")
                yield (
                    line,
                    f"{each.value}: is no item of a defaults list; write - override /{group.strip('/')}: {choice}",
                )
            for key, value in each.value if isinstance(each, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode):
                    yield from self._default(key, value, folder, line)

    def _default(self, key: yaml.ScalarNode, value: yaml.Node, folder: str, line: int) -> Iterator[tuple[int, str]]:
        words = key.value.split()
        is_override, typed = words[:1] == ["override"], words[-1] if words else ""
        group = typed.lstrip("/").partition("@")[0]
        choice = short(value)
        item = f"- {key.value}: {choice}"
        if group in self.groups and (not is_override or not typed.startswith("/")) and folder:
            if group == "experiment" and not is_override:
                return
            yield line, f"{item}: must be - override /{group}: {choice}"
        elif is_override and group not in self.groups and not group.startswith("hydra/"):
            yield line, f"{item}: {no_such_key(group, self.names)}"

    def _sweeper(self, node: yaml.MappingNode) -> Iterator[tuple[int, str]]:
        for name, value in node.value:
            key, line = getattr(name, "value", ""), name.start_mark.line + 1
            path = f"hydra.sweeper.{key}"
            is_null = isinstance(value, yaml.ScalarNode) and value.tag == NULL
            if is_null and key in OF_SWEEPER:
                yield line, f"{path}=null: is empty; write what is swept below it, indented, or leave it out"
            elif key == "params" and not isinstance(value, yaml.MappingNode):
                example = "workload.batch_size: 1,2"
                yield line, f"{path}={short(value)}: must be keys with their values, each a line, such as {example}"
            elif key == "settings" and not isinstance(value, yaml.SequenceNode):
                yield line, f"{path}={short(value)}: must be a list of lines, such as - attention=eager compile=off"
            elif key == "settings" and isinstance(value, yaml.SequenceNode):
                yield from self._lines(value)
            elif key == "params" and isinstance(value, yaml.MappingNode):
                yield from self._params()

    def _lines(self, node: yaml.SequenceNode) -> Iterator[tuple[int, str]]:
        for each in node.value:
            line = each.start_mark.line + 1
            if isinstance(each, yaml.MappingNode):
                pairs = " ".join(f"{short(name)}={short(value)}" for name, value in each.value)
                yield line, f"hydra.sweeper.settings: {short(each)} has keys; write one line of overrides: - {pairs}"
            elif not isinstance(each, yaml.ScalarNode):
                yield line, f"hydra.sweeper.settings: {short(each)} is a list; write one line of overrides"

    def _params(self) -> Iterator[tuple[int, str]]:
        for key, value in params_of(self.file, compose(self.file.text)):
            bare = key.lstrip("+~").partition("@")[0]
            known = bare in self.keys or bare in self.groups or bare.startswith("hydra.") or self._is_open(bare)
            if isinstance(value, yaml.MappingNode) or known or key.startswith("+"):
                continue
            line = value.start_mark.line + 1
            yield line, f"{key}={short(value)}: {no_such_key(bare, self.names)}"


def _classes(kind: typing.Any) -> tuple[type, ...]:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return tuple(typing.get_origin(each) or each for each in options)


def _kinds(classes: Sequence[type]) -> str:
    names = [KINDS[each] for each in classes if each in KINDS]
    names += ["keys below it"] if dict in classes else []
    return " or ".join([*names, *(["null"] if type(None) in classes else [])])


def _fits(node: yaml.ScalarNode, classes: Sequence[type]) -> bool:
    """Check whether OmegaConf can convert a scalar to one of the types."""
    if str in classes or node.value == "???":
        return True
    if bool in classes:
        return node.tag == BOOL or node.value.lower() in BOOLS
    if node.tag == BOOL:
        return False
    number = node.value.replace("_", "")
    conversions: list[Callable[[str], object]] = [int, lambda text: int(text, 0)]
    for convert in [*conversions, float] if float in classes else conversions:
        with contextlib.suppress(ValueError):
            convert(number)
            return True
    return False


def _default(rule: Rule) -> str:
    value = rule.default
    return str(value).lower() if isinstance(value, bool) else str(value)
