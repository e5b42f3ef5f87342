"""Gather evidence, fidelity and profile after the measured calls, so that no figure is affected.

Each function makes calls of its own, which are not recorded as iterations. What cannot be found out becomes a reason in
the record and never an error, because the measurement is valid without it. Artifacts that the user asked for are the
exception.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bench.analysis.trials.roofline import roofline
from bench.config.schema import BenchmarkConfig
from bench.results.record import AttentionObserved, CompileEvent, Fidelity, Output, Record, Roofline
from bench.trial.evidence import attention, compilation, fidelity, observed, profiling
from bench.trial.hardware import memory
from bench.trial.hardware.peak_rates import device_rates
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.recorder import RunRecorder
from bench.trial.measure.request import Request, guards
from bench.trial.model.loading import LoadedModel
from bench.trial.unsupported import one_line

# The costs stay those of the whole model.
SPLIT = "a model split over {} ranks moves bytes between them too: the rates of one device are no bound to compare with"


def check_attention(
    config: BenchmarkConfig, run: RunRecorder, request: Request, session: BatchingSession | None
) -> None:
    """Profile a short call: record the attention that ran, and check that the call equals the validation call.

    Raises:
        NotHonouredError: what ran is not what the config asked for, or not what ran in the validation call.
    """
    before, model = run.observed, request.loaded.model
    compiled = before.compile.events if before.compile is not None else []
    layers = before.shape.layers if before.shape is not None else None
    watch, compile_watch = observed.CallWatch(), compilation.CompileWatch()
    with compile_watch.watching(model), watch.watching(model, batched=session is not None):
        seen = _observe_attention(request, session, before.attention, compiled, layers)
    run.observe(attention=seen)
    run.mark_unverified(observed.check_attention(config, seen, request.loaded.device, layers))
    if watch.grad_mode is not None:
        observed.check_guard(config, watch)
    observed.check_same_arguments(config, run.compile_arguments, compile_watch.arguments)
    if watch.steps and seen.error is None and before.kv_cache is not None:
        observed.check_same_cache(config, before.kv_cache, watch.cache)


def _observe_attention(
    request: Request,
    session: BatchingSession | None,
    before: AttentionObserved,
    compiled: Sequence[CompileEvent],
    layers: int | None,
) -> AttentionObserved:
    """Profile one short call and add the attention that it shows to what is known before it."""
    on_gpu = request.loaded.device.type == "cuda"
    is_plain = request.config.compile.mode is None and session is None
    wanted = attention.NEW_TOKENS if is_plain else attention.COMPILED_NEW_TOKENS
    new_tokens = min(wanted, request.config.workload.num_tokens_to_generate)
    with _without_collections():
        try:
            events = profiling.profile_call(request, new_tokens, session).events()
        except Exception as error:  # noqa: BLE001 - no profiler in this build, no permission for it, no memory
            return attention.without_evidence(before, f"the profiler cannot run: {one_line(error)}")
        prefill, decode = attention.read(events or [], compiled, on_gpu=on_gpu, layers=layers)
    return attention.with_evidence(before, prefill, decode, on_gpu=on_gpu)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage: a profile has tens of thousands of objects, and a quarter of its time went to that."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def write_reference(request: Request, path: Path) -> Output:
    """Run the reference's call, write its tokens and logits into `path`, and return its output."""
    workload, loaded = request.config.workload, request.loaded
    tokens = fidelity.write_reference(
        path,
        functools.partial(_new_tokens, request),
        rows=workload.batch_size,
        steps=workload.num_tokens_to_generate,
        vocabulary=loaded.model.config.get_text_config().vocab_size,
    )
    return Output(
        shape=[len(tokens), workload.sequence_length + tokens.shape[1]],
        token_ids=tokens.tolist(),
        text=loaded.tokenizer.decode(tokens[0], skip_special_tokens=True),
        same_in_all_calls=True,
    )


def compare_with(reference: Path, request: Request, record: Record) -> Fidelity:
    """Compare what the setting generated, and its logits over the reference's tokens, with the reference."""
    assert record.output is not None
    assert record.observed is not None
    takes_processors = not request.config.generation.continuous_batching
    try:
        return fidelity.compare(
            fidelity.read_reference(reference),
            record.output.token_ids,
            functools.partial(_new_tokens, request) if takes_processors else None,
            record.observed.dtype,
        )
    except Exception as error:  # noqa: BLE001 - out of memory among them
        return Fidelity(reference="eager", reason=f"the comparison failed: {one_line(error)}")


def _new_tokens(request: Request, processors: list[fidelity.LogitTap], steps: int | None) -> torch.Tensor:
    prompt_tokens = request.config.workload.sequence_length
    length = None if steps is None else prompt_tokens + steps
    request.announce(shows_logits=True, forced=processors[0].forced, length=length)
    until = {} if length is None else {"stopping_criteria": [profiling.StopAfter(length)]}
    with guards(request.config):
        output = request.generate(logits_processor=processors, **until)
        memory.synchronize(request.loaded.device)
    return output[:, prompt_tokens:]


def rate(record: Record, loaded: LoadedModel) -> Roofline:
    """Return MBU and MFU of the measured calls; the first job on a machine that asks measures the device's rates."""
    if record.observed is not None and record.observed.tp_size is not None:
        return dataclasses.replace(roofline(record, None), reason=SPLIT.format(record.observed.tp_size))
    if record.observed is None or record.observed.shape is None:
        return roofline(record, None)  # without the model's sizes the rates would serve nothing
    try:
        found = roofline(record, device_rates(loaded.device, loaded.model.dtype))
        if found.rejected:  # faster than the rates allow: they were measured on a busy machine
            found = roofline(record, device_rates(loaded.device, loaded.model.dtype, anew=True))
    except Exception as error:  # noqa: BLE001 - the GPU's memory may be full
        costs = roofline(record, None)
        return dataclasses.replace(costs, reason=f"the device's rates could not be measured: {one_line(error)}")
    return found


def write_artifacts(request: Request, session: BatchingSession | None, new_tokens: int, folder: Path) -> None:
    """Write what the config asks for: the profile of a call's first `new_tokens`, and a snapshot of the memory."""
    if new_tokens:
        profiling.profile_call(request, new_tokens, session)  # the first one settles the profiler
        profiler = profiling.profile_call(request, new_tokens, session)
        profiling.write_artifacts(profiler, folder, on_gpu=request.loaded.device.type == "cuda")
    if request.config.profile.memory_snapshot:
        _write_memory_snapshot(request, session, folder)


def _write_memory_snapshot(request: Request, session: BatchingSession | None, folder: Path) -> None:
    """Write the allocator's history over one whole call, made as the measured ones were."""
    request.announce()
    with profiling.memory_history(request.loaded.device, folder), guards(request.config):
        if session is None:
            request.generate()
        else:
            session.call(request.prompts)
        memory.synchronize(request.loaded.device)
