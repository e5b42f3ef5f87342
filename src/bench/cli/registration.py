"""Register with Hydra before it runs: the schema, the source of files, and the resolvers of `conf/config.yaml`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from bench.cli.composition.config_loader import restore
from bench.cli.composition.yaml_files import install as install_config_files
from bench.cli.help import help_text
from bench.cli.hydra_command import HydraCommand
from bench.compat import hydra_internals, omegaconf_internals
from bench.config.schema import ComposedConfig

OURS_IN_CONF = ("submitit_slurm", "submitit_local")  # launchers
# In the order of the help page.
GROUPS = ("model", "attention", "compile", "workload", "warmup", "measurement", "tracking", "experiment")


def register() -> None:
    schema = OmegaConf.structured(ComposedConfig)
    for open_ended in (schema.compile.options, schema.tracking.tags):
        OmegaConf.set_struct(open_ended, False)  # accepts any key without a leading +
    ConfigStore.instance().repo.pop("schema.yaml", None)  # Hydra 1.4 warns of an existing name
    ConfigStore.instance().store(name="schema", node=schema)
    Plugins.instance()  # imports all: hydra-submitit-launcher also registers choices of these names
    # Hydra's loader knows the package that a defaults list gives a file; without ours, only the file's header tells.
    is_ours = hydra_internals.restores_files() and hydra_internals.command_class(HydraCommand) is not None
    install_config_files(None if is_ours else restore)
    launchers = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for choice in OURS_IN_CONF:  # else Hydra would validate our files in conf/ against these schemas
        launchers.pop(f"{choice}.yaml", None)
    omegaconf_internals.register_resolver("bench_help", _help)
    omegaconf_internals.register_resolver("bench_sweep_folder", _sweep_folder, use_cache=True)


def _help() -> str:
    """Return the value of `hydra.help.template`. Hydra substitutes $NAMES in it, therefore each dollar is doubled."""
    files = hydra_internals.group_lister(GlobalHydra.instance().config_loader())
    found = files.get_group_options("", results_filter=ObjectType.GROUP)
    names = [*(each for each in GROUPS if each in found), *(each for each in found if each not in (*GROUPS, "hydra"))]
    groups = {each: sorted(files.get_group_options(each)) for each in (*names, "hydra/sweeper", "hydra/launcher")}
    # Hydra's own sweeper plans nothing, as each of its jobs reports.
    groups["hydra/sweeper"] = [each for each in groups["hydra/sweeper"] if each != "basic"]
    return help_text(groups, HydraConfig.get().runtime.choices).replace("$", "$$")


def _sweep_folder(name: str | None) -> str:
    if name:
        return name
    now = datetime.now().astimezone()
    stamp = now.strftime("%Y-%m-%d_%H-%M-%S")
    # Two sweeps may start within one second.
    return f"{stamp}-{now.microsecond:06}" if Path("multirun", stamp).exists() else stamp
