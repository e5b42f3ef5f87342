"""Load the model that a config names onto its device, with its tokenizer.

Weights come from safetensors or GGUF, never from a pickle, or they are random. Random weights are made on the device
itself, so that a model of eight billion parameters needs neither a download nor a minute of random numbers on a CPU.

`draft` does the same without the weights: it builds the model on torch's meta device, reads only the headers of a
checkpoint's files, and refuses what cannot work. Each load begins with it, and so does the examination before a sweep
(`bench.trial.preflight`), so that both refuse the same with the same message; only the latter tries out the sizes of a
random model (`fit`). Limits of this machine, such as a missing attention implementation, are not checked here: see
`bench.trial.unsupported`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.trial.compat import torch_internals, transformers_internals
from bench.trial.model.architecture import check_fit, check_memory, make_skeleton, read_architecture, requested_dtype
from bench.trial.model.checkpoint import check_checkpoint, check_tensors
from bench.trial.model.gguf_file import dense_gguf
from bench.trial.model.prompts import token_ids
from bench.trial.model.source import check_path, refusing, source
from bench.trial.model.tokenizer import check_tokenizer, read_tokenizer
from bench.trial.parallel.group import RankGroup
from bench.trial.parallel.tensor_parallel import check_split, distributed_config, rank_count, split_random


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to generate."""

    model: Any  # transformers.PreTrainedModel, in eval mode, on `device`
    tokenizer: Any
    device: torch.device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A model without its weights: what is known before they are read."""

    architecture: Any  # transformers.PreTrainedConfig
    tokenizer: Any
    device: torch.device
    rows: int | None  # of the embedding: token ids must be below; None: code that comes with the model keeps it


def load(config: BenchmarkConfig, group: RankGroup | None = None) -> LoadedModel:
    """Load or make the model on its device; with a group, only this rank's slices of it.

    Raises:
        ConfigError: the request cannot be met on this machine or by this model, or the model cannot be found.
        ValueError, ImportError: as transformers raises them.
    """
    device = resolve_device(config.device)
    if group is not None and device.type == "cuda":
        device = torch.device("cuda", group.rank)
    model_config = config.model
    if config.profile.memory_snapshot and device.type != "cuda":
        raise NoSnapshotError(f"torch keeps no history of memory on {device.type}")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for code that uses the current GPU: Triton, other people's kernels, NVTX
    plan = draft(model_config, device, fit=False)  # the first call will show it
    check_workload(config, plan)
    _seed(model_config.seed)
    if model_config.weights == "random":
        model = _random_model(config, plan, group)
    else:
        model = _pretrained_model(config, plan, group).to(device)
    model = model.eval()
    # A checkpoint's own generation config (sampling, penalties) would affect each call; ours sets everything.
    model.generation_config = transformers.GenerationConfig()
    # Seeded again, so that random numbers used by the load affect nothing after it.
    _seed(model_config.seed)
    return LoadedModel(model=model, tokenizer=plan.tokenizer, device=device)


def draft(model_config: ModelConfig, device: torch.device, *, fit: bool = True) -> Draft:
    """Return everything of a model but its weights.

    Args:
        model_config: the model.
        device: where it is to be.
        fit: whether to try out the sizes of a random model, which takes 10 ms a layer.

    Raises:
        ConfigError: this cannot become a model on `device`.
    """
    if model_config.id is None:
        raise ConfigError("model.id", None, "name a model: a group (model=tiny), a hub id or a folder")
    if not model_config.architecture:
        check_path(model_config)
    architecture = read_architecture(model_config)
    rows = getattr(architecture.get_text_config(decoder=True), "vocab_size", None)
    skeleton = make_skeleton(model_config, architecture)
    ranks = 1 if model_config.tp_size is None else rank_count(model_config, device)
    if model_config.tp_size is not None:
        check_split(model_config, architecture, skeleton, ranks)
    if skeleton is not None:
        check_memory(model_config, architecture, skeleton, device, ranks)
        if model_config.weights == "random":
            if fit:
                check_fit(model_config, skeleton)
        elif model_config.gguf_file is None:
            check_checkpoint(model_config, architecture, skeleton)
        rows = getattr(skeleton.get_input_embeddings(), "num_embeddings", rows)
    tokenizer = read_tokenizer(model_config)
    check_tokenizer(model_config, tokenizer, rows)
    return Draft(architecture=architecture, tokenizer=tokenizer, device=device, rows=rows)


def check_workload(config: BenchmarkConfig, plan: Draft) -> None:
    """Refuse a workload that does not fit the model, or a prompt that yields no tokens of it."""
    workload = config.workload
    total = workload.sequence_length + workload.num_tokens_to_generate
    positions = getattr(plan.architecture.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions is not None and total > positions:
        remedy = f"with {workload.num_tokens_to_generate} new tokens makes {total} positions; the model has {positions}"
        raise ConfigError("workload.sequence_length", workload.sequence_length, remedy)
    start, body = token_ids(plan.tokenizer, workload)
    if plan.rows is not None and (largest := max(start + body)) >= plan.rows:
        remedy = f"its tokenizer makes token {largest} of the prompt, its embedding has only {plan.rows} rows"
        raise ConfigError("model.id", config.model.id, remedy)


# ---- the device --------------------------------------------------------------------------------------------------


def resolve_device(name: str) -> torch.device:
    """Return the torch device of the key `device`; ConfigError when this machine lacks it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not name.startswith("cuda"):
        return torch.device(name)
    if torch_internals.is_in_bad_fork():  # torch's own answer would be an exception far from here
        remedy = "the fork server has initialised CUDA, which no process forked from it can use; set it to spawn"
        raise ConfigError("isolation.mode", "forkserver", remedy)
    if not torch.cuda.is_available():
        raise ConfigError("device", name, "torch finds no CUDA GPU here; use device=cpu")
    index = int(name.partition(":")[2] or 0)  # torch.device would wrap a large one around
    count = torch.cuda.device_count()
    if index >= count:
        raise ConfigError("device", name, f"this machine has {count} CUDA GPU(s), counted from cuda:0")
    return torch.device("cuda", index)


class NoSnapshotError(RuntimeError):
    """Only torch's allocator on a GPU keeps a history."""


# ---- the weights -------------------------------------------------------------------------------------------------


def _seed(seed: int) -> None:
    torch.manual_seed(seed)  # seeds the GPUs as well


def _random_model(config: BenchmarkConfig, plan: Draft, group: RankGroup | None) -> Any:
    if group is None:
        return _whole_random_model(config, plan)
    model, found = split_random(lambda: _whole_random_model(config, plan), config, plan.architecture, group)
    check_tensors(config.model, found)
    return model


def _whole_random_model(config: BenchmarkConfig, plan: Draft) -> Any:
    dtype = requested_dtype(config.model) or getattr(plan.architecture, "dtype", None) or torch.float32
    with plan.device:
        return transformers.AutoModelForCausalLM.from_config(
            plan.architecture,
            dtype=dtype,
            attn_implementation=config.attention.implementation,
            trust_remote_code=config.model.trust_remote_code,
        )


def _pretrained_model(config: BenchmarkConfig, plan: Draft, group: RankGroup | None) -> Any:
    model_config = config.model
    weights: dict[str, Any]
    if model_config.gguf_file:
        weights = {"config": plan.architecture, **dense_gguf(model_config.gguf_file)}
    else:
        weights = {"use_safetensors": True}
    with refusing(model_config):
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            **source(model_config),
            dtype=requested_dtype(model_config) or "auto",
            attn_implementation=config.attention.implementation,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below in one line
            **weights,
            **distributed_config(group),
        )
    check_tensors(model_config, found)
    return model


def revision_of(model: Any) -> str | None:
    """Return the hub commit that the weights came from; None for folders and random weights."""
    return transformers_internals.commit_of(model)
