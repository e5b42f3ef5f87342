"""Recognise the errors which mean that a setting cannot run here, as opposed to a fault.

A setting that this machine, this model or these library versions cannot run is skipped with its reason, and the sweep
goes on. Every other error is a failure. The list holds the limits that were seen, each with its remedy.
"""

from __future__ import annotations

import dataclasses
import re
import resource

import psutil
import torch

from bench.config.schema import BenchmarkConfig


class NotHonouredError(RuntimeError):
    """The run did not do what was requested: neither a limit nor ever ok."""


class CannotRunHereError(RuntimeError):
    """A limit of the installed versions that bench itself found; args: key, value as typed, cause, remedy."""

    def __str__(self) -> str:
        key, value, cause, remedy = self.args
        return f"{key}={value} cannot run here: {cause}; {remedy}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """A known limit: the pattern of its error, the key that asks for it, and the remedy."""

    pattern: str  # searched in "Type: message"
    key: str
    value: str = ""  # searched in the key's value: an error that names flash-attn is no limit of sdpa
    where: dict[str, str] = dataclasses.field(default_factory=dict)  # further key → likewise; null is None
    remedy: str  # never a value that is already set

    def concerns(self, config: BenchmarkConfig) -> bool:
        """Check whether a setting asks for what this is a limit of."""
        flat = config.flat()
        return all(re.search(each, _typed(flat[key])) for key, each in {self.key: self.value, **self.where}.items())


NO_SDPA_KERNEL = r"No viable backend for scaled_dot_product_attention|No available kernel|cudnn_frontend|cuDNN Frontend"
NOT_BATCHED = r"is not supported for continuous batching|attn_implementation=\"paged\|"
NO_CXX = r"InvalidCxxCompiler|No working C\+\+ compiler"
NO_TRITON = r"TritonMissing|Cannot find a working triton|GPUTooOldForTriton|find C compiler|Python\.h: No"
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
        value="^(?!bfloat16)",
        remedy="use model.dtype=bfloat16",
    ),
    Limit(
        pattern=r"FlashAttention only supports? (fp16|fp 16|half)",
        key="model.dtype",
        value="bfloat16",
        remedy="use model.dtype=float16",
    ),
    Limit(
        pattern=r"FlashAttention only supports? .*GPUs",
        key="attention.implementation",
        value="^(?!sdpa)",
        remedy="use attention=sdpa",
    ),
    Limit(
        pattern=r"FlashAttention only supports? .*GPUs",
        key="attention.sdpa_backend",
        value="flash",
        remedy="use another backend or null",
    ),
    Limit(
        pattern=NO_SDPA_KERNEL,
        key="attention.sdpa_backend",
        value="None",
        where={"attention.implementation": "sdpa"},
        remedy="there is no kernel for this device, dtype, mask and head layout; use attention=eager",
    ),
    Limit(
        pattern=NO_SDPA_KERNEL,
        key="attention.sdpa_backend",
        value="^(?!None)",
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
        where={"compile.mode": "^(?!None)"},
        remedy="the compiler has no kernel of it for this device; use compile=off, or attention=sdpa",
    ),
    Limit(
        pattern=r"NoValidChoicesError",
        key="attention.implementation",
        value="flex",
        where={"compile.mode": "None"},  # it compiles itself
        remedy="the compiler has no kernel of it for this device; use attention=sdpa",
    ),
    Limit(
        pattern=NOT_BATCHED,
        key="attention.implementation",
        value="^sdpa$",
        where={"generation.continuous_batching": "true"},
        remedy="transformers cannot batch this model so; use generation.continuous_batching=false",
    ),
    Limit(
        pattern=NOT_BATCHED,
        key="attention.implementation",
        value="^(?!sdpa$)",
        where={"generation.continuous_batching": "true"},
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
        pattern=NO_CXX,
        key="attention.implementation",
        value="flex",
        where={"compile.mode": "None"},
        remedy="flex_attention compiles itself and needs a C++ compiler: install g++, or use attention=sdpa",
    ),
    Limit(
        pattern=NO_CXX,
        key="attention.implementation",
        value="flex",
        where={"compile.mode": "^(?!None)"},
        remedy="compiling for the CPU needs g++, and flex_attention is compiled in any case: install g++, or use "
        "attention=sdpa with compile=off",
    ),
    Limit(
        pattern=NO_CXX,
        key="compile.mode",
        value="^(?!None)",
        remedy="compiling for the CPU needs g++; install it, or use compile=off",
    ),
    Limit(
        pattern=NO_TRITON,
        key="attention.implementation",
        value="flex",
        where={"compile.mode": "None"},
        remedy="flex_attention compiles itself and needs a Triton that supports this GPU, gcc and Python's headers; "
        "use attention=sdpa",
    ),
    Limit(
        pattern=NO_TRITON,
        key="attention.implementation",
        value="flex",
        where={"compile.mode": "^(?!None)"},
        remedy="compiling for this GPU needs a Triton that supports it, gcc and Python's headers; use attention=sdpa "
        "with compile=off",
    ),
    Limit(
        pattern=NO_TRITON,
        key="compile.mode",
        value="^(?!None)",
        remedy="compiling for this GPU needs a Triton that supports it, gcc and Python's headers; use compile=off",
    ),
)


def limit_reached(error: BaseException, config: BenchmarkConfig) -> str | None:
    """Return key, value, cause and remedy in one line if the error is a known limit; else None."""
    if isinstance(error, CannotRunHereError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    for limit in LIMITS:
        if re.search(limit.pattern, text, re.IGNORECASE) and limit.concerns(config):
            asked = f"{limit.key}={_typed(config.flat()[limit.key])}"
            return f"{asked} cannot run here: {one_line(error, 160)}; {limit.remedy}"
    return None


class LimitCatcher:
    """A context manager that ends quietly at a known limit and keeps the reason; other errors pass.

    It can be entered again and again. Without a config it catches nothing.
    """

    def __init__(self, config: BenchmarkConfig | None = None) -> None:
        self._config = config
        self.reason: str | None = None  # why the setting cannot run here

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if self._config is None or not isinstance(error, Exception):
            return False
        self.reason = limit_reached(error, self._config)
        return self.reason is not None


def _typed(value: object) -> str:
    """Return a key's value as one types it, but for null."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Check whether device or host ran out of memory, directly or in an exception wrapped by the compiler."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if re.search(r"CUDA( error:)? out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory", str(error)):
            return True
        error = getattr(error, "inner_exception", None) or error.__cause__
    return False


def memory_asked_for(error: BaseException | None) -> tuple[int | None, int | None]:
    """Return the bytes requested and the bytes free, from the allocator's message; None: it does not say.

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
    """Return the first meaningful line of an error, cut to `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    return text if len(text) <= limit else text[: limit - 1] + "…"
