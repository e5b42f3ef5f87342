"""Test which keys distinguish settings: each key either changes the trial id or does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from bench.config.schema import BenchmarkConfig, walk
from bench.jobs.planning.plan import Point, make_plan
from bench.results.sweep_file import Job
from factories import make_record

# Keys that decide where, how often or how safely a job runs, what is looked at afterwards, and where results go.
# A new key must be added here or to DEFINING.
NOT_DEFINING = {
    "profile.num_tokens", "profile.memory_snapshot",
    "fidelity.reference",
    "isolation.mode", "isolation.timeout_s", "isolation.share_device",
    "sweep.name", "sweep.repeats", "sweep.order", "sweep.seed", "sweep.label", "sweep.resume", "sweep.dry_run",
    "sweep.max_jobs", "sweep.baseline",
    "search.objectives", "search.directions", "search.trials", "search.parallel", "search.storage", "search.seed",
    "tracking.enabled", "tracking.uri", "tracking.experiment", "tracking.artifact_location", "tracking.tags",
}  # fmt: skip
COMPILED = {"compile.mode": "default"}
AUTO, ADAPTIVE = {"warmup.policy": "auto"}, {"measurement.policy": "adaptive"}
SPLIT = {"device": "cpu", "model.tp_size": 2}
# Key → the values of other keys with which it has an effect.
DEFINING: dict[str, dict[str, Any]] = {
    "device": {},
    "model.id": {}, "model.revision": {}, "model.gguf_file": {}, "model.weights": {}, "model.architecture": {},
    "model.dtype": {}, "model.seed": {}, "model.trust_remote_code": {}, "model.tp_size": {},
    "attention.implementation": {}, "attention.sdpa_backend": {},
    "compile.mode": {}, "compile.fullgraph": COMPILED, "compile.dynamic": COMPILED, "compile.backend": COMPILED,
    "compile.options": COMPILED, "compile.cache": COMPILED,
    "generation.kv_cache": {}, "generation.continuous_batching": {}, "generation.kernelize": {},
    "generation.grad_mode": {},
    "workload.batch_size": {}, "workload.sequence_length": {}, "workload.num_tokens_to_generate": {},
    "workload.prompt_file": {},
    "warmup.policy": {}, "warmup.iterations": {}, "warmup.min_iterations": AUTO, "warmup.max_iterations": AUTO,
    "warmup.window": AUTO, "warmup.max_s": AUTO,
    "measurement.policy": {}, "measurement.iterations": {}, "measurement.min_iterations": ADAPTIVE,
    "measurement.max_iterations": ADAPTIVE, "measurement.step": ADAPTIVE, "measurement.half_width": ADAPTIVE,
    "measurement.max_s": ADAPTIVE,
    "monitor.enabled": {}, "monitor.interval_s": {},
}  # fmt: skip
# Keys of free text and of nested values, whose other values are not in their rules.
TEXTS = {
    "device": ["cpu", "cuda", "cuda:0", "cuda:1"],
    "model.architecture": [{"model_type": "llama"}, {"model_type": "llama", "rope": {"theta": 1}}],
    "attention.implementation": ["eager", "flash_attention_2", "flex_attention", "kernels-community/flash-attn3"],
    "compile.backend": ["eager", "aot_eager"],
    "compile.options": [{"epilogue_fusion": True}, {"triton": {"cudagraphs": True}}, {"triton": {"cudagraphs": False}}],
    "search.objectives": [["ttft_ms"]],
    "search.directions": [["minimize"]],
    "search.storage": ["sqlite:///s.db"],
    "tracking.uri": ["file:///x"],
    "tracking.tags": [{"a": "b"}],
}


def made(values: dict[str, Any]) -> BenchmarkConfig:
    """Make a config; its rules are not asked, for each key is looked at by itself."""
    config = BenchmarkConfig()
    for path, value in values.items():
        section, _, leaf = path.rpartition(".")
        setattr(getattr(config, section) if section else config, leaf, value)
    return config


def others(path: str, value: Any, allowed: tuple[Any, ...] | None) -> list[Any]:
    """List other values that the key may have."""
    if path in TEXTS:
        return TEXTS[path]
    if allowed:
        return [each for each in allowed if each != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 3]
    if path in ("compile.dynamic", "model.tp_size"):
        return [True, False] if path == "compile.dynamic" else [2, 3, "auto"]
    return ["one", "other"]


def keys() -> dict[str, list[Any]]:
    """Give each key and its other values."""
    return {path: others(path, value, rule.allowed) for path, value, rule, _ in walk(BenchmarkConfig)}


def ids(path: str, context: dict[str, Any], values: list[Any]) -> list[str]:
    return [made(context | {path: value}).trial_id() for value in values]


def test_every_key_either_defines_the_measurement_or_does_not() -> None:
    assert not NOT_DEFINING & set(DEFINING)
    assert NOT_DEFINING | set(DEFINING) == set(keys()), "put a new key into DEFINING or into NOT_DEFINING"


@pytest.mark.parametrize("path", sorted(DEFINING))
def test_another_value_of_a_key_that_defines_the_measurement_is_another_setting(path: str, tmp_path: Path) -> None:
    values = keys()[path]
    if path == "workload.prompt_file":
        values = [str(tmp_path / each) for each in values]
        for each in values:
            Path(each).write_text(each, encoding="utf-8")
    context = DEFINING[path]
    found = [made(context).trial_id(), *ids(path, context, [each for each in values if context.get(path) != each])]
    assert len(set(found)) == len(found) > 1


@pytest.mark.parametrize("path", sorted(NOT_DEFINING))
def test_another_value_of_any_other_key_is_the_same_setting(path: str) -> None:
    assert set(ids(path, {}, keys()[path])) == {made({}).trial_id()}
    assert set(ids(path, COMPILED, keys()[path])) == {made(COMPILED).trial_id()}


@pytest.mark.parametrize("path", ["model.architecture", "compile.options"])
def test_nested_values_distinguish_settings_and_the_order_of_keys_does_not(path: str) -> None:
    nested: dict[str, Any] = {"model_type": "llama", "a": {"b": {"c": [1, {"d": None}]}, "e": 1}}
    found = {made(COMPILED | {path: nested}).trial_id()}
    for change in ({"d": 1}, {"d": False}, {"x": None}):
        other = copy.deepcopy(nested)
        other["a"]["b"]["c"][1] = change
        found.add(made(COMPILED | {path: other}).trial_id())
    assert len(found) == 4
    turned = {"a": {"e": 1, "b": nested["a"]["b"]}, "model_type": "llama"}
    assert made(COMPILED | {path: turned}).trial_id() in found


def test_no_two_keys_of_the_same_value_are_taken_for_each_other() -> None:
    numbers = [path for path in DEFINING if isinstance(keys()[path][0], int) and not isinstance(keys()[path][0], bool)]
    context = COMPILED | AUTO | ADAPTIVE | SPLIT
    in_force = [path for path in numbers if path not in ("warmup.iterations", "measurement.iterations")]
    found = [made(context | {path: 77}).trial_id() for path in in_force]
    assert len(set(found)) == len(found) > 10


# ---- what has no effect ------------------------------------------------------------------------------------------

FLEX = {"attention.implementation": "flex_attention"}


@pytest.mark.parametrize("attention", ["flex_attention", "paged|flex_attention"])
def test_the_cache_of_a_self_compiling_attention_distinguishes_settings(attention: str) -> None:
    flex = {"attention.implementation": attention}
    assert len({*ids("compile.cache", flex, ["fresh", "shared"])}) == 2
    points = [
        Point(overrides=(), swept={"compile.cache": each}, config=made(flex | {"compile.cache": each}))
        for each in ("fresh", "shared")
    ]
    plan = make_plan(points, BenchmarkConfig().sweep, "s")
    assert (len(plan.jobs), plan.duplicates) == (2, 0)


@pytest.mark.parametrize("path", ["compile.fullgraph", "compile.dynamic", "compile.backend", "compile.options"])
def test_no_other_compile_key_affects_a_self_compiling_attention(path: str) -> None:
    for context in (FLEX, FLEX | {"compile.cache": "shared"}):
        assert set(ids(path, context, keys()[path])) == {made(context).trial_id()}


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_attention_2"])
def test_without_a_compiler_no_compile_key_distinguishes_settings(attention: str) -> None:
    context = {"attention.implementation": attention}
    for path in ("compile.fullgraph", "compile.dynamic", "compile.backend", "compile.options", "compile.cache"):
        assert set(ids(path, context, keys()[path])) == {made(context).trial_id()}


@pytest.mark.parametrize(
    ("values", "trial_id"),
    [
        ({}, "6d43d60a015d5060"),
        (COMPILED, "de6dc5e353590bde"),
        (FLEX, "7c1590191de683a3"),
        (
            FLEX
            | {"compile.mode": "max-autotune", "compile.cache": "shared"}
            | {"compile.options": {"triton": {"cudagraphs": True}}},
            "a9fa4ec3c1ebc6d7",
        ),
        ({"compile.cache": "shared", "compile.options": {"max_autotune": True}}, "6d43d60a015d5060"),
        ({"compile.cache": "shared", "attention.implementation": "eager"}, "f5e222be4c6c48de"),
        (AUTO | ADAPTIVE, "9b6ca47c8b2fc6ed"),
        (SPLIT | {"model.id": "x"}, "809379d405fcba81"),
        ({"model.tp_size": "auto"}, "196758c23843e3c8"),
    ],
)
def test_records_of_earlier_versions_are_found_again_by_their_ids(values: dict[str, Any], trial_id: str) -> None:
    """The ids are those of the version before flex_attention's own cache counted."""
    assert made(values).trial_id() == trial_id


# ---- the setting -------------------------------------------------------------------------------------------------


def test_only_trial_and_label_identify_a_setting() -> None:
    def job(trial_id: str, arm: str | None, number: int = 0) -> Job:
        return Job(number=number, repeat=number + 1, trial_id=trial_id, name="n", swept={}, folder=f"{number}", arm=arm)

    def setting_id(**changes: Any) -> str:
        requested = BenchmarkConfig().to_dict()
        requested["sweep"] |= {key: value for key, value in changes.items() if key != "trial_id"}
        return make_record(trial_id=changes.get("trial_id", "t"), requested=requested).setting_id

    found = {(trial, arm): setting_id(trial_id=trial, label=arm) for trial in ("t", "u") for arm in (None, "a", "b")}
    assert len(set(found.values())) == len(found)
    assert found == {key: job(*key).setting_id for key in found}  # a plan and its records speak of the same
    assert setting_id(label="a", name="x", repeats=9, seed=4) == found["t", "a"]
    assert job("t", "a", number=3).setting_id == found["t", "a"]
