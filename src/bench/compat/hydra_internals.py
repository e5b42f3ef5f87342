"""Wrap Hydra's command, config loader and composition steps, which are private (`hydra._internal`).

They serve three purposes: the command refuses mistakes before anything is written, texts in files stay as typed, and a
sweep composes a point in 1 ms instead of 0.1 s. If a name is missing or has other parameters, Hydra's own
implementation is used; each entry states the loss.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import io
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.utils import JobReturn
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bench.compat import omegaconf_internals, override_internals
from bench.compat.private_name import MISSING, PrivateName

_OLDEST, _NEWEST = "1.3.2", "1.4.0rc3"
_WITHOUT_VERSION_BASE = (1, 4)  # the first release that deprecates version_base
_LOADER = "hydra._internal.config_loader_impl:ConfigLoaderImpl"
_SLOWER = "each point of a sweep is composed by Hydra itself, which takes a tenth of a second"
_FILES = "a text in a YAML file whose place a defaults list changes (GROUP@PACKAGE) may be read as a number"


def _of_loader(name: str, lost: str, since: str = _OLDEST) -> PrivateName:
    return PrivateName(where=f"{_LOADER}.{name}", since=since, until=_NEWEST, lost=lost)


COMMAND = PrivateName(
    where="hydra._internal.hydra:Hydra",
    since=_OLDEST,
    until=_NEWEST,
    lost="a single run is checked after Hydra has made its folder, and ~ in hydra.run.dir is a name like any other",
)
FLAGS = PrivateName(
    where="hydra._internal.utils:get_args_parser",
    since=_OLDEST,
    until=_NEWEST,
    lost="a wrong flag is answered with Hydra's whole usage",
)
LOADER = PrivateName(where=_LOADER, since=_OLDEST, until=_NEWEST, lost=f"{_FILES}; {_SLOWER}")
LOAD_FILE = _of_loader("_load_single_config", f"{_FILES}; {_SLOWER}")
LOAD_WHOLE = _of_loader("_load_configuration", "a single run is composed twice", since="1.4.0rc3")
PARSE_ALL = _of_loader("parse_overrides", "hydra.mode cannot be set through an alias", since="1.4.0rc3")
PARSE = _of_loader("_parse_overrides_and_create_caching_repo", f"{_SLOWER}, and help takes longer")
APPLY = _of_loader("_apply_overrides_to_config", _SLOWER)
MERGE = _of_loader("_compose_config_from_defaults_list", _SLOWER)
CHECK_SWEEP = _of_loader("validate_sweep_overrides_legal", _SLOWER)
CHECK_SOURCE = _of_loader("ensure_main_config_source_available", _SLOWER)
CHECK_PLUGINS = _of_loader(
    "_ensure_sweep_config_controller_unchanged",
    "a point that changes the sweeper or the launcher is not refused, and the change has no effect",
    since="1.4.0rc3",
)
DIRNAME = PrivateName(
    where="hydra._internal.config_loader_impl:get_overrides_dirname", since=_OLDEST, until="1.3.8", lost=_SLOWER
)
DEFAULTS = PrivateName(
    where="hydra._internal.defaults_list:create_defaults_list", since=_OLDEST, until=_NEWEST, lost=_SLOWER
)
REPOSITORY = PrivateName(
    where="hydra._internal.config_repository:CachingConfigRepository", since=_OLDEST, until=_NEWEST, lost=_SLOWER
)
SOURCES = PrivateName(
    where="hydra._internal.sources_registry:SourcesRegistry",
    since=_OLDEST,
    until=_NEWEST,
    lost="a mistake in a YAML file is told without its line",
)
FILE_SOURCE = PrivateName(
    where="hydra._internal.core_plugins.file_config_source:FileConfigSource",
    since=_OLDEST,
    until=_NEWEST,
    lost="Hydra may refuse that another class reads its files",
)
RETURNED = PrivateName(
    where="hydra.core.utils:JobReturn._return_value",
    since=_OLDEST,
    until=_NEWEST,
    lost="what a failed job raised is told less exactly",
)


# ---- the command -------------------------------------------------------------------------------------------------

# The methods that `bench.cli.hydra_command` overrides in Hydra's command, and the parameters that it relies on.
_COMMAND_TAKES = {
    "create_main_hydra2": ("task_name", "config_search_path"),
    "get_mode": ("config_name", "overrides"),
    "compose_config": ("config_name", "overrides", "run_mode"),
    "run": ("config_name", "task_function", "overrides", "with_log_configuration"),
    "show_cfg": ("config_name", "overrides", "cfg_type", "package", "resolve"),
    "get_help": ("help_cfg", "cfg", "args_parser", "resolve"),
}


def run_command(task: TaskFunction, *, config_path: str, config_name: str, command: type) -> None:
    """Run `hydra.main`.

    Args:
        task: the function that Hydra calls with a composed config.
        config_path: the folder of the YAML files.
        config_name: the primary config.
        command: a class whose methods override those of Hydra's command, if this version supports them.
    """
    decide = {} if _version() >= _WITHOUT_VERSION_BASE else {"version_base": "1.3"}
    with _in_place(command_class(command)):
        hydra.main(config_path=config_path, config_name=config_name, **decide)(task)()


def _version() -> tuple[int, ...]:
    return tuple(int(each) for each in hydra.__version__.split(".")[:2])


def command_class(methods: type) -> type | None:
    """Return a subclass of Hydra's command with these methods; None if this version does not support them."""
    base = COMMAND.get()
    if base is MISSING or not all(_takes(getattr(base, name, None), *args) for name, args in _COMMAND_TAKES.items()):
        return None
    return type(methods.__name__, (methods, base), {})


@contextlib.contextmanager
def _in_place(command: type | None) -> Iterator[None]:
    """Patch the command that `hydra.main` uses; it has no parameter for it."""
    base = COMMAND.get()
    module = importlib.import_module(COMMAND.where.partition(":")[0]) if command is not None else None
    if module is not None:
        module.__dict__[base.__name__] = command
    try:
        yield
    finally:
        if module is not None:
            module.__dict__[base.__name__] = base


def _takes(function: Any, *names: str) -> bool:
    """Check whether a function has parameters with these names."""
    try:
        return set(names) <= set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False


def flags_parser() -> ArgumentParser | None:
    """Return the parser of Hydra's flags; None if it is not available."""
    make = FLAGS.get()
    made = make() if callable(make) else None
    return made if isinstance(made, ArgumentParser) else None


# ---- the loader --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AsTyped:
    """Hold the functions that keep texts as typed: module-level functions, because they are pickled with the loader."""

    quote: Callable[[str], str]  # returns an override with quotes around texts that look like numbers
    restore: Callable[[ConfigResult, str | None, str], None]  # called with a loaded file, its package, its path


class _Loading:
    """Quote texts in overrides before Hydra's loader parses them."""

    as_typed: AsTyped
    ready: DictConfig | None = None  # a composed config, returned by the next call

    def load_configuration(self, config_name: str | None, overrides: list[str], *rest: Any, **named: Any) -> DictConfig:
        above: Any = super()
        ready, self.ready = self.ready, None
        if ready is not None:
            return ready
        lines = [self.as_typed.quote(each) for each in overrides]
        return above.load_configuration(config_name, lines, *rest, **named)  # type: ignore[no-any-return]

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        above: Any = super()
        lines = [self.as_typed.quote(each) for each in sweep_overrides]
        return above.load_sweep_config(master_config, lines)  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        return _blank_loader, (), self.__dict__


class _LoadingWhole:
    """Return the composed config in Hydra 1.4, whose command parses the overrides first."""

    ready: DictConfig | None

    def _load_configuration(self, *given: Any, **named: Any) -> DictConfig:
        above: Any = super()
        ready, self.ready = self.ready, None
        if ready is not None:
            return ready
        return above._load_configuration(*given, **named)  # type: ignore[no-any-return]  # noqa: SLF001 - LOAD_WHOLE


class _LoadingMode:
    """Parse the overrides to read `hydra.mode`: Hydra 1.4 passes them parsed only to a loader of its own class."""

    def get_mode(self, config_name: str | None, overrides: list[str], parsed_overrides: Any = None) -> Any:
        above: Any = super()
        if parsed_overrides is None:
            parse = PARSE_ALL.of(self)
            parsed_overrides = (
                override_internals.parse(overrides) if parse is MISSING else parse(config_name, overrides)
            )
        return above.get_mode(config_name, overrides, parsed_overrides)


class _LoadingFiles:
    """Restore the texts of files, after Hydra has determined the package of a file's content."""

    as_typed: AsTyped

    def _load_single_config(self, default: Any, repo: Any) -> ConfigResult:
        above: Any = super()
        loaded: ConfigResult = above._load_single_config(default=default, repo=repo)  # noqa: SLF001 - LOAD_FILE
        package = loaded.header["package"] if default.package is None else default.package
        self.as_typed.restore(loaded, package, str(default.config_path))
        return loaded


def typed_loader(search_path: Any, as_typed: AsTyped) -> Any:
    """Return Hydra's loader, extended to keep texts as typed; None if this version lacks the loader."""
    made = _loader_class()
    if made is None:
        return None
    loader = made(config_search_path=search_path)
    loader.as_typed = as_typed
    return loader


def restores_files() -> bool:
    """Check whether the loader restores the texts of files."""
    return LOADER.is_here() and _takes(LOAD_FILE.get(), "default", "repo")


def _loader_class() -> type | None:
    base = LOADER.get()
    if base is MISSING or not _takes(base, "config_search_path"):
        return None
    parts: list[type] = [_Loading]
    if LOAD_WHOLE.is_here():
        parts.append(_LoadingWhole)
    if _takes(getattr(base, "get_mode", None), "config_name", "overrides", "parsed_overrides"):
        parts.append(_LoadingMode)
    if restores_files():
        parts.append(_LoadingFiles)
    return type("TextLoader", (*parts, base), {})


def _blank_loader() -> Any:
    """Return an empty loader, for unpickling."""
    made: Any = _loader_class()
    return made.__new__(made)  # exists, because the same Hydra version has pickled one


def group_lister(loader: Any) -> Any:
    """Return an object that lists groups and choices: a cache, as Hydra's loader rereads all folders on each call."""
    parse = PARSE.of(loader)
    if parse is MISSING:
        return loader
    try:
        found = parse(None, [])[1]
    except (TypeError, LookupError):
        return loader
    return found if hasattr(found, "get_group_options") else loader


def replace_file_source(source: type[ConfigSource]) -> bool:
    """Let Hydra read files through this class from now on. Return whether that succeeded."""
    registry = SOURCES.get()
    types = getattr(registry.instance(), "types", None) if registry is not MISSING else None
    if not isinstance(types, dict) or source.scheme() not in types:
        return False
    types[source.scheme()] = source
    return True


def name_of_file_source() -> str:
    """Return the name of Hydra's file source: Hydra registers its sources in each process, and compares names."""
    return FILE_SOURCE.where.rpartition(":")[2]


def returned(result: JobReturn) -> Any:
    """Return the result of a job, or the exception that it raised."""
    found = RETURNED.of(result)
    if found is not MISSING:
        return found
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the public property prints the exception again
            return result.return_value
    except Exception as error:  # noqa: BLE001 - raised by the job
        return error


# ---- the steps of a composition ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Run single steps of the composition in Hydra's loader. They raise Hydra's exceptions."""

    loader: Any

    def files(self, config_name: str | None, overrides: Sequence[str]) -> tuple[list[Any], Any]:
        """Return the parsed overrides, and a repository of files for them, which caches what it has read."""
        parse, parsed = PARSE.of(self.loader), override_internals.parse(overrides)
        if _takes(parse, "parsed_overrides"):  # else it searches for aliases, which are already expanded
            return parse(config_name, list(overrides), parsed)  # type: ignore[no-any-return]
        return parse(config_name, list(overrides))  # type: ignore[no-any-return]

    def copies_of(self, files: Any) -> Any:
        """Return a repository of copies of what another has read, because merging modifies its input.

        Hydra would create a new repository, which rereads all files and first copies everything that plugins store.
        """
        base = REPOSITORY.get()
        made: Any = type("Copies", (_Copying, base), {})
        copies = made.__new__(made)  # the parent's constructor copies its delegate
        copies.delegate, copies.cache = files, {}
        return copies

    def check_source(self) -> None:
        """Refuse a missing folder of the primary config."""
        CHECK_SOURCE.of(self.loader)()

    def check_overrides(self, overrides: Sequence[Any]) -> None:
        """Refuse several values in one override."""
        CHECK_SWEEP.of(self.loader)(list(overrides), RunMode.RUN, from_shell=True)

    def check_plugins(self, master: DictConfig, section: Any, choices: Mapping[str, Any]) -> None:
        """Refuse a sweeper or launcher other than the sweep's, as Hydra 1.4 does.

        Args:
            master: the config of the sweep as a whole.
            section: the section `hydra` of a job's config.
            choices: the groups' choices for that config.
        """
        check = CHECK_PLUGINS.of(self.loader)
        if check is not MISSING:
            names = ("hydra/launcher", "hydra/sweeper")
            section = {
                "runtime": {"choices": {name: choices.get(name) for name in names}},
                "launcher": section.launcher,
                "sweeper": section.sweeper,
            }
            check(master_config=master, sweep_config=OmegaConf.create({"hydra": section}))

    def defaults(self, files: Any, config_name: str | None, overrides: Sequence[Any]) -> Any:
        """Return the files to merge, in order, and the choice of every group."""
        return DEFAULTS.get()(
            repo=files,
            config_name=config_name,
            overrides_list=list(overrides),
            prepend_hydra=True,
            skip_missing=False,
        )

    def load(self, default: Any, files: Any) -> ConfigResult:
        """Return the content of one file, nested under its package."""
        return LOAD_FILE.of(self.loader)(default=default, repo=files)  # type: ignore[no-any-return]

    def merge(self, defaults: list[Any], files: Any) -> DictConfig:
        """Return the merged files of a defaults list."""
        return MERGE.of(self.loader)(defaults=defaults, repo=files)  # type: ignore[no-any-return]

    def apply(self, overrides: list[Any], config: DictConfig) -> None:
        """Set the values of overrides in a config."""
        APPLY.of(self.loader)(overrides, config)

    def name_folder(self, config: DictConfig, overrides: Sequence[Any]) -> None:
        """Set `hydra.job.override_dirname`, which Hydra 1.4 leaves to a resolver."""
        name = DIRNAME.get()
        if name is not MISSING:
            how = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = name(
                overrides=list(overrides), kv_sep=how.kv_sep, item_sep=how.item_sep, exclude_keys=how.exclude_keys
            )


class _Copying:
    delegate: Any

    def load_config(self, config_path: str) -> Any:
        """Return a copy of a file's content; Hydra calls this once per entry of its list of files."""
        found = self.delegate.load_config(config_path)
        if found is None:
            return None
        found = copy.copy(found)
        found.config = copy.deepcopy(found.config)
        return found


def steps_of(loader: Any, master: DictConfig) -> Steps | None:
    """Return the steps of a loader; None if one of them is missing or has other parameters.

    Args:
        loader: Hydra's.
        master: the config of the sweep as a whole.
    """
    base = LOADER.get()
    if base is MISSING or not isinstance(loader, base) or not override_internals.can_parse():
        return None
    takes = {
        PARSE: ("config_name", "overrides"),
        APPLY: ("overrides", "cfg"),
        MERGE: ("defaults", "repo"),
        LOAD_FILE: ("default", "repo"),
        CHECK_SWEEP: ("overrides", "run_mode", "from_shell"),
        CHECK_SOURCE: (),
    }
    if not all(_takes(entry.of(loader), *names) for entry, names in takes.items()):
        return None
    if not _takes(DEFAULTS.get(), "repo", "config_name", "overrides_list", "prepend_hydra", "skip_missing"):
        return None
    if not _takes(REPOSITORY.get(), "delegate") or not omegaconf_internals.can_share_nodes():
        return None
    if not DIRNAME.is_here() and not OmegaConf.is_interpolation(master.hydra.job, "override_dirname"):
        return None
    return Steps(loader)
