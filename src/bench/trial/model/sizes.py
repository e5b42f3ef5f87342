"""Read the sizes of a loaded model that decide bytes and FLOPs per token, and its KV cache's bytes.

Weights are counted from the real parameters; heads and layers come from the config. The result is None if the
projections of the real model contradict the config, if something other than attention over a KV cache keeps state
(Mamba, linear attention), if layers share or compress keys and values, and for quantised weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bench.analysis.trials.roofline import kv_entries, kv_entry_bytes
from bench.results.record import ModelShape
from bench.trial.compat.transformers_internals import is_quantized

# Configs name these after their papers: the first that is there counts.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_PER_TOKEN = (
    "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k",
)  # fmt: skip
KV_HEADS = ("num_key_value_heads", "num_kv_heads")
LAYER_TYPES = ("layer_types", "layers_block_type")
READABLE_LAYERS = {"full_attention", "sliding_attention", "attention"}
# Projections to keys or values alone, and to queries, keys and values at once.
KV_PROJECTION = re.compile(r"\.(k_proj|v_proj)\.weight$")
QKV_PROJECTION = re.compile(r"\.(qkv_proj|query_key_value|c_attn|Wqkv|qkv)\.weight$")


class _UnreadableError(Exception):
    """The sizes of this architecture do not fit a ModelShape."""


def shape_of(model: Any) -> ModelShape | None:
    """Return the sizes of a loaded transformers causal language model; None when they cannot be read. Raises nothing.

    Of a multimodal model the text decoder counts.
    """
    try:
        return _shape_of(model)
    except Exception:  # noqa: BLE001 - architectures, those in a checkpoint's own code too, differ beyond any list
        return None


def kv_cache_bytes(shape: ModelShape, *, batch_size: int, positions: int, element_bytes: int) -> int:
    """Return the bytes that the KV cache of a call must hold, of a sliding window no more than its tokens.

    Args:
        shape: of the model.
        batch_size: rows.
        positions: that the cache holds for each row. After a call of P prompt and N new tokens these are P + N - 1,
            because the last token is never fed back; transformers allocates as many for a static cache. Where a
            window is full, a dynamic cache of transformers keeps one position less: the next token brings its own.
        element_bytes: of one element, as the model's dtype has it.
    """
    return batch_size * kv_entries(shape, positions) * kv_entry_bytes(shape, element_bytes)


def observed_cache_bytes(cache: Any) -> int | None:
    """Return the bytes of a transformers Cache (static or dynamic); None: empty, or of an unknown form.

    A slice that a window cuts from a longer tensor counts as the slice.
    """
    layers = getattr(cache, "layers", None)
    if not isinstance(layers, list) or any(map(is_quantized, layers)):
        return None
    kept = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    tensors = [each for each in kept if isinstance(each, torch.Tensor) and each.numel()]
    return sum(each.numel() * each.element_size() for each in tensors) if tensors else None


# ---- the model ------------------------------------------------------------------------------------------------------


def _shape_of(model: Any) -> ModelShape:
    config = model.config.get_text_config(decoder=True)
    decoder, lm_head = model.get_decoder(), model.get_output_embeddings()
    if lm_head is None or model.config.is_encoder_decoder or getattr(model, "hf_quantizer", None) is not None:
        raise _UnreadableError
    sliding_window, sliding_layers = _windows(config)
    heads = int(config.num_attention_heads)
    kv_heads, head_dim = _kv_heads(config, heads), _head_dim(config, heads)
    weights = dict(_weights(decoder))
    _check_projections(weights, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    declared = _first(config, EXPERTS)
    experts = {name: each for name, each in weights.items() if _is_expert(name, each, declared)}
    lm_head_parameters = lm_head.weight.numel()
    dense = sum(each.numel() for name, each in weights.items() if name not in experts)
    return ModelShape(
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        matmul_parameters=dense + lm_head_parameters,
        lm_head_parameters=lm_head_parameters,
        expert_parameters=sum(each.numel() for each in experts.values()),
        experts=_required(declared) if experts else 0,
        experts_per_token=_required(_first(config, EXPERTS_PER_TOKEN)) if experts else 0,
        sliding_window=sliding_window,
        sliding_layers=sliding_layers,
    )


def _weights(decoder: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters that tokens are multiplied with: at least two dimensions, no bias, no lookup table.

    An embedding table that is tied to the lm_head is left out as well: the lm_head is counted by itself.
    """
    tables = {id(each) for module in decoder.modules() if isinstance(module, nn.Embedding)
              for each in module.parameters(recurse=False)}  # fmt: skip
    for name, each in decoder.named_parameters():
        if each.ndim >= 2 and id(each) not in tables and not name.endswith("bias"):
            if not each.is_floating_point():
                raise _UnreadableError
            yield name, each


def _is_expert(name: str, weight: torch.Tensor, declared: int | None) -> bool:
    """Check whether only some tokens use this weight: a list of experts, or all of a layer in one tensor.

    Experts that every token visits ("shared") are weights like others.
    """
    path = name.split(".")
    return "experts" in path or (weight.ndim == 3 and weight.shape[0] == declared and "shared" not in name)


def _windows(config: Any) -> tuple[int | None, int]:
    """Return the sliding window in tokens, the token itself included, and how many layers have it."""
    window = getattr(config, "sliding_window", None)
    types = next((found for name in LAYER_TYPES if (found := getattr(config, name, None))), None)
    if types is None:
        if getattr(config, "attention_chunk_size", None) is not None:
            raise _UnreadableError
        types = ["full_attention" if window is None else "sliding_attention"] * config.num_hidden_layers
    if not set(types) <= READABLE_LAYERS or "reuse" in (getattr(config, "kv_sharing_modes", None) or ()):
        raise _UnreadableError
    layers = list(types).count("sliding_attention")
    return (_required(window), layers) if layers else (None, 0)


def _kv_heads(config: Any, heads: int) -> int:
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1  # Falcon's and GPTBigCode's way to say so
    return _first(config, KV_HEADS) or heads


def _head_dim(config: Any, heads: int) -> int:
    if getattr(config, "kv_lora_rank", None) is not None:
        raise _UnreadableError  # multi-head latent attention: what must be kept is not what transformers keeps
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    if getattr(config, "v_head_dim", None) not in (None, head_dim):
        raise _UnreadableError
    return head_dim


def _check_projections(weights: dict[str, torch.Tensor], *, heads: int, kv_heads: int, head_dim: int) -> None:
    """Raise _UnreadableError where some layer's keys or values have another size than the config says."""
    for name, each in weights.items():
        if KV_PROJECTION.search(name) and kv_heads * head_dim not in each.shape:
            raise _UnreadableError
        if QKV_PROJECTION.search(name) and (heads + 2 * kv_heads) * head_dim not in each.shape:
            raise _UnreadableError


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    """Return the first of the fields that holds a number; a list, one number a layer, is no answer."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _required(value: int | None) -> int:
    if value is None:
        raise _UnreadableError
    return value
