"""Mask tokens and passwords in the YAML files that Hydra and the sweeper write for a composed config.

The files contain references such as `${oc.env:NAME}` as typed, not their values. They do contain secrets that were
typed or that the shell substituted.
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
    """Return a config as YAML, with *** in place of every known secret."""
    plain = OmegaConf.to_container(config, resolve=False)
    hidden = _hidden(plain)
    return OmegaConf.to_yaml(config if hidden == plain else OmegaConf.create(hidden))


def hide_secrets(folder: Path, config: DictConfig, overrides: Sequence[str]) -> None:
    """Rewrite those of Hydra's YAML files that contain a secret; other files of the folder are not read.

    Args:
        folder: the folder in which Hydra writes a job's composed config and overrides.
        config: the composed config; if neither it nor the overrides contain a secret, no file is read.
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
    """Yield the texts of a nested value, in order."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for each in plain.values() if isinstance(plain, dict) else plain:
            yield from _texts(each)


def _hidden(plain: Any) -> Any:
    """Return the same nested value with the secrets in its texts masked."""
    masked = iter(scrub_texts(list(_texts(plain))))

    def again(value: Any) -> Any:
        if isinstance(value, str):
            return next(masked)
        if isinstance(value, dict):
            return {key: again(each) for key, each in value.items()}
        return [again(each) for each in value] if isinstance(value, list) else value

    return again(plain)
