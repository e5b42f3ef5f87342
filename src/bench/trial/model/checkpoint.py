"""Check by the headers of a checkpoint's files that its weights are complete, undamaged and the model's.

transformers fills missing weights with random ones and warns; here that is refused. Not checked before the load: files
that are still to be fetched from the hub, quantised tensors, and ways of loading that not every model supports.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open

from bench.config.rules import ConfigError
from bench.config.schema import ModelConfig
from bench.host.home_folder import expanded
from bench.trial.model.architecture import requested_dtype
from bench.trial.unsupported import one_line

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_checkpoint(model_config: ModelConfig, architecture: Any, skeleton: Any) -> None:
    """Refuse weights that are damaged or incomplete; on a hub as far as they are in the cache."""
    folder = _folder_of(model_config)
    special = (folder / "adapter_config.json").is_file() if folder else True
    if folder is None or special or getattr(architecture, "transformers_weights", None):
        return  # transformers finds those by rules of its own, and the load checks what it found
    tensors: dict[str, torch.Tensor] = {}
    for path in _weight_files(model_config, folder):
        tensors.update(_header(model_config, path))
    if getattr(architecture, "quantization_config", None) is not None:
        return  # what each kind of quantised tensor becomes is known to the library that reads it
    try:
        # transformers' own way of loading, with all its renaming, merging and tying, on tensors without content.
        _, found = type(skeleton).from_pretrained(
            None,
            config=copy.deepcopy(architecture),
            state_dict=tensors,
            dtype=requested_dtype(model_config) or "auto",
            device_map={"": "meta"},
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception:  # noqa: BLE001 - a way that not every model knows; the load itself finds what is missing
        return
    check_tensors(model_config, found)


def _folder_of(model_config: ModelConfig) -> Path | None:
    """Return the checkpoint's folder on this machine; None: some of its weights are still to be fetched."""
    path = Path(expanded(str(model_config.id)))
    if path.is_dir():
        return path
    for name in (WEIGHTS, INDEX):
        found = huggingface_hub.try_to_load_from_cache(str(model_config.id), name, revision=model_config.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _weight_files(model_config: ModelConfig, folder: Path) -> list[Path]:
    """Return the weight files that exist; ConfigError if the folder lacks one."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    names = _shards(model_config, folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and Path(expanded(str(model_config.id))).is_dir():
        remedy = f"lacks {len(missing)} of {len(names)} files of weights ({_some(missing)}); copy them there"
        raise ConfigError("model.id", model_config.id, remedy)
    if missing and huggingface_hub.constants.HF_HUB_OFFLINE:
        remedy = f"{len(missing)} of {len(names)} files of weights are not in the hub's cache; unset HF_HUB_OFFLINE"
        raise ConfigError("model.id", model_config.id, remedy)
    return [folder / name for name in names if name not in missing]


def _shards(model_config: ModelConfig, folder: Path) -> list[str]:
    """Return the names of the files in the index."""
    if not (folder / INDEX).is_file():
        if any(folder.glob("pytorch_model*.bin")):
            remedy = "its weights are pickles (pytorch_model.bin), which are never read; convert them to safetensors"
            raise ConfigError("model.id", model_config.id, remedy)
        raise ConfigError("model.id", model_config.id, f"the folder holds no weights ({WEIGHTS}); copy them there")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("model.id", model_config.id, f"{INDEX} cannot be read; copy it again") from error


def _header(model_config: ModelConfig, path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file without content; the library checks the size of the file."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return {
                name: torch.empty(each.get_shape(), dtype=_stored_dtype(each.get_dtype()), device="meta")
                for name, each in slices.items()
            }
    except SafetensorError as error:
        remedy = f"{path.name} is truncated or damaged ({one_line(error)}); copy or download it again"
        raise ConfigError("model.id", model_config.id, remedy) from error


def _stored_dtype(name: str) -> torch.dtype:
    """Return a dtype for a header; only shapes matter here, so other types may pass for a float."""
    return {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16}.get(name, torch.float16)


def check_tensors(model_config: ModelConfig, found: dict[str, Any]) -> None:
    """Refuse incomplete weights: transformers fills the gaps with random ones and only warns."""
    gguf = model_config.gguf_file
    key, value = ("model.gguf_file", gguf) if gguf else ("model.id", model_config.id)
    if missing := sorted(found["missing_keys"]):
        remedy = f"lacks {len(missing)} of the model's tensors ({_some(missing)}), which would be random; "
        raise ConfigError(key, value, remedy + "use a whole checkpoint of this architecture")
    if wrong := sorted(found["mismatched_keys"]):
        name, there, wanted = wrong[0]
        remedy = f"{name} has the shape {list(there)} where config.json makes it {list(wanted)}"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(key, value, f"{remedy}{more}; use the weights and the config.json of one checkpoint")


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
