"""From a model config to a model on the device, with its tokenizer.

Weights come from safetensors or GGUF, never from a pickle, or they are random. Random weights are made on the device
itself, so that a model of eight billion parameters needs no download and no minute of a CPU's random numbers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.config import BenchmarkConfig, ModelConfig
from bench.rules import ConfigError
from bench.trial.support import one_line


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to generate."""

    model: Any  # transformers.PreTrainedModel, in eval mode, on `device`
    tokenizer: Any
    device: torch.device


def load(config: BenchmarkConfig) -> LoadedModel:
    """Load or make the model that the config names, on the device that it names.

    Raises:
        ConfigError: the request cannot be met on this machine or by this model, or the model cannot be found.
        ValueError, ImportError: as transformers raises them.
    """
    device = resolve_device(config.device)
    model_config = config.model
    if model_config.id is None:
        raise ConfigError("model.id", None, "name a model: a group (model=tiny), a hub id or a folder")
    if model_config.revision is not None and Path(model_config.id).is_dir():
        raise ConfigError("model.revision", model_config.revision, f"{model_config.id} is a folder and has none")
    if config.profile.memory_snapshot and device.type != "cuda":
        raise NoSnapshotError(f"torch keeps no history of memory on {device.type}")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for what asks for the current GPU: Triton, kernels that others wrote, NVTX
    _seed(model_config.seed)
    random = model_config.weights == "random"
    try:
        model = _random_model(config, device) if random else _pretrained_model(config).to(device)
        tokenizer = _byte_tokenizer() if model_config.architecture else _tokenizer(model_config)
    except OSError as error:
        raise ConfigError("model.id", model_config.id, f"cannot be loaded: {one_line(error)}") from error
    model = model.eval()
    # A checkpoint's own habits (sampling, penalties) would reach each call through this; ours spells out everything.
    model.generation_config = transformers.GenerationConfig()
    # A fresh seed, so that what loading consumed does not matter to anything after it.
    _seed(model_config.seed)
    _check_lengths(config, model, tokenizer)
    return LoadedModel(model=model, tokenizer=tokenizer, device=device)


def resolve_device(name: str) -> torch.device:
    """The torch device of the key `device`; ConfigError when this machine lacks it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not name.startswith("cuda"):
        return torch.device(name)
    if torch.cuda._is_in_bad_fork():  # noqa: SLF001 - torch's own answer would be an exception far from here
        remedy = "the fork server has initialised CUDA, which no process forked from it can use; set it to spawn"
        raise ConfigError("isolation.mode", "forkserver", remedy)
    if not torch.cuda.is_available():
        raise ConfigError("device", name, "torch finds no CUDA GPU here; use device=cpu")
    device = torch.device(name if ":" in name else "cuda:0")
    count = torch.cuda.device_count()
    if device.index >= count:
        raise ConfigError("device", name, f"this machine has {count} CUDA GPU(s), counted from cuda:0")
    return device


class NoSnapshotError(RuntimeError):
    """Only torch's allocator on a GPU keeps a history."""


def _seed(seed: int) -> None:
    torch.manual_seed(seed)  # seeds the GPUs as well


def _random_model(config: BenchmarkConfig, device: torch.device) -> Any:
    model_config = config.model
    if model_config.architecture:
        sizes = dict(model_config.architecture)
        model_type = sizes.pop("model_type")
        try:
            architecture = transformers.AutoConfig.for_model(model_type, **sizes)
        except ValueError as error:
            remedy = "transformers knows no such architecture; see model_type in a config.json"
            raise ConfigError("model.architecture.model_type", model_type, remedy) from error
    else:
        architecture = transformers.AutoConfig.from_pretrained(
            model_config.id, revision=model_config.revision, trust_remote_code=model_config.trust_remote_code
        )
    dtype = _dtype(model_config) or getattr(architecture, "dtype", None) or torch.float32
    with device:
        return transformers.AutoModelForCausalLM.from_config(
            architecture,
            dtype=dtype,
            attn_implementation=config.attention.implementation,
            trust_remote_code=model_config.trust_remote_code,
        )


def _pretrained_model(config: BenchmarkConfig) -> Any:
    model_config = config.model
    source: dict[str, Any]
    if model_config.gguf_file:
        source = {"gguf_file": model_config.gguf_file} | _dense_gguf(model_config.gguf_file)
    else:
        source = {"use_safetensors": True}
    return transformers.AutoModelForCausalLM.from_pretrained(
        model_config.id,
        revision=model_config.revision,
        dtype=_dtype(model_config) or "auto",
        attn_implementation=config.attention.implementation,
        trust_remote_code=model_config.trust_remote_code,
        **source,
    )


def _dense_gguf(gguf_file: str) -> dict[str, Any]:
    """Ask for dense weights by name where transformers can keep GGUF blocks; before, it always made dense ones."""
    if not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(gguf_file=gguf_file, dequantize=True)}


def _dtype(model_config: ModelConfig) -> torch.dtype | None:
    return None if model_config.dtype == "auto" else getattr(torch, model_config.dtype)


def _tokenizer(model_config: ModelConfig) -> Any:
    source = {"gguf_file": model_config.gguf_file} if model_config.gguf_file else {}
    return transformers.AutoTokenizer.from_pretrained(
        model_config.id,
        revision=model_config.revision,
        trust_remote_code=model_config.trust_remote_code,
        **source,
    )


def _byte_tokenizer() -> Any:
    """A tokenizer without a vocabulary file: one token a byte, then a padding and an end token. 258 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - only random models need it

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _check_lengths(config: BenchmarkConfig, model: Any, tokenizer: Any) -> None:
    text_config = model.config.get_text_config()
    workload = config.workload
    total = workload.sequence_length + workload.num_tokens_to_generate
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions is not None and total > positions:
        remedy = f"with {workload.num_tokens_to_generate} new tokens makes {total} positions; the model has {positions}"
        raise ConfigError("workload.sequence_length", workload.sequence_length, remedy)
    if len(tokenizer) > text_config.vocab_size and config.model.weights == "random":
        remedy = f"is smaller than the tokenizer's {len(tokenizer)} tokens"
        raise ConfigError("model.architecture.vocab_size", text_config.vocab_size, remedy)


def revision_of(model: Any) -> str | None:
    """The hub commit that the weights came from; None for folders and random weights."""
    commit = getattr(model.config, "_commit_hash", None)
    return str(commit) if commit else None
