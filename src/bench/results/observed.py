"""What ran in a job, read from the model and the libraries and not from the request: one part of its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Kinds of `CompileEvent` during which a call waits for the compiler.
COMPILATIONS = ("graph", "recompile", "failure", "autotune")


@dataclass(frozen=True, kw_only=True)
class CompileEvent:
    """One thing that torch.compile did, and the call during which it did it."""

    iteration: int  # index of the call
    # "graph", "recompile", "graph_break", "cudagraph_skip"; "failure": a compilation that came to nothing, so that its
    # function ran uncompiled or the call ended; outside of compilations "autotune" and "cudagraph_record".
    kind: str
    reason: str = ""  # the failed guard, why the graph broke, why there is no CUDA graph; "" for a first compilation
    compile_id: str | None = None  # torch's name of the compiled region, such as 0/0
    function: str | None = None  # that was compiled
    file: str | None = None  # with `line`: where the function begins, or where the graph broke
    line: int | None = None
    duration_s: float | None = None  # of a compilation, of autotuning, of recording a CUDA graph


@dataclass(frozen=True, kw_only=True)
class CompileObserved:
    """What torch.compile did in this process, from its own counters. None: this version of torch does not tell."""

    graphs: int | None = 0  # graphs captured
    attention_graphs: int | None = 0  # those of them that flex_attention made of itself, whatever the setting
    # reason → count; functions given up as a whole included
    graph_breaks: dict[str, int] | None = field(default_factory=dict)
    recompiles: list[str] | None = field(default_factory=list)  # the failed guard of each recompilation
    cudagraph_skips: int | None = 0
    compile_s: float | None = 0.0
    autotune_s: float | None = 0.0  # of compile_s and of calls: benchmarking of candidate kernels
    cache_hits: int | None = 0  # compiled code taken from the cache on disk
    cache_misses: int | None = 0
    events: list[CompileEvent] = field(default_factory=list)  # in order
    arguments: dict[str, Any] = field(default_factory=dict)  # what torch.compile was called with; {} when it was not

    def compiling_calls(self) -> set[int]:
        """Indices of the calls that waited for the compiler."""
        return {each.iteration for each in self.events if each.kind in COMPILATIONS}

    @property
    def cache_state(self) -> str | None:
        """How the compile cache on disk met this job: "cold", "warm" or "mixed".

        None when nothing was compiled, and where torch does not tell. With hits and an unknown number of misses it is
        "mixed": that all code came from the cache is not known.
        """
        if self.cache_hits is None:
            return None
        if self.cache_hits:
            return "warm" if self.cache_misses == 0 else "mixed"
        return "cold" if self.cache_misses or self.graphs else None


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """One operator or kernel in a profiled phase."""

    name: str
    calls: int
    total_s: float


@dataclass(frozen=True, kw_only=True)
class PhaseEvidence:
    """What one phase of the profiled call ran: its prefill, or its decoding steps."""

    steps: int
    duration_s: float  # under the profiler, so not a figure to compare
    families: list[str]  # of attention kernels, in the words of `bench.trial.evidence.observed`
    operators: list[OperatorTime]  # those that computed attention, the longest first
    attention_share: float | None  # of the phase's time (CPU) or of its kernels' time (GPU); None when unknown
    compiled_regions: int  # how often compiled code was entered
    cudagraph_launches: int = 0


@dataclass(frozen=True, kw_only=True)
class AttentionObserved:
    """Which attention ran: what transformers was set to, and what one profiled call showed."""

    implementation: str | None  # as set in the model's config; None: transformers does not tell
    allowed_backends: list[str]  # that torch's SDPA might use; [] when it is not SDPA
    prefill: PhaseEvidence | None = None  # None until the profiled call
    decode: PhaseEvidence | None = None
    error: str | None = None  # why there is no such evidence


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes that decide how much a token must move and compute."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    matmul_parameters: int  # weights that every token is multiplied with, those of experts apart
    lm_head_parameters: int  # of those, the ones that only the last prompt token meets
    expert_parameters: int = 0  # weights of all experts of all layers; not in matmul_parameters
    experts: int = 0  # in a layer
    experts_per_token: int = 0
    sliding_window: int | None = None  # tokens that a layer with a window sees
    sliding_layers: int = 0


@dataclass(frozen=True, kw_only=True)
class Unverified:
    """A part of the request of which nothing shows whether it was honoured: neither confirmed nor contradicted."""

    key: str  # of the config, such as "generation.kv_cache"; or "token times", which belong to no key
    reason: str  # what could not be seen, and why: one line


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What ran, read from the model and the libraries and not from the request."""

    device: str
    device_name: str
    dtype: str
    model_class: str
    parameters: int
    parameter_bytes: int
    attention: AttentionObserved
    shape: ModelShape | None = None  # None for an architecture whose sizes cannot be read
    revision: str | None = None  # the hub commit that the weights came from
    grad_mode: str | None = None  # the autograd guard of each call
    kv_cache: str | None = None  # class of the cache that generate used
    compile: CompileObserved | None = None  # None until the validation call has come through
    prompt_digest: str | None = None  # SHA-256 of workload.prompt_file; None for the built-in text, or before version 7
    prompt_tokens: int | None = None  # per row
    new_tokens: int | None = None  # per row
    kernels: list[str] = field(default_factory=list)  # generation.kernelize: layers that run a hub kernel
    mends: list[str] = field(default_factory=list)  # faults of the libraries that were mended for this job
    unverified: list[Unverified] = field(default_factory=list)  # one for each key that the evidence cannot see
    # Tensor parallelism; None for one process. `parameters` and `shape` are those of the whole model.
    tp_size: int | None = None  # processes that the model was split over
    sharded_parameters: int | None = None  # of `parameters`, those in tensors of which rank 0 holds a slice only
    rank_parameter_bytes: int | None = None  # that rank 0 holds
