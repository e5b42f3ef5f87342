"""Read the private names of transformers that bench uses, and do without those that are missing.

Read with transformers 5.17.0 to 5.24.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import transformers

from bench.compat.private_name import MISSING, PrivateName

OLDEST, NEWEST = "5.17.0", "5.24.0"


def _name(where: str, lost: str, *, on_instances: bool = False) -> PrivateName:
    return PrivateName(where=where, since=OLDEST, until=NEWEST, lost=lost, on_instances=on_instances)


def release() -> tuple[int, ...]:
    """Return the installed release as major and minor number."""
    return tuple(int(part) for part in transformers.__version__.split(".")[:2])


# ---- the model ----------------------------------------------------------------------------------------------------

ATTENTION = _name(
    "transformers:PreTrainedConfig._attn_implementation", "which attention a model was set to is not known"
)
COMMIT = _name(
    "transformers:PreTrainedConfig._commit_hash",
    "the commit of a model from the hub is not known",
    on_instances=True,
)
QUANTIZED_KEYS = _name(
    "transformers.cache_utils:QuantizedLayer._quantized_keys",
    "a quantised KV cache is counted as an empty one",
    on_instances=True,
)


def attention_implementation(model: Any) -> str | None:
    """Return the attention that a loaded model was set to; None: unknown."""
    found = ATTENTION.of(model.config.get_text_config())
    return str(found) if found is not MISSING and found is not None else None


def commit_of(model: Any) -> str | None:
    """Return the hub commit that a model's config came from; None for folders and random weights."""
    return str(found) if (found := COMMIT.of(model.config)) else None


def is_quantized(cache_layer: Any) -> bool:
    """Check whether a layer of a KV cache keeps its keys in a quantised form."""
    return QUANTIZED_KEYS.of(cache_layer) is not MISSING


# ---- torch.compile ------------------------------------------------------------------------------------------------

COMPILE_ANYWHERE = _name(
    "transformers:CompileConfig._compile_all_devices",
    "generate compiles on accelerators only, and not on the CPU",
    on_instances=True,
)


def compile_on_all_devices(request: Any) -> Any:
    """Make generate use a CompileConfig on a CPU too: without the flag it runs uncompiled there."""
    setattr(request, COMPILE_ANYWHERE.where.rpartition(".")[2], True)
    return request


# ---- flex_attention -----------------------------------------------------------------------------------------------

MASK_FUNCTIONS = _name(
    "transformers.masking_utils:ALL_MASK_ATTENTION_FUNCTIONS",
    "a mask of flex_attention over a static cache may see one position too many",
)


def mask_function(implementation: str) -> Callable[..., Any] | None:
    """Return the function that makes the masks of an attention implementation; None: not available."""
    functions = MASK_FUNCTIONS.get()
    found = functions.get(implementation) if isinstance(functions, Mapping) else None
    return found if callable(found) else None


# ---- hub kernels --------------------------------------------------------------------------------------------------

# Both are put there by the package kernels, where it is installed.
KERNEL_LAYER = _name(
    "transformers.models.llama.modeling_llama:LlamaRMSNorm.kernel_layer_name",
    "which layers a hub kernel can replace is not known",
)
KERNEL_FUNCTIONS = _name(
    "transformers:PreTrainedModel._kernel_funcs",
    "functions that a hub kernel has replaced are not listed",
    on_instances=True,
)
KERNELS_AVAILABLE = _name(
    "transformers.utils.import_utils:is_kernels_available", "generation.kernelize is tried whether it can work or not"
)
KERNELS_FROM = _name(
    "transformers.utils.import_utils:KERNELS_MIN_VERSION", "which versions of the package kernels serve is not known"
)
KERNELS_BELOW = _name(
    "transformers.utils.import_utils:KERNELS_MAX_VERSION", "which versions of the package kernels serve is not known"
)


def takes_kernel(layer: Any) -> bool:
    """Check whether a hub kernel can replace the forward of this layer's class."""
    return KERNEL_LAYER.of(type(layer)) is not MISSING


def kernel_functions(layer: Any) -> Mapping[str, Any]:
    """Return a layer's functions that a hub kernel can replace, by name: modules that are no part of it."""
    found = KERNEL_FUNCTIONS.of(layer)
    return found if isinstance(found, Mapping) else {}


def kernels_requirement() -> str:
    """Return the package `kernels` as a requirement, with the versions that this transformers accepts."""
    first, end = KERNELS_FROM.get(), KERNELS_BELOW.get()
    return "kernels" + ",".join(f"{sign}{each}" for sign, each in ((">=", first), ("<", end)) if each)


def kernels_available() -> bool | None:
    """Return whether a version of `kernels` that this transformers accepts is installed; None: unknown."""
    ask = KERNELS_AVAILABLE.get()
    return bool(ask()) if callable(ask) else None


# ---- continuous batching ------------------------------------------------------------------------------------------

WORKLOAD_HINTS = _name(
    "transformers.generation.continuous_batching.utils:WorkloadHints",
    "continuous batching sizes its buffers without knowing the workload",
)
_MANAGER = "transformers:ContinuousBatchingManager"
PROCESSOR = _name(
    f"{_MANAGER}.batch_processor",
    "class, size and bounds of the cache of continuous batching are not known",
    on_instances=True,
)
RESOLVED = _name(
    f"{_MANAGER}.continuous_batching_config",
    "whether continuous batching used CUDA graphs and a second set of buffers is not known",
    on_instances=True,
)
WORKER_STATUS = _name(
    f"{_MANAGER}.background_thread_status",
    "why the worker of continuous batching failed is not known",
    on_instances=True,
)


def workload_hints(**sizes: int) -> dict[str, Any]:
    """Return the argument of `init_continuous_batching` with the workload's sizes; {}: it has none."""
    make = WORKLOAD_HINTS.get()
    return {"workload_hints": make(**sizes)} if callable(make) else {}


def batching_cache(manager: Any) -> Any:
    """Return the paged cache of a started manager of continuous batching; None: it is not shown."""
    processor = PROCESSOR.of(manager)
    return getattr(processor, "cache", None) if processor else None


def batching_setup(manager: Any) -> Any:
    """Return the configuration that a manager of continuous batching uses; None: it is not shown."""
    return RESOLVED.of(manager) or None


def uses_cuda_graphs(setup: Any) -> bool | None:
    """Return whether any kind of step is replayed as a CUDA graph; None: unknown."""
    found = getattr(setup, "cuda_graph_booleans", None)
    return any(found) if isinstance(found, Sequence) else None


def worker_error(manager: Any) -> BaseException | None:
    """Return the exception with which the worker ended; None: it has none, or transformers does not show it."""
    found = getattr(WORKER_STATUS.of(manager), "fatal_error", None)
    return found if isinstance(found, BaseException) else None
