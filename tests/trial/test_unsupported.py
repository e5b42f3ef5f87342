"""Check which errors are limits of the machine, which are out-of-memory, and their messages."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from bench.config.schema import AttentionConfig, BenchmarkConfig, GenerationConfig, ProfileConfig
from bench.trial.unsupported import LIMITS, Limit, is_out_of_memory, limit_reached, one_line


class NoValidChoicesError(Exception):
    pass


class InductorError(Exception):
    def __init__(self, inner: Exception) -> None:
        super().__init__(f"{type(inner).__name__}: {inner}")
        self.inner_exception = inner


@pytest.mark.parametrize(
    ("attention", "error", "key"),
    [
        ("flash_attention_2", ImportError("the package flash_attn is not installed."), "attention.implementation"),
        ("sdpa", RuntimeError("No viable backend for scaled_dot_product_attention found."), "attention.sdpa_backend"),
        ("sdpa", RuntimeError("No available kernel. Aborting execution."), "attention.sdpa_backend"),
        (
            "flex_attention",
            InductorError(NotImplementedError("torch.compile on current platform is not supported for CPU.")),
            "attention.implementation",
        ),
        ("flex_attention", InductorError(NoValidChoicesError("flex_attention")), "attention.implementation"),
        ("flash_attention_2", RuntimeError("FlashAttention only support fp16 and bf16 data type"), "model.dtype"),
        ("flash_attention_2", RuntimeError("FlashAttention only supports Ampere GPUs."), "attention.implementation"),
    ],
)
def test_a_known_limit_names_the_key_its_value_and_a_remedy(attention: str, error: Exception, key: str) -> None:
    config = BenchmarkConfig(attn_implementation=attention)
    reason = limit_reached(error, config)
    assert reason.startswith(f"{key}={config.flat()[key]} cannot run here: ")
    assert "; " in reason
    assert "\n" not in reason


class InvalidCxxCompiler(Exception):  # noqa: N818 - the compiler's own name for it
    pass


NO_COMPILER = InductorError(InvalidCxxCompiler("No working C++ compiler found in torch._inductor.config.cpp.cxx"))


def test_uncompiled_flex_without_a_compiler_says_what_flex_needs() -> None:
    reason = limit_reached(NO_COMPILER, BenchmarkConfig(attn_implementation="flex_attention"))
    assert reason.startswith("attention.implementation=flex_attention cannot run here: ")
    assert reason.endswith("needs a C++ compiler: install g++, or use attention=sdpa")
    assert "compile" not in reason.partition("cannot run here")[0]
    assert "compile=off" not in reason


def test_a_compiled_setting_without_a_compiler_keeps_its_remedy() -> None:
    compiled = {"mode": "default"}
    assert limit_reached(NO_COMPILER, BenchmarkConfig(compile_kwargs=compiled)).startswith(
        "compile.mode=default cannot"
    )
    both = BenchmarkConfig(compile_kwargs=compiled, attn_implementation="flex_attention")
    assert limit_reached(NO_COMPILER, both).endswith("use attention=sdpa with compile=off")
    assert limit_reached(NO_COMPILER, BenchmarkConfig()) is None  # nothing was to be compiled: a fault


SHORT_FORMS = {"attention": "attention.implementation", "compile": "compile.mode"}
SETTINGS = [
    BenchmarkConfig(
        attention=AttentionConfig(implementation=attention, sdpa_backend=backend if attention == "sdpa" else None),
        compile_kwargs=None if batched else compiled,
        generation=GenerationConfig(continuous_batching=batched, kernelize=True),
        dtype=dtype,
        profile=ProfileConfig(memory_snapshot=True),
    )
    for attention, backend, compiled, batched, dtype in itertools.product(
        ("eager", "sdpa", "flex_attention", "flash_attention_2", "other"),
        (None, "flash_attention", "math"),
        (None, {"mode": "default"}),
        (False, True),
        ("auto", "bfloat16", "float32"),
    )
]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.pattern[:20]} {limit.key}")
def test_no_remedy_recommends_what_is_set_already(limit: Limit) -> None:
    concerned = [each for each in SETTINGS if limit.concerns(each)]
    assert concerned
    for config in concerned:
        flat = config.flat()
        for name, value in re.findall(r"([\w.]+)=([\w.]+)", limit.remedy):
            key = SHORT_FORMS.get(name, name)
            assert str(flat[key]).lower() != {"off": "none"}.get(value, value), config.to_dict()
        if "null" in limit.remedy or "set it to false" in limit.remedy:
            assert flat[limit.key] not in (None, False)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        ImportError("no module named foo"),
        ImportError("flash_attn is broken"),  # and nobody asked for it
        RuntimeError("model xyz does not support 3D input in sdpa_tests/x.py"),
        KeyError("x"),
    ],
)
def test_an_unknown_error_is_no_limit(error: Exception) -> None:
    assert limit_reached(error, BenchmarkConfig()) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        InductorError(torch.OutOfMemoryError("CUDA out of memory.")),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("illegal memory access"))


def test_an_error_is_cut_to_its_first_line_that_says_something() -> None:
    assert one_line(RuntimeError("\n\n  first  \nsecond")) == "first"
    assert one_line(RuntimeError("")) == "RuntimeError"
    assert len(one_line(RuntimeError("x" * 1000), 50)) == 50
