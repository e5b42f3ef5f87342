"""Convert the composed config to a `BenchmarkConfig`, and refuse invalid values before anything runs."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from bench.cli.composition.conf_folder import conf_folder
from bench.cli.composition.text_keys import as_tags
from bench.cli.refusals.override_checks import OF_HYDRA, check_overrides
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.home_folder import expanded
from bench.host.secrets import has_credentials, scrub, without_credentials


def to_config(composed: DictConfig, overrides: Sequence[str]) -> BenchmarkConfig:
    """Return the composed config as a `BenchmarkConfig`.

    Args:
        composed: without Hydra's own section.
        overrides: those that it was composed from.

    Raises:
        ConfigError: a value breaks a rule.
        OmegaConfBaseException: a value does not have the type of its key.
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
    """Refuse a prompt file that cannot be opened. Its content is checked before the first job."""
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
    except OSError as error:  # the name is too long, or a folder is not accessible
        remedy = f"cannot be read ({error.strerror}); name a text file"
        raise ConfigError("workload.prompt_file", prompt, remedy) from error


def _check_no_credentials(composed: DictConfig) -> None:
    """Refuse a password that was typed in an address: Hydra writes the config to every job's folder."""
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
    """Refuse a name that contains a secret: its folders and runs could not be found under the masked name."""
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
    """Return the top-level groups; Hydra's own groups are in the folder `hydra`."""
    return frozenset(each.name for each in conf_folder().iterdir() if each.is_dir() and each.name != "hydra")


def _check_choices(overrides: Sequence[str]) -> None:
    """Refuse a list as a group's choice: Hydra would use its last element."""
    groups = _groups()
    for key, _, value in (each.lstrip("+").partition("=") for each in overrides):
        if key in groups and value.startswith("["):
            remedy = f"is a list, and a group takes one choice; with commas alone it is a sweep: -m {key}={value[1:-1]}"
            raise ConfigError(key, value, remedy)


def _check_model_name(config: BenchmarkConfig, overrides: Sequence[str]) -> None:
    """Refuse a model id that has no effect: with random weights and a group's architecture it is only a label."""
    keys = [each.lstrip("+").partition("=")[0] for each in overrides]
    spelt_out = any(key.startswith(("model.architecture", "model.weights")) for key in keys)
    if "model.id" in keys and config.model.weights == "random" and config.model.architecture and not spelt_out:
        remedy = "is only a label here, for the group makes a small model with random weights; choose a group with it, "
        remedy += "such as model=smollm2-135m, or add model.weights=pretrained model.architecture=null"
        raise ConfigError("model.id", config.model.id, remedy)
