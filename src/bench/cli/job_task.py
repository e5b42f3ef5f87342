"""Run one composed config as a job: Hydra's task in a sweep, or a single run from its checks to its exit status."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bench.cli.composition import checked_config
from bench.cli.composition.redacted_yaml import hide_secrets
from bench.cli.refusals.command_checks import check_command
from bench.cli.refusals.exits import give_up, refuse
from bench.config.inactive import check_effect
from bench.config.rules import ConfigError
from bench.host import start_folder


def job(composed: DictConfig) -> Any:
    """Run one composed config of a sweep in its output folder, as Hydra's task; return the value for the launcher."""
    from bench.jobs.assignment import VARIABLE  # noqa: PLC0415
    from bench.orchestration import job_run  # noqa: PLC0415 - unused for help and refused configs

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    if VARIABLE not in os.environ and settings.mode is RunMode.RUN:
        _run_after_hydra(composed, folder)
    start_folder.enter(settings.runtime.cwd, folder)  # Hydra may have changed the folder: hydra.job.chdir
    if settings.output_subdir is not None:
        hide_secrets(folder / settings.output_subdir, composed, [*settings.overrides.task, *settings.overrides.hydra])
    return job_run.run_sweep_job(checked_config.to_config(composed, settings.overrides.task), folder)


def _run_after_hydra(composed: DictConfig, folder: Path) -> NoReturn:
    """Run one setting whose output folder Hydra has already created: this version lacks the hooks of `HydraCommand`."""
    from bench.orchestration import job_run  # noqa: PLC0415 - unused for help and refused configs

    settings = HydraConfig.get()
    start_folder.enter(settings.runtime.cwd, folder)
    whole = copy.deepcopy(composed)
    OmegaConf.update(whole, "hydra", settings, merge=False, force_add=True)
    try:
        check_command(whole, RunMode.RUN)
        config = checked_config.to_config(composed, settings.overrides.task)
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
        refuse(error)  # handled here, because Hydra prints its own line for an exception of a job
    except OSError as error:
        give_up(error)
    sys.exit(status)


def single_run(composed: DictConfig, stack: contextlib.ExitStack) -> TaskFunction:
    """Check a single run, create its output folder, and return the task that measures it.

    Args:
        composed: with Hydra's own section, in which the output folder is set.
        stack: receives what must be undone after the run.

    Raises:
        ConfigError, OmegaConfBaseException: the config cannot work; nothing was created.
        SystemExit: it was a dry run.
    """
    hydra_config = HydraConfig.instance()
    stack.callback(setattr, hydra_config, "cfg", hydra_config.cfg)
    hydra_config.set_config(composed)
    typed = Path(str(OmegaConf.select(composed, "hydra.run.dir")))
    folder = Path(os.path.abspath(typed))  # noqa: PTH100 - as in Hydra: a link before ".." is not followed
    with read_write(composed.hydra):
        composed.hydra.runtime.output_dir = str(folder)
    OmegaConf.set_readonly(composed.hydra, None)
    stack.enter_context(env_override(composed.hydra.job.env_set))
    plain = copy.deepcopy(composed)
    with open_dict(plain), read_write(plain):
        del plain["hydra"]
    config = checked_config.to_config(plain, composed.hydra.overrides.task)
    check_effect([(composed.hydra.overrides.task, config)])

    from bench.jobs.folders.output_folder import free_config_folder, in_output_folder  # noqa: PLC0415
    from bench.orchestration import job_run  # noqa: PLC0415 - unused for help and refused configs

    try:
        ready = job_run.prepare_single(config, folder)
        if ready is None:
            sys.exit(0)
        with read_write(composed.hydra):
            composed.hydra.output_subdir = free_config_folder(folder, composed.hydra.output_subdir)
        stack.enter_context(in_output_folder(folder, typed=typed, config_folder=composed.hydra.output_subdir))
    except OSError as error:
        give_up(error)

    def measure(_: DictConfig) -> NoReturn:
        start_folder.enter(composed.hydra.runtime.cwd, folder)  # Hydra may have changed the folder: hydra.job.chdir
        try:
            if composed.hydra.output_subdir is not None:
                typed_overrides = [*composed.hydra.overrides.task, *composed.hydra.overrides.hydra]
                hide_secrets(folder / composed.hydra.output_subdir, plain, typed_overrides)
            status = job_run.run_single(config, folder, ready)
        except (ConfigError, OmegaConfBaseException) as error:
            refuse(error)  # handled here, because Hydra prints its own line for an exception of a job
        except OSError as error:
            give_up(error)
        sys.exit(status)

    return measure
