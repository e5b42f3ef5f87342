"""Check the sizes of real models, small ones with random weights, and the bytes of their caches."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from bench.analysis.trials.roofline import Workload, decode_cost, prefill_cost
from bench.trial.model.loading import load
from bench.trial.model.sizes import kv_cache_bytes, observed_cache_bytes, shape_of

SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# Of a layer of SMALL: queries and output, keys and values, the three matrices of the MLP.
ATTENTION, MLP, LM_HEAD = 2 * 64 * 64 + 2 * 64 * 32, 3 * 64 * 96, 300 * 64
PROMPT, NEW, ROWS = 10, 3, 2


def make(model_type: str, **sizes: object):
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def generate(model, new_tokens: int, **keywords: object):
    ids = torch.arange(PROMPT * ROWS).reshape(ROWS, PROMPT)
    with torch.no_grad():
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            disable_compile=True,
            pad_token_id=0,
            **keywords,
        )


# ---- parameters -----------------------------------------------------------------------------------------------------


def test_the_tiny_model_has_the_sizes_of_its_config(tiny) -> None:
    shape = shape_of(load(tiny()).model)
    layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 688
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (2, 8, 4, 32)
    assert shape.lm_head_parameters == 258 * 256
    assert shape.matmul_parameters == 2 * layer + 258 * 256
    assert (shape.experts, shape.expert_parameters, shape.sliding_layers) == (0, 0, 0)


@pytest.mark.parametrize("tied", [False, True])
def test_the_embedding_table_counts_as_the_lm_head_or_not_at_all(tied: bool) -> None:
    shape = shape_of(make("llama", **SMALL, tie_word_embeddings=tied))
    assert shape.lm_head_parameters == LM_HEAD
    assert shape.matmul_parameters == 4 * (ATTENTION + MLP) + LM_HEAD


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_bigcode"])
def test_a_config_with_names_of_its_own_is_read(model_type: str) -> None:
    shape = shape_of(make(model_type, vocab_size=300, n_embd=64, n_layer=3, n_head=4))
    kv_heads = {"gpt2": 4, "gpt_bigcode": 1}[model_type]
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (3, 4, kv_heads, 16)
    layer = (4 + 2 * kv_heads) * 16 * 64 + 64 * 64 + 2 * 64 * 256
    assert shape.matmul_parameters == 3 * layer + LM_HEAD  # neither the positions' table nor the tied one twice


def test_experts_are_counted_apart_and_the_router_is_not_one() -> None:
    shape = shape_of(make("mixtral", **SMALL, num_local_experts=4, num_experts_per_tok=2))
    assert (shape.experts, shape.experts_per_token) == (4, 2)
    assert shape.expert_parameters == 4 * 4 * MLP
    assert shape.matmul_parameters == 4 * (ATTENTION + 4 * 64) + LM_HEAD


def test_the_biases_of_experts_are_no_weights() -> None:
    model = make("gpt_oss", **SMALL, head_dim=16, num_local_experts=4, num_experts_per_tok=2)
    assert shape_of(model).expert_parameters == 4 * 4 * MLP


def test_experts_that_every_token_visits_are_weights_like_others() -> None:
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    shape = shape_of(make("qwen2_moe", **SMALL, **sizes, shared_expert_intermediate_size=48))
    assert shape.expert_parameters == 4 * 4 * 3 * 64 * 32
    router, shared = 4 * 64, 3 * 64 * 48 + 64  # and the gate of the shared one
    assert shape.matmul_parameters == 4 * (ATTENTION + router + shared) + LM_HEAD


def test_windows_are_read_layer_by_layer() -> None:
    types = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    shape = shape_of(make("gemma3_text", **SMALL, head_dim=16, sliding_window=8, layer_types=types))
    assert (shape.sliding_window, shape.sliding_layers) == (8, 3)


def test_a_window_without_a_list_of_layers_is_that_of_all() -> None:
    shape = shape_of(make("mistral", **SMALL, sliding_window=8))
    assert (shape.sliding_window, shape.sliding_layers) == (8, 4)


# ---- what cannot be read --------------------------------------------------------------------------------------------


def test_a_model_without_attention_has_no_shape() -> None:
    assert shape_of(make("mamba", vocab_size=300, hidden_size=64, num_hidden_layers=2)) is None


def test_a_model_with_other_layers_than_attention_has_no_shape() -> None:
    types = ["conv", "full_attention", "conv", "full_attention"]
    assert shape_of(make("lfm2", **SMALL, layer_types=types)) is None


def test_projections_that_contradict_the_config_leave_no_shape(tiny) -> None:
    model = load(tiny()).model
    model.model.layers[1].self_attn.k_proj = torch.nn.Linear(256, 64, bias=False)
    assert shape_of(model) is None


def test_what_is_no_model_has_no_shape() -> None:
    assert shape_of(object()) is None


def test_weights_in_packed_integers_have_no_shape(tiny) -> None:
    model = load(tiny()).model
    packed = torch.nn.Parameter(torch.zeros(256, 32, dtype=torch.uint8), requires_grad=False)
    model.model.layers[0].mlp.up_proj.weight = packed
    assert shape_of(model) is None


# ---- FLOPs, against torch's own count -------------------------------------------------------------------------------


def counted_flops(model, new_tokens: int) -> int:
    with FlopCounterMode(display=False) as counter:
        generate(model, new_tokens)
    return counter.get_total_flops()


@pytest.fixture
def eager(tiny):
    return load(tiny(attn_implementation="eager")).model


def test_the_flops_of_a_prefill_are_those_that_torch_counts_less_the_masked_scores(eager) -> None:
    shape = shape_of(eager)
    work = Workload(batch_size=ROWS, prompt_tokens=PROMPT, new_tokens=1, weight_bytes=4, kv_bytes=4)
    masked = PROMPT * PROMPT - PROMPT * (PROMPT + 1) // 2
    masked_flops = ROWS * shape.layers * 4 * shape.heads * shape.head_dim * masked
    # The angles of the rotary embedding are a product as well, of 0.01 %.
    assert counted_flops(eager, 1) == pytest.approx(prefill_cost(shape, work).flops + masked_flops, rel=1e-4)


def test_the_flops_of_a_decoding_step_are_those_that_torch_counts(eager) -> None:
    work = Workload(batch_size=ROWS, prompt_tokens=PROMPT, new_tokens=2, weight_bytes=4, kv_bytes=4)
    step = counted_flops(eager, 2) - counted_flops(eager, 1)
    assert step == pytest.approx(decode_cost(shape_of(eager), work).flops, rel=1e-4)


# ---- bytes of the cache ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_call_leaves_a_cache_of_all_positions_but_the_last(tiny, kind: str) -> None:
    model = load(tiny()).model
    cache = generate(model, NEW, cache_implementation=kind).past_key_values
    expected = kv_cache_bytes(shape_of(model), batch_size=ROWS, positions=PROMPT + NEW - 1, element_bytes=4)
    assert observed_cache_bytes(cache) == expected == ROWS * 2 * 12 * 2 * 4 * 32 * 4


def test_a_static_cache_of_layers_with_a_window_holds_their_window() -> None:
    model = make("mistral", **SMALL, sliding_window=8)
    cache = generate(model, NEW, cache_implementation="static").past_key_values
    expected = kv_cache_bytes(shape_of(model), batch_size=ROWS, positions=PROMPT + NEW - 1, element_bytes=4)
    assert observed_cache_bytes(cache) == expected == ROWS * 4 * 8 * 2 * 2 * 16 * 4


def test_a_dynamic_cache_with_a_window_keeps_one_position_less() -> None:
    model = make("mistral", **SMALL, sliding_window=8)
    cache = generate(model, NEW, cache_implementation="dynamic").past_key_values
    expected = kv_cache_bytes(shape_of(model), batch_size=ROWS, positions=PROMPT + NEW - 1, element_bytes=4)
    assert observed_cache_bytes(cache) == expected * 7 // 8


def test_a_half_size_element_takes_half_the_bytes(tiny) -> None:
    shape = shape_of(load(tiny()).model)
    full, half = (kv_cache_bytes(shape, batch_size=1, positions=9, element_bytes=size) for size in (4, 2))
    assert full == 2 * half > 0


def test_a_cache_that_nothing_was_put_in_or_of_unknown_form_has_no_bytes() -> None:
    assert observed_cache_bytes(transformers.DynamicCache()) is None
    assert observed_cache_bytes(None) is None
    assert observed_cache_bytes(((torch.ones(1), torch.ones(1)),)) is None
