"""Check that only the call is between the two readings of the clock, also with continuous batching."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.config.rules import kv_cache_kind
from bench.trial.evidence import compilation
from bench.trial.measure import call as module
from bench.trial.measure.call import make_call
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.request import Request
from bench.trial.model.loading import load

pytestmark = pytest.mark.contract


@pytest.fixture
def request_of():
    """Make a setting ready."""
    return lambda config: Request.prepare(config, load(config))


def test_with_batching_the_prompts_are_ready_before_the_clock_starts(request_of, tiny, monkeypatch) -> None:
    """Taking them from the tensor waits for a GPU: no part of the call."""
    ready = request_of(tiny(continuous_batching=True, batch_size=2))
    events = []
    of_the_class = Request.prompts.fget

    def prompts(self):
        events.append("prompts")
        return of_the_class(self)

    class Session:
        def call(self, prompts):
            events.append("call")
            times = [[float(step) for step in range(4)]] * 2
            return module.BatchResult(token_ids=[[1, 2, 3, 4]] * 2, request_times_s=times)

    def clock():
        events.append("clock")
        return 0.0

    monkeypatch.setattr(Request, "prompts", property(prompts))
    make_call(ready, clock, session=Session())
    assert events == ["prompts", "clock", "clock", "call", "clock"]


def test_a_call_by_continuous_batching_gives_what_generate_gives(request_of, tiny) -> None:
    import time

    alone = make_call(request_of(tiny(batch_size=2)), time.perf_counter)
    config = tiny(batch_size=2, continuous_batching=True)
    ready = request_of(config)
    with BatchingSession(ready.loaded.model, config, ready.generation) as session:
        together = make_call(ready, time.perf_counter, session=session)
    assert (together.token_ids, together.shape) == (alone.token_ids, alone.shape)
    assert alone.request_times_s is None
    for times in together.request_times_s:
        assert 0 < times[0] < times[-1] < together.e2e_s
    assert together.token_times_s == [max(step) for step in zip(*together.request_times_s, strict=True)]


def test_garbage_is_collected_again_after_a_call_that_fails(request_of, tiny, monkeypatch) -> None:
    import gc

    ready = request_of(tiny())

    def fail(self, **_):
        assert not gc.isenabled()
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Request, "generate", fail)
    with pytest.raises(torch.OutOfMemoryError):
        make_call(ready, lambda: 0.0)
    assert gc.isenabled()


def test_the_tokens_of_a_call_are_the_new_ones_of_each_row(request_of, tiny) -> None:
    ready = request_of(tiny(batch_size=2))
    call = make_call(ready, lambda: 0.0)
    with torch.inference_mode():
        whole = ready.generate().tolist()
    prompt = ready.config.workload.sequence_length
    assert [row[:prompt] for row in whole] == ready.prompts
    assert call.token_ids == [row[prompt:] for row in whole]
    assert call.text == ready.loaded.tokenizer.decode(call.token_ids[0], skip_special_tokens=True)


def test_what_was_compiled_before_a_call_is_none_of_its_own(request_of, tiny, monkeypatch) -> None:
    before = dataclasses.replace(compilation.read_counters(), graphs=5, compile_s=40.0)
    readings = iter([before, dataclasses.replace(before, graphs=7, compile_s=41.5)])
    monkeypatch.setattr(compilation, "read_counters", lambda: next(readings))
    call = make_call(request_of(tiny()), lambda: 0.0)
    assert (call.graphs, call.compile_s) == (2, 1.5)


@pytest.mark.parametrize("steps", [3, 5])
def test_a_generate_that_hands_out_another_number_of_steps_is_an_error(request_of, tiny, monkeypatch, steps) -> None:
    """Then the times of its tokens are not known, though there are as many as asked for."""
    ready = request_of(tiny())
    original = Request.generate

    def generate(self, *, streamer):
        output = original(self)
        for _ in range(1 + steps):  # the prompt comes first
            streamer.put(None)
        return output

    monkeypatch.setattr(Request, "generate", generate)
    with pytest.raises(RuntimeError, match=f"handed out {steps} steps to the streamer, not 4"):
        make_call(ready, lambda: 0.0)


@pytest.mark.parametrize(
    ("requested", "compiled", "kind"),
    [("auto", True, "static"), ("auto", False, "dynamic"), ("static", False, "static"), ("dynamic", True, "dynamic")],
)
def test_an_automatic_kv_cache_is_static_only_when_compiled(requested: str, compiled: bool, kind: str) -> None:
    assert kv_cache_kind(requested, compiled=compiled) == kind
