"""The YAML files that Hydra loads: read so that a mistake in one is told with file, line and column.

Hydra reads files through a *source*; ours (`ConfigFiles`) takes the place of its own. It differs in three things:

- What cannot be read as YAML, or is no UTF-8, is one line with the place.
- In a defaults list and in `hydra.sweeper.params` a plain scalar is the text that was typed. YAML reads `off` as false,
  and `compile: off` chooses the file `off.yaml`.
- The files are remembered, so that a mistake that shows later can be traced to its file
  (`bench.cli.refusals.config_mistakes`).
"""

from __future__ import annotations

import builtins
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.compat.hydra_internals import name_of_file_source, replace_file_source
from bench.host.home_folder import expanded

HEADER = 512  # characters in which Hydra looks for `# @package`
PARAMS = ("hydra", "sweeper", "params")
_CLOSED = re.compile(r"\$\{[\w.:,/ '\"-]+\}")
_WRITTEN_OTHERWISE = re.compile(r"[-+]?0[xob]", re.IGNORECASE)  # numbers that only YAML can read


class ConfigFileError(HydraException):
    """A file that cannot be read as a config; its text is one line with file, line and remedy."""


@dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """A YAML file that was read for this command."""

    path: str
    config_path: str  # below the folder of configs, without .yaml: experiment/mine
    package: str | None  # what its `# @package` says
    text: str

    def place(self, line: int | None = None) -> str:
        """The file as one would type it in the start folder, with a line counted from 1."""
        return place(self.path, line)


_loaded: dict[str, LoadedFile] = {}  # in the order of loading
_folders: dict[str, None] = {}  # of all sources
_restoring: list[Callable[[ConfigResult, str | None, str], None]] = []  # none, or what puts a file's texts back


def loaded_files() -> list[LoadedFile]:
    """Every YAML file that was read so far, in the order of loading."""
    return list(_loaded.values())


def place(path: str, line: int | None = None, column: int | None = None) -> str:
    """A file as one would type it in the current folder, with line and column counted from 1."""
    relative = os.path.relpath(path)
    name = path if relative.startswith(f"..{os.sep}..{os.sep}..") else relative
    return ":".join([name, *(str(each) for each in (line, column) if each is not None)])


def other_ending(config_path: str) -> str | None:
    """A file that would be this config if it ended in .yaml."""
    for folder in _folders:
        path = Path(folder, f"{config_path}.yml")
        if path.is_file():
            return place(str(path))
    return None


def groups() -> list[str]:
    """The groups in all folders of configs, such as compile and hydra/launcher."""
    found = set()
    for folder in _folders:
        for path, _, files in os.walk(folder):
            if any(each.endswith(".yaml") for each in files) and path != folder:
                found.add(Path(path).relative_to(folder).as_posix())
    return sorted(found)


def install(restore: Callable[[ConfigResult, str | None, str], None] | None = None) -> None:
    """Have Hydra read files through `ConfigFiles`.

    Args:
        restore: puts the texts of a file in the places of what YAML made of them, where Hydra's loader does not: it is
            given the loaded file, its package and its path below the folder of configs.
    """
    _loaded.clear()
    _folders.clear()
    _restoring[:] = [restore] if restore is not None else []
    replace_file_source(ConfigFiles)


class ConfigFiles(ConfigSource):
    """A source of files as Hydra's own, with one line for a file that cannot be read."""

    def __init__(self, provider: str, path: str) -> None:
        _, separator, rest = path.rpartition("://")
        super().__init__(provider, f"{self.scheme()}://{expanded(rest if separator else path)}")
        _folders[self.path] = None

    @staticmethod
    def scheme() -> str:
        """What an address of such a source begins with."""
        return "file"

    def available(self) -> bool:
        """Whether there is such a folder. One that a user names for the search must be there: Hydra only warns."""
        found = self.is_group("")
        if not found and self.provider.startswith("hydra.searchpath"):
            remedy = "name a folder that exists, as file://FOLDER"
            raise ConfigFileError(f"hydra.searchpath=[{self.full_path()}]: no such folder; {remedy}")
        return found

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a folder."""
        return os.path.isdir(self._place(config_path))  # noqa: PTH112 - a name that is too long is none

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self._place(_with_ending(config_path)))  # noqa: PTH113 - as above

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """The names of the groups and configs in a folder, or of those alone that are asked for."""
        found: set[str] = set()
        for each in Path(self._place(config_path)).iterdir():
            if each.name == "__pycache__":
                continue
            if each.is_dir() and results_filter in (None, ObjectType.GROUP):
                found.add(each.name)
            if each.suffix == ".yaml" and each.is_file() and results_filter in (None, ObjectType.CONFIG):
                found.add(each.stem)
        return sorted(found)

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file. ConfigFileError where it cannot be read as a config."""
        path = self._place(_with_ending(config_path))
        if not Path(path).exists():
            raise ConfigLoadError(f"Config not found : {path}")
        text = _read(path)
        try:
            header = _header(text[:HEADER])
        except ValueError as error:
            remedy = "write # @package _global_"
            raise ConfigFileError(f"{place(path, 1)}: {shortened(error)}; {remedy}") from error
        name = config_path.removesuffix(".yaml")
        _loaded[path] = LoadedFile(path=path, config_path=name, package=header["package"], text=text)
        config = _parse(path, text)
        if isinstance(config, DictConfig):
            _check_single_choices(config, path, text)
            for keys in (("defaults",), PARAMS, *([("params",)] if name.startswith("hydra/sweeper/") else [])):
                _keep_typed(config, keys, text)
        result = ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)
        for restore in _restoring:
            _restore_below(restore, result, name)
        return result

    def _place(self, config_path: str) -> str:
        return os.path.realpath(Path(self.path) / config_path)


# Hydra registers its sources anew in each process, and tells classes by name: ours stays in the place of its own.
ConfigFiles.__name__ = name_of_file_source()


def _with_ending(config_path: str) -> str:
    return config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"


def _header(text: str) -> dict[str, str | None]:
    """The words of the comments that begin a file, such as `# @package _global_`. Raises ValueError."""
    header: dict[str, str | None] = {"package": None}
    for line in filter(None, map(str.strip, text.splitlines())):
        if not re.match(r"#\s*@", line):
            return header
        words = line.lstrip("#").split()
        if len(words) != 2:
            expected = "Too many components in" if len(words) > 2 else "Expected header format: KEY VALUE, got"
            raise ValueError(f"{expected} '{line.lstrip('#').strip()}'")
        header[words[0].removeprefix("@")] = words[1]
    return header


def _restore_below(restore: Callable[[ConfigResult, str | None, str], None], result: ConfigResult, name: str) -> None:
    """Restore a file's texts at the place that the file itself says, which a defaults list may change."""
    package = result.header["package"]
    where = "" if package == "_global_" else name.rpartition("/")[0].replace("/", ".")
    if package is not None and not package.startswith("_"):
        where = package
    content: Any = result.config
    kept = {key: content.pop(key) for key in ("defaults",) if isinstance(content, DictConfig) and key in content}
    below = OmegaConf.create()
    OmegaConf.update(below, where, content, merge=False) if where else below.merge_with(content)
    whole = ConfigResult(config=below, path=result.path, provider=result.provider, header=result.header)
    restore(whole, where, name)
    found: Any = OmegaConf.select(whole.config, where) if where else whole.config
    if isinstance(found, DictConfig):
        plain: Any = OmegaConf.to_container(found, resolve=False)
        result.config = OmegaConf.create({**kept, **plain})


def _check_single_choices(config: DictConfig, path: str, text: str) -> None:
    """Refuse a list where a group's choice belongs: Hydra would merge all of it, so that the last one wins."""
    if "defaults" not in config:
        return
    plain: Any = OmegaConf.to_container(config, resolve=False)
    items = plain["defaults"] if isinstance(plain["defaults"], list) else []
    pairs = [pair for each in items if isinstance(each, dict) for pair in each.items()]
    if not any(isinstance(value, list) for _, value in pairs):
        return
    node = find_node(compose(text), ["defaults"])
    for each in node.value if isinstance(node, yaml.SequenceNode) else ():
        for key, value in each.value if isinstance(each, yaml.MappingNode) else ():
            if isinstance(value, yaml.SequenceNode) and value.value:
                group = str(key.value).split()[-1].lstrip("/")
                swept = ",".join(str(one.value) for one in value.value)
                remedy = (
                    f"a group takes one choice; several make a sweep: under hydra.sweeper.params write {group}: {swept}"
                )
                raise ConfigFileError(f"{place(path, value.start_mark.line + 1)}: - {key.value}: [{swept}]: {remedy}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = bytes(error.object[: error.start]).count(b"\n") + 1
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise ConfigFileError(f"{place(path, line)}: is no UTF-8 text ({byte}); save the file as UTF-8") from error
    except OSError as error:
        raise ConfigFileError(f"{place(path)}: cannot be read: {error.strerror}") from error


def _parse(path: str, text: str) -> Any:
    try:
        return OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:
        raise ConfigFileError(_yaml_mistake(path, text, _in_python(text) or error)) from error
    except OmegaConfBaseException as error:
        lines = enumerate(text.splitlines(), 1)
        line, reference = next(((n, each.strip()) for n, each in lines if "${" in each and not _CLOSED.search(each)),
                               (None, "${"))  # fmt: skip
        told = "a reference cannot be read; write ${KEY}, or \\${ for these characters themselves"
        raise ConfigFileError(f"{place(path, line)}: {told} ({shortened(reference, 60)})") from error
    except (OSError, ValueError) as error:  # a file that holds one number, or such
        reason = "holds no keys and values; write KEY: VALUE in each line"
        raise ConfigFileError(f"{place(path)}: {reason}") from error


# What the parser of YAML says → what is wrong and what to do, as a user would put it.
_YAML_MISTAKES = (
    (r"found character '\\t'", "a tab indents the line; use spaces"),
    (r"found duplicate key (\S+)", "the key {0} stands here a second time in its section; keep one"),
    (r"unexpected end of stream|found unexpected document separator|while scanning a quoted scalar",
     "a quote that is opened here is not closed; close it"),
    (r"found character '(@|`|%)'", "a value cannot begin with {0}; put it in quotes"),
    (r"found undefined alias '(\w*)'", "*{0} refers to no anchor; put a value that begins with * in quotes"),
    (r"could not determine a constructor for the tag '([^']+)'",
     "the tag {0} is not read here; put a value that begins with ! in quotes"),
    (r"but found another document|expected a single document", "--- begins a second document; keep one in a file"),
    (r"mapping values are not allowed",
     "a second colon in the line, or the line is indented too far; put a value with a colon in quotes"),
    (r"could not find expected ':'", "a key without a colon; write KEY: VALUE"),
    (r"expected ',' or '(\]|\})'", "a bracket is not closed; close it with {0}"),
    (r"expected <block end>", "the line is not indented as the others of its section; align it"),
)  # fmt: skip


def _in_python(text: str) -> yaml.YAMLError | None:
    """What the parser that is written in Python says: OmegaConf 2.4 uses the one in C, which tells less."""
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        return error
    return None


def _yaml_mistake(path: str, text: str, error: yaml.YAMLError) -> str:
    """One line for what the parser of YAML raised."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = f"{getattr(error, 'context', None) or ''} {getattr(error, 'problem', None) or error}"
    opened = getattr(error, "context_mark", None)
    what = f"is no YAML: {shortened(problem)}"
    for pattern, told in _YAML_MISTAKES:
        if found := re.search(pattern, problem):
            what = told.format(*found.groups())
            mark = opened if opened is not None and ("opened" in told or "not closed" in told) else mark
            break
    if mark is None:
        return f"{place(path)}: {what}"
    lines = text.splitlines()
    shown = lines[mark.line].strip() if mark.line < len(lines) else ""
    where = place(path, mark.line + 1, mark.column + 1)
    return f"{where}: {what}" + (f" ({shortened(shown, 60)})" if shown else "")


def shortened(text: object, limit: int = 200) -> str:
    """A text in one line, cut where it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[:limit]}..."


# ---- scalars as typed --------------------------------------------------------------------------------------------


def _keep_typed(config: DictConfig, keys: Sequence[str], text: str) -> None:
    """Replace plain scalars below a key by the text that was typed, where YAML made something else of it."""
    if keys[-1] not in text:
        return
    container: Any = OmegaConf.to_container(config, resolve=False)
    for each in keys:
        container = container.get(each) if isinstance(container, dict) else None
    if container is None or not _has_other(container):
        return
    node = find_node(compose(text), keys)
    if node is not None:
        OmegaConf.update(config, ".".join(keys), _as_typed(container, node), merge=False, force_add=True)


def _has_other(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_other(each) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(map(_has_other, value))
    return isinstance(value, bool | int | float)


def _as_typed(value: Any, node: yaml.Node) -> Any:
    if isinstance(value, dict) and isinstance(node, yaml.MappingNode):
        if len(value) != len(node.value):  # a merge key, <<
            return value
        pairs = zip(value.items(), node.value, strict=False)
        return {_as_typed(key, key_node): _as_typed(each, each_node) for (key, each), (key_node, each_node) in pairs}
    if isinstance(value, list) and isinstance(node, yaml.SequenceNode):
        return [_as_typed(each, each_node) for each, each_node in zip(value, node.value, strict=False)]
    if isinstance(value, bool | int | float) and not _WRITTEN_OTHERWISE.match(node.value):
        return node.value
    return value


def compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, which know their lines and the characters typed; None where it is empty or broken."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def find_node(root: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """The node of a value by its keys; None where there is none."""
    for key in keys:
        if not isinstance(root, yaml.MappingNode):
            return None
        root = next((value for name, value in root.value if getattr(name, "value", None) == key), None)
    return root
