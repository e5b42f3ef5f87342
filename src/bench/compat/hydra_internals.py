"""Hydra's command, its loader of configs and the steps of its composition, which it keeps below `hydra._internal`.

Three things are made of them: the command refuses before anything is written, texts in files stay as typed, and a sweep
composes a point in a millisecond instead of a tenth of a second. Where a name is gone, or takes other arguments, Hydra
does the work in its own way; each entry says what is lost then.
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
_WITHOUT_VERSION_BASE = (1, 4)  # the first release that asks to leave it out
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

# What `bench.cli.hydra_command` overrides in Hydra's command, and the arguments that it gives or takes.
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
        task: what Hydra calls with a composed config.
        config_path: the folder of the YAML files.
        config_name: the primary one.
        command: methods that take the place of those of Hydra's command, where they fit in there.
    """
    decide = {} if _version() >= _WITHOUT_VERSION_BASE else {"version_base": "1.3"}
    with _in_place(command_class(command)):
        hydra.main(config_path=config_path, config_name=config_name, **decide)(task)()


def _version() -> tuple[int, ...]:
    return tuple(int(each) for each in hydra.__version__.split(".")[:2])


def command_class(methods: type) -> type | None:
    """Hydra's command with these methods in it; None where they do not fit."""
    base = COMMAND.get()
    if base is MISSING or not all(_takes(getattr(base, name, None), *args) for name, args in _COMMAND_TAKES.items()):
        return None
    return type(methods.__name__, (methods, base), {})


@contextlib.contextmanager
def _in_place(command: type | None) -> Iterator[None]:
    """Have `hydra.main` use a command; it cannot be given one."""
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
    """Whether a function has parameters of these names."""
    try:
        return set(names) <= set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False


def flags_parser() -> ArgumentParser | None:
    """The parser of Hydra's flags; None where it cannot be had."""
    make = FLAGS.get()
    made = make() if callable(make) else None
    return made if isinstance(made, ArgumentParser) else None


# ---- the loader --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AsTyped:
    """How texts are kept as they were typed. It is pickled with the loader, so both are functions of modules."""

    quote: Callable[[str], str]  # an override with quotes around texts that look like numbers
    restore: Callable[[ConfigResult, str | None, str], None]  # of a loaded file, its package, its path


class _Loading:
    """Hydra's loader, which quotes texts in overrides."""

    as_typed: AsTyped
    ready: DictConfig | None = None  # a config that was composed already, for whoever asks for one next

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
    """The same for Hydra 1.4, whose command has the overrides parsed before."""

    ready: DictConfig | None

    def _load_configuration(self, *given: Any, **named: Any) -> DictConfig:
        above: Any = super()
        ready, self.ready = self.ready, None
        if ready is not None:
            return ready
        return above._load_configuration(*given, **named)  # type: ignore[no-any-return]  # noqa: SLF001 - LOAD_WHOLE


class _LoadingMode:
    """Reads `hydra.mode` as Hydra 1.4 does, which hands the overrides, parsed, to a loader of its own class alone."""

    def get_mode(self, config_name: str | None, overrides: list[str], parsed_overrides: Any = None) -> Any:
        above: Any = super()
        if parsed_overrides is None:
            parse = PARSE_ALL.of(self)
            parsed_overrides = (
                override_internals.parse(overrides) if parse is MISSING else parse(config_name, overrides)
            )
        return above.get_mode(config_name, overrides, parsed_overrides)


class _LoadingFiles:
    """Restores the texts of files, after Hydra has decided where a file's content belongs."""

    as_typed: AsTyped

    def _load_single_config(self, default: Any, repo: Any) -> ConfigResult:
        above: Any = super()
        loaded: ConfigResult = above._load_single_config(default=default, repo=repo)  # noqa: SLF001 - LOAD_FILE
        package = loaded.header["package"] if default.package is None else default.package
        self.as_typed.restore(loaded, package, str(default.config_path))
        return loaded


def typed_loader(search_path: Any, as_typed: AsTyped) -> Any:
    """Hydra's loader that keeps texts as typed; None where this Hydra has no such loader."""
    made = _loader_class()
    if made is None:
        return None
    loader = made(config_search_path=search_path)
    loader.as_typed = as_typed
    return loader


def restores_files() -> bool:
    """Whether the loader restores the texts of files."""
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
    """A loader for what was pickled of one."""
    made: Any = _loader_class()
    return made.__new__(made)  # the same Hydra has pickled one


def group_lister(loader: Any) -> Any:
    """What lists the groups and their choices: Hydra's loader does, but reads all folders anew for each question."""
    parse = PARSE.of(loader)
    if parse is MISSING:
        return loader
    try:
        found = parse(None, [])[1]
    except (TypeError, LookupError):
        return loader
    return found if hasattr(found, "get_group_options") else loader


def replace_file_source(source: type[ConfigSource]) -> bool:
    """Have Hydra read files through this class from now on. Returns whether it does."""
    registry = SOURCES.get()
    types = getattr(registry.instance(), "types", None) if registry is not MISSING else None
    if not isinstance(types, dict) or source.scheme() not in types:
        return False
    types[source.scheme()] = source
    return True


def name_of_file_source() -> str:
    """The class by which Hydra reads files: it registers its sources anew in each process, and compares these names."""
    return FILE_SOURCE.where.rpartition(":")[2]


def returned(result: JobReturn) -> Any:
    """What a job gave back, or the exception that it raised."""
    found = RETURNED.of(result)
    if found is not MISSING:
        return found
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # on which the public way repeats what was raised
            return result.return_value
    except Exception as error:  # noqa: BLE001 - it is what the job raised
        return error


# ---- the steps of a composition ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """The steps by which Hydra's loader composes a config, called singly. What they raise is Hydra's."""

    loader: Any

    def files(self, config_name: str | None, overrides: Sequence[str]) -> tuple[list[Any], Any]:
        """The overrides, parsed, and a repository of files for them, which keeps what it has read."""
        parse, parsed = PARSE.of(self.loader), override_internals.parse(overrides)
        if _takes(parse, "parsed_overrides"):  # else it looks for aliases, which were expanded before
            return parse(config_name, list(overrides), parsed)  # type: ignore[no-any-return]
        return parse(config_name, list(overrides))  # type: ignore[no-any-return]

    def copies_of(self, files: Any) -> Any:
        """A repository that hands out copies of what another has read, for merging changes what it is given.

        Hydra would make a new repository instead, which reads all files anew and first copies all that plugins store.
        """
        base = REPOSITORY.get()
        made: Any = type("Copies", (_Copying, base), {})
        copies = made.__new__(made)  # the parent's way copies what it delegates to
        copies.delegate, copies.cache = files, {}
        return copies

    def check_source(self) -> None:
        """Refuse a folder of the primary config that is not there."""
        CHECK_SOURCE.of(self.loader)()

    def check_overrides(self, overrides: Sequence[Any]) -> None:
        """Refuse several values in one override."""
        CHECK_SWEEP.of(self.loader)(list(overrides), RunMode.RUN, from_shell=True)

    def check_plugins(self, master: DictConfig, section: Any, choices: Mapping[str, Any]) -> None:
        """Refuse another sweeper or launcher than the sweep's, as Hydra 1.4 does.

        Args:
            master: the config of the sweep as a whole.
            section: `hydra` of a job's config.
            choices: that its files were chosen by.
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
        """Which files are merged, in their order, and the choice of every group."""
        return DEFAULTS.get()(
            repo=files,
            config_name=config_name,
            overrides_list=list(overrides),
            prepend_hydra=True,
            skip_missing=False,
        )

    def load(self, default: Any, files: Any) -> ConfigResult:
        """One file below its package."""
        return LOAD_FILE.of(self.loader)(default=default, repo=files)  # type: ignore[no-any-return]

    def merge(self, defaults: list[Any], files: Any) -> DictConfig:
        """The files of a list, merged."""
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
        """A copy of what was read; Hydra asks once for each place in its list of files."""
        found = self.delegate.load_config(config_path)
        if found is None:
            return None
        found = copy.copy(found)
        found.config = copy.deepcopy(found.config)
        return found


def steps_of(loader: Any, master: DictConfig) -> Steps | None:
    """The steps of a loader; None where one of them is gone or takes other arguments.

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
