"""The methods that take the place of those of Hydra's command, so that each config is composed once."""

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

MISSING = "You must specify"  # how Hydra begins when a choice is missing


class HydraCommand:
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
            check_command(config, run_mode)
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
        check_command(composed, RunMode.RUN)
        self._asked, self._composed = (config_name, list(overrides)), composed  # what Hydra composes next
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
