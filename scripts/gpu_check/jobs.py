"""Define the jobs in the order of their importance, and the device and sizes they run with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.config.schema import (
    AttentionConfig,
    BenchmarkConfig,
    CompileConfig,
    FidelityConfig,
    GenerationConfig,
    IsolationConfig,
    MeasurementConfig,
    ModelConfig,
    MonitorConfig,
    ProfileConfig,
    WarmupConfig,
    WorkloadConfig,
)

# Sizes of Llama-3.2-1B (its published config.json) but for the vocabulary, which is not tied to the lm_head here: with
# tied random weights a model repeats the last token, and equal outputs prove nothing. 1.1 billion parameters.
ONE_BILLION = {
    "model_type": "llama",
    "vocab_size": 32768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
TINY = {
    "model_type": "llama",
    "vocab_size": 258,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One setting, and what the checks need to know of it."""

    name: str
    kind: str = "plain"  # plain, compiled or autotuned: how long it will take
    attention: str = "sdpa"
    backend: str | None = None
    mode: str | None = None
    kv_cache: str = "auto"
    cache: str = "fresh"
    warm_up: int | None = None  # None: the target's
    batch: int = 1
    monitored: bool = True
    batching: bool = False
    kernelize: bool = False
    profiled: bool = False
    may_skip: bool = False  # no failure if this machine cannot run it
    finds: str | None = None  # the job whose compiled code it finds in the shared cache
    rehearsed: bool = False  # whether a rehearsal runs it


JOBS = (
    Job(name="flex default", attention="flex_attention", mode="default", kind="compiled"),
    Job(name="sdpa", rehearsed=True),
    Job(name="sdpa default", mode="default", cache="shared", kind="compiled", rehearsed=True),
    Job(name="sdpa reduce-overhead", mode="reduce-overhead", kind="compiled"),
    Job(name="eager", attention="eager", rehearsed=True),
    Job(name="flex", attention="flex_attention", kind="compiled"),  # it compiles its own kernel
    Job(name="sdpa flash", backend="flash_attention", rehearsed=True),
    # Without a mask transformers leaves grouped heads to the kernel, which efficient_attention refuses.
    Job(name="sdpa efficient, static", backend="efficient_attention", kv_cache="static", may_skip=True),
    Job(name="sdpa cudnn", backend="cudnn_attention", may_skip=True, rehearsed=True),
    Job(name="sdpa math", backend="math", rehearsed=True),
    Job(name="sdpa max-autotune", mode="max-autotune", warm_up=10, kind="autotuned"),
    Job(name="sdpa, no monitor", monitored=False, rehearsed=True),
    Job(
        name="sdpa default, no monitor",
        mode="default",
        cache="shared",
        monitored=False,
        finds="sdpa default",
        rehearsed=True,
    ),
    Job(name="eager default", attention="eager", mode="default", kind="compiled"),
    Job(name="eager reduce-overhead", attention="eager", mode="reduce-overhead", kind="compiled"),
    Job(name="flex reduce-overhead", attention="flex_attention", mode="reduce-overhead", kind="compiled"),
    Job(name="flash_attention_2", attention="flash_attention_2", may_skip=True, rehearsed=True),
    Job(name="sdpa no-cudagraphs", mode="max-autotune-no-cudagraphs", warm_up=10, kind="autotuned"),
    Job(name="flex max-autotune", attention="flex_attention", mode="max-autotune", warm_up=10, kind="autotuned"),
    Job(name="eager max-autotune", attention="eager", mode="max-autotune", warm_up=10, kind="autotuned"),
    Job(name="continuous batching ×4", batching=True, batch=4, rehearsed=True),
    Job(name="sdpa, profiled", profiled=True, rehearsed=True),
    Job(name="sdpa, kernelize", kernelize=True, may_skip=True, rehearsed=True),
)
SEED_EXAMPLE = JOBS[0].name
# The same setting with and without monitor.
PAIRS = (("sdpa", "sdpa, no monitor"), ("sdpa default", "sdpa default, no monitor"))
CUDAGRAPH_MODES = ("reduce-overhead", "max-autotune")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the jobs run, and how large they are."""

    device: str
    model: str
    architecture: dict[str, Any]
    dtype: str
    prompt_tokens: int
    new_tokens: int
    warm_up: int
    calls: int  # measured ones
    rehearsal: bool = False


GPU = Target(
    device="cuda",
    model="random-llama-1b",
    architecture=ONE_BILLION,
    dtype="bfloat16",
    prompt_tokens=512,
    new_tokens=48,
    warm_up=3,
    calls=10,
)
REHEARSED = Target(
    device="cpu",
    model="tiny",
    architecture=TINY,
    dtype="float32",
    prompt_tokens=16,
    new_tokens=6,
    warm_up=1,
    calls=3,
    rehearsal=True,
)


def jobs_for(target: Target) -> list[Job]:
    """Return the jobs in order; in a rehearsal a few, those that compile last, because they take longest."""
    if not target.rehearsal:
        return list(JOBS)
    return sorted((each for each in JOBS if each.rehearsed), key=lambda each: each.mode is not None)


def setting(job: Job, target: Target, timeout_s: float) -> BenchmarkConfig:
    """Return the config of a job, which may take `timeout_s`."""
    return BenchmarkConfig(
        device=target.device,
        model=ModelConfig(
            id=target.model, weights="random", architecture=dict(target.architecture), dtype=target.dtype
        ),
        attention=AttentionConfig(implementation=job.attention, sdpa_backend=job.backend),
        compile=CompileConfig(mode=job.mode, cache=job.cache),
        generation=GenerationConfig(kv_cache=job.kv_cache, continuous_batching=job.batching, kernelize=job.kernelize),
        workload=WorkloadConfig(
            batch_size=job.batch,
            sequence_length=target.prompt_tokens,
            num_tokens_to_generate=target.new_tokens,
        ),
        warmup=WarmupConfig(iterations=target.warm_up if job.warm_up is None else job.warm_up),
        measurement=MeasurementConfig(iterations=target.calls),
        monitor=MonitorConfig(enabled=job.monitored),
        profile=ProfileConfig(
            num_tokens=3 if job.profiled else 0,
            memory_snapshot=job.profiled and not target.rehearsal,  # torch keeps no history on a CPU
        ),
        fidelity=FidelityConfig(reference="eager"),
        isolation=IsolationConfig(timeout_s=timeout_s),
    )
