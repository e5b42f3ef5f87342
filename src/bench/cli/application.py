"""The Hydra door: overrides in, BenchmarkConfig out. Nothing past it knows Hydra.

`main` is the command; `job` runs one composed config, whatever launcher called it. What a run and a sweep then are is
`bench.orchestration`'s business.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import io
import os
import string
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, env_override
from hydra.errors import HydraException
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bench.cli.composition.config_loader import restore, text_loader
from bench.cli.composition.quoting import TEXTS_OF_HYDRA, readable
from bench.cli.composition.redacted_yaml import hide_secrets
from bench.cli.composition.renamed_keys import current_overrides
from bench.cli.composition.text_keys import as_tags
from bench.cli.composition.text_overrides import quoted
from bench.cli.composition.yaml_files import install as install_config_files
from bench.cli.help import help_text, keys_text
from bench.cli.refusals.override_checks import OF_HYDRA, OverrideError, check_overrides
from bench.compat import hydra_internals, omegaconf_internals
from bench.config.inactive import check_effect
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, ComposedConfig, no_such_key
from bench.host import start_folder
from bench.host.command_line import ExitStatus
from bench.host.home_folder import expanded
from bench.host.secrets import has_credentials, scrub, without_credentials
from bench.orchestration import signals
from bench.report.terminal import startup_line

OURS_IN_CONF = ("submitit_slurm", "submitit_local")  # launchers
MISSING = "You must specify"  # how Hydra begins when a choice is missing
KEYS_FLAG = "--keys"  # and sections
FOLDER_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")
# In the order of the help page.
GROUPS = ("model", "attention", "compile", "workload", "warmup", "measurement", "tracking", "experiment")


_typed: list[str] = []  # the command line, before it was put into a form that Hydra reads


def conf_folder() -> Path:
    """The folder of the YAML files: inside the package once installed, beside `src` in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def main() -> None:
    """Parse the command line with Hydra and run. A user's mistake costs one line and exit status 2."""
    _set_up_process()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing several lines each
    try:
        _run(sys.argv[1:])
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if show_traceback:
            raise
        _refuse(error)
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of Python tries once more
        sys.exit(ExitStatus.FAILED)
    except (OSError, ValueError) as error:
        if show_traceback:
            raise
        if not isinstance(error, OSError) and _is_of_composition(error):
            _refuse(error)
        _give_up(error)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)
    except Exception as error:
        if show_traceback or not _is_of_composition(error):  # a fault of ours
            raise
        _refuse(error)


def _run(arguments: Sequence[str]) -> None:
    if KEYS_FLAG in arguments:  # ours: Hydra's parser knows its own flags alone
        print(keys_text([each for each in arguments if each != KEYS_FLAG]), end="", flush=True)
        return
    flags = _check_flags(arguments)
    _typed[:] = arguments
    readable_arguments = [_as_hydra_reads(each) for each in arguments]
    if not flags.shell_completion:  # half a line may well be wrong
        check_overrides(flags.overrides, OF_HYDRA)
        readable_arguments = current_overrides(readable_arguments)
        readable_arguments = [each if each.startswith("-") else quoted(each) for each in readable_arguments]
    sys.argv[1:] = readable_arguments
    _Command.is_sweep = flags.multirun
    warnings.filterwarnings("ignore", message="Experimental rerun CLI option")
    warnings.filterwarnings("error", message=r"provider=hydra\.searchpath.*is not available")
    _register()
    hydra_internals.run_command(job, config_path=str(conf_folder()), config_name="config", command=_Command)


def _as_hydra_reads(argument: str) -> str:
    """An argument with its home folder written out where it is a flag's folder, and in quotes where it needs them."""
    flag, equals, value = argument.partition("=")
    return f"{flag}={expanded(value)}" if equals and flag in FOLDER_FLAGS else readable(argument)


class _Command:
    """Takes the place of methods of Hydra's command, which composes a command line once instead of twice then.

    By itself it composes everything to learn whether this is a sweep, and once more to run it, and for `--help` it
    lists all groups twice: a tenth of a second, and most of one. What comes out is the same. Releases of Hydra give
    some methods further arguments (`more`), which are handed on.
    """

    config_loader: Any
    is_sweep = False  # -m was typed
    _asked: tuple[str | None, list[str]] | None = None  # config and overrides that `_composed` is made of
    _composed: DictConfig | Exception

    @classmethod
    def create_main_hydra2(cls, task_name: str, config_search_path: ConfigSearchPath) -> Any:
        """As Hydra does it, with a loader that keeps texts as they are typed."""
        above: Any = super()
        if (loader := text_loader(config_search_path)) is None:
            return above.create_main_hydra2(task_name, config_search_path)
        make: Any = cls
        command = make(task_name=task_name, config_loader=loader)
        GlobalHydra.instance().initialize(command)
        return command

    def get_mode(self, config_name: str | None, overrides: list[str], **more: Any) -> Any:
        """The mode that the config asks for; None where it asks for none, or cannot be composed."""
        above: Any = super()
        if more:  # Hydra 1.4 composes nothing to learn it
            return above.get_mode(config_name, overrides, **more)
        self._asked = (config_name, list(overrides))
        mode = RunMode.MULTIRUN if self.is_sweep else RunMode.RUN
        try:
            composed: DictConfig = self.config_loader.load_configuration(config_name, overrides, run_mode=mode)
        except Exception as error:  # noqa: BLE001 - raised when the config is asked for
            self._composed = error
            if self.is_sweep or MISSING not in str(error):
                return None
            self._asked = None  # a choice that is missing is no error in a sweep, and a config may ask for one
            return above.get_mode(config_name, overrides)
        self._composed = composed
        return composed.hydra.mode

    def compose_config(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *rest: Any, **more: Any
    ) -> DictConfig:
        """The config, ready for use: home folders are written out, and what no run or sweep can do is refused."""
        above: Any = super()
        with self._known(config_name, overrides, run_mode):
            config: DictConfig = above.compose_config(config_name, overrides, run_mode, *rest, **more)
        _expand_home(config)
        is_logged = rest[0] if rest else more.get("with_log_configuration", False)
        if is_logged and run_mode is RunMode.MULTIRUN:  # a single run is checked before it is composed so
            _check_command(config, run_mode)
        return config

    @contextlib.contextmanager
    def _known(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> Iterator[None]:
        """Have the loader give what was composed already, where it was the same that is asked for now."""
        chosen = f"hydra.mode={run_mode.name}"  # what Hydra adds to the overrides when the config names no mode
        asked, self._asked = self._asked, None
        known = [] if asked is None else [asked, (asked[0], [*asked[1], chosen])]
        is_known = (config_name, overrides) in known and (run_mode is RunMode.MULTIRUN) is self.is_sweep
        if is_known:
            config = self._composed
            if isinstance(config, Exception):
                raise config
            if (config_name, overrides) == known[1]:
                config.hydra.mode = run_mode
                config.hydra.overrides.hydra.append(chosen)
            self.config_loader.ready = config
        try:
            yield
        finally:
            self.config_loader.ready = None

    def run(
        self,
        config_name: str | None,
        task_function: TaskFunction,  # noqa: ARG002 - what a single run does follows here
        overrides: list[str],
        with_log_configuration: bool = True,
        **more: Any,
    ) -> JobReturn:
        """Run one setting. All that may be refused is refused before Hydra makes or writes anything."""
        above: Any = super()
        composed = self.compose_config(config_name, overrides, RunMode.RUN, **more)
        _check_command(composed, RunMode.RUN)
        self._asked, self._composed = (config_name, list(overrides)), composed  # what Hydra composes next
        with contextlib.ExitStack() as stack:
            measure = _single_run(composed, stack)
            result: JobReturn = above.run(config_name, measure, overrides, with_log_configuration, **more)
            return result

    def show_cfg(
        self,
        config_name: str | None,
        overrides: list[str],
        cfg_type: str,
        package: str | None,
        resolve: bool = False,
        **more: Any,
    ) -> None:
        """Print the config. ConfigError for a package that it has not."""
        above: Any = super()
        if package not in (None, "_global_"):
            config = self.compose_config(config_name, overrides, RunMode.RUN, **more)
            if OmegaConf.select(config, package) is None:
                raise OverrideError(f"--package {package}", no_such_key(str(package), OF_HYDRA))
        above.show_cfg(config_name, overrides, cfg_type, package, resolve, **more)

    def get_help(
        self, help_cfg: DictConfig, cfg: DictConfig, args_parser: ArgumentParser, resolve: bool, **more: Any
    ) -> str:
        """The template, with Hydra's texts in it where it has a place for them."""
        above: Any = super()
        try:
            return string.Template(help_cfg.template).substitute()
        except KeyError:
            return str(above.get_help(help_cfg, cfg, args_parser, resolve, **more))


def _expand_home(config: DictConfig) -> None:
    """Write out `~` in the folders that Hydra itself makes."""
    for key in TEXTS_OF_HYDRA:
        section, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, section)
        plain = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None
        text = plain.get(leaf) if isinstance(plain, dict) else None
        if isinstance(text, str) and text.startswith("~"):
            OmegaConf.update(config, key, expanded(text))


def _check_command(config: DictConfig, run_mode: RunMode) -> None:
    """Refuse a sweeper that plans nothing, what only a sweep does in a single run, and a file as output folder."""
    if "model" not in config:
        name = config.hydra.job.config_name
        group, _, choice = str(name).rpartition("/")
        remedy = f"type {group}={choice}" if group else "leave the flag out, or begin its defaults list with - config"
        raise OverrideError(f"--config-name {name}", f"is no whole config; {remedy}")
    _check_sweeper(config, run_mode)
    _check_output_folder(config, "hydra.run.dir" if run_mode is RunMode.RUN else "hydra.sweep.dir")


def _check_output_folder(config: DictConfig, key: str) -> None:
    """Refuse an output folder that cannot be made, for a file stands in its place or its name is too long."""
    name = str(OmegaConf.select(config, key))
    path = Path(name)
    try:
        in_place = next((each for each in (path, *path.parents) if os.path.lexists(each)), path.parent)
        if os.path.lexists(in_place) and not in_place.is_dir():
            kind = "a file" if in_place.exists() else "a link that leads nowhere"
            problem = f"{in_place} is {kind}; name a folder"
        else:
            path.exists()  # raises for a name that is too long
            return
    except (OSError, ValueError) as error:
        if config.sweep.name and key == "hydra.sweep.dir":
            return  # which has a rule of its own
        problem = f"cannot be a folder: {getattr(error, 'strerror', None) or error}; name another"
    raise ConfigError(key, name, problem)


def _check_sweeper(config: DictConfig, run_mode: RunMode) -> None:
    from bench.cli.refusals.yaml_places import find_ignored_override, find_sweep  # noqa: PLC0415 - what is only shown needs none

    sweeper = config.hydra.sweeper
    chosen = config.hydra.runtime.choices
    if str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        remedy = "plans and resumes nothing; leave it out for the sweeper of bench, or use hydra/sweeper=optuna"
        raise ConfigError("hydra/sweeper", "basic", remedy)
    for group in ("hydra/sweeper", "hydra/launcher"):
        if (ignored := find_ignored_override(group)) is not None and ignored[1] != chosen.get(group):
            where, choice = ignored
            raise OverrideError(
                f"{where}: - override /{group}: {choice}", f"is not read in such a file; type {group}={choice}"
            )
    if run_mode is RunMode.MULTIRUN:
        return
    if sweeper.get("params") or sweeper.get("settings"):
        where = f" ({found})" if (found := find_sweep()) else ""
        if (name := chosen.get("experiment")) is not None:
            raise ConfigError("experiment", name, f"is a sweep{where}; add -m")
        key = "hydra.sweeper." + ("params" if sweeper.get("params") else "settings")
        raise OverrideError(key, f"is for a sweep{where}; add -m")
    for group, usual in (("hydra/sweeper", "bench"), ("hydra/launcher", "basic")):
        if chosen.get(group) != usual:
            raise ConfigError(group, chosen.get(group), "is for sweeps; add -m")


def _check_flags(arguments: Sequence[str]) -> Namespace:
    """Refuse a flag that Hydra's parser does not know, in one line: by itself it prints the whole usage."""
    parser = hydra_internals.flags_parser()
    if parser is None:
        return _few_flags(arguments)

    def refuse(message: str) -> NoReturn:
        _, _, unknown = message.partition("unrecognized arguments: ")
        if dashed := [each for each in unknown.split() if "=" in each and each.startswith("-")]:
            message += f": a key has no dashes before it: {dashed[0].lstrip('-')}"
        elif unknown and not any(each.startswith("-") for each in unknown.split()):
            message = f"{unknown}: a flag stands between overrides; flags come before all key=value, or after"
        startup_line.erase()
        print(f"bench: {scrub(message)}; bench --help shows examples, bench --hydra-help the flags", file=sys.stderr)
        sys.exit(ExitStatus.REFUSED)

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_args(list(arguments))
    if flags.multirun and (flags.cfg or flags.info or flags.run):
        other = "--cfg" if flags.cfg else "--info" if flags.info else "--run"
        refuse(f"-m and {other}: only one of them can be typed; {other} is for one setting")
    if flags.package and not flags.cfg:
        refuse(f"--package {flags.package}: says what --cfg shows; add --cfg job")
    return flags


def _few_flags(arguments: Sequence[str]) -> Namespace:
    """The flags that are looked at here; Hydra refuses what it does not know."""
    flags = [each for each in arguments if each.startswith("-")]
    return Namespace(
        multirun=any(each in ("-m", "--multirun") for each in flags),
        shell_completion=any(each in ("-sc", "--shell-completion", "--shell_completion") for each in flags),
        overrides=[each for each in arguments if "=" in each and not each.startswith("-")],
    )


def _set_up_process() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe that cannot write a "–" is no reason to fail
    if any(each.startswith("query=") for each in sys.argv[1:3]):  # a shell completes: half a line may well be wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    # A log of CI is read as text, even where it lends a terminal.
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    if in_ci and not os.environ.get("FORCE_COLOR"):
        os.environ.setdefault("TTY_COMPATIBLE", "0")
    if Path(sys.argv[0]).name == "__main__.py":  # what Hydra's parser and completion call the command by
        sys.argv[0] = "bench"
    signals.install()


def _give_up(error: OSError | ValueError) -> NoReturn:
    startup_line.erase()
    print(f"bench: {_of_the_machine(error)}", file=sys.stderr)
    sys.exit(ExitStatus.FAILED)


def _of_the_machine(error: OSError | ValueError) -> str:
    """One line for what is no mistake in the config."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder has been removed; start in another folder"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        where = error.filename or "a file"
        return f"{where} cannot be written: {error.strerror}; make room, or start in another folder"
    return scrub(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _is_of_composition(error: Exception) -> bool:
    from bench.cli.refusals.message import is_of_composition  # noqa: PLC0415 - only a refusal has use for it

    return is_of_composition(error)


def _refuse(error: Exception) -> NoReturn:
    from bench.cli.refusals.message import explain  # noqa: PLC0415 - as above

    startup_line.erase()
    print(f"bench: {scrub(explain(error, _typed or sys.argv[1:]))}", file=sys.stderr)
    sys.exit(ExitStatus.REFUSED)


def _register() -> None:
    schema = OmegaConf.structured(ComposedConfig)
    for open_ended in (schema.compile.options, schema.tracking.tags):
        OmegaConf.set_struct(open_ended, False)  # any key may be set there, without a + in front
    ConfigStore.instance().repo.pop("schema.yaml", None)  # Hydra 1.4 warns of a name that is there already
    ConfigStore.instance().store(name="schema", node=schema)
    Plugins.instance()  # all are imported: hydra-submitit-launcher, too, registers choices of these names
    # Hydra's loader knows where a defaults list puts a file; without ours in its place only the file itself tells.
    is_ours = hydra_internals.restores_files() and hydra_internals.command_class(_Command) is not None
    install_config_files(None if is_ours else restore)
    launchers = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for choice in OURS_IN_CONF:  # else Hydra would check ours in conf/ against theirs
        launchers.pop(f"{choice}.yaml", None)
    omegaconf_internals.register_resolver("bench_help", _help)
    omegaconf_internals.register_resolver("bench_sweep_folder", _sweep_folder, use_cache=True)


def _help() -> str:
    """What `hydra.help.template` becomes. Hydra puts texts for $NAMES in it, so a dollar of our own is doubled."""
    files = hydra_internals.group_lister(GlobalHydra.instance().config_loader())
    found = files.get_group_options("", results_filter=ObjectType.GROUP)
    names = [*(each for each in GROUPS if each in found), *(each for each in found if each not in (*GROUPS, "hydra"))]
    groups = {each: sorted(files.get_group_options(each)) for each in (*names, "hydra/sweeper", "hydra/launcher")}
    # Hydra's own sweeper plans nothing, and each of its jobs says so.
    groups["hydra/sweeper"] = [each for each in groups["hydra/sweeper"] if each != "basic"]
    return help_text(groups, HydraConfig.get().runtime.choices).replace("$", "$$")


def _sweep_folder(name: str | None) -> str:
    if name:
        return name
    now = datetime.now().astimezone()
    stamp = now.strftime("%Y-%m-%d_%H-%M-%S")
    # Two sweeps may begin in one second.
    return f"{stamp}-{now.microsecond:06}" if Path("multirun", stamp).exists() else stamp


def to_config(composed: DictConfig, overrides: Sequence[str]) -> BenchmarkConfig:
    """The composed config as ours. Raises ConfigError, or OmegaConf's own errors for what does not fit a type.

    `overrides` are those that it was composed from.
    """
    check_overrides(overrides, OF_HYDRA)
    _check_no_credentials(composed)
    _check_choices(overrides)
    plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    plain["tracking"]["tags"] = as_tags(plain["tracking"]["tags"])
    config = BenchmarkConfig.from_dict({str(key): value for key, value in plain.items()})
    _check_names(config)
    if config.model.id is None:
        raise ConfigError("model.id", None, "name a model: a group (model=tiny), a hub id or a folder")
    _check_model_name(config, overrides)
    if (prompt := config.workload.prompt_file) is not None:
        _check_prompt_file(prompt)
    return config


def _check_prompt_file(prompt: str) -> None:
    """Refuse a prompt file that cannot be opened. What it holds is looked at before the first job."""
    path = Path(expanded(prompt))
    if not prompt.strip():
        raise ConfigError("workload.prompt_file", prompt, "is empty; name a text file, or null for a built-in text")
    try:
        if path.exists() and not path.is_file():
            what = "is a folder" if path.is_dir() else "is no regular file"
            raise ConfigError("workload.prompt_file", prompt, f"{what}; name a text file")
        if not path.is_file():
            raise ConfigError("workload.prompt_file", prompt, "no such file; name one that exists, or null")
        if not os.access(path, os.R_OK):
            raise ConfigError("workload.prompt_file", prompt, "cannot be read: permission denied; chmod u+r permits it")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        remedy = f"cannot be read ({error.strerror}); name a text file"
        raise ConfigError("workload.prompt_file", prompt, remedy) from error


def _check_no_credentials(composed: DictConfig) -> None:
    """Refuse a password in an address as typed: Hydra writes the config into every job's folder."""
    elsewhere = {
        "tracking.uri": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead, or ",
        "tracking.artifact_location": "",
        "search.storage": "set PGPASSWORD instead, or ",
    }
    for key, way in elsewhere.items():
        name, _, leaf = key.partition(".")
        section = None if OmegaConf.is_interpolation(composed, name) else composed.get(name)
        plain = OmegaConf.to_container(section, resolve=False) if isinstance(section, DictConfig) else None
        address = plain.get(leaf) if isinstance(plain, dict) else None
        if isinstance(address, str) and "${" not in address and has_credentials(address):
            remedy = f"holds a user's secret, which the outputs would repeat; {way}write {key}='${{oc.env:NAME}}'"
            raise ConfigError(key, without_credentials(address), remedy)


def _check_names(config: BenchmarkConfig) -> None:
    """Refuse a secret as a name: folders and runs that have it could not be found again under a mask."""
    names = {
        "sweep.name": config.sweep.name,
        "sweep.label": config.sweep.label,
        "tracking.experiment": config.tracking.experiment,
    }
    for key, name in names.items():
        if name is not None and scrub(name) != name:
            remedy = "is a secret of the environment or holds one, and would be shown as a name; choose another name"
            raise ConfigError(key, name, remedy)


@functools.cache
def _groups() -> frozenset[str]:
    """The groups at the top; those of Hydra's own are below the folder of its name."""
    return frozenset(each.name for each in conf_folder().iterdir() if each.is_dir() and each.name != "hydra")


def _check_choices(overrides: Sequence[str]) -> None:
    """Refuse a list where a group's choice belongs: Hydra takes the last of it."""
    groups = _groups()
    for key, _, value in (each.lstrip("+").partition("=") for each in overrides):
        if key in groups and value.startswith("["):
            remedy = f"is a list, and a group takes one choice; with commas alone it is a sweep: -m {key}={value[1:-1]}"
            raise ConfigError(key, value, remedy)


def _check_model_name(config: BenchmarkConfig, overrides: Sequence[str]) -> None:
    """Refuse a model's name on another model: with random weights of a group's architecture it is a mere label."""
    keys = [each.lstrip("+").partition("=")[0] for each in overrides]
    spelt_out = any(key.startswith(("model.architecture", "model.weights")) for key in keys)
    if "model.id" in keys and config.model.weights == "random" and config.model.architecture and not spelt_out:
        remedy = "is only a label here, for the group makes a small model with random weights; choose a group with it, "
        remedy += "such as model=smollm2-135m, or add model.weights=pretrained model.architecture=null"
        raise ConfigError("model.id", config.model.id, remedy)


# ---- one job -----------------------------------------------------------------------------------------------------


def job(composed: DictConfig) -> Any:
    """Hydra's task in a sweep: run one composed config in its output folder; returns what the launcher brings back."""
    from bench.jobs.assignment import VARIABLE  # noqa: PLC0415
    from bench.orchestration import job_run  # noqa: PLC0415 - neither help nor a refused config has use for it

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    if VARIABLE not in os.environ and settings.mode is RunMode.RUN:
        _run_after_hydra(composed, folder)
    start_folder.enter(settings.runtime.cwd, folder)  # Hydra may have left it: hydra.job.chdir
    if settings.output_subdir is not None:
        hide_secrets(folder / settings.output_subdir, composed, [*settings.overrides.task, *settings.overrides.hydra])
    return job_run.run_sweep_job(to_config(composed, settings.overrides.task), folder)


def _run_after_hydra(composed: DictConfig, folder: Path) -> NoReturn:
    """Run one setting whose output folder Hydra has made already: `_Command` does not fit into this version of it."""
    from bench.orchestration import job_run  # noqa: PLC0415 - neither help nor a refused config has use for it

    settings = HydraConfig.get()
    start_folder.enter(settings.runtime.cwd, folder)
    whole = copy.deepcopy(composed)
    OmegaConf.update(whole, "hydra", settings, merge=False, force_add=True)
    try:
        _check_command(whole, RunMode.RUN)
        config = to_config(composed, settings.overrides.task)
        check_effect([(settings.overrides.task, config)])
        ready = job_run.prepare_single(config, folder)
        if ready is None:
            sys.exit(0)
        if settings.output_subdir is not None:
            hide_secrets(
                folder / settings.output_subdir, composed, [*settings.overrides.task, *settings.overrides.hydra]
            )
        status = job_run.run_single(config, folder, ready)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _refuse(error)  # here, for Hydra prints a line of its own about what a job raises
    except OSError as error:
        _give_up(error)
    sys.exit(status)


def _single_run(composed: DictConfig, stack: contextlib.ExitStack) -> TaskFunction:
    """Examine a single run, make its output folder, and return the task that measures it.

    Args:
        composed: with Hydra's own part, in which the place of the output is set.
        stack: takes what must be undone when the run has ended.

    Raises:
        ConfigError, OmegaConfBaseException: it cannot work; nothing was made.
        SystemExit: it was a dry run.
    """
    hydra_config = HydraConfig.instance()
    stack.callback(setattr, hydra_config, "cfg", hydra_config.cfg)
    hydra_config.set_config(composed)
    typed = Path(str(OmegaConf.select(composed, "hydra.run.dir")))
    folder = Path(os.path.abspath(typed))  # noqa: PTH100 - as Hydra does it: a link before ".." is not followed
    with read_write(composed.hydra):
        composed.hydra.runtime.output_dir = str(folder)
    OmegaConf.set_readonly(composed.hydra, None)
    stack.enter_context(env_override(composed.hydra.job.env_set))
    plain = copy.deepcopy(composed)
    with open_dict(plain), read_write(plain):
        del plain["hydra"]
    config = to_config(plain, composed.hydra.overrides.task)
    check_effect([(composed.hydra.overrides.task, config)])

    from bench.jobs.folders.output_folder import free_config_folder, in_output_folder  # noqa: PLC0415
    from bench.orchestration import job_run  # noqa: PLC0415 - neither help nor a refused config has use for it

    try:
        ready = job_run.prepare_single(config, folder)
        if ready is None:
            sys.exit(0)
        with read_write(composed.hydra):
            composed.hydra.output_subdir = free_config_folder(folder, composed.hydra.output_subdir)
        stack.enter_context(in_output_folder(folder, typed=typed, config_folder=composed.hydra.output_subdir))
    except OSError as error:
        _give_up(error)

    def measure(_: DictConfig) -> NoReturn:
        start_folder.enter(composed.hydra.runtime.cwd, folder)  # Hydra may have left it: hydra.job.chdir
        try:
            if composed.hydra.output_subdir is not None:
                typed_overrides = [*composed.hydra.overrides.task, *composed.hydra.overrides.hydra]
                hide_secrets(folder / composed.hydra.output_subdir, plain, typed_overrides)
            status = job_run.run_single(config, folder, ready)
        except (ConfigError, OmegaConfBaseException) as error:
            _refuse(error)  # here, for Hydra prints a line of its own about what a job raises
        except OSError as error:
            _give_up(error)
        sys.exit(status)

    return measure
