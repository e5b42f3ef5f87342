"""Check continuous batching on the real tiny model: tokens, times, work, and workers that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch

from bench.config.schema import AttentionConfig, BenchmarkConfig, GenerationConfig, ModelConfig
from bench.trial.measure import continuous_batching
from bench.trial.measure.continuous_batching import BatchingSession, step_times
from bench.trial.measure.request import guards, make_generation_config, make_inputs
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import LoadedModel, load
from bench.trial.unsupported import NotHonouredError, limit_reached


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [each.name for each in set(threading.enumerate()) - before if "tqdm" not in each.name]
    assert left == []


def prepare(config: BenchmarkConfig) -> tuple[LoadedModel, list[list[int]], BatchingSession]:
    """The model, the prompts and a session that has not started."""
    loaded = load(config)
    generation = make_generation_config(config, loaded, config.workload.num_tokens_to_generate)
    prompts = make_inputs(config, loaded)["input_ids"].tolist()
    return loaded, prompts, BatchingSession(loaded.model, config, generation)


def generated(config: BenchmarkConfig, loaded: LoadedModel, prompts: list[list[int]]) -> list[list[int]]:
    """What generate answers, row by row."""
    generation = make_generation_config(config, loaded, config.workload.num_tokens_to_generate)
    ids = torch.tensor(prompts, device=loaded.device)
    with torch.no_grad():
        output = loaded.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=generation)
    return output[:, config.workload.sequence_length :].tolist()


@pytest.mark.contract
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_each_row_gets_the_tokens_that_generate_gives_it(tiny: Callable, attention: str) -> None:
    config = tiny(attn_implementation=attention, continuous_batching=True, batch_size=3, num_tokens_to_generate=12)
    loaded, prompts, session = prepare(config)
    expected = generated(config, loaded, prompts)
    assert len({tuple(row) for row in expected}) == 3
    with session:
        assert session.call(prompts).token_ids == expected
        assert session.observe().attention_implementation in (attention, f"paged|{attention}")
    assert loaded.model.config._attn_implementation == attention
    assert generated(config, loaded, prompts) == expected  # and the model is as it was


@pytest.mark.contract
def test_an_end_token_is_never_chosen_as_in_generate(tiny: Callable) -> None:
    config = tiny(continuous_batching=True, batch_size=1, num_tokens_to_generate=8)
    loaded, prompts, _ = prepare(config)
    generation = make_generation_config(config, loaded, 8)
    # Declare the token that greedy decoding chooses first to be EOS: generate then takes the next best, all the way.
    generation.eos_token_id = generated(config, loaded, prompts)[0][0]
    ids = torch.tensor(prompts)
    with torch.no_grad():
        output = loaded.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=generation)
    with BatchingSession(loaded.model, config, generation) as session:
        tokens = session.call(prompts).token_ids
    assert tokens == output[:, 16:].tolist()
    assert generation.eos_token_id not in tokens[0]
    assert len(tokens[0]) == 8


@pytest.mark.contract
def test_times_increase_and_lie_within_the_call(tiny: Callable) -> None:
    config = tiny(continuous_batching=True, batch_size=2, num_tokens_to_generate=6)
    _, prompts, session = prepare(config)
    with session:
        for _ in range(2):
            start = time.perf_counter()
            result = session.call(prompts)
            end = time.perf_counter()
            assert [len(times) for times in result.request_times_s] == [6, 6]
            for times in result.request_times_s:
                assert all(earlier < later for earlier, later in pairwise([start, *times, end]))


@pytest.mark.contract
def test_a_step_ends_with_the_last_of_its_requests() -> None:
    assert step_times([[1.0, 2.5, 3.0], [1.5, 2.0, 4.0]]) == [1.5, 2.5, 4.0]
    with pytest.raises(ValueError, match="shorter"):
        step_times([[1.0, 2.0], [1.0]])


@pytest.mark.contract
def test_every_call_prefills_every_row_in_full(tiny: Callable) -> None:
    # Two pages of 256 tokens a row, the same in each row: what prefix caching would share.
    config = tiny(continuous_batching=True, batch_size=3, sequence_length=512, num_tokens_to_generate=3)
    loaded, prompts, session = prepare(config)
    prompts = [prompts[0]] * 3
    tokens_in: list[int] = []
    original = loaded.model.forward

    def counting(**keywords: object) -> object:
        tokens_in.append(keywords["input_ids"].shape[-1])
        return original(**keywords)

    loaded.model.forward = counting
    with session:
        works = []
        for _ in range(3):
            session.call(prompts)
            works.append(sum(tokens_in))
            tokens_in.clear()
    assert works == [3 * (512 + 2)] * 3  # the prompt, and each new token but the last


@pytest.mark.contract
def test_a_call_can_be_shorter_than_the_workload(tiny: Callable) -> None:
    _, prompts, session = prepare(tiny(continuous_batching=True, batch_size=2, num_tokens_to_generate=6))
    with session:
        whole = session.call(prompts)
        part = session.call(prompts, new_tokens=2)
    assert part.token_ids == [row[:2] for row in whole.token_ids]
    assert [len(times) for times in part.request_times_s] == [2, 2]


@pytest.mark.contract
def test_the_cache_holds_the_workload_and_no_more_than_a_few_pages(tiny: Callable) -> None:
    config = tiny(continuous_batching=True, batch_size=4, sequence_length=300, num_tokens_to_generate=4)
    loaded, _, session = prepare(config)
    with session:
        observed = session.observe()
    architecture = loaded.model.config
    head = architecture.hidden_size // architecture.num_attention_heads
    token_bytes = 2 * architecture.num_hidden_layers * architecture.num_key_value_heads * head * 4
    # Per row two pages for 304 tokens and a spare one; two pages take what is padding.
    assert 4 * 304 * token_bytes <= observed.cache_bytes <= (4 * 3 + 2) * 256 * token_bytes
    assert observed.kv_cache == "PagedAttentionCache"
    assert observed.max_batch_tokens == 1200
    assert not observed.cuda_graphs
    assert not observed.async_batching


@pytest.mark.contract
def test_long_prompts_prefill_in_steps_of_bounded_size(tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous_batching, "MAX_BATCH_TOKENS", 64)
    config = tiny(continuous_batching=True, batch_size=2, sequence_length=100, num_tokens_to_generate=4)
    loaded, prompts, session = prepare(config)
    with session:
        result = session.call(prompts)
    assert result.token_ids == generated(config, loaded, prompts)


@pytest.mark.contract
def test_a_model_of_mixed_layers_fits_at_once(tiny: Callable) -> None:
    # Three sliding layers for each full one: pages of several kinds, which older versions count differently.
    sizes = {
        "model_type": "gemma3_text", "vocab_size": 258, "hidden_size": 32, "intermediate_size": 64, "head_dim": 16,
        "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 64,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "initializer_range": 0.2,
    }  # fmt: skip
    model = ModelConfig(id="mixed", weights="random", architecture=sizes)
    config = BenchmarkConfig(
        model=model, continuous_batching=True, batch_size=4, sequence_length=300, num_tokens_to_generate=4
    )
    loaded, prompts, session = prepare(config)
    with session:
        result = session.call(prompts)
    assert result.token_ids == generated(config, loaded, prompts)


@pytest.mark.contract
def test_a_worker_that_fails_without_raising_is_an_error_with_its_cause(tiny: Callable) -> None:
    loaded, prompts, session = prepare(tiny(continuous_batching=True))

    def fail(**_: object) -> None:
        raise ArithmeticError("planted")

    with session:
        session.call(prompts)
        loaded.model.forward = fail
        with pytest.raises(
            RuntimeError, match=r"worker of continuous batching failed: ArithmeticError: planted"
        ) as told:
            session.call(prompts)
        assert isinstance(told.value.__cause__, ArithmeticError)
        with pytest.raises(RuntimeError, match=r"worker of continuous batching failed"):
            session.call(prompts)  # it drops requests in silence now


@pytest.mark.contract
def test_an_sdpa_backend_that_cannot_run_is_a_limit_seen_through_the_worker(tiny: Callable) -> None:
    attention = AttentionConfig(implementation="sdpa", sdpa_backend="efficient_attention")
    config = tiny(device="cpu", continuous_batching=True, attention=attention)  # a GPU can run it
    _, prompts, session = prepare(config)
    with session, guards(config), pytest.raises(RuntimeError) as caught:
        session.call(prompts)
    assert limit_reached(caught.value, config).startswith(
        "attention.sdpa_backend=efficient_attention cannot run here: "
    )


@pytest.mark.contract
def test_flex_attention_is_a_limit_with_a_remedy(tiny: Callable) -> None:
    config = tiny(continuous_batching=True, attn_implementation="flex_attention")
    loaded, _, session = prepare(config)
    with pytest.raises(ValueError, match="not supported") as caught:
        session.start()
    reason = limit_reached(caught.value, config)
    assert reason.startswith("attention.implementation=flex_attention cannot run here: ")
    assert reason.endswith("use attention=sdpa")
    assert loaded.model.config._attn_implementation == "flex_attention"


@pytest.mark.contract
def test_layers_that_continuous_batching_does_not_know_are_a_limit(tiny: Callable) -> None:
    config = tiny(continuous_batching=True)
    loaded, _, session = prepare(config)
    loaded.model.config.layer_types = ["linear_attention"] * loaded.model.config.num_hidden_layers
    with pytest.raises(ValueError, match="linear_attention") as caught:
        session.start()
    reason = limit_reached(caught.value, config)
    assert reason.startswith("generation.continuous_batching=true cannot run here: ")


@pytest.mark.contract
def test_another_implementation_than_requested_is_not_honoured_and_undone(tiny: Callable) -> None:
    loaded, _, session = prepare(tiny(continuous_batching=True, attn_implementation="sdpa"))
    original = loaded.model.init_continuous_batching

    def switching(**keywords: object) -> object:
        manager = original(**keywords)
        loaded.model.set_attn_implementation("eager")
        return manager

    loaded.model.init_continuous_batching = switching
    with pytest.raises(NotHonouredError, match=r"attention\.implementation=sdpa: continuous batching set eager"):
        session.start()
    assert loaded.model.config._attn_implementation == "sdpa"


@pytest.mark.contract
def test_requests_that_lost_tokens_or_times_are_an_error() -> None:
    times = [[0.1, 0.2], [0.1]]
    whole = [[1, 2], [1, 2]]
    with pytest.raises(RuntimeError, match="request 1 came back with 1 times for 2 tokens"):
        continuous_batching._check_counts(continuous_batching.BatchResult(token_ids=whole, request_times_s=times), 2)
    with pytest.raises(RuntimeError, match="request 0 came back with 2 tokens, not 3"):
        continuous_batching._check_counts(continuous_batching.BatchResult(token_ids=whole, request_times_s=times), 3)


@pytest.mark.contract
def test_a_session_works_whatever_the_callers_grad_mode(tiny: Callable) -> None:
    # Tensors made in inference mode could not be written to by the worker; the session makes none.
    _, prompts, session = prepare(tiny(continuous_batching=True))
    with torch.inference_mode(), session:
        assert len(session.call(prompts).token_ids[0]) == 4


@pytest.mark.parametrize("asked", ["auto", "no_grad", "inference_mode"])
def test_the_worker_runs_under_the_guard_that_was_asked_for(tiny: Callable, asked: str) -> None:
    """From transformers 5.24 on it follows the one who starts it; before, inference mode is a limit."""
    config = tiny(generation=GenerationConfig(continuous_batching=True, grad_mode=asked), num_tokens_to_generate=4)
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        runner.run_benchmark(config)
        record = runner.record
    if asked == "inference_mode" and not continuous_batching.worker_follows_caller():
        assert record.status == "skipped"
        assert record.error.message.startswith("generation.grad_mode=inference_mode cannot run here: the worker of")
    else:
        guard = "inference_mode" if asked == "inference_mode" else "no_grad"
        assert (record.status, record.observed.grad_mode, record.unverified) == ("ok", guard, [])


def test_a_worker_under_another_guard_fails_the_job(tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(continuous_batching=True, num_tokens_to_generate=4)
    monkeypatch.setattr("bench.trial.evidence.observed.grad_mode", lambda config: "inference_mode")
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        with pytest.raises(NotHonouredError, match="the model ran under no_grad, not inference_mode"):
            runner.run_benchmark(config)


@pytest.mark.contract
def test_a_session_that_is_closed_takes_no_calls_and_closes_again(tiny: Callable) -> None:
    _, prompts, session = prepare(tiny(continuous_batching=True))
    with session:
        pass
    session.close()
    with pytest.raises(RuntimeError, match="call start first"):
        session.call(prompts)
