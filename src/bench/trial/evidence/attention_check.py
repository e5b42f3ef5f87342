"""Decide whether the attention that ran is the requested one, and whether it was compiled as requested."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.config.schema import BenchmarkConfig
from bench.results.record import AttentionObserved, PhaseEvidence
from bench.trial.compat import probe, torch_internals
from bench.trial.evidence.attention import DECOMPOSED, KERNELS, SDPA_FAMILIES, operator_families


def contradiction(
    config: BenchmarkConfig, attention: AttentionObserved, device: torch.device | None = None
) -> str | None:
    """Return why the attention that ran is not the requested one, in one line; None: nothing shows that.

    Args:
        config: the request.
        attention: what one profiled call showed.
        device: where the model is; None: the CPU.
    """
    key, requested = _asked(config)
    for phase, seen, allowed in _judged(config, attention):
        if wrong := sorted(set(seen.families) - allowed):
            return f"{key}={requested}: {phase} ran {' and '.join(wrong)}{_named(seen)}"
        if not seen.families and sees_kernels_of(config, device or torch.device("cpu")):
            return f"{key}={requested}: {phase} ran no such kernel"
    return None


def unseen(config: BenchmarkConfig, attention: AttentionObserved, layers: int | None = None) -> tuple[str, str] | None:
    """Return the key that the profiled call neither confirms nor contradicts, and why; None: it does one of the two.

    Args:
        config: the request.
        attention: what one profiled call showed.
        layers: of attention in the model; None: not known, and there may be none to be seen.
    """
    key, requested = _asked(config)
    if attention.error is not None:
        return key, attention.error
    if _expected(config) is None:
        return key, f"no kernel of {requested} is known by name"
    for phase, seen in (("prefill", attention.prefill), ("decoding", attention.decode)):
        if seen is not None and not seen.families and (layers is not None or "eager" not in (_expected(config) or ())):
            return (
                key,
                f"the profile of {phase} shows no attention that bench knows by name (torch {torch.__version__})",
            )
    return None


def _asked(config: BenchmarkConfig) -> tuple[str, str]:
    """Return the key that decides which kernels may run, and its value."""
    if config.attention.sdpa_backend:
        return "attention.sdpa_backend", config.attention.sdpa_backend
    return "attention.implementation", config.attention.implementation


def _judged(
    config: BenchmarkConfig, attention: AttentionObserved
) -> Iterator[tuple[str, PhaseEvidence, frozenset[str]]]:
    """Return the phases that can be judged, by name, each with the families that it may run."""
    expected = _expected(config)
    if expected is None or attention.error is not None:
        return
    when_compiled = _when_compiled(expected) if config.compile.mode is not None else set()
    for phase, seen, more in (("prefill", attention.prefill, set()), ("decoding", attention.decode, when_compiled)):
        # Eager attention has no operator of its own: a model without attention shows none either.
        if seen is not None and (seen.families or "eager" not in expected):
            yield phase, seen, frozenset(expected | more)


def sees_kernels_of(config: BenchmarkConfig, device: torch.device) -> bool:
    """Check whether the requested kernels would have been seen, by profiling one call of torch's attention."""
    if "sdpa" not in config.attention.implementation:
        return False  # flash-attn and the hub's kernels have names that they choose
    try:
        events = probe.profile_sdpa(device, torch.float32 if device.type == "cpu" else torch.float16)
    except Exception:  # noqa: BLE001 - what cannot even be tried shows nothing
        return False
    return bool(operator_families(events))


def _expected(config: BenchmarkConfig) -> set[str] | None:
    """Return the families that the request allows; None where its kernels have no known name."""
    name = config.attention.implementation.removeprefix("paged|")
    if name == "sdpa":
        return {config.attention.sdpa_backend} if config.attention.sdpa_backend else set(SDPA_FAMILIES)
    return {name} if name in ("eager", *KERNELS) else None


def _when_compiled(expected: set[str]) -> set[str]:
    """Return what the compiler may make of it: of eager attention also a fused kernel that it recognises."""
    if "eager" in expected:
        return {DECOMPOSED, *SDPA_FAMILIES}
    return {DECOMPOSED} if "math" in expected else set()


def _named(seen: PhaseEvidence) -> str:
    return f" ({seen.operators[0].name})" if seen.operators else ""


def without_compiled_code(config: BenchmarkConfig, attention: AttentionObserved) -> str | None:
    """Return why the decoding steps ran less or more compiled than requested; None: nothing shows that."""
    seen, mode = attention.decode, config.compile.mode
    if seen is None:
        return None
    if mode is None and seen.compiled_regions:
        return f"compile.mode=null: compiled code ran {seen.compiled_regions} time(s) in {seen.steps} decoding steps"
    if mode is not None and seen.compiled_regions < seen.steps and (seen.compiled_regions or sees_compiled_code()):
        return f"compile.mode={mode}: compiled code ran in {seen.compiled_regions} of {seen.steps} decoding steps"
    return None


def unseen_compiled_code(config: BenchmarkConfig, attention: AttentionObserved) -> str | None:
    """Return why the profiled call does not show whether compiled code ran, in one line; None when it does."""
    if config.compile.mode is None:
        return None
    if attention.decode is None:
        return f"no profile shows compiled code: {attention.error or 'it holds no decoding step'}"
    if not attention.decode.compiled_regions:
        return f"the profiler of torch {torch.__version__} marks no compiled code, not even some that was tried out"
    return None


def sees_compiled_code() -> bool:
    """Check whether compiled code would have been seen in a profile, by profiling a trivial function.

    True as well where torch.compile compiles nothing in this process.
    """
    tried = probe.compile_trivially()
    return not tried.compiled or any(torch_internals.REGION.match(each.name) for each in tried.events)
