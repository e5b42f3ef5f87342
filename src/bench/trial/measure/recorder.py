"""Write what a run shows into its record: stages, calls, memory, compilations and evidence."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers

from bench.config.schema import BenchmarkConfig
from bench.results.record import Energy, Iteration, MonitorSample, Observed, Output, Record, Unverified
from bench.trial.evidence import compilation
from bench.trial.evidence.compile_events import CompileEventLog
from bench.trial.evidence.observed import CallWatch, check, check_cache, check_guard
from bench.trial.hardware import memory
from bench.trial.hardware.monitor import HardwareMonitor
from bench.trial.measure.call import Call
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.request import Request
from bench.trial.model.sizes import kv_cache_bytes
from bench.trial.parallel.group import RankCommand, RankGroup
from bench.trial.parallel.tensor_parallel import kv_share

NO_MONITOR = "monitor.enabled=false: nothing read the counter"
# Their progress is that of their calls.
COUNTED_STAGES = ("warmup", "measurement")

# E2E in seconds, the time of each step, shape and text (or a reason), the monitor's samples: see `time_generate`.
Timed = tuple[float, list[float], str, list[MonitorSample] | None]


class RunRecorder:
    """Fills the record of one run.

    Args:
        record: the record to fill.
        start_s: reading of the runner's clock; the start times of calls count from it.
        enter: called with the name of each stage as it begins.
        group: the ranks of a tensor-parallel job, which are told of each stage too; None: one process.
    """

    def __init__(
        self, record: Record, *, start_s: float, enter: Callable[[str], None], group: RankGroup | None
    ) -> None:
        self.record = record
        self.compile_log = CompileEventLog()
        self._counters: compilation.Counters | None = None  # before the validation call
        self.compile_arguments: dict[str, Any] = {}  # of torch.compile, as seen in the validation call
        self.steps: Callable[[], int] | None = None  # counts forward passes during the validation call
        self._watch = CallWatch()  # of the validation call
        self._start_s = start_s
        self._enter = enter
        self._group = group
        self._tokens_late = False  # whether generate hands tokens out only after the next step has begun

    @property
    def observed(self) -> Observed:
        """Return what was observed so far; there is something once the model is loaded."""
        assert self.record.observed is not None
        return self.record.observed

    def observe(self, **fields: Any) -> None:
        """Set fields of `observed`."""
        self.record.observed = dataclasses.replace(self.observed, **fields)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name the stage in the record, and add the time until the context ends to `phases_s`."""
        record = self.record
        if name != record.stage and name not in COUNTED_STAGES:
            self._enter(name)
        if name not in ("load", record.stage) and self._group is not None:  # the others listen once they have loaded
            self._group.announce(RankCommand(kind="stage", stage=name))
        record.stage = name
        start = time.perf_counter()
        try:
            yield
        finally:
            record.phases_s[name] = record.phases_s.get(name, 0.0) + time.perf_counter() - start

    # ---- calls -------------------------------------------------------------------------------------------------

    def keep_call(self, phase: str, timed: Timed, call: Call, device: torch.device) -> None:
        """Append a call with its times, memory and output."""
        record = self.record
        record.iterations.append(
            Iteration(
                index=len(record.iterations),
                phase=phase,
                start_s=call.start_s - self._start_s,
                e2e_s=timed[0],
                token_times_s=[] if self._tokens_late else list(timed[1]),
                graphs=call.graphs,
                compile_s=call.compile_s,
                device_reserved_bytes=memory.reserved(device),
                request_times_s=call.request_times_s,
            )
        )
        self.keep_peak(phase, device)
        same = record.output is None or (record.output.same_in_all_calls and record.output.token_ids == call.token_ids)
        record.output = Output(shape=call.shape, token_ids=call.token_ids, text=call.text, same_in_all_calls=same)

    def keep_peak(self, phase: str, device: torch.device, *, of_process: bool = False) -> None:
        """Set the phase's peak of memory; with `of_process` also what NVML counts for the process, which is slower."""
        name = "measurement_peak" if phase == "measurement" else "warmup_peak"
        peak: dict[str, Any] = {name: memory.peak(device, of_process=of_process)}
        self.record.memory = dataclasses.replace(self.record.memory, **peak)

    def keep_monitor(self, monitor: HardwareMonitor | None, samples: list[list[MonitorSample]]) -> None:
        """Record the samples of each measured call, and its energy."""
        self.record.monitor = monitor.summary(samples) if monitor is not None else None
        self.record.energy = monitor.energy() if monitor is not None else Energy(source=None, reason=NO_MONITOR)

    # ---- evidence ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching_first_call(self, request: Request, session: BatchingSession | None) -> Iterator[None]:
        """Watch what generate does with the model in the validation call, and how it compiles it.

        Garbage is collected before, and the device's allocator is emptied. Not again between calls: its growth would
        be in every measured call.
        """
        gc.collect()
        memory.flush(request.loaded.device)
        self._counters = compilation.read_counters()
        self._watch = watch = CallWatch()
        compile_watch, model = compilation.CompileWatch(), request.loaded.model
        self.steps = None if session is not None else lambda: watch.steps
        try:
            with compile_watch.watching(model), watch.watching(model, batched=session is not None):
                yield
        finally:
            self.steps = None
        self.compile_arguments = compile_watch.arguments

    def check_first_call(self, config: BenchmarkConfig, request: Request, session: BatchingSession | None) -> None:
        """Record what the first call showed, and check it against the config.

        Raises:
            NotHonouredError: what ran is not what the config asked for.
        """
        watch = self._watch
        self.observe(new_tokens=config.workload.num_tokens_to_generate, grad_mode=watch.grad_mode)
        self.keep_compilations()
        self._keep_kv_cache(request, session, watch)
        self.mark_unverified(check_guard(config, watch))
        if session is None:
            self.mark_unverified(check_cache(config, self.observed, watch))
        self.mark_unverified(check(config, self.observed))

    def mark_unverified(self, unverified: Sequence[Unverified]) -> None:
        """Add keys that no evidence could confirm, each once."""
        self.observe(unverified=list(dict.fromkeys([*self.observed.unverified, *unverified])))

    def drop_late_token_times(self, steps_late: int, device: torch.device) -> None:
        """Record no token times from now on if generate hands tokens out after later steps have begun."""
        if not steps_late:
            return
        self._tokens_late = True
        reason = (
            f"transformers {transformers.__version__} hands tokens out {steps_late} step(s) late on "
            f"{device.type}: TTFT and the times of tokens are not known"
        )
        self.mark_unverified([Unverified(key="token times", reason=reason)])

    def _keep_kv_cache(self, request: Request, session: BatchingSession | None, watch: CallWatch) -> None:
        """Record the class of the KV cache, the bytes that it has and the bytes that the workload needs."""
        name, held = watch.cache, watch.cache_bytes
        if session is not None:
            batching = session.observe()
            name, held = batching.kv_cache, batching.cache_bytes
            self.mark_unverified(
                [Unverified(key="generation.continuous_batching", reason=each) for each in batching.unseen]
            )
            implementation = batching.attention_implementation
            self.observe(attention=dataclasses.replace(self.observed.attention, implementation=implementation))
        self.observe(kv_cache=name)
        workload, shape, needed = request.config.workload, self.observed.shape, None
        if shape is not None:
            needed = kv_cache_bytes(
                shape,
                batch_size=workload.batch_size,
                positions=workload.sequence_length + workload.num_tokens_to_generate - 1,
                element_bytes=request.loaded.model.dtype.itemsize,
            )
            needed = round(needed * kv_share(request.loaded.model))
        self.record.memory = dataclasses.replace(
            self.record.memory, kv_cache_bytes=held, kv_cache_computed_bytes=needed
        )

    def keep_compilations(self) -> None:
        """Record what torch.compile has done since the validation call began."""
        if self.record.observed is not None and self._counters is not None:
            self.observe(compile=compilation.observe(self.compile_arguments, self._counters, self.compile_log))
