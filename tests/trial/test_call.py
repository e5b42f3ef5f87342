"""What stands between the two readings of the clock, and that with continuous batching it is the same."""

from __future__ import annotations

import pytest
import torch

from bench.trial import call as module
from bench.trial.batching import BatchingSession
from bench.trial.call import make_call
from bench.trial.model import load
from bench.trial.request import Request


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


def test_a_call_by_batching_is_that_of_generate(request_of, tiny) -> None:
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
