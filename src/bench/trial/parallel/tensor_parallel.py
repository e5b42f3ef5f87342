"""Split a model over the ranks: check that it can be, load the slices, and prove that it was.

transformers splits by the plan that comes with an architecture (`base_model_tp_plan`): each rank reads its slice of
each planned layer and holds it as a DTensor, which knows its whole shape. Counts of parameters are therefore
those of the whole model, and what a rank holds is in the local tensors.

Rank 0 makes all random weights, as a single process does and on the same kind of device, and writes them to a folder
that all ranks share. Each rank reads its slices from there, so the weights are the same as without tensor parallelism.
A whole random model must therefore fit rank 0's GPU for a moment; a checkpoint need not.
"""

from __future__ import annotations

import copy
import gc
import shutil
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import distributed

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.trial.model.sizes import KV_PROJECTION, QKV_PROJECTION
from bench.trial.parallel.group import RankGroup
from bench.trial.unsupported import NotHonouredError

KV_PLANNED = ("k_proj", "qkv_proj", "query_key_value")  # modules that make keys, under the names of plans


# ---- before the load ------------------------------------------------------------------------------------------------


def rank_count(model_config: ModelConfig, device: torch.device) -> int:
    """Return how many ranks the job has: `model.tp_size`, or one per GPU. ConfigError: too few GPUs."""
    size = model_config.tp_processes
    if device.type != "cuda":
        if size is None:
            raise ConfigError("model.tp_size", "auto", f"there is no GPU to count ({device}); type a number, such as 2")
        return size
    present = torch.cuda.device_count()
    if size is not None and size > present:
        raise ConfigError("model.tp_size", size, f"this job sees {present} CUDA GPU(s), and each rank needs its own")
    if present < 2:
        remedy = "needs two GPUs or more, and this job sees one; set it to null"
        raise ConfigError("model.tp_size", model_config.tp_size, remedy)
    return present if size is None else size


def check_split(model_config: ModelConfig, architecture: Any, skeleton: Any, size: int) -> None:
    """Refuse a model for which transformers has no plan, or whose heads cannot be dealt out evenly.

    `skeleton` is the model on the meta device; None: there is none, and the load checks.
    """
    if skeleton is None:
        return
    config = architecture.get_text_config(decoder=True)
    plan = getattr(config, "base_model_tp_plan", None) or {}
    if not skeleton.supports_tp_plan:
        remedy = f"transformers {transformers.__version__} has no plan for {type(skeleton).__name__}; set it to null"
        raise ConfigError("model.tp_size", model_config.tp_size, remedy)
    split = {name.rsplit(".", 1)[-1] for name, style in plan.items() if style == "colwise"}
    names = ["num_attention_heads"] if split & {"q_proj", *KV_PLANNED} else []
    names += ["num_key_value_heads"] if split & set(KV_PLANNED) else []
    for name in names:
        heads = getattr(config, name, None)
        if isinstance(heads, int) and heads % size:
            remedy = f"must divide the model's {name}={heads}"
            if model_config.tp_size == "auto":
                remedy = f"one for each of {size} GPUs, {remedy}; name another number"
            raise ConfigError("model.tp_size", model_config.tp_size, remedy)


# ---- the load -------------------------------------------------------------------------------------------------------


def distributed_config(group: RankGroup | None) -> dict[str, Any]:
    """Return what `from_pretrained` needs to be told so that it reads this rank's slices; {} without a group."""
    if group is None:
        return {}
    from transformers.distributed import DistributedConfig  # noqa: PLC0415 - only such jobs need it

    return {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=group.size)}


def split_random(
    make: Callable[[], Any], config: BenchmarkConfig, architecture: Any, group: RankGroup
) -> tuple[Any, Any]:
    """Return a random model in slices, from a checkpoint that rank 0 makes, and what its loading reported."""
    folder = group.scratch / "weights"
    if group.rank == 0:
        whole = make()
        whole.save_pretrained(folder)
        del whole
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    group.wait()
    remote = {"trust_remote_code": config.model.trust_remote_code}
    with torch.device("meta"):  # code that came with the model is not in the folder: its class is found this way
        kind = type(transformers.AutoModelForCausalLM.from_config(copy.deepcopy(architecture), **remote))
    model, found = kind.from_pretrained(
        folder,
        config=copy.deepcopy(architecture),
        dtype="auto",
        attn_implementation=config.attention.implementation,
        use_safetensors=True,
        output_loading_info=True,
        **distributed_config(group),
    )
    group.wait()
    if group.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return model, found


# ---- after the load -------------------------------------------------------------------------------------------------


def local(parameter: Any) -> Any:
    """Return what this rank holds of a parameter."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def observe(config: BenchmarkConfig, model: Any) -> dict[str, Any]:
    """Fields of an Observed that tell how the model was split; {} for one process.

    Raises:
        NotHonouredError: it was not split, or over another number of processes or kind of device than was asked for.
    """
    if config.model.tp_size is None:
        return {}
    size = distributed.get_world_size()
    parameters = list(model.parameters())
    split = [each for each in parameters if local(each).numel() < each.numel()]
    if not split or size < 2:
        none_split = f"no weight of {type(model).__name__} is split over {size} ranks"
        raise NotHonouredError(f"model.tp_size={config.model.tp_size}: {none_split}")
    asked = config.model.tp_processes
    if asked not in (None, size) or getattr(model, "tp_size", size) != size:
        found = getattr(model, "tp_size", None)
        raise NotHonouredError(f"model.tp_size={asked}: there are {size} ranks, and transformers split for {found}")
    if config.device not in ("auto", model.device.type):
        raise NotHonouredError(f"device={config.device}: transformers put the slices on {model.device}")
    return {
        "tp_size": size,
        "sharded_parameters": sum(each.numel() for each in split),
        "rank_parameter_bytes": sum(local(each).numel() * each.element_size() for each in parameters),
    }


def kv_share(model: Any) -> float:
    """Return the share of all keys and values that this rank keeps: that of the first projection to them."""
    for name, each in model.named_parameters():
        if KV_PROJECTION.search(name) or QKV_PROJECTION.search(name):
            return float(local(each).numel() / each.numel())
    return 1.0
