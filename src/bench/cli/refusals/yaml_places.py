"""Find a key, a choice or a line of a sweep's settings in the loaded YAML files.

Called only after a config was refused, or when it may be. Places are FILE:LINE, as
`bench.cli.composition.yaml_files.place` formats them.

Not covered: values that other files change, and packages other than `_global_` or a section.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import yaml

from bench.cli.composition.yaml_files import LoadedFile, compose, find_node, loaded_files, shortened
from bench.config.renamed import RENAMED

NULL = "tag:yaml.org,2002:null"
OF_SWEEPER = ("params", "settings")
GLOBAL = "_global_"


def find_place(key: str, value: str | None = None) -> str | None:
    """Return file and line that set a key (to this value, if one is given); None if none does."""
    names = [key, *(old for old, new in RENAMED.items() if new == key)]
    for file in last_first():
        for line, found in (each for name in names for each in _settings_of(file, name)):
            if value is None or found is None or value in (found, *_elements(found)):
                return file.place(line)
    return None


def find_line(text: str) -> str | None:
    """Return file and line whose `hydra.sweeper.settings` contain this line or override; None if none does."""
    for file in last_first():
        for node in _lines_of(file):
            if text in (node.value, *_words(node.value)):
                return file.place(node.start_mark.line + 1)
    return None


def find_sweep() -> str | None:
    """Return file and line that define what a sweep varies; None if none does."""
    for file in last_first():
        for key in OF_SWEEPER:
            node = find_node(compose(file.text), _below(file, f"hydra.sweeper.{key}"))
            if node is not None and node.value:
                return file.place(node.start_mark.line + 1)
    return None


def find_ignored_override(group: str) -> tuple[str, str] | None:
    """Return place and choice of an `override /GROUP: CHOICE` that Hydra ignores, as the primary config has one too."""
    for file in loaded_files():
        if "/" in file.config_path and group in file.text:
            for key, value in _defaults_of(file):
                if key.value.replace("/", " ").split() == ["override", *group.split("/")]:
                    return file.place(key.start_mark.line + 1), short(value)
    return None


def find_choice(group: str, choice: str) -> str | None:
    """Return file and line whose defaults list (or sweep) makes this choice; None if none does."""
    for file in last_first():
        for key, value in _defaults_of(file):
            name = key.value.removeprefix("override ").strip().lstrip("/").partition("@")[0]
            if isinstance(value, yaml.ScalarNode) and value.value == choice and name == group.rpartition("/")[2]:
                return file.place(value.start_mark.line + 1)
            if isinstance(value, yaml.ScalarNode) and (name, value.value) == (group, choice):
                return file.place(value.start_mark.line + 1)
    return find_place(group, choice)


def find_text(*texts: str) -> str | None:
    """Return file and line that contain all these texts in one line; None if none does."""
    for file in last_first():
        for number, line in enumerate(file.text.splitlines(), 1):
            if all(each in line for each in texts):
                return file.place(number)
    return None


def last_first() -> list[LoadedFile]:
    """Return the loaded files, highest priority first: top-level content is merged after sections."""
    files = list(enumerate(loaded_files()))
    return [file for _, file in sorted(files, key=lambda each: (each[1].package == GLOBAL, each[0]), reverse=True)]


# ---- where a key is set ------------------------------------------------------------------------------------------


def _settings_of(file: LoadedFile, key: str) -> Iterator[tuple[int, str | None]]:
    """Yield line and text of each value that a file gives a key, directly or for a sweep. Text None: no plain value."""
    root = compose(file.text)
    prefix = prefix_of(file)
    parts = key.split(".")
    if prefix is not None and parts[: len(prefix)] == prefix:
        node = find_node(root, parts[len(prefix) :])
        if node is not None and parts[len(prefix) :]:
            yield node.start_mark.line + 1, _text(node)
    for name, value in params_of(file, root):
        if name == key:
            yield value.start_mark.line + 1, _text(value)
    for node in _lines_of(file):
        for override in _words(node.value):
            name, _, value_text = override.lstrip("+~").partition("=")
            if name == key:
                yield node.start_mark.line + 1, value_text


def params_of(file: LoadedFile, root: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Yield each key under `hydra.sweeper.params`, nested ones dotted, and its value."""
    node = root if prefix else find_node(root, _below(file, "hydra.sweeper.params"))
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            dotted = f"{prefix}{getattr(name, 'value', '')}"
            if isinstance(value, yaml.MappingNode):
                yield from params_of(file, value, f"{dotted}.")
            yield dotted, value


def _lines_of(file: LoadedFile) -> Iterator[yaml.ScalarNode]:
    node = find_node(compose(file.text), _below(file, "hydra.sweeper.settings"))
    if isinstance(node, yaml.SequenceNode):
        yield from (each for each in node.value if isinstance(each, yaml.ScalarNode))


def _below(file: LoadedFile, key: str) -> list[str]:
    """Return the keys of a value within a file, without the file's package."""
    parts, prefix = key.split("."), prefix_of(file) or []
    return parts[len(prefix) :] if parts[: len(prefix)] == prefix else ["", ""]


def _defaults_of(file: LoadedFile) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    node = find_node(compose(file.text), ["defaults"])
    for each in node.value if isinstance(node, yaml.SequenceNode) else ():
        for key, value in each.value if isinstance(each, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                yield key, value


def prefix_of(file: LoadedFile) -> list[str] | None:
    """Return the keys under which a file's content is placed; None if the file alone does not determine them."""
    folder = file.config_path.rpartition("/")[0]
    if file.package is None or file.package == "_group_":
        return folder.split("/") if folder else []
    if file.package == GLOBAL:
        return []
    return None if "_" in file.package[:1] else file.package.split(".")


def _text(node: yaml.Node) -> str | None:
    if isinstance(node, yaml.ScalarNode):
        return "null" if node.tag == NULL else str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return ",".join(str(getattr(each, "value", "")) for each in node.value)
    return None


def _elements(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def short(node: yaml.Node) -> str:
    """Return a value as typed, in one short line."""
    if isinstance(node, yaml.ScalarNode):
        return "null" if node.tag == NULL and node.style is None else shortened(node.value, 120)
    if isinstance(node, yaml.SequenceNode):
        return shortened(f"[{', '.join(map(short, node.value))}]", 120)
    if isinstance(node, yaml.MappingNode):
        return shortened("{" + ", ".join(f"{short(name)}: {short(value)}" for name, value in node.value) + "}", 120)
    return ""
