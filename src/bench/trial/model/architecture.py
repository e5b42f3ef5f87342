"""Read the sizes of a model and build it on torch's meta device, which needs no memory.

Sizes that make no model, or one too large for the device, are refused. Not checked: whether the weights of a
checkpoint exist (`bench.trial.model.checkpoint`), and models with code of their own, which need not support the meta
device.
"""

from __future__ import annotations

import copy
import re
from typing import Any, NoReturn

import psutil
import torch
import transformers

from bench.config.rules import ConfigError
from bench.config.schema import ModelConfig, flatten
from bench.trial.hardware.environment import memory_limit_bytes
from bench.trial.model.gguf_file import unreadable
from bench.trial.model.source import needs_own_code, reason, refusing, source

MOST_LAYERS = 1000  # ten times the deepest known; each takes Python a millisecond and more to build
MOST = 2**31 - 1
# Sizes under the names that most architectures share. Some have others, which only building them tests.
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
# Of the many errors that a forward pass on the meta device can end in, those that say that sizes do not fit together.
MISFIT = r"must match the size|shapes cannot be multiplied|is invalid for input of size|broadcast a dimension"


# ---- the config --------------------------------------------------------------------------------------------------


def read_architecture(model_config: ModelConfig) -> Any:
    """Return the transformers config: from sizes, from the model's own config.json or from its GGUF file."""
    architecture = _named(model_config.architecture) if model_config.architecture else _found(model_config)
    layers = getattr(architecture.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        remedy = f"bench builds at most {MOST_LAYERS} layers"
        if model_config.architecture:
            raise ConfigError("model.architecture.num_hidden_layers", layers, remedy)
        raise ConfigError("model.id", model_config.id, f"its config.json asks for {layers} layers; {remedy}")
    return architecture


def _found(model_config: ModelConfig) -> Any:
    try:
        with refusing(model_config):
            return transformers.AutoConfig.from_pretrained(**source(model_config))
    except ConfigError:
        raise
    except Exception as error:
        # transformers and the classes of its models raise here whatever comes: ValueError, KeyError, TypeError, …
        if model_config.gguf_file:
            raise unreadable(model_config.gguf_file, reason(error)) from error
        why = reason(error)
        if "does not recognize this architecture" in str(error):
            why = f"transformers {transformers.__version__} does not know this model_type; a newer one may"
        raise ConfigError("model.id", model_config.id, f"its config.json cannot serve: {why}") from error


def _named(named: dict[str, Any]) -> Any:
    sizes = copy.deepcopy(named)
    model_type = sizes.pop("model_type")
    known = transformers.CONFIG_MAPPING
    if model_type not in known:
        remedy = "transformers knows no such architecture; see model_type in a config.json"
        raise ConfigError("model.architecture.model_type", model_type, remedy)
    usual = _usual(known[model_type])
    for key in SIZES:
        if key in sizes:
            _check_size(key, sizes[key], _size(usual, key))
    try:
        return transformers.AutoConfig.for_model(model_type, **sizes)
    except Exception as error:  # noqa: BLE001 - each architecture checks its sizes in its own way, or divides by them
        _refuse_sizes(named, error)


def _usual(config_class: type) -> Any:
    """Return the architecture with the default sizes of its class; None: it has none."""
    try:
        return config_class()
    except Exception:  # noqa: BLE001 - it needs to be told some
        return None


def _size(architecture: Any, key: str) -> Any:
    try:
        return getattr(architecture, key, None)
    except Exception:  # noqa: BLE001 - some have it for each layer apart and refuse to name one
        return None


def _check_size(key: str, value: Any, usual: Any) -> None:
    if isinstance(value, list) and isinstance(usual, list):
        return  # one size a layer
    if value is None and usual is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        kind = "" if isinstance(value, int) and not isinstance(value, bool) else f", not a {type(value).__name__}"
        raise ConfigError(f"model.architecture.{key}", value, f"must be a whole number from 1 to {MOST}{kind}")


def _refuse_sizes(named: dict[str, Any], error: Exception) -> NoReturn:
    """Name the value that the error is about; if it names none, the architecture as a whole."""
    if isinstance(error, KeyError):
        for key, value in flatten(named).items():
            if error.args == (value,):
                raise ConfigError(f"model.architecture.{key}", value, "transformers knows no such value") from error
    if "adding_idx must be within" in str(error) and "pad_token_id" not in named:
        remedy = f"the usual one of {named['model_type']} lies beyond its vocab_size; set it"
        raise ConfigError("model.architecture.pad_token_id", None, remedy) from error
    field = re.search(r"field '(\w+)'", str(error))
    if field and field[1] in named:
        raise ConfigError(f"model.architecture.{field[1]}", named[field[1]], reason(error)) from error
    raise ConfigError("model.architecture", named["model_type"], f"makes no model: {reason(error)}") from error


# ---- the model without memory --------------------------------------------------------------------------------------


def make_skeleton(model_config: ModelConfig, architecture: Any) -> Any:
    """Return the model on the meta device; None if that says nothing about the real one."""
    if type(architecture).__module__.startswith("transformers_modules"):
        return None  # code that comes with the model, which need not know the meta device
    # Two bytes where only the weights' own file says how many: too little refuses nothing wrongly.
    unknown = torch.float32 if model_config.weights == "random" else torch.float16
    try:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(
                copy.deepcopy(architecture),
                dtype=requested_dtype(model_config) or getattr(architecture, "dtype", None) or unknown,
                attn_implementation="eager",  # the one that every model has; the requested one is judged by the load
                trust_remote_code=model_config.trust_remote_code,
            )
    except Exception as error:  # noqa: BLE001 - whatever a model raises while it is built
        if "meta tensor" in str(error):
            return None
        _refuse_model(model_config, error)


def requested_dtype(model_config: ModelConfig) -> torch.dtype | None:
    return None if model_config.dtype == "auto" else getattr(torch, model_config.dtype)


def _refuse_model(model_config: ModelConfig, error: Exception) -> NoReturn:
    named, text = model_config.architecture, str(error)
    if "trust_remote_code" in text:
        raise needs_own_code(model_config) from error
    if "Unrecognized configuration class" in text:
        remedy = "is no language model that generates (AutoModelForCausalLM); use another"
        key, value = ("architecture.model_type", named["model_type"]) if named else ("id", model_config.id)
        raise ConfigError(f"model.{key}", value, remedy) from error
    if named:
        _refuse_sizes(named, error)
    raise ConfigError("model.id", model_config.id, f"its config.json makes no model: {reason(error)}") from error


def check_memory(
    model_config: ModelConfig, architecture: Any, skeleton: Any, device: torch.device, ranks: int = 1
) -> None:
    """Refuse weights that exceed all memory; `ranks` GPUs share the weights of a checkpoint."""
    if getattr(architecture, "quantization_config", None) is not None:
        return  # the skeleton has the tensors that it would have unquantised
    tensors = {id(each): each for each in (*skeleton.parameters(), *skeleton.buffers())}
    needed = sum(each.numel() * each.element_size() for each in tensors.values())
    if device.type == "cuda":
        # Random weights are made whole on one of them.
        present = torch.cuda.get_device_properties(device).total_memory
        present *= ranks if model_config.weights == "pretrained" else 1
    else:
        host = psutil.virtual_memory().total
        present = min(host, memory_limit_bytes() or host) + psutil.swap_memory().total
    if needed <= present:
        return
    remedy = f"makes weights of {needed / 2**30:.4g} GiB, and {device} has {present / 2**30:.4g} GiB; use "
    if model_config.architecture:
        key = _outlier(model_config.architecture, architecture)
        raise ConfigError(f"model.architecture.{key}", model_config.architecture[key], remedy + "less")
    raise ConfigError("model.id", model_config.id, remedy + "a smaller model")


def _outlier(given: dict[str, Any], architecture: Any) -> str:
    """Return the size that exceeds the architecture's default most: most likely the wrong one."""
    usual = _usual(type(architecture))
    ratios = {
        key: given[key] / size
        for key in SIZES
        if isinstance(given.get(key), int) and isinstance(size := _size(usual, key), int)
    }
    return max(ratios, key=lambda key: ratios[key], default="model_type")


def check_fit(model_config: ModelConfig, skeleton: Any) -> None:
    """Check that the sizes of a random model fit together: run two tokens on the meta device."""
    ids = torch.zeros(1, 2, dtype=torch.int64, device="meta")
    try:
        with torch.no_grad():
            skeleton(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except Exception as error:
        # Most say only that this model cannot run on the meta device.
        if not re.search(MISFIT, str(error)):
            return
        named = model_config.architecture or {}
        heads, groups = named.get("num_attention_heads"), named.get("num_key_value_heads")
        if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
            remedy = f"must divide model.architecture.num_attention_heads={heads}"
            raise ConfigError("model.architecture.num_key_value_heads", groups, remedy) from error
        _refuse_model(model_config, error)
