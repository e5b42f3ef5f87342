"""What ran, read from the model and the libraries, and whether it is what was asked for.

Covered here: device, dtype, attention implementation, allowed SDPA backends, KV cache, what torch.compile did. Which
kernels ran below the implementation is read in `bench.trial.attention`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend

from bench.config import BenchmarkConfig
from bench.record import AttentionObserved, Observed
from bench.trial import attention, compilation, memory, tensor_parallel
from bench.trial.model import LoadedModel, revision_of
from bench.trial.request import SDPA_BACKENDS, grad_mode, guards
from bench.trial.shape import observed_cache_bytes, shape_of
from bench.trial.support import NotHonouredError


def observe_model(config: BenchmarkConfig, loaded: LoadedModel, prompt_tokens: int) -> Observed:
    """What was loaded. Raises NotHonouredError where it is not what was asked for."""
    model = loaded.model
    parameters = list(model.parameters())
    implementation = model.config.get_text_config()._attn_implementation  # noqa: SLF001 - its only home
    dtype = str(model.dtype).removeprefix("torch.")
    for key, requested, found in (
        ("attention.implementation", config.attention.implementation, implementation),
        ("model.dtype", config.model.dtype, dtype),
    ):
        if requested not in ("auto", found):
            raise NotHonouredError(f"{key}={requested}: transformers set {found}")
    return Observed(
        device=str(model.device),
        device_name=memory.device_name(loaded.device),
        dtype=dtype,
        model_class=type(model).__name__,
        parameters=sum(each.numel() for each in parameters),
        parameter_bytes=sum(each.numel() * each.element_size() for each in parameters),
        attention=AttentionObserved(
            implementation=implementation,
            allowed_backends=_allowed_backends(config) if "sdpa" in implementation else [],
        ),
        shape=shape_of(model),
        revision=revision_of(model),
        grad_mode=grad_mode(config),
        prompt_tokens=prompt_tokens,
        **tensor_parallel.observe(config, model),
    )


def _allowed_backends(config: BenchmarkConfig) -> list[str]:
    """The SDPA backends that torch may use inside the contexts of a call."""
    cuda = torch.backends.cuda
    enabled = {
        SDPBackend.MATH: cuda.math_sdp_enabled,
        SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled,
        SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled,
        SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled,
    }
    with guards(config):
        return [name for name, each in SDPA_BACKENDS.items() if enabled[each]()]


class CacheWatch:
    """Notes class and size of the KV cache that generate makes while `watching` the model."""

    def __init__(self) -> None:
        self.class_name: str | None = None
        self.bytes: int | None = None  # when the call had ended
        self.can_see = False  # whether this version of transformers lets it

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Look over generate's shoulder: it tells nobody which cache it made."""
        original = getattr(model, "_prepare_cache_for_generation", None)
        if original is None:
            yield
            return
        caches = []
        self.can_see = True

        def watched(*arguments: Any, **keywords: Any) -> Any:
            result = original(*arguments, **keywords)
            for each in (*arguments, *keywords.values()):
                cache = each.get("past_key_values") if isinstance(each, dict) else None
                if cache is not None:
                    caches.append(cache)
            return result

        model._prepare_cache_for_generation = watched  # noqa: SLF001
        try:
            yield
        finally:
            del model._prepare_cache_for_generation  # noqa: SLF001
        if caches:
            self.class_name, self.bytes = type(caches[-1]).__name__, observed_cache_bytes(caches[-1])


def check(config: BenchmarkConfig, observed: Observed, measured: Sequence[int] = ()) -> None:
    """Raise NotHonouredError, with key, value and what happened instead, unless the request was honoured.

    `measured` are the indices of the measured calls so far.
    """
    assert observed.compile is not None
    if (reason := compilation.broken_promise(config, observed.compile, measured)) is not None:
        raise NotHonouredError(reason)
    skips = observed.compile.cudagraph_skips
    # A CPU has no CUDA graphs to record; there the count only says so.
    if skips and observed.device.startswith("cuda") and compilation.wants_cudagraphs(config.compile):
        raise NotHonouredError(f"compile.mode={config.compile.mode}: torch skipped its CUDA graphs {skips} time(s)")
    requested, used = config.generation.kv_cache, observed.kv_cache
    if requested != "auto" and requested not in (used or "").lower():
        raise NotHonouredError(f"generation.kv_cache={requested}: generate made {used or 'no cache of its own'}")


def check_attention(config: BenchmarkConfig, seen: AttentionObserved) -> None:
    """Raise NotHonouredError unless the profiled call ran the requested attention, compiled as requested."""
    reason = attention.contradiction(config, seen) or attention.without_compiled_code(config, seen)
    if reason is not None:
        raise NotHonouredError(reason)


def check_cache(observed: Observed) -> None:
    """Raise NotHonouredError for a model of attention layers that generates without a KV cache."""
    if observed.kv_cache is None and observed.shape is not None:
        raise NotHonouredError("generation.kv_cache: generate made none, and computes every token anew")


def check_same_cache(config: BenchmarkConfig, first: str, last: str | None) -> None:
    """Raise NotHonouredError when the profiled call had another class of cache than the validation call."""
    if first != last:
        requested = config.generation.kv_cache
        raise NotHonouredError(f"generation.kv_cache={requested}: generate began with {first} and ended with {last}")
