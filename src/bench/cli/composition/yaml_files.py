"""Read the YAML files that Hydra loads, and report a mistake with file, line and column.

Hydra reads files through a *source*; `ConfigFiles` replaces Hydra's own. It differs in three points:

- Invalid YAML and invalid UTF-8 are reported in one line with their position.
- In a defaults list and in `hydra.sweeper.params` a plain scalar is the typed text. YAML reads `off` as false, but
  `compile: off` chooses the file `off.yaml`.
- The files are stored, so that a mistake that is detected later can be traced to its file
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

HEADER = 512  # characters in which Hydra searches for `# @package`
PARAMS = ("hydra", "sweeper", "params")
_CLOSED = re.compile(r"\$\{[\w.:,/ '\"-]+\}")
_WRITTEN_OTHERWISE = re.compile(r"[-+]?0[xob]", re.IGNORECASE)  # numbers that only YAML can read


class ConfigFileError(HydraException):
    """Refuse a file that cannot be read as a config; the message is one line with file, line and remedy."""


@dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """Describe a YAML file that was read for this command."""

    path: str
    config_path: str  # relative to the folder of configs, without .yaml: experiment/mine
    package: str | None  # from its `# @package`
    text: str

    def place(self, line: int | None = None) -> str:
        """Return the file as typed in the start folder, with a line counted from 1."""
        return place(self.path, line)


_loaded: dict[str, LoadedFile] = {}  # by path, in the order of loading
_folders: dict[str, None] = {}  # of all sources
_restoring: list[Callable[[ConfigResult, str | None, str], None]] = []  # empty, or what restores a file's texts


def loaded_files() -> list[LoadedFile]:
    """Return all YAML files read so far, in the order of loading."""
    return list(_loaded.values())


def place(path: str, line: int | None = None, column: int | None = None) -> str:
    """Return a file as typed in the current folder, with line and column counted from 1."""
    relative = os.path.relpath(path)
    name = path if relative.startswith(f"..{os.sep}..{os.sep}..") else relative
    return ":".join([name, *(str(each) for each in (line, column) if each is not None)])


def other_ending(config_path: str) -> str | None:
    """Return a file that would be this config if it ended in .yaml; None without one."""
    for folder in _folders:
        path = Path(folder, f"{config_path}.yml")
        if path.is_file():
            return place(str(path))
    return None


def groups() -> list[str]:
    """Return the groups in all folders of configs, such as compile and hydra/launcher."""
    found = set()
    for folder in _folders:
        for path, _, files in os.walk(folder):
            if any(each.endswith(".yaml") for each in files) and path != folder:
                found.add(Path(path).relative_to(folder).as_posix())
    return sorted(found)


def install(restore: Callable[[ConfigResult, str | None, str], None] | None = None) -> None:
    """Let Hydra read files through `ConfigFiles`.

    Args:
        restore: restores the texts of a file that YAML converted, if Hydra's loader does not. Its arguments are the
            loaded file, its package and its path relative to the folder of configs.
    """
    _loaded.clear()
    _folders.clear()
    _restoring[:] = [restore] if restore is not None else []
    replace_file_source(ConfigFiles)


class ConfigFiles(ConfigSource):
    """Read files as Hydra's own source does, but report an unreadable file in one line."""

    def __init__(self, provider: str, path: str) -> None:
        _, separator, rest = path.rpartition("://")
        super().__init__(provider, f"{self.scheme()}://{expanded(rest if separator else path)}")
        _folders[self.path] = None

    @staticmethod
    def scheme() -> str:
        """Return the URL scheme of this source."""
        return "file"

    def available(self) -> bool:
        """Check whether the folder exists. ConfigFileError if hydra.searchpath names a missing folder: Hydra warns."""
        found = self.is_group("")
        if not found and self.provider.startswith("hydra.searchpath"):
            remedy = "name a folder that exists, as file://FOLDER"
            raise ConfigFileError(f"hydra.searchpath=[{self.full_path()}]: no such folder; {remedy}")
        return found

    def is_group(self, config_path: str) -> bool:
        """Check whether this folder exists."""
        return os.path.isdir(self._place(config_path))  # noqa: PTH112 - returns False for a name that is too long

    def is_config(self, config_path: str) -> bool:
        """Check whether this file exists."""
        return os.path.isfile(self._place(_with_ending(config_path)))  # noqa: PTH113 - as above

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """Return the names of the groups and configs in a folder, or only those of the requested type."""
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
        """Read a file. ConfigFileError if it cannot be read as a config."""
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


# Hydra registers its sources in each process, and identifies classes by name: ours keeps replacing its own.
ConfigFiles.__name__ = name_of_file_source()


def _with_ending(config_path: str) -> str:
    return config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"


def _header(text: str) -> dict[str, str | None]:
    """Return the leading comments of a file, such as `# @package _global_`, as key and value. Raises ValueError."""
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
    """Restore a file's texts under the package that the file itself names; a defaults list may change it."""
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
    """Refuse a list as a group's choice: Hydra would merge all its elements, so that the last one has priority."""
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
    except (OSError, ValueError) as error:  # for example, a file with a single number
        reason = "holds no keys and values; write KEY: VALUE in each line"
        raise ConfigFileError(f"{place(path)}: {reason}") from error


# Message of the YAML parser → the mistake and the remedy in the user's terms.
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
    """Return the error of the Python parser: OmegaConf 2.4 uses the C parser, which reports less."""
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        return error
    return None


def _yaml_mistake(path: str, text: str, error: yaml.YAMLError) -> str:
    """Return one line for an error of the YAML parser."""
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
    """Return a text in one line, truncated to the limit."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[:limit]}..."


# ---- scalars as typed --------------------------------------------------------------------------------------------


def _keep_typed(config: DictConfig, keys: Sequence[str], text: str) -> None:
    """Replace plain scalars below a key by the typed text, where YAML converted it."""
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
    """Return the nodes of a YAML text, with line numbers and typed characters; None if it is empty or invalid."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def find_node(root: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """Return the node of a value by its keys; None if there is none."""
    for key in keys:
        if not isinstance(root, yaml.MappingNode):
            return None
        root = next((value for name, value in root.value if getattr(name, "value", None) == key), None)
    return root
