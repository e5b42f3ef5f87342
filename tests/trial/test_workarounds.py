"""Check that the workarounds work, that they are undone, and that they are still needed.

On a CPU without waiting for Inductor: torch.compile runs what it traced as it is (backend "eager"), including the
mask, the kernel and the decoding step. One test runs the compiler for real.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
import transformers
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.integrations import flex_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from bench.config.schema import CompileConfig, GenerationConfig
from bench.trial.compat import workarounds
from bench.trial.compat.workarounds import applied_workarounds
from bench.trial.evidence import compilation
from bench.trial.measure.request import guards, make_generation_config, make_inputs
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import load

STATIC = GenerationConfig(kv_cache="static")
COMPILED = CompileConfig(mode="default")
OVER = "transformers {} needs no such workaround: remove it from bench.trial.compat.workarounds, and its tests"
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
CALLS = workarounds.CALLS_CONTIGUOUS[0] <= VERSION < workarounds.CALLS_CONTIGUOUS[1]


@pytest.fixture
def traced_only(monkeypatch) -> None:
    """torch.compile traces, and runs what it traced with torch's own operators."""
    original = torch.compile

    def compile_(*arguments, **keywords):
        return original(*arguments, **{**keywords, "backend": "eager", "mode": None, "options": None})

    monkeypatch.setattr(torch, "compile", compile_)
    # transformers keeps the flex_attention that it compiled first.
    monkeypatch.setattr(flex_attention.WrappedFlexAttention, "_instance", None)
    compilation.reset()


def logits_of(config) -> torch.Tensor:
    """One greedy call: logits of shape (new tokens, batch, vocabulary)."""
    loaded = load(config)
    for each in loaded.model.parameters():
        each.data.mul_(0.5)  # as made, attention settles on one key, and one key of zeros more goes unnoticed
    generation = make_generation_config(config, loaded, config.workload.num_tokens_to_generate)
    generation.output_logits = generation.return_dict_in_generate = True
    with guards(config):
        result = loaded.model.generate(**make_inputs(config, loaded), generation_config=generation)
        return torch.stack(result.logits)


def off_by(config, reference) -> float:
    return float((logits_of(config) - logits_of(reference)).abs().max())


def only(name: str) -> contextlib.AbstractContextManager[None]:
    """Apply one workaround alone."""
    return {"contiguous": workarounds._contiguous_block_masks, "mask": workarounds._masks_with_copied_offset}[name]()


# ---- their effect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compile_", "batch_size"), [(CompileConfig(), 1), (COMPILED, 2)], ids=["uncompiled", "compiled"]
)
def test_a_static_cache_gives_the_logits_of_eager_attention(traced_only, tiny, compile_, batch_size) -> None:
    # The block of 128 positions is crossed while decoding.
    keywords = {"generation": STATIC, "sequence_length": 120, "num_tokens_to_generate": 12, "batch_size": batch_size}
    flex = tiny(attn_implementation="flex_attention", compile=compile_, **keywords)
    with applied_workarounds(flex):
        assert off_by(flex, tiny(attn_implementation="eager", **keywords)) < 1e-4


@pytest.mark.compiled
@pytest.mark.slow
def test_a_compiled_job_runs_on_this_cpu_and_keeps_the_tokens(tiny) -> None:
    tokens = {}
    for attention, compile_ in (("eager", CompileConfig()), ("flex_attention", COMPILED)):
        config = tiny(attn_implementation=attention, generation=STATIC, compile=compile_, num_tokens_to_generate=8)
        with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
            runner.setup_benchmark("tiny", config)
            record = runner.run_benchmark(config)
        assert runner.record.status == "ok", runner.record.error
        tokens[attention] = record.output.token_ids
    assert tokens["flex_attention"] == tokens["eager"]


# ---- whether they are still needed ----------------------------------------------------------------------------------


def test_without_contiguous_a_static_cache_fails_with_the_versions_that_call_it(traced_only, tiny) -> None:
    try:
        logits_of(tiny(attn_implementation="flex_attention", generation=STATIC))
    except AttributeError as error:
        assert str(error) == "'BlockMask' object has no attribute 'contiguous'"  # noqa: PT017 - or there is no error
        assert CALLS, f"transformers {transformers.__version__} calls it again"
    else:
        assert not CALLS, OVER.format(transformers.__version__)


def test_without_a_copy_the_mask_shows_one_position_too_many(traced_only, tiny) -> None:
    flex = tiny(attn_implementation="flex_attention", generation=STATIC)
    with only("contiguous"):
        wrong = off_by(flex, tiny(attn_implementation="eager", generation=STATIC))
    assert wrong > 0.01, OVER.format(transformers.__version__)


# ---- what they touch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keywords",
    [
        {"attn_implementation": "flex_attention"},  # a dynamic cache
        {"attn_implementation": "sdpa", "generation": STATIC},
        {"attn_implementation": "eager", "compile": COMPILED},
    ],
)
def test_a_setting_that_meets_no_fault_is_left_alone(tiny, keywords) -> None:
    before = ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"]
    with applied_workarounds(tiny(**keywords)) as lines:
        assert lines == []
        assert not hasattr(BlockMask, "contiguous")
        assert ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"] is before


def test_continuous_batching_makes_its_masks_elsewhere(tiny) -> None:
    config = tiny(attn_implementation="flex_attention", compile=COMPILED)
    config.generation.continuous_batching = True
    with applied_workarounds(config) as lines:
        assert lines == []


@pytest.mark.parametrize("version", ["5.17.0", "5.18.0", "5.23.1", "5.24.0"])
@pytest.mark.parametrize("keywords", [{"generation": STATIC}, {"compile": COMPILED}])
def test_each_workaround_is_one_line_that_names_the_versions(tiny, monkeypatch, keywords, version) -> None:
    monkeypatch.setattr(workarounds.transformers, "__version__", version)
    with applied_workarounds(tiny(attn_implementation="flex_attention", **keywords)) as lines:
        *contiguous, mask = lines
    called = f"BlockMask.contiguous: transformers {version} calls it and torch {torch.__version__} has none"
    assert contiguous == ([called] if version in ("5.18.0", "5.23.1") else [])
    assert mask.startswith(f"flex_attention mask: transformers {version} ")


@pytest.mark.parametrize("error", [None, RuntimeError("the setting failed")])
def test_no_workaround_outlives_its_context(tiny, error) -> None:
    before = ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"]
    with (
        contextlib.suppress(RuntimeError),
        applied_workarounds(tiny(attn_implementation="flex_attention", generation=STATIC)),
    ):
        assert ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"] is not before
        if error is not None:
            raise error
    assert not hasattr(BlockMask, "contiguous")
    assert ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"] is before


def test_what_a_library_brings_itself_is_not_replaced(tiny, monkeypatch) -> None:
    theirs = lambda mask: mask  # noqa: E731 - a method as any other
    monkeypatch.setattr(BlockMask, "contiguous", theirs, raising=False)
    monkeypatch.setattr(workarounds.transformers, "__version__", "5.23.0")
    with applied_workarounds(tiny(attn_implementation="flex_attention", generation=STATIC)) as lines:
        assert BlockMask.contiguous is theirs
    assert not any(line.startswith("BlockMask.contiguous") for line in lines)


def test_a_version_that_does_not_call_contiguous_needs_no_workaround(tiny, monkeypatch) -> None:
    monkeypatch.setattr(workarounds.transformers, "__version__", "5.24.0")
    with applied_workarounds(tiny(attn_implementation="flex_attention", generation=STATIC)) as lines:
        assert not hasattr(BlockMask, "contiguous")
    assert [line.partition(":")[0] for line in lines] == ["flex_attention mask"]


def test_a_mask_in_row_order_is_its_own_contiguous_form() -> None:
    with only("contiguous"):
        mask = causal_mask()
        assert mask.contiguous() is mask


def test_a_scattered_mask_becomes_one_in_row_order_that_shows_the_same() -> None:
    scattered = causal_mask()
    indices = scattered.kv_indices
    scattered.kv_indices = indices.mT.contiguous().mT
    assert not scattered.kv_indices.is_contiguous()
    with only("contiguous"):
        tidy = scattered.contiguous()
    assert tidy.kv_indices.is_contiguous()
    assert torch.equal(tidy.kv_indices, indices)
    assert torch.equal(tidy.to_dense(), scattered.to_dense())
    assert tidy.mask_mod is scattered.mask_mod
    assert not scattered.kv_indices.is_contiguous()  # and the given one is as it was


def causal_mask() -> BlockMask:
    return create_block_mask(lambda b, h, q, kv: q >= kv, None, None, 384, 384, device="cpu")
