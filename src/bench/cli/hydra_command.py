"""Override methods of Hydra's command, so that each config is composed only once."""

from __future__ import annotations

import contextlib
import string
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bench.cli.composition.config_loader import text_loader
from bench.cli.composition.quoting import TEXTS_OF_HYDRA
from bench.cli.job_task import single_run
from bench.cli.refusals.command_checks import check_command
from bench.cli.refusals.override_checks import OF_HYDRA, OverrideError
from bench.config.schema import no_such_key
from bench.host.home_folder import expanded

MISSING = "You must specify"  # the start of Hydra's message about a missing choice


class HydraCommand:
    """Override methods of Hydra's command, so that it composes a command line once instead of twice.

    Unchanged, Hydra composes everything to find out whether this is a sweep, and again to run it (0.1 s); for `--help`
    it lists all groups twice (almost 1 s). The results are the same. Some releases of Hydra pass further arguments
    (`more`), which are passed on.
    """

    config_loader: Any
    is_sweep = False  # -m was typed
    _asked: tuple[str | None, list[str]] | None = None  # config name and overrides of `_composed`
    _composed: DictConfig | Exception

    @classmethod
    def create_main_hydra2(cls, task_name: str, config_search_path: ConfigSearchPath) -> Any:
        """Create Hydra's object with a loader that keeps texts as typed."""
        above: Any = super()
        if (loader := text_loader(config_search_path)) is None:
            return above.create_main_hydra2(task_name, config_search_path)
        make: Any = cls
        command = make(task_name=task_name, config_loader=loader)
        GlobalHydra.instance().initialize(command)
        return command

    def get_mode(self, config_name: str | None, overrides: list[str], **more: Any) -> Any:
        """Return the mode that the config requests; None if it requests none or cannot be composed."""
        above: Any = super()
        if more:  # Hydra 1.4 does not compose to find out
            return above.get_mode(config_name, overrides, **more)
        self._asked = (config_name, list(overrides))
        mode = RunMode.MULTIRUN if self.is_sweep else RunMode.RUN
        try:
            composed: DictConfig = self.config_loader.load_configuration(config_name, overrides, run_mode=mode)
        except Exception as error:  # noqa: BLE001 - raised when the config is requested
            self._composed = error
            if self.is_sweep or MISSING not in str(error):
                return None
            self._asked = None  # a missing choice is valid in a sweep, which a config may request
            return above.get_mode(config_name, overrides)
        self._composed = composed
        return composed.hydra.mode

    def compose_config(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *rest: Any, **more: Any
    ) -> DictConfig:
        """Compose the config, expand `~` in it, and refuse what no run or sweep can do."""
        above: Any = super()
        with self._known(config_name, overrides, run_mode):
            config: DictConfig = above.compose_config(config_name, overrides, run_mode, *rest, **more)
        _expand_home(config)
        is_logged = rest[0] if rest else more.get("with_log_configuration", False)
        if is_logged and run_mode is RunMode.MULTIRUN:  # a single run has been checked before
            check_command(config, run_mode)
        return config

    @contextlib.contextmanager
    def _known(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> Iterator[None]:
        """Let the loader return the config composed before if the same one is requested now."""
        chosen = f"hydra.mode={run_mode.name}"  # added by Hydra if the config names no mode
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
        task_function: TaskFunction,  # noqa: ARG002 - replaced by `measure` below
        overrides: list[str],
        with_log_configuration: bool = True,
        **more: Any,
    ) -> JobReturn:
        """Run one setting. All checks run before Hydra creates or writes anything."""
        above: Any = super()
        composed = self.compose_config(config_name, overrides, RunMode.RUN, **more)
        check_command(composed, RunMode.RUN)
        self._asked, self._composed = (config_name, list(overrides)), composed  # Hydra composes the same next
        with contextlib.ExitStack() as stack:
            measure = single_run(composed, stack)
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
        """Print the config. ConfigError for a package that does not exist."""
        above: Any = super()
        if package not in (None, "_global_"):
            config = self.compose_config(config_name, overrides, RunMode.RUN, **more)
            if OmegaConf.select(config, package) is None:
                raise OverrideError(f"--package {package}", no_such_key(str(package), OF_HYDRA))
        above.show_cfg(config_name, overrides, cfg_type, package, resolve, **more)

    def get_help(
        self, help_cfg: DictConfig, cfg: DictConfig, args_parser: ArgumentParser, resolve: bool, **more: Any
    ) -> str:
        """Return the help template, with Hydra's texts where it has placeholders for them."""
        above: Any = super()
        try:
            return string.Template(help_cfg.template).substitute()
        except KeyError:
            return str(above.get_help(help_cfg, cfg, args_parser, resolve, **more))


def _expand_home(config: DictConfig) -> None:
    """Expand `~` in the folders that Hydra itself creates."""
    for key in TEXTS_OF_HYDRA:
        section, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, section)
        plain = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None
        text = plain.get(leaf) if isinstance(plain, dict) else None
        if isinstance(text, str) and text.startswith("~"):
            OmegaConf.update(config, key, expanded(text))
