"""Refuse, before anything runs, unknown flags, a sweeper that plans nothing, and unusable output folders."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bench.cli.refusals.override_checks import OverrideError
from bench.compat import hydra_internals
from bench.config.rules import ConfigError
from bench.host.command_line import ExitStatus
from bench.host.secrets import scrub
from bench.report.terminal import startup_line


def check_flags(arguments: Sequence[str]) -> Namespace:
    """Parse Hydra's flags, and refuse an unknown one in one line: Hydra's parser would print the whole usage."""
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
    """Return the flags that bench itself reads; Hydra refuses unknown ones."""
    flags = [each for each in arguments if each.startswith("-")]
    return Namespace(
        multirun=any(each in ("-m", "--multirun") for each in flags),
        shell_completion=any(each in ("-sc", "--shell-completion", "--shell_completion") for each in flags),
        overrides=[each for each in arguments if "=" in each and not each.startswith("-")],
    )


def check_command(config: DictConfig, run_mode: RunMode) -> None:
    """Refuse a sweeper that plans nothing, sweep options in a single run, and a file as output folder."""
    if "model" not in config:
        name = config.hydra.job.config_name
        group, _, choice = str(name).rpartition("/")
        remedy = f"type {group}={choice}" if group else "leave the flag out, or begin its defaults list with - config"
        raise OverrideError(f"--config-name {name}", f"is no whole config; {remedy}")
    _check_sweeper(config, run_mode)
    _check_output_folder(config, "hydra.run.dir" if run_mode is RunMode.RUN else "hydra.sweep.dir")


def _check_output_folder(config: DictConfig, key: str) -> None:
    """Refuse an output folder that cannot be created: a file has its path, or its name is too long."""
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
            return  # sweep.name has its own rule
        problem = f"cannot be a folder: {getattr(error, 'strerror', None) or error}; name another"
    raise ConfigError(key, name, problem)


def _check_sweeper(config: DictConfig, run_mode: RunMode) -> None:
    from bench.cli.refusals.yaml_places import find_ignored_override, find_sweep  # noqa: PLC0415 - unused by --cfg

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
