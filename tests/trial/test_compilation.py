from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.config import BenchmarkConfig, CompileConfig
from bench.record import CompileObserved
from bench.trial.compilation import arguments, broken_promise, shared_cache


def compiled(**changes: object) -> CompileObserved:
    plain = {"fullgraph": False, "dynamic": None, "backend": "inductor", "mode": "default", "options": None}
    return CompileObserved(graphs=1, arguments={**plain, **changes})


def test_options_stand_on_top_of_what_the_mode_means() -> None:
    made = arguments(CompileConfig(mode="max-autotune", options={"triton": {"cudagraphs": False}}))
    assert made.mode is None
    assert made.options["triton.cudagraphs"] is False
    assert made.options["max_autotune"] is True


def test_without_options_the_mode_is_handed_on() -> None:
    made = arguments(CompileConfig(mode="reduce-overhead", dynamic=False, fullgraph=True))
    assert (made.mode, made.dynamic, made.fullgraph, made.options) == ("reduce-overhead", False, True, None)


def test_an_honoured_request_breaks_no_promise() -> None:
    assert broken_promise(BenchmarkConfig(compile_kwargs={"mode": "default"}), compiled()) is None
    assert broken_promise(BenchmarkConfig(), CompileObserved()) is None


@pytest.mark.parametrize(
    ("config", "observed", "reason"),
    [
        (BenchmarkConfig(), compiled(), "compile.mode=null: 1 graph(s) were compiled all the same"),
        (
            BenchmarkConfig(compile_kwargs={"mode": "default"}),
            CompileObserved(),
            "compile.mode=default: generate compiled nothing",
        ),
        (
            BenchmarkConfig(compile_kwargs={"mode": "default", "fullgraph": True}),
            compiled(fullgraph=False),
            "compile.fullgraph=True: torch.compile was called with False",
        ),
        (
            BenchmarkConfig(compile_kwargs={"mode": "max-autotune"}),
            compiled(mode="default"),
            "compile.mode=max-autotune: torch.compile was called with default",
        ),
    ],
)
def test_what_ran_must_be_what_was_asked_for(config, observed, reason: str) -> None:
    assert broken_promise(config, observed) == reason


def test_flex_attention_may_compile_its_own_kernel() -> None:
    assert broken_promise(BenchmarkConfig(attn_implementation="flex_attention"), compiled()) is None


def test_the_shared_cache_is_keyed_by_all_that_changes_the_code() -> None:
    device = torch.device("cpu")
    config = BenchmarkConfig(compile_kwargs={"mode": "default", "cache": "shared"})
    folders = {shared_cache(config, device)}
    for section, change in (
        ("attention", {"sdpa_backend": "math"}),
        ("attention", {"implementation": "eager"}),
        ("compile", {"mode": "max-autotune"}),
        ("workload", {"batch_size": 2}),
        ("model", {"dtype": "bfloat16"}),
    ):
        data = config.to_dict()
        data[section].update(change)
        folders.add(shared_cache(BenchmarkConfig.from_dict(data), device))
    assert len(folders) == 6
    same = dataclasses.replace(config.warmup, iterations=9)
    assert shared_cache(BenchmarkConfig.from_dict(config.to_dict() | {"warmup": vars(same)}), device) in folders
