"""Check the cost of a call and its share of the device's rates against hand-calculated figures."""

from __future__ import annotations

import dataclasses

import pytest

import factories
from bench.analysis.trials.roofline import (
    Workload,
    bandwidth_for,
    decode_cost,
    expected_expert_share,
    prefill_cost,
    roofline,
)
from bench.results.record import DeviceRates, ModelShape, Record

# Two layers, three query heads of eight that share one key head, 100 weights of which 40 are the lm_head.
SHAPE = ModelShape(layers=2, heads=3, kv_heads=1, head_dim=8, matmul_parameters=100, lm_head_parameters=40)
WORK = Workload(batch_size=2, prompt_tokens=4, new_tokens=4, weight_bytes=4, kv_bytes=4)
EXPERTS = {"expert_parameters": 80, "experts": 4, "experts_per_token": 1}


def rates(**changes: object) -> DeviceRates:
    fields = {"bandwidth_bytes_per_s": 1e5, "matmul_flops_per_s": 1e6, "dtype": "float32", "fingerprint": "f"}
    return DeviceRates(**{"measured_at_s": 1.7e9, **fields, **changes})


def record(shape: ModelShape | None = SHAPE, **observed: object) -> Record:
    """Return the record of tests/factories.py: batches of 2, prompts of 8 tokens and 5 new ones, float32."""
    made = factories.make_record()
    made.observed = dataclasses.replace(made.observed, shape=shape, **observed)
    return made


# ---- costs ----------------------------------------------------------------------------------------------------------


def test_a_prefill_reads_each_weight_once_and_writes_all_keys_and_values() -> None:
    # 2 rows × 2 layers × 4 positions × (keys, values) × 1 head × 8 × 4 bytes
    assert prefill_cost(SHAPE, WORK).bytes == 100 * 4 + 2 * 2 * 4 * 2 * 8 * 4


def test_a_prefill_computes_the_lm_head_for_last_tokens_and_half_of_the_scores() -> None:
    linear = 2 * (60 * 2 * 4 + 40 * 2)
    pairs = 1 + 2 + 3 + 4
    assert prefill_cost(SHAPE, WORK).flops == linear + 2 * 2 * (4 * 3 * 8) * pairs


def test_a_decoding_step_is_the_mean_over_the_steps_of_a_call() -> None:
    contexts = [5, 6, 7]  # of the three tokens that are fed back after a prompt of four
    steps_bytes = [100 * 4 + 2 * 2 * context * 2 * 8 * 4 for context in contexts]
    steps_flops = [2 * 2 * 100 + 2 * 2 * (4 * 3 * 8) * context for context in contexts]
    cost = decode_cost(SHAPE, WORK)
    assert cost.bytes == pytest.approx(sum(steps_bytes) / 3)
    assert cost.flops == pytest.approx(sum(steps_flops) / 3)


def test_heads_that_share_keys_save_bytes_but_no_flops() -> None:
    alone = dataclasses.replace(SHAPE, kv_heads=3)
    assert decode_cost(alone, WORK).flops == decode_cost(SHAPE, WORK).flops
    assert decode_cost(alone, WORK).bytes - 400 == 3 * (decode_cost(SHAPE, WORK).bytes - 400)


def test_a_layer_with_a_window_reads_and_scores_only_its_window() -> None:
    window = dataclasses.replace(SHAPE, sliding_window=3, sliding_layers=1)
    kept = 4 + 3  # positions of the layer without window, and of the one with it
    assert prefill_cost(window, WORK).bytes == 400 + 2 * kept * 2 * 8 * 4
    pairs = (1 + 2 + 3 + 4) + (1 + 2 + 3 + 3)
    assert prefill_cost(window, WORK).flops == 2 * (60 * 8 + 80) + 2 * (4 * 3 * 8) * pairs
    assert decode_cost(window, WORK).bytes == 400 + 2 * (6 + 3) * 2 * 8 * 4


def test_a_window_longer_than_the_sequence_changes_nothing() -> None:
    window = dataclasses.replace(SHAPE, sliding_window=7, sliding_layers=2)
    assert prefill_cost(window, WORK) == prefill_cost(SHAPE, WORK)
    assert decode_cost(window, WORK) == decode_cost(SHAPE, WORK)


def test_only_experts_that_a_token_of_the_step_uses_are_read() -> None:
    moe = dataclasses.replace(SHAPE, **EXPERTS)
    more = decode_cost(moe, WORK).bytes - decode_cost(SHAPE, WORK).bytes
    # Two rows with one of four experts each: 9 of the 16 pairs of choices leave a given expert out.
    assert more == pytest.approx(80 * 4 * (1 - 9 / 16))


def test_each_token_computes_only_the_experts_it_uses() -> None:
    moe = dataclasses.replace(SHAPE, **EXPERTS)
    assert decode_cost(moe, WORK).flops - decode_cost(SHAPE, WORK).flops == 2 * 2 * 80 / 4
    assert prefill_cost(moe, WORK).flops - prefill_cost(SHAPE, WORK).flops == 2 * 2 * 4 * 80 / 4


def test_every_expert_is_read_if_each_token_uses_all() -> None:
    assert expected_expert_share(dataclasses.replace(SHAPE, experts=4, experts_per_token=4), 1) == 1.0


def test_one_token_reads_only_its_own_experts() -> None:
    assert expected_expert_share(dataclasses.replace(SHAPE, experts=8, experts_per_token=2), 1) == pytest.approx(2 / 8)


# ---- shares ---------------------------------------------------------------------------------------------------------


def test_shares_are_those_of_the_median_ttft_and_the_median_tpot() -> None:
    result = roofline(record(), rates())
    work = dataclasses.replace(WORK, prompt_tokens=8, new_tokens=5)
    prefill, decode = prefill_cost(SHAPE, work), decode_cost(SHAPE, work)
    assert result.prefill_mbu == pytest.approx(prefill.bytes / factories.TTFT_S / 1e5)
    assert result.prefill_mfu == pytest.approx(prefill.flops / factories.TTFT_S / 1e6)
    assert result.decode_mbu == pytest.approx(decode.bytes / factories.MEDIAN_GAP_S / 1e5)
    assert result.decode_mfu == pytest.approx(decode.flops / factories.MEDIAN_GAP_S / 1e6)
    assert (result.decode_bytes, result.decode_flops) == (decode.bytes, decode.flops)
    assert result.reason is None
    assert result.rejected == {}


def test_weights_count_with_the_mean_size_of_their_elements() -> None:
    halves = roofline(record(parameters=1000, parameter_bytes=2000), rates())
    assert roofline(record(), rates()).decode_bytes - halves.decode_bytes == 100 * 2


def test_a_step_that_fits_the_caches_is_measured_against_the_caches() -> None:
    cached = rates(cache_bandwidth_bytes_per_s=1e6, cache_bytes=10_000)
    assert bandwidth_for(cached, 10_000) == pytest.approx(1e6)


def test_a_step_much_larger_than_the_caches_is_measured_against_memory() -> None:
    cached = rates(cache_bandwidth_bytes_per_s=1e6, cache_bytes=10_000)
    assert bandwidth_for(cached, 1e9) == pytest.approx(1e5, rel=1e-4)


def test_the_part_that_fits_the_caches_counts_with_their_bandwidth() -> None:
    cached = rates(bandwidth_bytes_per_s=1e4, cache_bandwidth_bytes_per_s=4e4, cache_bytes=10_000)
    # 10 kB at 40 kB/s and 10 kB at 10 kB/s take 1.25 s.
    assert bandwidth_for(cached, 20_000) == pytest.approx(20_000 / 1.25)


def test_with_unknown_caches_the_bandwidth_is_that_of_memory() -> None:
    assert bandwidth_for(rates(), 1.0) == 1e5


# ---- unknown values -------------------------------------------------------------------------------------------------


def test_a_share_above_the_devices_limits_is_none_with_the_reason() -> None:
    result = roofline(record(), rates(bandwidth_bytes_per_s=1.0))
    assert (result.prefill_mbu, result.decode_mbu) == (None, None)
    assert result.decode_mfu is not None
    assert set(result.rejected) == {"prefill_mbu", "decode_mbu"}
    assert result.rejected["decode_mbu"] == pytest.approx(roofline(record(), rates()).decode_mbu * 1e5)
    assert "more than the device can do" in result.reason


@pytest.mark.parametrize(("share", "kept"), [(0.99, True), (1.0, True), (1.04, True), (1.06, False), (1.2, False)])
@pytest.mark.parametrize("figure", ["prefill_mbu", "decode_mbu", "prefill_mfu", "decode_mfu"])
def test_a_share_a_few_percent_above_one_is_noise_and_more_is_a_fault(figure: str, share: float, kept: bool) -> None:
    known = {"bandwidth_bytes_per_s": 1e15, "matmul_flops_per_s": 1e15}
    name = "bandwidth_bytes_per_s" if figure.endswith("mbu") else "matmul_flops_per_s"
    of_all = getattr(roofline(record(), rates(**known)), figure)
    result = roofline(record(), rates(**known | {name: known[name] * of_all / share}))
    assert getattr(result, figure) == (pytest.approx(share) if kept else None)
    assert (figure in result.rejected) is not kept


def test_without_rates_only_the_costs_are_given() -> None:
    result = roofline(record(), None)
    assert result.decode_bytes == roofline(record(), rates()).decode_bytes
    assert (result.decode_mbu, result.prefill_mfu) == (None, None)
    assert result.reason == "the device's rates are not known"


def test_rates_of_another_dtype_give_no_share() -> None:
    result = roofline(record(), rates(dtype="bfloat16"))
    assert result.decode_mfu is None
    assert "bfloat16" in result.reason


def test_an_unknown_architecture_has_no_costs() -> None:
    result = roofline(record(shape=None), rates())
    assert result.decode_bytes is None
    assert "architecture" in result.reason


def test_a_call_of_one_new_token_has_no_decoding_step() -> None:
    one = record(new_tokens=1)
    one.iterations = [dataclasses.replace(each, token_times_s=each.token_times_s[:1]) for each in one.iterations]
    result = roofline(one, rates())
    assert result.prefill_mbu is not None
    assert (result.decode_bytes, result.decode_mbu) == (None, None)
    assert "no decoding step" in result.reason


def test_continuous_batching_has_no_uniform_steps() -> None:
    batched = record()
    batched.requested["generation"]["continuous_batching"] = True
    assert roofline(batched, rates()).decode_mbu is None
    assert "continuous batching" in roofline(batched, rates()).reason


def test_a_job_without_measured_calls_has_costs_but_no_shares() -> None:
    empty = record()
    empty.iterations = empty.calls("validation")
    result = roofline(empty, rates())
    assert result.decode_bytes is not None
    assert (result.decode_mbu, result.prefill_mfu) == (None, None)
    assert "no measured call" in result.reason
