"""Which errors mean that a setting cannot run here, as opposed to something being broken.

A setting that this machine, this model or these library versions cannot do is skipped with its reason, and the sweep
is none the worse. Everything else that is raised is a failure. The list holds what was seen, each with the remedy.
"""

from __future__ import annotations

import dataclasses
import re
import resource

import psutil
import torch

from bench.config import BenchmarkConfig


class NotHonouredError(RuntimeError):
    """What ran is not what was asked for: no limit, and never ok."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """A known limit: how its error reads, which key asked for it and what to do instead."""

    pattern: str  # searched in "Type: message"
    key: str
    value: str = ""  # searched in the key's value: an error that names flash-attn is no limit of sdpa
    remedy: str


LIMITS = (
    Limit(
        pattern=r"ImportError: .*(flash[-_ ]?attn|flash[-_ ]?attention)",
        key="attention.implementation",
        value="flash",
        remedy="install flash-attn for this GPU, or use attention=sdpa",
    ),
    Limit(
        pattern=r"does not (yet )?support (Flash ?Attention|an attention implementation|flex_attention)",
        key="attention.implementation",
        value="flash|flex|sdpa",
        remedy="use attention=eager",
    ),
    Limit(
        pattern=r"FlashAttention only supports? (fp16|fp 16|half)",
        key="model.dtype",
        remedy="use model.dtype=bfloat16",
    ),
    Limit(
        pattern=r"FlashAttention only supports? .*GPUs",
        key="attention.implementation",
        remedy="use attention=sdpa",
    ),
    Limit(
        pattern=r"No viable backend for scaled_dot_product_attention|No available kernel|cudnn_frontend|cuDNN Frontend",
        key="attention.sdpa_backend",
        remedy="there is no such kernel for this device, dtype, mask and head layout; use another backend or null",
    ),
    Limit(
        pattern=r"torch\.compile on current platform is not supported for CPU",
        key="attention.implementation",
        value="flex",
        remedy="the compiler's kernel of it needs a processor with AVX2; use attention=sdpa",
    ),
    Limit(
        pattern=r"NoValidChoicesError",
        key="attention.implementation",
        value="flex",
        remedy="the compiler has no kernel of it for this device; use compile=off",
    ),
    Limit(
        pattern=r"is not supported for continuous batching|attn_implementation=\"paged\|",
        key="attention.implementation",
        remedy="transformers pairs continuous batching with eager, sdpa and flash attention; use attention=sdpa",
    ),
    Limit(
        pattern=r"Invalid (layer|group) type",
        key="generation.continuous_batching",
        value="true",
        remedy="transformers batches models of full and sliding attention only; set it to false",
    ),
    Limit(
        pattern=r"NoSnapshotError",
        key="profile.memory_snapshot",
        value="true",
        remedy="it is for GPUs; set it to false",
    ),
    Limit(
        pattern=r"NoKernelError: .*package kernels",
        key="generation.kernelize",
        value="true",
        remedy="install it, or use generation.kernelize=false",
    ),
    Limit(
        pattern=r"NoKernelError: .*cannot be fetched",
        key="generation.kernelize",
        value="true",
        remedy="fill the hub's cache where there is a network, or use generation.kernelize=false",
    ),
    Limit(
        pattern=r"NoKernelError: no layer",
        key="generation.kernelize",
        value="true",
        remedy="use generation.kernelize=false",
    ),
    Limit(
        pattern=r"InvalidCxxCompiler|No working C\+\+ compiler",
        key="compile.mode",
        remedy="compiling for the CPU needs g++; install it, or use compile=off",
    ),
    Limit(
        pattern=r"TritonMissing|Cannot find a working triton|GPUTooOldForTriton|find C compiler|Python\.h: No",
        key="compile.mode",
        remedy="compiling for this GPU needs a Triton that supports it, gcc and Python's headers; use compile=off",
    ),
)


def limit_reached(error: BaseException, config: BenchmarkConfig) -> str | None:
    """One line that names key, value, cause and remedy when the error is a known limit; None when it is not."""
    text = f"{type(error).__name__}: {error}"
    for limit in LIMITS:
        value = config.flat()[limit.key]
        value = str(value).lower() if isinstance(value, bool) else value  # as one types it
        if re.search(limit.pattern, text, re.IGNORECASE) and re.search(limit.value, str(value)):
            return f"{limit.key}={value} cannot run here: {one_line(error, 160)}; {limit.remedy}"
    return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, on the device or the host, as an exception of its own or wrapped by the compiler."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if re.search(r"CUDA( error:)? out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory", str(error)):
            return True
        error = getattr(error, "inner_exception", None) or error.__cause__
    return False


def memory_asked_for(error: BaseException | None) -> tuple[int | None, int | None]:
    """Bytes that were asked for and that were free, as the allocator's message has them; None where it does not say.

    CUDA: "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 18.56 MiB is free." (torch,
    c10/cuda/CUDACachingAllocator.cpp); CPU: "you tried to allocate 1234 bytes" (c10/core/impl/alloc_cpu.cpp), which
    names no rest: then it is what the machine, or the process's own limit, has left.
    """
    while error is not None:
        asked = re.search(r"[Tt]ried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", str(error))
        if asked:
            free = re.search(r"of which ([\d.]+) ?(bytes|[KMGT]iB) is free", str(error))
            return _bytes(asked), _bytes(free) if free else _host_bytes_left()
        error = getattr(error, "inner_exception", None) or error.__cause__
    return None, None


def _bytes(found: re.Match[str]) -> int:
    return round(
        float(found[1]) * {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[found[2]]
    )


def _host_bytes_left() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    left = int(psutil.virtual_memory().available)
    if limit == resource.RLIM_INFINITY:
        return left
    used = int(psutil.Process().memory_info().vms)
    return max(0, min(left, int(limit) - used))


def one_line(error: BaseException, limit: int = 400) -> str:
    """The first line of an error that says something, cut to `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    return text if len(text) <= limit else text[: limit - 1] + "…"
