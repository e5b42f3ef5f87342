"""Check observations against requests, for cases that no run on this machine can show."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bench.config.schema import BenchmarkConfig, GenerationConfig
from bench.results.record import CompileObserved, ModelShape, Observed
from bench.trial.evidence.compilation import arguments
from bench.trial.evidence.observed import CallWatch, check, check_cache, check_guard, check_same_cache
from bench.trial.unsupported import NotHonouredError
from factories import make_record

pytestmark = pytest.mark.contract

CUDAGRAPHS = {"triton": {"cudagraphs": True}}
SHAPE = ModelShape(layers=2, heads=3, kv_heads=1, head_dim=8, matmul_parameters=100, lm_head_parameters=40)


def observed(config: BenchmarkConfig, device: str, **compiled: Any) -> Observed:
    """What a job observes that did as it was told, on this device."""
    asked = arguments(config.compile).to_dict() if config.compile.mode else {}
    known = {"graphs": 1 if config.compile.mode else 0, "arguments": asked} | compiled
    made = make_record().observed
    assert made is not None
    return dataclasses.replace(made, device=device, compile=CompileObserved(**known))


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
@pytest.mark.parametrize(
    "asked",
    [{"mode": "reduce-overhead"}, {"mode": "max-autotune"}, {"mode": "default", "options": CUDAGRAPHS}],
    ids=["reduce-overhead", "max-autotune", "option"],
)
def test_cuda_graphs_that_were_skipped_are_never_ok(device: str, asked: dict[str, Any]) -> None:
    config = BenchmarkConfig(compile_kwargs=asked)
    check(config, observed(config, device))
    with pytest.raises(NotHonouredError, match=r"torch skipped its CUDA graphs 2 time\(s\)"):
        check(config, observed(config, device, cudagraph_skips=2))


@pytest.mark.parametrize(
    ("device", "asked"),
    [
        ("cpu", {"mode": "max-autotune"}),  # which has none
        ("cuda:0", {"mode": "default"}),
        ("cuda:0", {"mode": "max-autotune-no-cudagraphs"}),
        ("cuda:0", {"mode": "max-autotune", "options": {"triton": {"cudagraphs": False}}}),
    ],
)
def test_cuda_graphs_that_nobody_asked_for_may_be_skipped(device: str, asked: dict[str, Any]) -> None:
    config = BenchmarkConfig(compile_kwargs=asked)
    check(config, observed(config, device, cudagraph_skips=2))


@pytest.mark.parametrize(
    ("asked", "used", "honoured"),
    [
        ("static", "StaticCache", True), ("dynamic", "DynamicCache", True), ("auto", "DynamicCache", True),
        ("auto", None, True), ("static", "DynamicCache", False), ("dynamic", "StaticCache", False),
        ("static", None, True),  # not seen: `check_cache` tells
    ],
)  # fmt: skip
def test_another_kv_cache_than_asked_for_is_never_ok(asked: str, used: str | None, honoured: bool) -> None:
    config = BenchmarkConfig(generation=GenerationConfig(kv_cache=asked))
    seen = dataclasses.replace(observed(config, "cpu"), kv_cache=used)
    if honoured:
        check(config, seen)
        return
    with pytest.raises(NotHonouredError, match=f"generation.kv_cache={asked}: generate made"):
        check(config, seen)


def watched(**seen: Any) -> CallWatch:
    """A call of which this was seen."""
    watch = CallWatch()
    for name, value in seen.items():
        setattr(watch, name, value)
    return watch


@pytest.mark.parametrize("asked", ["auto", "static"])
def test_a_model_of_attention_layers_that_computes_every_token_anew_is_never_ok(asked: str) -> None:
    config = BenchmarkConfig(generation=GenerationConfig(kv_cache=asked))
    seen = dataclasses.replace(observed(config, "cpu"), shape=SHAPE)
    assert check_cache(config, seen, watched(cache="StaticCache", steps=3)) == []
    with pytest.raises(NotHonouredError, match="generate made none, and computes every token anew"):
        check_cache(config, seen, watched(steps=3, recomputes=True))


@pytest.mark.parametrize(("asked", "shape", "marked"), [
    ("auto", SHAPE, True), ("auto", None, False), ("static", SHAPE, True), ("static", None, True),
])  # fmt: skip
@pytest.mark.parametrize("steps", [0, 3])
def test_a_cache_that_cannot_be_seen_is_marked_where_there_should_be_one(
    asked: str, shape: ModelShape | None, marked: bool, steps: int
) -> None:
    config = BenchmarkConfig(generation=GenerationConfig(kv_cache=asked))
    seen = dataclasses.replace(observed(config, "cpu"), shape=shape)
    found = check_cache(config, seen, watched(steps=steps))
    assert [each.key for each in found] == (["generation.kv_cache"] if marked else [])


def test_another_autograd_guard_than_asked_for_is_never_ok() -> None:
    config = BenchmarkConfig(generation=GenerationConfig(grad_mode="no_grad"))
    assert check_guard(config, watched(grad_mode="no_grad")) == []
    with pytest.raises(NotHonouredError, match=r"generation\.grad_mode=no_grad: the model ran under inference_mode"):
        check_guard(config, watched(grad_mode="inference_mode"))
    assert [each.key for each in check_guard(config, watched())] == ["generation.grad_mode"]
    assert check_guard(BenchmarkConfig(), watched()) == []


def test_a_cache_that_changes_between_the_calls_is_never_ok() -> None:
    check_same_cache(BenchmarkConfig(), "StaticCache", "StaticCache")
    for last in ("DynamicCache", None):
        with pytest.raises(NotHonouredError, match="began with StaticCache and ended with"):
            check_same_cache(BenchmarkConfig(), "StaticCache", last)
