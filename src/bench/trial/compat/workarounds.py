"""Work around faults of the libraries while a setting runs that would fail or be wrong without.

A workaround is applied only if a setting needs it and the installed versions have the fault, and it is undone
afterwards, so that the next setting in this process gets the libraries as they are. Each applied workaround is one line
of the record, because what ran was not the libraries alone. tests/trial/test_workarounds.py fails when a fault is gone.

Worked around, for flex_attention with a static cache (transformers 5.17.0 to 5.24.0, torch 2.11.0 to 2.14.1):

*Missing `contiguous`.* In 5.18 to 5.23 `prepare_inputs_for_generation` (transformers/generation/utils.py) ends its
making of masks for such a cache with `attention_mask.contiguous()`, so that the strides are the same at each step and
the compiled forward pass need not be compiled again. A BlockMask has no such method; 5.24.0 leaves it as it is.

*A mask that changes.* A BlockMask is a table of blocks and a function (q, kv) → visible; the kernels ask the function
inside blocks that are visible in part. generate makes it before the forward pass, and its function holds the very
tensor in which the first layer's static cache counts its tokens (`StaticLayer.cumulative_length`). That layer counts
the new token before attention looks: the query then sees one position more than it may, a key of zeros. Nothing is
raised and short outputs keep their tokens, but logits of the tiny model with halved weights are off by 0.1 of 6. On a
CPU, Inductor cannot compile the decoding step for the same reason (NoValidChoicesError): the tensor that the kernel
reads is one that the graph changes. With a copy in its place both are right.

Not covered: models that make or read their masks in code of their own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch.nn.attention.flex_attention import BlockMask

from bench.config.rules import kv_cache_kind
from bench.config.schema import BenchmarkConfig
from bench.trial.compat import transformers_internals

FLEX = "flex_attention"
CALLS_CONTIGUOUS = ((5, 18), (5, 24))  # versions of transformers: from the first on, and before the second


@contextlib.contextmanager
def applied_workarounds(config: BenchmarkConfig) -> Iterator[list[str]]:
    """Apply the workarounds that this setting needs until the context ends, and yield one line for each."""
    with contextlib.ExitStack() as undo:
        lines = []
        if makes_block_masks_ahead(config):
            if _lacks_contiguous():
                undo.enter_context(_contiguous_block_masks())
                lines.append(
                    f"BlockMask.contiguous: transformers {transformers.__version__} calls it "
                    f"and torch {torch.__version__} has none"
                )
            if _cache_exposes_its_counter() and transformers_internals.mask_function(FLEX) is not None:
                undo.enter_context(_masks_with_copied_offset())
                lines.append(
                    f"flex_attention mask: transformers {transformers.__version__} lets it hold the static cache's own "
                    "counter, which moves on before attention looks; it gets a copy"
                )
        yield lines


def makes_block_masks_ahead(config: BenchmarkConfig) -> bool:
    """Check whether generate makes the flex_attention mask before the forward pass, as for static caches."""
    generation = config.generation
    kind = kv_cache_kind(generation.kv_cache, compiled=config.compile.mode is not None)
    return kind == "static" and config.attention.implementation == FLEX and not generation.continuous_batching


# ---- missing contiguous ---------------------------------------------------------------------------------------------


def _lacks_contiguous() -> bool:
    first, end = CALLS_CONTIGUOUS
    return first <= transformers_internals.release() < end and not hasattr(BlockMask, "contiguous")


@contextlib.contextmanager
def _contiguous_block_masks() -> Iterator[None]:
    BlockMask.contiguous = _contiguous
    try:
        yield
    finally:
        del BlockMask.contiguous


def _contiguous(mask: Any) -> Any:
    """Return the mask itself, or one whose index tensors are in row order: what `Tensor.contiguous` does.

    create_block_mask makes them in that order already, so today this returns the mask. Returning it unchecked would
    break the caller's promise to the compiler if that ever changed.
    """
    scattered = {
        name: value
        for name, value in vars(mask).items()
        if isinstance(value, torch.Tensor) and not value.is_contiguous()
    }
    if not scattered:
        return mask
    ordered = copy.copy(mask)
    for name, value in scattered.items():
        setattr(ordered, name, value.contiguous())
    return ordered


# ---- a mask that changes --------------------------------------------------------------------------------------------


def _cache_exposes_its_counter() -> bool:
    """Check whether the length that a static cache reports is the tensor that it goes on counting in."""
    layer = transformers.StaticLayer(max_cache_len=2)
    token = torch.zeros(1, 1, 1, 1)  # batch, heads, tokens, head size
    layer.update(token, token)
    length = layer.get_seq_length()
    before = int(length)
    layer.update(token, token)
    return int(length) != before


@contextlib.contextmanager
def _masks_with_copied_offset() -> Iterator[None]:
    original = transformers_internals.mask_function(FLEX)
    assert original is not None

    def with_a_copy(*arguments: Any, **keywords: Any) -> Any:
        offset = keywords.get("q_offset")
        if isinstance(offset, torch.Tensor):
            keywords["q_offset"] = offset.clone()
        return original(*arguments, **keywords)

    transformers.AttentionMaskInterface.register(FLEX, with_a_copy)
    try:
        yield
    finally:
        transformers.AttentionMaskInterface.register(FLEX, original)
