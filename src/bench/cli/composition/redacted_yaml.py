"""Keeps tokens and passwords out of the YAML files that Hydra and the sweeper write of a composed config.

What `${oc.env:NAME}` stands for is not in them, for they hold references as typed. A secret that was typed, or that the
shell put in its place, is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.host.atomic_files import write_whole
from bench.host.secrets import scrub_texts
from bench.results.file_names import HYDRA_NAMES


def to_yaml(config: DictConfig) -> str:
    """Return a config as YAML, with *** in place of every secret that is known."""
    plain = OmegaConf.to_container(config, resolve=False)
    hidden = _hidden(plain)
    return OmegaConf.to_yaml(config if hidden == plain else OmegaConf.create(hidden))


def hide_secrets(folder: Path, config: DictConfig, overrides: Sequence[str]) -> None:
    """Write those of Hydra's YAML files anew that hold a secret; what else lies in the folder is not looked at.

    Args:
        folder: the one into which Hydra writes what a job was composed of.
        config: what was composed; where neither it nor the overrides hold a secret, no file is read.
        overrides: those that it was composed from.

    Raises:
        OSError: a file cannot be read or written.
    """
    texts = [*_texts(OmegaConf.to_container(config, resolve=False)), *overrides]
    if scrub_texts(texts) == texts:
        return
    for path in [folder / name for name in HYDRA_NAMES if (folder / name).is_file()]:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if (hidden := _hidden(plain)) != plain:
            write_whole(path, OmegaConf.to_yaml(OmegaConf.create(hidden)))


def _texts(plain: Any) -> Iterator[str]:
    """List the texts of a nested value, in order."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for each in plain.values() if isinstance(plain, dict) else plain:
            yield from _texts(each)


def _hidden(plain: Any) -> Any:
    """Give the same nested value with its texts masked."""
    masked = iter(scrub_texts(list(_texts(plain))))

    def again(value: Any) -> Any:
        if isinstance(value, str):
            return next(masked)
        if isinstance(value, dict):
            return {key: again(each) for key, each in value.items()}
        return [again(each) for each in value] if isinstance(value, list) else value

    return again(plain)
