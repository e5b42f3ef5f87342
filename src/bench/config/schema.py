"""What a user chooses: the structured config, its defaults, its units and its rules.

This module owns every key's type, default, documentation and value rule. The YAML files under ``conf/`` only name
choices that differ from these defaults, the help page is made from them, and the flat keywords of the Python
interface are other names for the same keys. Nothing here knows Hydra, and nothing past ``bench.cli.application`` sees a
``DictConfig``.

What depends on the machine or the model (is there a GPU, does this attention exist) is not decided here but in the
job, where a setting that cannot run is skipped with its reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bench.config.mlflow_names import problem_of_experiment, problem_of_tag
from bench.config.renamed import current_name, with_current_names
from bench.config.rules import SUGGESTED, ConfigError, Rule, key, nearest
from bench.host.home_folder import expanded

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
SDPA_BACKENDS = ("math", "flash_attention", "efficient_attention", "cudnn_attention")
DTYPES = ("auto", "float32", "bfloat16", "float16")
NAME = r"[A-Za-z0-9][\w.-]{0,99}"  # fit for a folder
NAME_FORM = "100 letters, digits and _ . - at most, the first a letter or a digit"
ADDRESS_FORM = "an address such as sqlite:///FILE or http://HOST:PORT"
# What a search may be for: the headline metrics, and which way each is better.
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
DIRECTIONS = ("minimize", "maximize")
NO_SUCH_KEY = "no such key"  # how the remedy for such a one begins
TAGS = "tracking.tags"  # whose values are texts, whatever they are called
NOT_QUOTED = "a text stands in quotes, for of a number not all that was typed is left"
SAME_SECTION = 0.8  # how near a misspelt key must be to one of the same name, for its section to be the one meant


@dataclass(kw_only=True)
class ModelConfig:
    """The model: where it comes from and in which number format it runs."""

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
        """The number of processes in `tp_size`; None where it names none (null, auto)."""
        return self.tp_size if isinstance(self.tp_size, int) else None


@dataclass(kw_only=True)
class AttentionConfig:
    """Which attention implementation computes the scores."""

    implementation: str = key(
        "sdpa", "eager, sdpa, flex_attention, flash_attention_2, or any name transformers knows", pattern=r"\S+"
    )
    sdpa_backend: str | None = key(None, "the one kernel family that sdpa may use; null: torch's choice",
                                   allowed=SDPA_BACKENDS)  # fmt: skip

    @property
    def compiles_itself(self) -> bool:
        """Whether transformers compiles this attention whatever `compile.mode` is.

        It calls torch.compile without arguments, so that of the section `compile` only `cache` has an effect on it.
        """
        return self.implementation.removeprefix("paged|") == "flex_attention"


@dataclass(kw_only=True)
class CompileConfig:
    """torch.compile of the decoding step. Prefill always runs uncompiled: generate compiles only decoding."""

    mode: str | None = key(None, "null: not compiled", allowed=COMPILE_MODES)
    fullgraph: bool = key(False, "when compiled: fail on a graph break instead of splitting the graph")
    dynamic: bool | None = key(None, "true: dynamic shapes, false: static shapes, null: torch's choice")
    backend: str = key("inductor", "compiler backend known to torch.compile", pattern=r"[\w.-]+")
    options: dict[str, Any] = key({}, "backend options, nested or dotted; added to what the mode sets")
    cache: str = key("fresh", "fresh: an empty compile cache per job; shared: one per setting, kept between jobs",
                     allowed=("fresh", "shared"))  # fmt: skip


@dataclass(kw_only=True)
class GenerationConfig:
    """How generate runs. Decoding is greedy, and EOS never ends a call early."""

    kv_cache: str = key("auto", "auto: static when compiled, dynamic when not", allowed=("auto", "dynamic", "static"))
    continuous_batching: bool = key(False, "generate_batch over a paged cache: one request a prompt")
    kernelize: bool = key(False, "replace layers by hub kernels; needs the package kernels")
    grad_mode: str = key("auto", "autograd guard around each call; auto: inference_mode, no_grad with "
                         "continuous_batching", allowed=("auto", "inference_mode", "no_grad"))  # fmt: skip


@dataclass(kw_only=True)
class WorkloadConfig:
    """What is generated: prompts of exactly sequence_length tokens, and exactly so many new ones."""

    batch_size: int = key(1, "prompts per call", minimum=1)
    sequence_length: int = key(128, "prompt tokens per row", minimum=1)
    num_tokens_to_generate: int = key(32, "new tokens per row; two at least, so that an ITL exists", minimum=2)
    prompt_file: str | None = key(None, "UTF-8 text to take the prompt from; null: a built-in text. Repeats if short")


@dataclass(kw_only=True)
class WarmupConfig:
    """Untimed calls after the validation call and before the measured ones."""

    policy: str = key("fixed", "fixed: exactly that many calls; auto: until they are level", allowed=("fixed", "auto"))
    iterations: int = key(5, "fixed: warm-up calls", minimum=0)
    min_iterations: int = key(5, "auto: at least so many after the last compilation", minimum=1)
    max_iterations: int = key(50, "auto: at most so many after it, and 3 times the measured calls", minimum=1)
    window: int = key(8, "auto: the last calls that must be level; 5 where one takes over 10 s", minimum=4)
    max_s: float = key(120.0, "auto: at most so many seconds after the last compilation", above=0)


@dataclass(kw_only=True)
class MeasurementConfig:
    """The calls that count."""

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
    """The hardware monitor: a process of its own that samples during measured calls only."""

    enabled: bool = key(True, "sample utilisation, memory, clocks and power during measured calls")
    interval_s: float = key(0.1, "seconds between samples", minimum=0.005)


@dataclass(kw_only=True)
class ProfileConfig:
    """Artifacts of extra calls, made after the measurement."""

    num_tokens: int = key(0, "new tokens of one profiled call: a trace and a table of operators; 0: none", minimum=0)
    memory_snapshot: bool = key(False, "on a GPU: the allocator's history over one call, for pytorch.org/memory_viz")


@dataclass(kw_only=True)
class FidelityConfig:
    """Comparison of the output with a reference run."""

    reference: str = key(
        "auto",
        "eager: compare with eager attention, uncompiled, same dtype; auto: eager in sweeps of several settings",
        allowed=("auto", "none", "eager"),
    )


@dataclass(kw_only=True)
class IsolationConfig:
    """One process a job."""

    mode: str = key("forkserver", "forkserver: forked with torch loaded; spawn: a fresh interpreter; none: in-process",
                    allowed=("forkserver", "spawn", "none"))  # fmt: skip
    timeout_s: float = key(3600.0, "seconds until a job is killed and recorded as timeout; not with mode=none", above=0)
    share_device: bool = key(False, "true: a job starts while another of this host uses its GPU or cores; false: waits")


@dataclass(kw_only=True)
class SweepConfig:
    """Many settings: names, repeats and order."""

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
    """Instead of a grid: with hydra/sweeper=optuna a study chooses what to measure next."""

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
        """Take one word for the list of it, whoever sets it."""
        is_word = name in ("objectives", "directions") and isinstance(value, str)
        super().__setattr__(name, [value] if is_word else value)

    def goals(self) -> dict[str, str]:
        """Objective → minimize or maximize, in order."""
        directions = self.directions or [OBJECTIVES[name] for name in self.objectives]
        return dict(zip(self.objectives, directions, strict=True))


@dataclass(kw_only=True)
class TrackingConfig:
    """MLflow."""

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


# The names that users of transformers' own benchmark know, and where each lives.
FLAT_NAMES = {
    "warmup_iterations": "warmup.iterations",
    "measurement_iterations": "measurement.iterations",
    "gpu_monitoring": "monitor.enabled",
    "continuous_batching": "generation.continuous_batching",
    "batch_size": "workload.batch_size",
    "sequence_length": "workload.sequence_length",
    "num_tokens_to_generate": "workload.num_tokens_to_generate",
    "attn_implementation": "attention.implementation",
    "sdpa_backend": "attention.sdpa_backend",
    "kernelize": "generation.kernelize",
    "dtype": "model.dtype",
}


@dataclass(init=False, kw_only=True)
class BenchmarkConfig:
    """One setting: everything that one job needs to know.

    Takes its sections by name (``warmup=WarmupConfig(iterations=3)``), or the flat names of transformers' own
    benchmark (``warmup_iterations=3``, see ``FLAT_NAMES``), which can be read back as attributes too, and
    ``compile_kwargs``, the keywords of torch.compile (None: not compiled).

    Raises:
        ConfigError: a value breaks its rule; the text is one line that names key, value and remedy.
        TypeError: a keyword that does not exist; the text suggests the nearest.
    """

    device: str = key("auto", "auto: the first GPU, else the CPU; or cpu, cuda, cuda:N",
                      pattern=r"auto|cpu|cuda(:\d+)?", form="auto, cpu, cuda or cuda:N, such as cuda:0")  # fmt: skip
    model: ModelConfig = field(default_factory=ModelConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    measurement: MeasurementConfig = field(default_factory=MeasurementConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    isolation: IsolationConfig = field(default_factory=IsolationConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __init__(self, **keywords: Any) -> None:
        for each in dataclasses.fields(self):
            if each.name in keywords:
                value = keywords.pop(each.name)
            elif each.default is not dataclasses.MISSING:
                value = each.default
            else:
                value = typing.cast("Any", each.default_factory)()
            setattr(self, each.name, value)
        if (compile_kwargs := keywords.pop("compile_kwargs", None)) is not None:
            self._set_compile(dict(compile_kwargs))
        for name, value in keywords.items():
            if name not in FLAT_NAMES:
                known = [*FLAT_NAMES, "compile_kwargs", *(each.name for each in dataclasses.fields(self))]
                near = nearest(name, known)
                hint = f"; did you mean {near}?" if near else f"; known: {', '.join(known)}"
                raise TypeError(f"BenchmarkConfig has no keyword {name}{hint}")
            section, leaf = FLAT_NAMES[name].split(".")
            # A torch.dtype prints as torch.bfloat16; its own name is the last part.
            setattr(getattr(self, section), leaf, str(value).removeprefix("torch.") if name == "dtype" else value)
        self.check()

    def _set_compile(self, compile_kwargs: dict[str, Any]) -> None:
        if "mode" not in compile_kwargs:
            raise ConfigError("compile_kwargs", compile_kwargs, f"must name a mode: {', '.join(COMPILE_MODES)}")
        names = {each.name for each in dataclasses.fields(CompileConfig)}
        if unknown := sorted(set(compile_kwargs) - names):
            raise ConfigError("compile_kwargs", ", ".join(unknown), f"allowed: {', '.join(sorted(names))}")
        self.compile = CompileConfig(**compile_kwargs)

    if not typing.TYPE_CHECKING:  # A type checker shall go on finding misspelt attributes.

        def __getattr__(self, name: str) -> Any:
            if name not in FLAT_NAMES:
                raise AttributeError(f"BenchmarkConfig has no attribute {name}")
            section, leaf = FLAT_NAMES[name].split(".")
            return getattr(getattr(self, section), leaf)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FLAT_NAMES:
            section, leaf = FLAT_NAMES[name].split(".")
            setattr(getattr(self, section), leaf, value)
        elif name in _keys(type(self)):
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"BenchmarkConfig has no attribute {name}")

    # ---- rules -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ConfigError for the first value, or pair of values, that cannot be honoured anywhere."""
        for path, value, rule, kind in walk(self):
            if not rule.words:  # else the rule says it
                _check_type(path, value, kind)
            rule.check(path, value)
            for leaf, each in flatten(value).items() if isinstance(value, dict) else ():
                if isinstance(each, float) and not math.isfinite(each):
                    raise ConfigError(f"{path}.{leaf}", each, "must be a finite number")
                if path == TAGS and isinstance(each, bool | int | float):
                    raise ConfigError(f"{path}.{leaf}", each, NOT_QUOTED)
        self._check_pairs()
        self._check_search()
        self._check_tracking()
        self._check_tensor_parallel()
        if self.generation.continuous_batching:
            self._check_batching()

    def _check_search(self) -> None:
        """Objectives are known ones, each named once, with a direction each where directions are given."""
        names, directions = self.search.objectives, self.search.directions
        if not names:
            raise ConfigError("search.objectives", names, f"name one at least: {', '.join(OBJECTIVES)}")
        for key_name, words, known in (
            ("search.objectives", names, list(OBJECTIVES)),
            ("search.directions", directions or [], list(DIRECTIONS)),
        ):
            for word in words:
                if word not in known:
                    near = nearest(str(word), known)
                    hint = f"; did you mean {near}?" if near else ""
                    raise ConfigError(key_name, word, f"allowed: {', '.join(known)}{hint}")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError("search.objectives", f"[{','.join(names)}]", f"names {twice[0]} twice")
        if directions is not None and len(directions) != len(names):
            remedy = f"must be one for each of the {len(names)} search.objectives: {', '.join(names)}"
            raise ConfigError("search.directions", f"[{','.join(directions)}]", remedy)

    def _check_tracking(self) -> None:
        """Names that MLflow would refuse when all is measured."""
        experiment = self.tracking.experiment
        if experiment is not None and (problem := problem_of_experiment(experiment)):
            raise ConfigError("tracking.experiment", experiment, problem)
        for name, value in self.tracking.tags.items():
            if problem := problem_of_tag(name, str(value), self.tracking.tags):
                raise ConfigError(f"tracking.tags.{name}", value, problem)

    def _check_pairs(self) -> None:
        attention, compiled, model = self.attention, self.compile, self.model
        if attention.sdpa_backend and attention.implementation != "sdpa":
            raise ConfigError(
                "attention.sdpa_backend",
                attention.sdpa_backend,
                f"needs attention.implementation=sdpa (it is {attention.implementation}); or leave it null",
            )
        if compiled.mode and self.generation.kv_cache == "dynamic":
            raise ConfigError(
                "generation.kv_cache",
                "dynamic",
                f"generate compiles only over a static cache; set it to static or auto, or compile.mode=null "
                f"(it is {compiled.mode})",
            )
        if compiled.mode and compiled.backend != "inductor" and (compiled.mode != "default" or compiled.options):
            remedy = f"takes neither compile.mode={compiled.mode} nor options; use compile.mode=default, or inductor"
            raise ConfigError("compile.backend", compiled.backend, remedy)
        self._check_bounds()
        profiled, generated = self.profile.num_tokens, self.workload.num_tokens_to_generate
        if profiled > generated:
            remedy = f"at most workload.num_tokens_to_generate={generated}: it is the beginning of such a call"
            raise ConfigError("profile.num_tokens", profiled, remedy)
        if model.gguf_file and model.weights == "random":
            raise ConfigError("model.gguf_file", model.gguf_file, "needs model.weights=pretrained")
        if model.revision and model.architecture is not None:
            raise ConfigError("model.revision", model.revision, "nothing is read from a hub: model.architecture is set")
        if model.architecture is not None:
            if model.weights == "pretrained":
                raise ConfigError("model.architecture", model.architecture, "needs model.weights=random")
            if not isinstance(model.architecture.get("model_type"), str):
                raise ConfigError("model.architecture", model.architecture, "needs a model_type, such as llama")

    def _check_bounds(self) -> None:
        """The bounds of the stopping rules, where such a rule is in force."""
        warmup, measurement = self.warmup, self.measurement
        if warmup.policy == "auto":
            least = max(warmup.min_iterations, warmup.window)
            if warmup.max_iterations < least:
                remedy = f"must be at least {least}: warmup.min_iterations={warmup.min_iterations}, "
                remedy += f"warmup.window={warmup.window}"
                raise ConfigError("warmup.max_iterations", warmup.max_iterations, remedy)
        if measurement.policy == "adaptive" and measurement.max_iterations < measurement.min_iterations:
            remedy = f"must be at least measurement.min_iterations={measurement.min_iterations}"
            raise ConfigError("measurement.max_iterations", measurement.max_iterations, remedy)

    def _check_tensor_parallel(self) -> None:
        """What a model that is split over processes cannot be paired with."""
        model = self.model
        if model.tp_size is None:
            return
        if isinstance(model.tp_size, str) and model.tp_size != "auto":
            raise ConfigError("model.tp_size", model.tp_size, "must be a number from 2, auto (one per GPU) or null")
        if self.device == "cpu" and model.tp_size == "auto":
            raise ConfigError("model.tp_size", "auto", "there is no GPU to count with device=cpu; type a number")
        if self.device.startswith("cuda:"):
            remedy = "names one GPU, and model.tp_size needs several; use cuda, and CUDA_VISIBLE_DEVICES to choose"
            raise ConfigError("device", self.device, remedy)
        if model.gguf_file:
            remedy = "transformers splits no GGUF file; use model.tp_size=null, or a checkpoint of safetensors"
            raise ConfigError("model.gguf_file", model.gguf_file, remedy)
        if self.generation.continuous_batching:
            remedy = "cannot run with model.tp_size: its worker schedules by itself and ranks would differ; set false"
            raise ConfigError("generation.continuous_batching", True, remedy)
        if self.isolation.mode == "none":
            raise ConfigError("isolation.mode", "none", "model.tp_size starts processes; use forkserver or spawn")

    def _check_batching(self) -> None:
        """What continuous batching does not do, refused before anything runs."""
        generation, compiled = self.generation, self.compile
        if compiled.mode:
            # Seen with transformers 5.23 and 5.24: a graph break in each layer, and from the ninth layer on
            # TorchDynamo's recompile limit, after which the rest runs uncompiled, with no more than a warning.
            remedy = "with generation.continuous_batching transformers compiles fragments only; set it to null"
            raise ConfigError("compile.mode", compiled.mode, remedy)
        if generation.kv_cache != "auto":
            remedy = "generation.continuous_batching has a paged cache of its own; set it to auto"
            raise ConfigError("generation.kv_cache", generation.kv_cache, remedy)

    # ---- forms -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The nested keys and plain values, as in ``record.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BenchmarkConfig:
        """Make a config of what ``to_dict`` returned, in this version or the last. ConfigError for an unknown key."""
        return _build(cls, with_current_names(data) if isinstance(data, dict) else data, "")

    def flat(self) -> dict[str, Any]:
        """Dotted key → value, in the order of the sections."""
        return {path: value for path, value, _, _ in walk(self)}

    def trial_id(self) -> str:
        """Sixteen hexadecimal digits from all that defines the measurement, the same on any machine.

        Left out is what decides only where, how often or how safely the job runs, and what has no effect: without
        `compile.mode` all of `compile`, but for the cache of an attention that compiles itself. A prompt file counts
        by its content.
        """
        defining: dict[str, Any] = {"device": self.device}
        for name, (section, rule) in _keys(type(self)).items():
            if rule is None and name not in ("sweep", "search", "tracking", "isolation", "profile", "fidelity"):
                defining[name] = {each: getattr(getattr(self, name), each) for each in _keys(section)}
        if (digest := prompt_digest(self.workload)) is not None:
            defining["workload"]["prompt_file"] = digest
        if (size := defining["model"].pop("tp_size")) is not None:  # written as the two keys that it once was: same ids
            defining["model"] |= {"tp_plan": "auto", "tp_size": None if size == "auto" else size}
        if self.compile.mode is None:
            defining["compile"] = {"mode": None}  # the other keys mean something only to a compiler
            if self.attention.compiles_itself and self.compile.cache != "fresh":
                defining["compile"]["cache"] = self.compile.cache
        for section in ("warmup", "measurement"):
            # Either the number of calls counts, or the bounds of the rule.
            fixed = defining[section]["policy"] == "fixed"
            counted = [each for each in defining[section] if (each in ("policy", "iterations")) == fixed]
            defining[section] = {each: defining[section][each] for each in ("policy", *counted)}
        text = json.dumps(defining, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(kw_only=True)
class _SearchConfig(SearchConfig):
    """The section as OmegaConf is told of it, which has no type for a word or a list of words."""

    objectives: Any = field(default_factory=lambda: SearchConfig().objectives)
    directions: Any = None


@dataclass(kw_only=True)
class _ModelConfig(ModelConfig):
    """The section as OmegaConf is told of it, for a key that takes a word or a number."""

    tp_size: Any = None


@dataclass(init=False, kw_only=True)
class ComposedConfig(BenchmarkConfig):
    """The schema that Hydra composes by: where a key takes values of two types, the config's own rules check them."""

    model: ModelConfig = field(default_factory=_ModelConfig)
    search: SearchConfig = field(default_factory=_SearchConfig)


def prompt_digest(workload: WorkloadConfig) -> str | None:
    """The SHA-256 of the prompt file's bytes, in hexadecimal; None for the built-in text."""
    if workload.prompt_file is None:
        return None
    return hashlib.sha256(Path(expanded(workload.prompt_file)).read_bytes()).hexdigest()


def walk(config: object, prefix: str = "") -> Iterator[tuple[str, Any, Rule, Any]]:
    """Dotted key, value, rule and annotated type of every key in a config (or, given the class, of its defaults)."""
    if isinstance(config, type):
        config = config()
    for name, (kind, rule) in _keys(type(config)).items():
        value = getattr(config, name)
        if rule is None:
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, rule, kind


_KEYS: dict[type, dict[str, tuple[Any, Rule | None]]] = {}


def _keys(kind: type) -> dict[str, tuple[Any, Rule | None]]:
    """Name → annotated type and rule (None: a section) of what a config has. Reading annotations is slow: once."""
    if kind not in _KEYS:
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(typing.cast("Any", kind))
        _KEYS[kind] = {each.name: (hints[each.name], each.metadata.get("rule")) for each in fields}
    return _KEYS[kind]


def flatten(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys: what ``compile.options.triton.cudagraphs`` means to torch."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def nearest_key(name: str, further: Mapping[str, str] | None = None) -> str | None:
    """What was most likely meant by a name that is no key; None when nothing is near, and "a or b" for several.

    Found are keys and sections that are misspelt or unfinished, keys in a section that is not theirs or without one,
    section and key the wrong way round, and the names of transformers' own benchmark.

    Args:
        name: as typed.
        further: other names that may be meant → what is then suggested.
    """
    paths = [path for path, *_ in walk(BenchmarkConfig)]
    section, _, leaf = name.rpartition(".")
    homes = [path for path in paths if path.rpartition(".")[2] == leaf]
    if homes and name not in FLAT_NAMES:
        close = difflib.get_close_matches(name, homes, 1, SAME_SECTION) if section else []
        if section and not close:  # a part of a key of that section
            close = [path for path in paths if re.fullmatch(rf"{re.escape(section)}\.\w+_{re.escape(leaf)}", path)]
        return " or ".join(close or homes[:SUGGESTED])
    near = nearest(name, list(forms := _forms(paths, further or {}, dotted=section in _keys(BenchmarkConfig))))
    meant = [each for form in ([name] if name in forms else near.split(" or ") if near else []) for each in forms[form]]
    return " or ".join(list(dict.fromkeys(meant))[:SUGGESTED]) or None


def _forms(paths: Sequence[str], further: Mapping[str, str], *, dotted: bool) -> dict[str, list[str]]:
    """What may stand for a key → the keys that it stands for; `dotted`: only what names a section as well."""
    forms: dict[str, list[str]] = {}
    if not dotted:
        forms |= {each: [each] for each in _keys(BenchmarkConfig)}
        forms |= {flat: [path] for flat, path in FLAT_NAMES.items()}
        for path in paths:
            forms.setdefault(path.rpartition(".")[2], []).append(path)
    for path in paths:
        section, _, leaf = path.rpartition(".")
        forms |= {path: [path], f"{leaf}.{section}": [path]} if section else {}
    return forms | {form: [meant] for form, meant in further.items()}


def no_such_key(name: str, further: Mapping[str, str] | None = None) -> str:
    """The remedy for a name that is no key; the arguments are those of `nearest_key`."""
    if (current := current_name(name)) != name:
        return f"{NO_SUCH_KEY}; it is now named {current}"
    if near := nearest_key(name, further):
        return f"{NO_SUCH_KEY}; did you mean {near}?"
    section = name.partition(".")[0]
    listed = f"bench --keys {section}" if section in _keys(BenchmarkConfig) else "bench --keys"
    return f"{NO_SUCH_KEY}; {listed} lists them"


def _first_leaf(path: str, value: object) -> tuple[str, object]:
    """Key and value as one writes them: a mapping that was made of a dotted key is none to who typed it."""
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        path = f"{path}.{name}"
    return path, value


_Config = TypeVar("_Config")


def _build(kind: type[_Config], data: object, prefix: str) -> _Config:
    if not isinstance(data, dict):
        raise ConfigError(prefix.rstrip(".") or "config", data, "must be a mapping of keys")
    keys = _keys(kind)
    values = {}
    for name, value in data.items():
        if name not in keys:
            path, typed = _first_leaf(f"{prefix}{name}", value)
            raise ConfigError(path, typed, no_such_key(path))
        section, rule = keys[name]
        values[name] = _build(section, value, f"{prefix}{name}.") if rule is None else value
    return kind(**values)


@functools.cache
def _classes(kind: Any) -> tuple[type, ...]:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return tuple(typing.get_origin(each) or each for each in options)


def _check_type(path: str, value: object, kind: Any) -> None:
    """Python callers have no OmegaConf in front of them: the annotations hold for them as well."""
    plain = _classes(kind)
    fits = isinstance(value, (*plain, int) if float in plain else plain)
    # bool is an int to Python and never one to a user.
    if not fits or (isinstance(value, bool) and bool not in plain):
        names = " or ".join("null" if each is type(None) else each.__name__ for each in plain)
        is_unquoted = str in plain and int not in plain and isinstance(value, bool | int | float)
        raise ConfigError(path, value, f"must be {names}" + f"; {NOT_QUOTED}" * is_unquoted)
