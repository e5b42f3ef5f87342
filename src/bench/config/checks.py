"""Refuse combinations of values that no machine can honour.

Each function raises ConfigError; the message is one line that names key, value and remedy.
"""

from __future__ import annotations

from bench.config.mlflow_names import problem_of_experiment, problem_of_tag
from bench.config.rules import ConfigError, nearest
from bench.config.sections import (
    OBJECTIVES,
    AttentionConfig,
    CompileConfig,
    GenerationConfig,
    IsolationConfig,
    MeasurementConfig,
    ModelConfig,
    ProfileConfig,
    SearchConfig,
    TrackingConfig,
    WarmupConfig,
    WorkloadConfig,
)

DIRECTIONS = ("minimize", "maximize")


def check_search(search: SearchConfig) -> None:
    """Check that objectives are known and unique, and that directions, if given, are one per objective."""
    names, directions = search.objectives, search.directions
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


def check_tracking(tracking: TrackingConfig) -> None:
    """Refuse names that MLflow would refuse after the measurement."""
    experiment = tracking.experiment
    if experiment is not None and (problem := problem_of_experiment(experiment)):
        raise ConfigError("tracking.experiment", experiment, problem)
    for name, value in tracking.tags.items():
        if problem := problem_of_tag(name, str(value), tracking.tags):
            raise ConfigError(f"tracking.tags.{name}", value, problem)


def check_attention(attention: AttentionConfig) -> None:
    """Refuse a kernel family of sdpa with another attention implementation."""
    if attention.sdpa_backend and attention.implementation != "sdpa":
        raise ConfigError(
            "attention.sdpa_backend",
            attention.sdpa_backend,
            f"needs attention.implementation=sdpa (it is {attention.implementation}); or leave it null",
        )


def check_compile(compiled: CompileConfig, generation: GenerationConfig) -> None:
    """Refuse settings that torch.compile, or generate with it, cannot be combined with."""
    if compiled.mode and generation.kv_cache == "dynamic":
        raise ConfigError(
            "generation.kv_cache",
            "dynamic",
            f"generate compiles only over a static cache; set it to static or auto, or compile.mode=null "
            f"(it is {compiled.mode})",
        )
    if compiled.mode and compiled.backend != "inductor" and (compiled.mode != "default" or compiled.options):
        remedy = f"takes neither compile.mode={compiled.mode} nor options; use compile.mode=default, or inductor"
        raise ConfigError("compile.backend", compiled.backend, remedy)


def check_profile(profile: ProfileConfig, workload: WorkloadConfig) -> None:
    """Refuse a profiled call that is longer than a measured one."""
    profiled, generated = profile.num_tokens, workload.num_tokens_to_generate
    if profiled > generated:
        remedy = f"at most workload.num_tokens_to_generate={generated}: it is the beginning of such a call"
        raise ConfigError("profile.num_tokens", profiled, remedy)


def check_model(model: ModelConfig) -> None:
    """Refuse model sources that exclude each other."""
    if model.gguf_file and model.weights == "random":
        raise ConfigError("model.gguf_file", model.gguf_file, "needs model.weights=pretrained")
    if model.revision and model.architecture is not None:
        raise ConfigError("model.revision", model.revision, "nothing is read from a hub: model.architecture is set")
    if model.architecture is not None:
        if model.weights == "pretrained":
            raise ConfigError("model.architecture", model.architecture, "needs model.weights=random")
        if not isinstance(model.architecture.get("model_type"), str):
            raise ConfigError("model.architecture", model.architecture, "needs a model_type, such as llama")


def check_bounds(warmup: WarmupConfig, measurement: MeasurementConfig) -> None:
    """Check the bounds of the stopping rules that are active."""
    if warmup.policy == "auto":
        least = max(warmup.min_iterations, warmup.window)
        if warmup.max_iterations < least:
            remedy = f"must be at least {least}: warmup.min_iterations={warmup.min_iterations}, "
            remedy += f"warmup.window={warmup.window}"
            raise ConfigError("warmup.max_iterations", warmup.max_iterations, remedy)
    if measurement.policy == "adaptive" and measurement.max_iterations < measurement.min_iterations:
        remedy = f"must be at least measurement.min_iterations={measurement.min_iterations}"
        raise ConfigError("measurement.max_iterations", measurement.max_iterations, remedy)


def check_tensor_parallel(
    device: str, model: ModelConfig, generation: GenerationConfig, isolation: IsolationConfig
) -> None:
    """Refuse settings that tensor parallelism cannot be combined with."""
    if model.tp_size is None:
        return
    if isinstance(model.tp_size, str) and model.tp_size != "auto":
        raise ConfigError("model.tp_size", model.tp_size, "must be a number from 2, auto (one per GPU) or null")
    if device == "cpu" and model.tp_size == "auto":
        raise ConfigError("model.tp_size", "auto", "there is no GPU to count with device=cpu; type a number")
    if device.startswith("cuda:"):
        remedy = "names one GPU, and model.tp_size needs several; use cuda, and CUDA_VISIBLE_DEVICES to choose"
        raise ConfigError("device", device, remedy)
    if model.gguf_file:
        remedy = "transformers splits no GGUF file; use model.tp_size=null, or a checkpoint of safetensors"
        raise ConfigError("model.gguf_file", model.gguf_file, remedy)
    if generation.continuous_batching:
        remedy = "cannot run with model.tp_size: its worker schedules by itself and ranks would differ; set false"
        raise ConfigError("generation.continuous_batching", True, remedy)
    if isolation.mode == "none":
        raise ConfigError("isolation.mode", "none", "model.tp_size starts processes; use forkserver or spawn")


def check_batching(generation: GenerationConfig, compiled: CompileConfig) -> None:
    """Refuse settings that continuous batching cannot be combined with."""
    if not generation.continuous_batching:
        return
    if compiled.mode:
        # Observed with transformers 5.23 and 5.24: a graph break in each layer, and from the ninth layer on
        # TorchDynamo's recompile limit, after which the rest runs uncompiled, with only a warning.
        remedy = "with generation.continuous_batching transformers compiles fragments only; set it to null"
        raise ConfigError("compile.mode", compiled.mode, remedy)
    if generation.kv_cache != "auto":
        remedy = "generation.continuous_batching has a paged cache of its own; set it to auto"
        raise ConfigError("generation.kv_cache", generation.kv_cache, remedy)
