"""Observe what ran, from the model and the libraries, and check it against the request.

Covered here: device, dtype, attention implementation, allowed SDPA backends, KV cache, what torch.compile did. The
kernels that ran are read in `bench.trial.evidence.attention`.

There are three results. Evidence confirms that a key was honoured; or it contradicts that, which is a NotHonouredError
and fails the job; or it cannot see, which is an `Unverified` in the record, and the job goes on. Something unseen is a
contradiction only if it would have been seen (`bench.trial.compat.probe`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from torch.nn.attention import SDPBackend

from bench.config.schema import BenchmarkConfig, prompt_digest
from bench.results.record import AttentionObserved, Observed, Unverified
from bench.trial.compat import transformers_internals
from bench.trial.evidence import attention_check, compilation
from bench.trial.evidence.unverifiable import missing_evidence
from bench.trial.hardware import memory
from bench.trial.measure.request import SDPA_BACKENDS, grad_mode, guards
from bench.trial.model.loading import LoadedModel, revision_of
from bench.trial.model.sizes import observed_cache_bytes, shape_of
from bench.trial.parallel import tensor_parallel
from bench.trial.unsupported import NotHonouredError


def observe_model(config: BenchmarkConfig, loaded: LoadedModel, prompt_tokens: int) -> Observed:
    """Return what was loaded. NotHonouredError: it is not what the config asks for."""
    model = loaded.model
    parameters = list(model.parameters())
    implementation = transformers_internals.attention_implementation(model)
    dtype = str(model.dtype).removeprefix("torch.")
    for key, requested, found in (
        ("attention.implementation", config.attention.implementation, implementation),
        ("model.dtype", config.model.dtype, dtype),
    ):
        if found is not None and requested not in ("auto", found):
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
            allowed_backends=_allowed_backends(config) if "sdpa" in (implementation or "") else [],
        ),
        shape=shape_of(model),
        revision=revision_of(model),
        prompt_digest=prompt_digest(config.workload),
        prompt_tokens=prompt_tokens,
        unverified=missing_evidence(config, loaded),
        **tensor_parallel.observe(config, model),
    )


def _allowed_backends(config: BenchmarkConfig) -> list[str]:
    """Return the SDPA backends that torch may use inside the contexts of a call."""
    cuda = torch.backends.cuda
    enabled = {
        SDPBackend.MATH: cuda.math_sdp_enabled,
        SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled,
        SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled,
        SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled,
    }
    with guards(config):
        return [name for name, each in SDPA_BACKENDS.items() if enabled[each]()]


class CallWatch:
    """Notes what generate does with a model while `watching` it: its cache, its steps, its autograd guard.

    generate passes the cache, with the tokens to work on, to the model's `prepare_inputs_for_generation` before each
    forward pass. The cache is recognised there by its class, whatever the keyword is called (past_key_values until
    transformers 5.23, then cache). Continuous batching does not call it: there only the autograd guard is seen.
    """

    def __init__(self) -> None:
        self.cache: str | None = None  # class of the last call's
        self.cache_bytes: int | None = None  # when the call had ended
        self.steps = 0  # forward passes that were begun
        self.recomputes = False  # whether a decoding step worked on more than the newest token of each row
        self.grad_mode: str | None = None  # of the forward passes; None: none was seen

    @contextlib.contextmanager
    def watching(self, model: Any, *, batched: bool = False) -> Iterator[None]:
        """Watch the model until the context ends. `batched`: continuous batching runs it."""
        with self._watching_layers(model) if batched else self._watching_inputs(model):
            yield

    @contextlib.contextmanager
    def _watching_inputs(self, model: Any) -> Iterator[None]:
        original = getattr(model, "prepare_inputs_for_generation", None)
        if original is None:
            yield
            return
        last: list[Any] = []  # the cache of the last pass

        @functools.wraps(original)  # generate looks at its parameters
        def watched(*arguments: Any, **keywords: Any) -> Any:
            inputs = original(*arguments, **keywords)
            last[:] = [each for each in inputs.values() if isinstance(each, transformers.Cache)]
            self.recomputes |= self.steps > 0 and not last and _width(inputs) > 1
            self.steps += 1
            self._note_guard()
            return inputs

        model.prepare_inputs_for_generation = watched
        try:
            yield
        finally:
            del model.prepare_inputs_for_generation
        if last:
            self.cache, self.cache_bytes = type(last[0]).__name__, observed_cache_bytes(last[0])

    @contextlib.contextmanager
    def _watching_layers(self, model: Any) -> Iterator[None]:
        # Only where nothing is compiled: a hook is part of what torch.compile sees.
        hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: self._note_guard())
        try:
            yield
        finally:
            hook.remove()

    def _note_guard(self) -> None:
        self.grad_mode = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"


def _width(inputs: Any) -> int:
    """Return the tokens of each row that a forward pass works on; 0: unknown."""
    for name in ("input_ids", "inputs_embeds"):
        if isinstance(found := inputs.get(name), torch.Tensor) and found.ndim > 1:
            return int(found.shape[1])
    return 0


# ---- whether it is what was asked for --------------------------------------------------------------------------------


def check(config: BenchmarkConfig, observed: Observed, measured: Sequence[int] = ()) -> list[Unverified]:
    """Check what the calls so far have shown.

    Args:
        config: the request.
        observed: what was seen.
        measured: the indices of the measured calls so far.

    Returns:
        The keys of which nothing shows whether they were honoured.

    Raises:
        NotHonouredError: with key, value and what happened instead, where the request was not honoured.
    """
    assert observed.compile is not None
    if (reason := compilation.contradiction(config, observed.compile, measured)) is not None:
        raise NotHonouredError(reason)
    skips = observed.compile.cudagraph_skips
    # A CPU has no CUDA graphs to record; there the count only says so.
    if skips and observed.device.startswith("cuda") and compilation.wants_cudagraphs(config.compile):
        raise NotHonouredError(f"compile.mode={config.compile.mode}: torch skipped its CUDA graphs {skips} time(s)")
    requested, used = config.generation.kv_cache, observed.kv_cache
    if requested != "auto" and used is not None and requested not in used.lower():
        raise NotHonouredError(f"generation.kv_cache={requested}: generate made {used}")
    unseen = compilation.unseen(config, observed.compile)
    return [Unverified(key="compile.mode", reason=unseen)] if unseen is not None else []


def check_attention(
    config: BenchmarkConfig, seen: AttentionObserved, device: torch.device, layers: int | None
) -> list[Unverified]:
    """Check what the profiled call ran: the requested attention, compiled as requested.

    Args:
        config: the request.
        seen: what the profile shows.
        device: where the model is.
        layers: of attention in the model; None: not known.

    Returns:
        The keys of which the profile does not show whether they were honoured.

    Raises:
        NotHonouredError: something else ran.
    """
    reason = attention_check.contradiction(config, seen, device) or attention_check.without_compiled_code(config, seen)
    if reason is not None:
        raise NotHonouredError(reason)
    found = []
    if (unseen := attention_check.unseen(config, seen, layers)) is not None:
        found.append(Unverified(key=unseen[0], reason=unseen[1]))
    if (uncompiled := attention_check.unseen_compiled_code(config, seen)) is not None:
        found.append(Unverified(key="compile.mode", reason=uncompiled))
    return found


def check_cache(config: BenchmarkConfig, observed: Observed, seen: CallWatch) -> list[Unverified]:
    """Check the KV cache of the validation call.

    Returns:
        The key, where a model of attention layers may have a cache that cannot be seen.

    Raises:
        NotHonouredError: such a model generates without one.
    """
    key, requested = "generation.kv_cache", config.generation.kv_cache
    if seen.cache is not None or (requested == "auto" and observed.shape is None):
        return []
    if seen.recomputes:
        asked = key if requested == "auto" else f"{key}={requested}"
        raise NotHonouredError(f"{asked}: generate made none, and computes every token anew")
    version = f"transformers {transformers.__version__}"
    why = "hands no cache that it knows to the model" if seen.steps else "does not show what it hands to the model"
    return [Unverified(key=key, reason=f"{version} {why}: class and size are not known")]


def check_guard(config: BenchmarkConfig, seen: CallWatch) -> list[Unverified]:
    """Check the autograd guard of the forward passes.

    Returns:
        The key, where none was seen and one was asked for.

    Raises:
        NotHonouredError: it is not the requested one.
    """
    key, requested, wanted = "generation.grad_mode", config.generation.grad_mode, grad_mode(config)
    if seen.grad_mode is None:
        reason = "no forward pass was seen that would show it"
        return [Unverified(key=key, reason=reason)] if requested != "auto" else []
    if seen.grad_mode != wanted:
        raise NotHonouredError(f"{key}={requested}: the model ran under {seen.grad_mode}, not {wanted}")
    return []


def check_same_cache(config: BenchmarkConfig, first: str, last: str | None) -> None:
    """Raise NotHonouredError when the profiled call had another class of cache than the validation call."""
    if first != last:
        requested = config.generation.kv_cache
        raise NotHonouredError(f"generation.kv_cache={requested}: generate began with {first} and ended with {last}")


def check_same_arguments(config: BenchmarkConfig, first: dict[str, Any], last: dict[str, Any]) -> None:
    """Raise NotHonouredError when torch.compile got other arguments for the profiled call than for the first one.

    {}: they were not seen.
    """
    for name in first.keys() & last.keys():
        if first[name] != last[name]:
            mode = config.compile.mode
            raise NotHonouredError(
                f"compile.mode={mode}: {name} was {first[name]} at first and {last[name]} at the end"
            )
