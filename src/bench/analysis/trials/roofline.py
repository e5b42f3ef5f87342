"""Compute the bytes and FLOPs that a call requires, and the achieved share of the device's rates.

MFU, model FLOPs utilisation, and MBU, model bandwidth utilisation, divide the work that the *model* requires by its
time and by the rate of the device. Work that an implementation adds (padding, masked halves of the scores,
copies of the cache, scores written to memory) is not counted, so it lowers the share, as intended.

- MFU: Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", appendix B. Two FLOPs for each weight
  and token (one multiplication, one addition), and the two matrix products of attention. Here without the backward
  pass, and with the causal half of the scores only, which that paper counts in full.
- MBU: Databricks 2023, "LLM Inference Performance Engineering: Best Practices": (bytes of the weights + bytes of the
  KV cache) / time per output token, over the memory's bandwidth.

Left out on both sides, because they are small beside the weights: norms, biases, rotary embedding, softmax, sampling,
activations and the rows of the embedding table (batch × hidden size × element size a step, gathered and not
multiplied).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.analysis.trials.summary import batch_size
from bench.results.record import DeviceRates, Iteration, ModelShape, Observed, Record, Roofline

ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
# No work is faster than the device. A few percent are noise of two measurements; more is an error in one of them.
MAX_SHARE = 1.05


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Hold the minimum that a prefill, or one decoding step, moves and computes."""

    bytes: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Describe the requested work of one call."""

    batch_size: int
    prompt_tokens: int  # per row
    new_tokens: int  # per row
    weight_bytes: float  # of one element of the weights, on average
    kv_bytes: int  # of one element of the KV cache


def roofline(record: Record, rates: DeviceRates | None) -> Roofline:
    """Return the roofline of a record's measured calls: median TTFT for the prefill, median TPOT for a decoding step.

    TTFT includes one sampling step and the work of `generate` before it, so the prefill's shares are underestimated.

    Args:
        record: with `observed.shape`; only measured calls count.
        rates: of the device of the run, in its dtype; None if not known.

    Returns:
        Costs and shares, None if they are undefined; `reason` then says why.
    """
    if isinstance(work := _workload(record), str):
        return Roofline(rates=rates, reason=work)
    assert record.observed is not None
    shape = record.observed.shape
    assert shape is not None
    prefill = prefill_cost(shape, work)
    costs = Roofline(rates=rates, prefill_bytes=prefill.bytes, prefill_flops=prefill.flops)
    decode = decode_cost(shape, work) if work.new_tokens > 1 else None
    if decode is not None:
        costs = replace(costs, decode_bytes=decode.bytes, decode_flops=decode.flops)
    if rates is None:
        return replace(costs, reason="the device's rates are not known")
    if rates.dtype != record.observed.dtype:
        return replace(costs, reason=f"the rates are those of {rates.dtype}, the model is in {record.observed.dtype}")
    return _with_shares(costs, rates, prefill, decode, record.calls("measurement"))


def prefill_cost(shape: ModelShape, work: Workload) -> Cost:
    """Return the cost of one pass over all prompts of the batch.

    - Bytes: each weight once (of experts those that some token visits), the keys and values of all positions that
      stay in the cache, written once. They are not read back: attention reads the values just computed.
    - FLOPs: 2 × weights × tokens, of experts those that a token visits; the lm_head for the last token of each row
      only, because `generate` requests only its logits (`logits_to_keep=1`); attention as in `attention_flops`.
    """
    tokens = work.batch_size * work.prompt_tokens
    weights = shape.matmul_parameters + shape.expert_parameters * expected_expert_share(shape, tokens)
    kept = work.batch_size * kv_entries(shape, work.prompt_tokens) * kv_entry_bytes(shape, work.kv_bytes)
    body = shape.matmul_parameters - shape.lm_head_parameters + _visited_expert_parameters(shape)
    linear = 2 * (body * tokens + shape.lm_head_parameters * work.batch_size)
    attention = work.batch_size * attention_flops(shape, _causal_pairs(shape, work.prompt_tokens))
    return Cost(bytes=weights * work.weight_bytes + kept, flops=linear + attention)


def decode_cost(shape: ModelShape, work: Workload) -> Cost:
    """Return the cost of one decoding step of the whole batch, averaged over the `new_tokens` - 1 steps of a call.

    Step t = 1 … n - 1 takes in the t-th new token, which sees prompt_tokens + t positions, itself included.

    - Bytes: each weight once for the whole batch (of experts those that some row visits); for each row and each
      position that it sees one read of keys and values, but one write for the token's own. The context counts
      without the padding of a static cache, and a layer with a window reads its window.
    - FLOPs: 2 × weights × rows, of experts those that a token visits; attention as in `attention_flops`.
    """
    contexts = range(work.prompt_tokens + 1, work.prompt_tokens + work.new_tokens)
    entries = sum(kv_entries(shape, context) for context in contexts) / len(contexts)
    weights = shape.matmul_parameters + shape.expert_parameters * expected_expert_share(shape, work.batch_size)
    moved = work.batch_size * entries * kv_entry_bytes(shape, work.kv_bytes)
    linear = 2 * work.batch_size * (shape.matmul_parameters + _visited_expert_parameters(shape))
    attention = work.batch_size * attention_flops(shape, entries)
    return Cost(bytes=weights * work.weight_bytes + moved, flops=linear + attention)


def kv_entries(shape: ModelShape, positions: int) -> int:
    """Return the positions that a token sees, summed over the layers: `positions`, or a layer's window if shorter."""
    window = positions if shape.sliding_window is None else min(positions, shape.sliding_window)
    return (shape.layers - shape.sliding_layers) * positions + shape.sliding_layers * window


def kv_entry_bytes(shape: ModelShape, element_bytes: int) -> int:
    """Return the bytes of one position's keys and values in one layer."""
    return 2 * shape.kv_heads * shape.head_dim * element_bytes


def attention_flops(shape: ModelShape, pairs: float) -> float:
    """Return the FLOPs of attention over so many (query, key) pairs, summed over the layers.

    Each head requires 2 × head_dim FLOPs for the score of a pair and as many for its share of the sum of values. Heads
    that share keys and values save bytes, not FLOPs.
    """
    return 4 * shape.heads * shape.head_dim * pairs


def expected_expert_share(shape: ModelShape, tokens: int) -> float:
    """Return the share of experts visited by any of `tokens`, if each visits k of E uniformly and independently.

    One token skips an expert with probability 1 - k/E. Routers that prefer some experts visit fewer.
    """
    return 1 - (1 - shape.experts_per_token / shape.experts) ** tokens if shape.experts else 0.0


def bandwidth_for(rates: DeviceRates, moved_bytes: float) -> float:
    """Return the most bytes per second at which this device can move so many bytes over and over.

    Weights that fit in the processor's caches need not come from memory at each step, and would then appear to be read
    faster than memory allows. So bytes up to the size of the caches count at the bandwidth of the caches, the rest at
    that of the memory: an upper bound without a jump. For models much larger than the caches it is the bandwidth of the
    memory. On a GPU no cache counts: a step over weights that fit there (tens of MB) is bound by its kernel launches.
    """
    if rates.cache_bandwidth_bytes_per_s is None or rates.cache_bytes is None:
        return rates.bandwidth_bytes_per_s
    cached = min(moved_bytes, rates.cache_bytes)
    fastest_s = cached / rates.cache_bandwidth_bytes_per_s + (moved_bytes - cached) / rates.bandwidth_bytes_per_s
    return moved_bytes / fastest_s


# ---- from a record --------------------------------------------------------------------------------------------------


def _workload(record: Record) -> Workload | str:
    """Return the requested work of each call, or why its cost is not defined."""
    observed, size = record.observed, batch_size(record)
    if observed is None or observed.shape is None:
        return "the sizes of this architecture cannot be read"
    if size is None or observed.prompt_tokens is None or observed.new_tokens is None:
        return "no call has shown how many tokens it takes and makes"
    if observed.dtype not in ELEMENT_BYTES:
        return f"the size of an element of {observed.dtype} is not known"
    generation = record.requested.get("generation")
    if isinstance(generation, dict) and generation.get("continuous_batching"):
        return "continuous batching mixes prefill and decoding in one step"
    return Workload(
        batch_size=size,
        prompt_tokens=observed.prompt_tokens,
        new_tokens=observed.new_tokens,
        weight_bytes=_weight_bytes(observed),
        kv_bytes=ELEMENT_BYTES[observed.dtype],
    )


def _weight_bytes(observed: Observed) -> float:
    """Return the bytes per element: the mean over the real parameters, a few of which may have another dtype."""
    return observed.parameter_bytes / observed.parameters


def _visited_expert_parameters(shape: ModelShape) -> float:
    """Return the weights of the experts that one token visits, over all layers."""
    return shape.expert_parameters * shape.experts_per_token / shape.experts if shape.experts else 0.0


def _causal_pairs(shape: ModelShape, tokens: int) -> int:
    """Return a prompt's (query, key) pairs, summed over layers: the i-th of `tokens` sees i positions or its window."""
    full = tokens * (tokens + 1) // 2
    window = tokens if shape.sliding_window is None else min(tokens, shape.sliding_window)
    seen = window * (window + 1) // 2 + (tokens - window) * window
    return (shape.layers - shape.sliding_layers) * full + shape.sliding_layers * seen


def _with_shares(
    costs: Roofline, rates: DeviceRates, prefill: Cost, decode: Cost | None, calls: Sequence[Iteration]
) -> Roofline:
    """Add the shares of the rates that the measured calls reached, or why there are none."""
    ttft_s = _median([call.ttft_s for call in calls if call.token_times_s])
    tpot_s = _median([call.tpot_s for call in calls if len(call.token_times_s) > 1])
    shares: dict[str, float] = {}
    rejected: dict[str, float] = {}
    reasons = []
    for name, cost, time_s in (("prefill", prefill, ttft_s), ("decode", decode, tpot_s)):
        if cost is None:
            reasons.append("a call of one new token has no decoding step")
            continue
        bandwidth = bandwidth_for(rates, cost.bytes)
        shares[f"{name}_bandwidth_bytes_per_s"] = bandwidth
        if time_s is None:
            reasons.append(f"no measured call has timed a {name}")
            continue
        for figure, share in (
            ("mbu", cost.bytes / time_s / bandwidth),
            ("mfu", cost.flops / time_s / rates.matmul_flops_per_s),
        ):
            (shares if share <= MAX_SHARE else rejected)[f"{name}_{figure}"] = share
    if rejected:
        figures = ", ".join(f"{name} {value:.2f}" for name, value in rejected.items())
        reasons.append(f"more than the device can do ({figures}): it was busy when its rates were measured")
    return replace(costs, **shares, rejected=rejected, reason="; ".join(reasons) or None)  # type: ignore[arg-type]


def _median(values: list[float]) -> float | None:
    """Return the median; None without values, or if a clock too coarse makes it 0."""
    return float(np.median(values)) or None if values else None
