"""Define the structured config of one setting: sections, flat names of the Python interface, and identity.

`bench.config.sections` declares keys, defaults and rules, `bench.config.checks` the rules between keys. This module
does not depend on Hydra, and no package beyond `bench.cli` receives a ``DictConfig``.

Conditions that depend on the machine or the model (is there a GPU, does this attention exist) are checked in the job,
which skips a setting that cannot run and states the reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bench.config import checks
from bench.config.keys import NOT_QUOTED, check_type, flatten, keys_of, walk
from bench.config.renamed import current_name, with_current_names
from bench.config.rules import SUGGESTED, ConfigError, key, nearest
from bench.config.sections import (
    COMPILE_MODES,
    DTYPES,
    OBJECTIVES,
    SDPA_BACKENDS,
    AttentionConfig,
    CompileConfig,
    FidelityConfig,
    GenerationConfig,
    IsolationConfig,
    MeasurementConfig,
    ModelConfig,
    MonitorConfig,
    ProfileConfig,
    SearchConfig,
    SweepConfig,
    TrackingConfig,
    WarmupConfig,
    WorkloadConfig,
)
from bench.host.home_folder import expanded

__all__ = [
    "COMPILE_MODES",
    "DTYPES",
    "OBJECTIVES",
    "SDPA_BACKENDS",
    "AttentionConfig",
    "BenchmarkConfig",
    "CompileConfig",
    "ComposedConfig",
    "FidelityConfig",
    "GenerationConfig",
    "IsolationConfig",
    "MeasurementConfig",
    "ModelConfig",
    "MonitorConfig",
    "ProfileConfig",
    "SearchConfig",
    "SweepConfig",
    "TrackingConfig",
    "WarmupConfig",
    "WorkloadConfig",
    "flatten",
    "nearest_key",
    "no_such_key",
    "prompt_digest",
    "walk",
]

NO_SUCH_KEY = "no such key"  # the start of the remedy for an unknown key
TAGS = "tracking.tags"  # all its values are texts
SAME_SECTION = 0.8  # least similarity to a key with the same last part at which a misspelt section is corrected

# Names of transformers' own benchmark → keys.
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
    """Hold one setting: everything that one job needs.

    Accepts sections by name (``warmup=WarmupConfig(iterations=3)``), the flat names of transformers' own benchmark
    (``warmup_iterations=3``, see ``FLAT_NAMES``), which are also attributes, and ``compile_kwargs``, the keywords of
    torch.compile (None: not compiled).

    Raises:
        ConfigError: a value breaks its rule; the text is one line that names key, value and remedy.
        TypeError: an unknown keyword; the message suggests the nearest.
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

    if not typing.TYPE_CHECKING:  # Type checkers must still detect misspelt attributes.

        def __getattr__(self, name: str) -> Any:
            if name not in FLAT_NAMES:
                raise AttributeError(f"BenchmarkConfig has no attribute {name}")
            section, leaf = FLAT_NAMES[name].split(".")
            return getattr(getattr(self, section), leaf)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FLAT_NAMES:
            section, leaf = FLAT_NAMES[name].split(".")
            setattr(getattr(self, section), leaf, value)
        elif name in keys_of(type(self)):
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"BenchmarkConfig has no attribute {name}")

    # ---- rules -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ConfigError for the first value, or combination of values, that no machine can honour."""
        for path, value, rule, kind in walk(self):
            if not rule.words:  # else the rule checks the type
                check_type(path, value, kind)
            rule.check(path, value)
            for leaf, each in flatten(value).items() if isinstance(value, dict) else ():
                if isinstance(each, float) and not math.isfinite(each):
                    raise ConfigError(f"{path}.{leaf}", each, "must be a finite number")
                if path == TAGS and isinstance(each, bool | int | float):
                    raise ConfigError(f"{path}.{leaf}", each, NOT_QUOTED)
        checks.check_attention(self.attention)
        checks.check_compile(self.compile, self.generation)
        checks.check_bounds(self.warmup, self.measurement)
        checks.check_profile(self.profile, self.workload)
        checks.check_model(self.model)
        checks.check_search(self.search)
        checks.check_tracking(self.tracking)
        checks.check_tensor_parallel(self.device, self.model, self.generation, self.isolation)
        checks.check_batching(self.generation, self.compile)

    # ---- forms -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the nested keys and plain values, as in ``record.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BenchmarkConfig:
        """Create a config from a ``to_dict`` of this version or the last. ConfigError for an unknown key."""
        return _build(cls, with_current_names(data) if isinstance(data, dict) else data, "")

    def flat(self) -> dict[str, Any]:
        """Return dotted key → value, in the order of the sections."""
        return {path: value for path, value, _, _ in walk(self)}

    def trial_id(self) -> str:
        """Return sixteen hexadecimal digits that identify the measurement, the same on any machine.

        Excluded are keys that affect only where, how often or how safely the job runs, and keys without an effect:
        without `compile.mode` all of `compile`, except the cache of an attention that compiles itself. A prompt file is
        identified by its content.
        """
        defining: dict[str, Any] = {"device": self.device}
        for name, (section, rule) in keys_of(type(self)).items():
            if rule is None and name not in ("sweep", "search", "tracking", "isolation", "profile", "fidelity"):
                defining[name] = {each: getattr(getattr(self, name), each) for each in keys_of(section)}
        if (digest := prompt_digest(self.workload)) is not None:
            defining["workload"]["prompt_file"] = digest
        if (size := defining["model"].pop("tp_size")) is not None:  # written as the two former keys, to keep the ids
            defining["model"] |= {"tp_plan": "auto", "tp_size": None if size == "auto" else size}
        if self.compile.mode is None:
            defining["compile"] = {"mode": None}  # the other keys affect only the compiler
            if self.attention.compiles_itself and self.compile.cache != "fresh":
                defining["compile"]["cache"] = self.compile.cache
        for section in ("warmup", "measurement"):
            # Include either the number of calls or the bounds of the rule.
            fixed = defining[section]["policy"] == "fixed"
            counted = [each for each in defining[section] if (each in ("policy", "iterations")) == fixed]
            defining[section] = {each: defining[section][each] for each in ("policy", *counted)}
        text = json.dumps(defining, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(kw_only=True)
class _SearchConfig(SearchConfig):
    """Declare the section for OmegaConf, which has no type for a word or a list of words."""

    objectives: Any = field(default_factory=lambda: SearchConfig().objectives)
    directions: Any = None


@dataclass(kw_only=True)
class _ModelConfig(ModelConfig):
    """Declare the section for OmegaConf, which has no type for a word or a number."""

    tp_size: Any = None


@dataclass(init=False, kw_only=True)
class ComposedConfig(BenchmarkConfig):
    """Define the schema for Hydra: if a key accepts values of two types, the config's own rules check them."""

    model: ModelConfig = field(default_factory=_ModelConfig)
    search: SearchConfig = field(default_factory=_SearchConfig)


def prompt_digest(workload: WorkloadConfig) -> str | None:
    """Return the SHA-256 of the prompt file's bytes, in hexadecimal; None for the built-in text."""
    if workload.prompt_file is None:
        return None
    return hashlib.sha256(Path(expanded(workload.prompt_file)).read_bytes()).hexdigest()


def nearest_key(name: str, further: Mapping[str, str] | None = None) -> str | None:
    """Return the key that an unknown name most likely means; None if nothing is near, and "a or b" for several.

    Recognises misspelt or incomplete keys and sections, keys in a wrong section or without one, section and key in
    reverse order, and the names of transformers' own benchmark.

    Args:
        name: as typed.
        further: other names that may be meant → the suggestion for each.
    """
    paths = [path for path, *_ in walk(BenchmarkConfig)]
    section, _, leaf = name.rpartition(".")
    homes = [path for path in paths if path.rpartition(".")[2] == leaf]
    if homes and name not in FLAT_NAMES:
        close = difflib.get_close_matches(name, homes, 1, SAME_SECTION) if section else []
        if section and not close:  # the last word of a key in that section
            close = [path for path in paths if re.fullmatch(rf"{re.escape(section)}\.\w+_{re.escape(leaf)}", path)]
        return " or ".join(close or homes[:SUGGESTED])
    near = nearest(name, list(forms := _forms(paths, further or {}, dotted=section in keys_of(BenchmarkConfig))))
    meant = [each for form in ([name] if name in forms else near.split(" or ") if near else []) for each in forms[form]]
    return " or ".join(list(dict.fromkeys(meant))[:SUGGESTED]) or None


def _forms(paths: Sequence[str], further: Mapping[str, str], *, dotted: bool) -> dict[str, list[str]]:
    """Return accepted form → the keys that it may mean; `dotted`: only forms that also name a section."""
    forms: dict[str, list[str]] = {}
    if not dotted:
        forms |= {each: [each] for each in keys_of(BenchmarkConfig)}
        forms |= {flat: [path] for flat, path in FLAT_NAMES.items()}
        for path in paths:
            forms.setdefault(path.rpartition(".")[2], []).append(path)
    for path in paths:
        section, _, leaf = path.rpartition(".")
        forms |= {path: [path], f"{leaf}.{section}": [path]} if section else {}
    return forms | {form: [meant] for form, meant in further.items()}


def no_such_key(name: str, further: Mapping[str, str] | None = None) -> str:
    """Return the remedy for an unknown key; the arguments are those of `nearest_key`."""
    if (current := current_name(name)) != name:
        return f"{NO_SUCH_KEY}; it is now named {current}"
    if near := nearest_key(name, further):
        return f"{NO_SUCH_KEY}; did you mean {near}?"
    section = name.partition(".")[0]
    listed = f"bench --keys {section}" if section in keys_of(BenchmarkConfig) else "bench --keys"
    return f"{NO_SUCH_KEY}; {listed} lists them"


def _first_leaf(path: str, value: object) -> tuple[str, object]:
    """Return key and value as typed: undo the mappings that were created from a dotted key."""
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        path = f"{path}.{name}"
    return path, value


_Config = TypeVar("_Config")


def _build(kind: type[_Config], data: object, prefix: str) -> _Config:
    if not isinstance(data, dict):
        raise ConfigError(prefix.rstrip(".") or "config", data, "must be a mapping of keys")
    keys = keys_of(kind)
    values = {}
    for name, value in data.items():
        if name not in keys:
            path, typed = _first_leaf(f"{prefix}{name}", value)
            raise ConfigError(path, typed, no_such_key(path))
        section, rule = keys[name]
        values[name] = _build(section, value, f"{prefix}{name}.") if rule is None else value
    return kind(**values)
