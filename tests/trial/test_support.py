"""Which errors are limits of the machine, which are memory, and how they read."""

from __future__ import annotations

import pytest
import torch

from bench.config import AttentionConfig, BenchmarkConfig
from bench.trial.support import is_out_of_memory, limit_reached, one_line


class NoValidChoicesError(Exception):
    pass


class InductorError(Exception):
    def __init__(self, inner: Exception) -> None:
        super().__init__(f"{type(inner).__name__}: {inner}")
        self.inner_exception = inner


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (ImportError("the package flash_attn seems to be not installed."), "attention.implementation"),
        (RuntimeError("No viable backend for scaled_dot_product_attention was found."), "attention.sdpa_backend"),
        (RuntimeError("No available kernel. Aborting execution."), "attention.sdpa_backend"),
        (AttributeError("'BlockMask' object has no attribute 'contiguous'"), "attention.implementation"),
        (InductorError(NoValidChoicesError("target: flex_attention")), "attention.implementation"),
        (RuntimeError("FlashAttention only support fp16 and bf16 data type"), "model.dtype"),
        (RuntimeError("FlashAttention only supports Ampere GPUs or newer."), "attention.implementation"),
    ],
)
def test_a_known_limit_names_the_key_its_value_and_a_remedy(error: Exception, key: str) -> None:
    config = BenchmarkConfig(attention=AttentionConfig(sdpa_backend="math"))
    reason = limit_reached(error, config)
    assert reason.startswith(f"{key}={config.flat()[key]} cannot run here: ")
    assert "; " in reason
    assert "\n" not in reason


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ImportError("no module named foo"), KeyError("x")])
def test_an_unknown_error_is_no_limit(error: Exception) -> None:
    assert limit_reached(error, BenchmarkConfig()) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        InductorError(torch.OutOfMemoryError("CUDA out of memory.")),
        RuntimeError("CUDA error: out of memory"),
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
