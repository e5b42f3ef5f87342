"""Declare the sections of the config: each key with its type, default, unit, meaning and rule.

This module is their only source. The YAML files under ``conf/`` only name choices that differ from these defaults, and
the help page is generated from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.config.rules import key

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
SDPA_BACKENDS = ("math", "flash_attention", "efficient_attention", "cudnn_attention")
DTYPES = ("auto", "float32", "bfloat16", "float16")
NAME = r"[A-Za-z0-9][\w.-]{0,99}"  # valid as a folder name
NAME_FORM = "100 letters, digits and _ . - at most, the first a letter or a digit"
ADDRESS_FORM = "an address such as sqlite:///FILE or http://HOST:PORT"
# The headline metrics that a search can optimise, each with its better direction.
OBJECTIVES = {
    "e2e_ms": "minimize",
    "ttft_ms": "minimize",
    "itl_ms": "minimize",
    "tpot_ms": "minimize",
    "tok_per_s": "maximize",
    "decode_tps": "maximize",
    "cold_s": "minimize",
    "peak_mib": "minimize",
    "mbu_pct": "maximize",
    "j_per_tok": "minimize",
}


@dataclass(kw_only=True)
class ModelConfig:
    """Define the model: its source and the number format in which it runs."""

    id: str | None = key(None, "hub id, local folder, or a label for weights=random")
    revision: str | None = key(None, "hub branch, tag or commit")
    gguf_file: str | None = key(None, "file name of a GGUF checkpoint inside model.id; dequantised on load")
    weights: str = key("pretrained", "where the weights come from", allowed=("pretrained", "random"))
    architecture: dict[str, Any] | None = key(
        None, "with weights=random: model_type and sizes, as in a config.json; null reads them from model.id"
    )
    dtype: str = key("auto", "number format of weights and cache; auto: the checkpoint's own", allowed=DTYPES)
    seed: int = key(0, "seed of random weights and of everything else in the job", minimum=0)
    trust_remote_code: bool = key(False, "run Python code that comes with the model")
    tp_size: int | str | None = key(
        None, "tensor parallelism: processes over which each layer is split; auto: one per GPU of the job; null: none",
        minimum=2,
    )  # fmt: skip

    @property
    def tp_processes(self) -> int | None:
        """Return the number of processes in `tp_size`; None if it has no number (null, auto)."""
        return self.tp_size if isinstance(self.tp_size, int) else None


@dataclass(kw_only=True)
class AttentionConfig:
    """Choose the attention implementation."""

    implementation: str = key(
        "sdpa", "eager, sdpa, flex_attention, flash_attention_2, or any name transformers knows", pattern=r"\S+"
    )
    sdpa_backend: str | None = key(None, "the one kernel family that sdpa may use; null: torch's choice",
                                   allowed=SDPA_BACKENDS)  # fmt: skip

    @property
    def compiles_itself(self) -> bool:
        """Check whether transformers compiles this attention regardless of `compile.mode`.

        It calls torch.compile without arguments, so that only `cache` of the section `compile` affects it.
        """
        return self.implementation.removeprefix("paged|") == "flex_attention"


@dataclass(kw_only=True)
class CompileConfig:
    """Configure torch.compile of the decoding step. Prefill always runs uncompiled: generate compiles only decoding."""

    mode: str | None = key(None, "null: not compiled", allowed=COMPILE_MODES)
    fullgraph: bool = key(False, "when compiled: fail on a graph break instead of splitting the graph")
    dynamic: bool | None = key(None, "true: dynamic shapes, false: static shapes, null: torch's choice")
    backend: str = key("inductor", "compiler backend known to torch.compile", pattern=r"[\w.-]+")
    options: dict[str, Any] = key({}, "backend options, nested or dotted; added to what the mode sets")
    cache: str = key("fresh", "fresh: an empty compile cache per job; shared: one per setting, kept between jobs",
                     allowed=("fresh", "shared"))  # fmt: skip


@dataclass(kw_only=True)
class GenerationConfig:
    """Configure generate. Decoding is greedy, and EOS never ends a call early."""

    kv_cache: str = key("auto", "auto: static when compiled, dynamic when not", allowed=("auto", "dynamic", "static"))
    continuous_batching: bool = key(False, "generate_batch over a paged cache: one request a prompt")
    kernelize: bool = key(False, "replace layers by hub kernels; needs the package kernels")
    grad_mode: str = key("auto", "autograd guard around each call; auto: inference_mode, no_grad with "
                         "continuous_batching", allowed=("auto", "inference_mode", "no_grad"))  # fmt: skip


@dataclass(kw_only=True)
class WorkloadConfig:
    """Define the workload: prompts of exactly sequence_length tokens, and exactly num_tokens_to_generate new ones."""

    batch_size: int = key(1, "prompts per call", minimum=1)
    sequence_length: int = key(128, "prompt tokens per row", minimum=1)
    num_tokens_to_generate: int = key(32, "new tokens per row; two at least, so that an ITL exists", minimum=2)
    prompt_file: str | None = key(None, "UTF-8 text to take the prompt from; null: a built-in text. Repeats if short")


@dataclass(kw_only=True)
class WarmupConfig:
    """Configure the untimed calls after the validation call and before the measured ones."""

    policy: str = key("fixed", "fixed: exactly that many calls; auto: until they are level", allowed=("fixed", "auto"))
    iterations: int = key(5, "fixed: warm-up calls", minimum=0)
    min_iterations: int = key(5, "auto: at least so many after the last compilation", minimum=1)
    max_iterations: int = key(50, "auto: at most so many after it, and 3 times the measured calls", minimum=1)
    window: int = key(8, "auto: the last calls that must be level; 5 where one takes over 10 s", minimum=4)
    max_s: float = key(120.0, "auto: at most so many seconds after the last compilation", above=0)


@dataclass(kw_only=True)
class MeasurementConfig:
    """Configure the measured calls."""

    policy: str = key("fixed", "fixed: exactly that many calls; adaptive: until the median is known well enough",
                      allowed=("fixed", "adaptive"))  # fmt: skip
    iterations: int = key(20, "fixed: measured calls", minimum=1)
    min_iterations: int = key(20, "adaptive: at least", minimum=6)
    max_iterations: int = key(100, "adaptive: at most", minimum=6)
    step: int = key(5, "adaptive: calls between two looks", minimum=1)
    half_width: float = key(0.01, "adaptive: of the median's 95 % interval, as a fraction of the median", above=0)
    max_s: float = key(300.0, "adaptive: seconds", above=0)


@dataclass(kw_only=True)
class MonitorConfig:
    """Configure the hardware monitor, a separate process that samples during measured calls only."""

    enabled: bool = key(True, "sample utilisation, memory, clocks and power during measured calls")
    interval_s: float = key(0.1, "seconds between samples", minimum=0.005)


@dataclass(kw_only=True)
class ProfileConfig:
    """Configure artifacts of extra calls after the measurement."""

    num_tokens: int = key(0, "new tokens of one profiled call: a trace and a table of operators; 0: none", minimum=0)
    memory_snapshot: bool = key(False, "on a GPU: the allocator's history over one call, for pytorch.org/memory_viz")


@dataclass(kw_only=True)
class FidelityConfig:
    """Configure the comparison of the output with a reference run."""

    reference: str = key(
        "auto",
        "eager: compare with eager attention, uncompiled, same dtype; auto: eager in sweeps of several settings",
        allowed=("auto", "none", "eager"),
    )


@dataclass(kw_only=True)
class IsolationConfig:
    """Configure the isolation of jobs: one process per job."""

    mode: str = key("forkserver", "forkserver: forked with torch loaded; spawn: a fresh interpreter; none: in-process",
                    allowed=("forkserver", "spawn", "none"))  # fmt: skip
    timeout_s: float = key(3600.0, "seconds until a job is killed and recorded as timeout; not with mode=none", above=0)
    share_device: bool = key(False, "true: a job starts while another of this host uses its GPU or cores; false: waits")


@dataclass(kw_only=True)
class SweepConfig:
    """Configure a sweep of many settings: names, repeats and order."""

    name: str | None = key(None, "folder under multirun/; null: date and time", pattern=NAME, form=NAME_FORM)
    repeats: int = key(1, "runs of each setting, each in a process of its own", minimum=1)
    order: str = key("shuffled", "shuffled: blocks of all settings, each in random order; given: as typed",
                     allowed=("shuffled", "given"))  # fmt: skip
    seed: int = key(0, "seed of the order", minimum=0)
    label: str | None = key(None, "of a setting; the same setting under two labels is run as two (A/A)", pattern=NAME,
                            form=NAME_FORM)  # fmt: skip
    resume: bool = key(False, "run only what a sweep of this name lacks; needs sweep.name")
    dry_run: bool = key(False, "print the jobs, what is done already and how long the rest may take, and stop")
    max_jobs: int = key(1000, "a sweep of more jobs is refused: a slip of the keyboard is soon a million", minimum=1)
    baseline: str | None = key(None, "what others are compared with: a setting's name or key=value; null: the first")


@dataclass(kw_only=True)
class SearchConfig:
    """Configure a search: with hydra/sweeper=optuna, a study chooses the next setting instead of a grid."""

    objectives: list[str] = key(
        ["e2e_ms"], "headline metric to search for, as MLflow has it, or a list of them: Pareto front", words=True
    )
    directions: list[str] | None = key(
        None, "minimize or maximize, one for each objective; null: throughput and MBU up, all else down", words=True
    )
    trials: int = key(20, "jobs at most, those of an earlier start included", minimum=1)
    parallel: int = key(1, "jobs that are asked for at once; 1 learns from each, more suit a cluster", minimum=1)
    storage: str | None = key(None, "database of the study, as SQLAlchemy names it; null: search.db in the sweep's "
                              "folder", pattern=r"\w[\w+.-]*://.+", form="an address such as sqlite:///FILE or "
                              "postgresql://HOST/NAME")  # fmt: skip
    seed: int = key(0, "seed of the sampler", minimum=0)

    def __setattr__(self, name: str, value: Any) -> None:
        """Convert a single word to a list, on every assignment."""
        is_word = name in ("objectives", "directions") and isinstance(value, str)
        super().__setattr__(name, [value] if is_word else value)

    def goals(self) -> dict[str, str]:
        """Return objective → minimize or maximize, in order."""
        directions = self.directions or [OBJECTIVES[name] for name in self.objectives]
        return dict(zip(self.objectives, directions, strict=True))


@dataclass(kw_only=True)
class TrackingConfig:
    """Configure publishing to MLflow."""

    enabled: bool = key(True, "publish to MLflow")
    uri: str | None = key(None, "tracking address; null: MLFLOW_TRACKING_URI, else mlflow.db in the start folder",
                           pattern=r"\w[\w+.-]*://.+|databricks", form=ADDRESS_FORM)  # fmt: skip
    experiment: str | None = key(None, "MLflow experiment; null: MLFLOW_EXPERIMENT_NAME or _ID, else bench",
                                 pattern=r"\S(.*\S)?")  # fmt: skip
    artifact_location: str | None = key(
        None, "of a new experiment, path or URI; null: MLFLOW_DEFAULT_ARTIFACT_ROOT, else beside the database",
        pattern=r"\S(.*\S)?",
    )  # fmt: skip
    tags: dict[str, Any] = key({}, "further tags of every run, as texts; null: not this one")
