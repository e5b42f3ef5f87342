"""Find a model (folder, GGUF file or hub), and refuse in one line what the hub and transformers refuse.

A path that does not exist is refused here. Other names are for the hub to resolve; `refusing` translates its errors.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError

from bench.config.rules import ConfigError
from bench.config.schema import ModelConfig
from bench.host.home_folder import expanded
from bench.trial.model.gguf_file import check_gguf
from bench.trial.unsupported import one_line


def check_path(model_config: ModelConfig) -> None:
    """Refuse a path that does not exist, or that holds no model."""
    name = str(model_config.id)
    path = Path(expanded(name))
    if path.is_dir():
        _check_folder(model_config, path)
    elif path.exists():
        remedy = "is a file; name its folder"
        if path.suffix == ".gguf":
            remedy += f": model.id={Path(name).parent} model.gguf_file={path.name}"
        raise ConfigError("model.id", name, remedy)
    elif name.startswith(("/", ".", "~")) or name.count("/") > 1:
        hint = ""
        if name.startswith("~"):
            unknown = str(path).startswith("~")
            hint = f": {name.partition('/')[0]} names no home folder here" if unknown else f": {path}"
        raise ConfigError("model.id", name, f"there is no such folder{hint}")


def _check_folder(model_config: ModelConfig, path: Path) -> None:
    if model_config.revision is not None:
        remedy = f"{path} is a folder and has none; set it to null"
        raise ConfigError("model.revision", model_config.revision, remedy)
    if model_config.gguf_file is None:
        _check_config_file(str(model_config.id), path / "config.json")
    else:
        check_gguf(model_config.gguf_file, path / model_config.gguf_file)


def _check_config_file(name: str, path: Path) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "the folder holds no config.json; name a folder made by save_pretrained"
        raise ConfigError("model.id", name, remedy) from error
    except (OSError, ValueError) as error:
        remedy = f"its config.json cannot be read ({one_line(error)}); copy it again"
        raise ConfigError("model.id", name, remedy) from error
    if not isinstance(content, dict):
        raise ConfigError("model.id", name, "its config.json holds no keys and values; copy it again")


def source(model_config: ModelConfig) -> dict[str, Any]:
    """Return the keywords with which each `from_pretrained` finds its part of the model."""
    gguf = {"gguf_file": model_config.gguf_file} if model_config.gguf_file else {}
    return {
        "pretrained_model_name_or_path": None if model_config.id is None else expanded(model_config.id),
        "revision": model_config.revision,
        "trust_remote_code": model_config.trust_remote_code,
        **gguf,
    }


@contextlib.contextmanager
def refusing(model_config: ModelConfig) -> Iterator[None]:
    """Turn the errors of the hub and of transformers for a missing model into one line."""
    try:
        yield
    except SafetensorError as error:
        remedy = f"its weights are damaged ({one_line(error)}); copy or download them again"
        raise ConfigError("model.id", model_config.id, remedy) from error
    except OSError as error:
        _refuse_hub(model_config, error)
        raise ConfigError("model.id", model_config.id, f"cannot be loaded: {one_line(error)}") from error
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise needs_own_code(model_config) from error
        raise


def needs_own_code(model_config: ModelConfig) -> ConfigError:
    remedy = f"{model_config.id} needs Python code that comes with it, which is run only with true; read it first"
    return ConfigError("model.trust_remote_code", False, remedy)


def _refuse_hub(model_config: ModelConfig, error: BaseException) -> None:
    """Raise the hub's reason, if the error comes from the hub."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for kind, key, remedy in _hub_reasons(model_config):
        if any(isinstance(each, kind) for each in chain):
            value = model_config.revision if key == "model.revision" else model_config.id
            raise ConfigError(key, value, remedy) from error


def _hub_reasons(model_config: ModelConfig) -> Iterator[tuple[type[BaseException] | tuple[Any, ...], str, str]]:
    """Yield errors of the hub's client, special before general, with the key to change and the remedy."""
    endpoint = huggingface_hub.constants.ENDPOINT
    name = "model.id"
    yield hub_errors.HFValidationError, name, "is neither a folder here nor a hub id such as some-org/some-model"
    yield hub_errors.GatedRepoError, name, "is gated: accept its licence on the hub, then log in with hf auth login"
    revision = f"{model_config.id} has no branch, tag or commit {model_config.revision or 'main'} on the hub"
    yield hub_errors.RevisionNotFoundError, "model.revision", revision
    absent = f"{endpoint} knows no such model, or it is private; check the name, or log in with hf auth login"
    yield hub_errors.RepositoryNotFoundError, name, absent
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        absent = "is no folder, and not in the hub's cache, and HF_HUB_OFFLINE=1 keeps from asking the hub; unset it"
    else:
        absent = (
            f"is no folder, and not in the hub's cache, and {endpoint} does not answer; name a folder, or go online"
        )
    yield (hub_errors.OfflineModeIsEnabled, hub_errors.LocalEntryNotFoundError), name, absent
    yield hub_errors.EntryNotFoundError, name, "lacks a file that transformers needs, such as config.json; use another"
    yield hub_errors.HfHubHTTPError, name, f"{endpoint} refuses to send it; check the login, or try again later"


def reason(error: BaseException) -> str:
    """Return the end of a nested error as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return lines[1].removeprefix("ValueError: ").removeprefix("TypeError: ")
    text = one_line(error, 200)
    return f"{type(error).__name__}: {text}" if isinstance(error, LookupError) else text
