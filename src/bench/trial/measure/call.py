"""Make and time one generate call: the same in every phase but for the hardware monitor.

Only the call is between the two readings of the clock: inputs are ready before, and decoding, counting and garbage
collection come after.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable

import torch

from bench.results.record import MonitorSample
from bench.trial.evidence import compilation
from bench.trial.hardware import memory
from bench.trial.hardware.monitor import HardwareMonitor
from bench.trial.measure.continuous_batching import BatchingSession, BatchResult, step_times
from bench.trial.measure.request import Request, guards
from bench.trial.measure.streamer import TokenClock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """The times and the output of one call. Times count from its start unless said otherwise."""

    start_s: float  # reading of the clock
    e2e_s: float
    token_times_s: list[float]  # one a step
    request_times_s: list[list[float]] | None  # with continuous batching, of each request
    shape: list[int]  # of generate's result
    token_ids: list[list[int]]  # the new tokens of each row
    text: str  # the first row's, decoded
    graphs: int | None  # None: torch does not count them
    compile_s: float | None
    samples: list[MonitorSample] | None  # None without a monitor to ask
    steps_late: int  # forward passes that had begun when a token of an earlier one was handed out; 0: none was seen


def make_call(
    request: Request,
    clock: Callable[[], float],
    *,
    session: BatchingSession | None = None,
    monitor: HardwareMonitor | None = None,
    steps: Callable[[], int] | None = None,
) -> Call:
    """Make a call and time it; with a session, by continuous batching.

    Args:
        request: what to call.
        clock: seconds, monotonic.
        session: of continuous batching.
        monitor: the hardware's, for a measured call.
        steps: returns how many forward passes have begun, if it is counted (see `TokenClock`).

    Raises:
        RuntimeError: it generated another number of tokens than requested.
        Exception: whatever generate raises.
    """
    device = request.loaded.device
    prompts = request.prompts if session is not None else []
    streamer = TokenClock(clock, steps)
    before = compilation.read_counters()
    samples: list[MonitorSample] | None = None
    batch: BatchResult | None = None
    request.announce()
    gc.disable()
    if monitor is not None:
        monitor.begin()
    start = clock()  # for the monitor, should anything fail before the call's own start
    try:
        with guards(request.config):
            memory.synchronize(device)
            start = clock()
            if session is None:
                output = request.generate(streamer=streamer)
            else:
                batch = session.call(prompts)
            memory.synchronize(device)
            end = clock()
    finally:
        if monitor is not None:
            samples = monitor.end(start)
        gc.enable()
    graphs, compile_s = compilation.growth(before, compilation.read_counters())
    if batch is None:
        times, by_request = streamer.times, None
    else:
        output, times = request.with_prompts(batch.token_ids), step_times(batch.request_times_s)
        by_request = [[each - start for each in row] for row in batch.request_times_s]
    _check_tokens(request, output, times)
    new_tokens = output[:, request.config.workload.sequence_length :]
    call = Call(
        start_s=start,
        e2e_s=end - start,
        token_times_s=[each - start for each in times],
        request_times_s=by_request,
        shape=list(output.shape),
        token_ids=new_tokens.tolist(),
        text=request.loaded.tokenizer.decode(new_tokens[0], skip_special_tokens=True),
        graphs=graphs,
        compile_s=compile_s,
        samples=samples,
        steps_late=streamer.steps_late,
    )
    del output, new_tokens
    gc.collect()
    return call


def _check_tokens(request: Request, output: torch.Tensor, times: list[float]) -> None:
    workload = request.config.workload
    expected = (workload.batch_size, workload.sequence_length + workload.num_tokens_to_generate)
    if tuple(output.shape) != expected:
        raise RuntimeError(f"generate returned tokens of shape {tuple(output.shape)}, not {expected}")
    if len(times) != workload.num_tokens_to_generate:
        steps, wanted = len(times), workload.num_tokens_to_generate
        raise RuntimeError(f"generate handed out {steps} steps to the streamer, not {wanted}")
