"""Warm up, then measure: one setting, one model, one process.

Read `run_benchmark` first: it is the whole measurement. One call is made in `bench.trial.measure.call`, the same in
every phase but for the hardware monitor, which only measured calls have. What comes after the last measured call
(`bench.trial.evidence.after_measurement`) touches no figure.

With tensor parallelism this is rank 0, which leads the others (`bench.trial.parallel.group`); all times are its own.

What is not covered: sampling and beam search (decoding is greedy), and encoder-decoder models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
import tqdm
import transformers

from bench.analysis.calls.steadiness import judge
from bench.config.rules import ConfigError, unusable_cache
from bench.config.schema import BenchmarkConfig
from bench.host import cache_folder
from bench.results.record import Energy, Iteration, Memory, MonitorSample, Observed, Output, Record, Unverified
from bench.trial.compat.workarounds import mended
from bench.trial.evidence import after_measurement, compilation
from bench.trial.evidence.compile_events import Journal
from bench.trial.evidence.observed import (
    CallWatch,
    check,
    check_attention,
    check_cache,
    check_guard,
    check_same_arguments,
    check_same_cache,
    observe_model,
)
from bench.trial.hardware import memory
from bench.trial.hardware.monitor import HardwareMonitor, gpu_uuid_of
from bench.trial.measure import stage_log
from bench.trial.measure.call import Call, make_call
from bench.trial.measure.call_count import fixed_stop, measurement_stop, planned_calls, warmup_stop
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.request import Request
from bench.trial.measure.result import Result, title
from bench.trial.model.hub_kernels import kernelize, kernelized
from bench.trial.model.loading import LoadedModel, load, resolve_device
from bench.trial.model.sizes import kv_cache_bytes
from bench.trial.parallel.group import Order, Team, check_team, gather_ranks
from bench.trial.parallel.tensor_parallel import kv_share
from bench.trial.unsupported import NotHonouredError, limit_reached

NO_MONITOR = "monitor.enabled=false: nothing read the counter"
# Their progress is that of their calls.
COUNTED_STAGES = ("warmup", "measurement")

# A progress bar: (name, number of iterations) → the indices to iterate over; without end where the number is None.
Progress = Callable[[str, int | None], Iterable[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SetUp:
    """What `setup_benchmark` leaves for each run on it."""

    observed: Observed | None  # of the loaded model; None where it could not be loaded
    memory: Memory
    skipped: str | None
    compile_cache: str | None  # folder


class BenchmarkRunner:
    """Measures settings, one after the other, in this process.

    Args:
        logger: takes a line (INFO) at the end of each stage, and warnings about skipped settings; None: the module's
            own.
        progress: progress bars; None: tqdm, named "Warmup" and "Benchmarking".
        enter: told the name of each stage as it begins.
        clock: seconds, monotonic, float64.
        folder: where a profile is written; None: the current folder.
        record: the record to fill in the first run; None: a new one for each run. It is filled as the work goes on,
            so that whatever ends the work leaves what was measured before.
        compile_cache: the folder for `compile.cache=fresh`; None: a temporary one, removed by `close`.
        reference: what `write_reference` wrote, to compare the output with; None: no comparison.

    Its `team` is set by a tensor-parallel job: this process among its ranks.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        progress: Progress | None = None,
        enter: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        folder: Path | None = None,
        record: Record | None = None,
        compile_cache: Path | None = None,
        reference: Path | None = None,
    ) -> None:
        self.logger = logger or logging.getLogger(__name__)
        self.record = record
        self.team: Team | None = None
        self._given_record = record
        self._progress = progress or _tqdm_progress
        self._enter = enter or (lambda _: None)
        self._clock = clock
        self._folder = folder or Path.cwd()
        self._compile_cache = compile_cache
        self._reference = reference
        self._monitor: HardwareMonitor | None = None  # while its calls may be measured
        self._launched: HardwareMonitor | None = None  # before
        self._journal = Journal()
        self._open = contextlib.ExitStack()  # what lasts as long as the model
        self._froze = False
        self._session: BatchingSession | None = None
        self._counters: compilation.Counters | None = None  # before the validation call
        self._request: Request | None = None
        self._skipped: str | None = None
        self._last_call: Call | None = None
        self._watch: CallWatch | None = None  # while a call is watched
        self._compiled_with: dict[str, Any] = {}  # arguments of torch.compile
        self._late_tokens = False  # whether generate hands tokens out only after the next step has begun
        self._set_up: _SetUp | None = None
        self._has_run = self._has_called = False  # on this set-up

    # ---- the journey -------------------------------------------------------------------------------------------

    def setup_benchmark(self, model_id: str | None, config: BenchmarkConfig) -> None:
        """Load the model and make its inputs, its generation config and its compile cache ready.

        Args:
            model_id: hub id, checkpoint folder, or the label of a model with random weights.
            config: the setting; its own `model.id` gives way to `model_id`.

        Raises:
            ConfigError: this machine or this model cannot meet the request.
            OSError, ValueError: the model cannot be loaded.
        """
        self.close()
        config.model.id = None if model_id is None else str(model_id)
        config.check()
        check_team(config, self.team)
        self._origin = self._clock()
        self.record = self._given_record or Result(
            trial_id=config.trial_id(), started_at_s=time.time(), requested=config.to_dict()
        )
        self._set_up = None
        self._has_run = self._has_called = False
        if config.fidelity.reference == "eager" and self._reference is None and self.record.fidelity is None:
            remedy = "give the runner a reference (see write_reference), or run it as a job; or set it to none"
            raise ConfigError("fidelity.reference", "eager", remedy)
        self._skipped = self._counters = None
        self._compiled_with, self._late_tokens = {}, False
        with self._stage("load"):
            compilation.reset()
            self._journal = Journal()
            mends = self._open.enter_context(mended(config))
            loaded: LoadedModel | None = None
            monitor: HardwareMonitor | None = None
            with self._limits(config):
                monitor = self._launch_monitor(config)
                loaded = load_ready(config, self.team)
            if loaded is None:
                self._remember_set_up()
                return
            self._use_compile_cache(config, loaded)
            self._request = request = Request.prepare(config, loaded, self.team)
            self.record.memory = Memory(after_load=memory.use(loaded.device))
            self._settle_garbage()
            if monitor is not None:
                monitor.wait_until_ready()  # so that nothing of its start is left for the calls
        self._tell(stage_log.loaded)
        with self._stage("validation"):
            observed = observe_model(config, loaded, request.inputs["input_ids"].shape[1])
            kernels = kernelized(loaded.model) if config.generation.kernelize else []
            self.record.observed = dataclasses.replace(observed, kernels=kernels, mends=mends)
            with self._limits(config):
                self._start_batching(config, request)
        self._remember_set_up()

    def run_benchmark(self, config: BenchmarkConfig, num_tokens_to_profile: int = 0) -> Result | None:
        """Measure the setting that `setup_benchmark` prepared: validate, warm up, measure, then look at what ran.

        It may be called again. Each run has a record and evidence of its own, and compiled code is compiled again, out
        of the compile cache. Runs in one process are no repeats of each other, and only the first one has a cold start
        (`Record.warm_start`).

        Returns:
            The record, or None when the setting cannot run here (the reason is logged and in `self.record`).

        Raises:
            RuntimeError: another config than the prepared one, or nothing is prepared.
            NotHonouredError: what ran is not what the config asked for.
            Exception: whatever generate raises; the record keeps the calls before it.
        """
        record = self._begin_run(config)
        with self._journal:
            try:
                if not self._validate(config):
                    return None
                with self._monitor_process(config) as monitor:
                    self._warm_up(config)
                    self._measure(config, monitor)
            except NotHonouredError:
                raise  # what it judges is in the record already
            except Exception:
                self._keep_compile()  # why it failed may stand there
                raise
            self._inspect(config, num_tokens_to_profile)
        record.status, record.stage = "ok", None
        return Result.of(record)

    def _begin_run(self, config: BenchmarkConfig) -> Record:
        """The record that this run fills: that of the set-up, or for a further run a new one."""
        record = self._require_record()
        if difference := _difference(record.requested, config.to_dict()):
            raise RuntimeError(
                f"{difference}; run_benchmark measures what setup_benchmark prepared: call that with this config first"
            )
        if self._has_run:
            record = self._start_over()
        elif record.iterations:
            raise RuntimeError("record: it holds the calls of another run already; give the runner a new one, or none")
        self._has_run = True
        record.warm_start = self._has_called
        return record

    def _start_over(self) -> Record:
        """Make a new record, and let nothing of the runs before count in it.

        Compiled code is forgotten, so that this run shows by itself that it compiles as asked: torch takes the code
        from the compile cache, which is warm then.
        """
        before, set_up = self._require_record(), self._set_up
        if set_up is None or (set_up.skipped is None and self._request is None):
            raise RuntimeError("call setup_benchmark first: what it prepared was closed")
        if self.team is not None:
            raise RuntimeError("model.tp_size: the ranks of a tensor-parallel job measure once; start another job")
        compilation.reset()
        if set_up.compile_cache is not None:
            compilation.use_cache(Path(set_up.compile_cache))  # another runner may have named its own since
        self._journal = Journal()
        self._counters = self._last_call = None
        self._compiled_with, self._late_tokens = {}, False
        self._skipped = set_up.skipped
        self._origin = self._clock()
        self.record = Result(
            kind=before.kind,
            trial_id=before.trial_id,
            sweep_id=before.sweep_id,
            repeat=before.repeat,
            name=before.name,
            swept=before.swept,
            started_at_s=time.time(),
            requested=before.requested,
            observed=set_up.observed,
            memory=set_up.memory,
            environment=before.environment,
            fingerprint=before.fingerprint,
        )
        return self.record

    def _remember_set_up(self) -> None:
        record = self._require_record()
        self._set_up = _SetUp(
            observed=record.observed,
            memory=record.memory,
            skipped=self._skipped,
            compile_cache=os.environ.get("TORCHINDUCTOR_CACHE_DIR"),
        )

    def _validate(self, config: BenchmarkConfig) -> bool:
        """The first call: whether the setting works, and whether what it did is what was asked for."""
        record = self._require_record()
        if self._skipped is None:
            with self._stage("validation"):
                self._flush_memory()
                self._counters = compilation.read_counters()
                watch, compiling = CallWatch(), compilation.CompileWatch()
                model = self._require_request().loaded.model
                with compiling.watching(model), watch.watching(model, batched=self._session is not None):
                    self._watch = watch
                    try:
                        validation = self.time_generate(config, warmup=True)
                    finally:
                        self._watch = None
                self._compiled_with = compiling.arguments
        if self._skipped is not None or validation[0] < 0:
            self._skip(config)
            return False
        with self._stage("validation"):
            assert self._last_call is not None
            self._note_late_tokens(self._last_call.steps_late)
            self._keep("validation", validation)
            assert record.observed is not None
            record.observed = dataclasses.replace(
                record.observed, new_tokens=len(validation[1]), grad_mode=watch.grad_mode
            )
            self._keep_compile()
            self._keep_cache(watch)
            self._mark(check_guard(config, watch))
            if self._session is None:
                self._mark(check_cache(config, record.observed, watch))
            self._mark(check(config, record.observed))
            self._settle_garbage()  # compilation has left as much behind as loading
        self._tell(stage_log.validated)
        return True

    def _warm_up(self, config: BenchmarkConfig) -> None:
        """The calls that count for nothing: as many as asked for, or until they are level."""
        record = self._require_record()
        with self._stage("warmup"):
            stop = None
            for _ in self._progress("Warmup", planned_calls(config.warmup)):
                self._keep("warmup", self.time_generate(config, warmup=True))
                if config.warmup.policy == "auto" and (stop := warmup_stop(config, record, self._journal.events())):
                    break
            stop = stop or fixed_stop(config.warmup)
            record.warmup_status, record.warmup_stop = stop.status, stop.reason
            self._keep_peak("warmup", of_process=True)
        self._tell(stage_log.warmed_up)

    def _measure(self, config: BenchmarkConfig, monitor: HardwareMonitor | None) -> None:
        """The calls that count."""
        record = self._require_record()
        samples, stop = [], None
        with self._stage("measurement"):
            memory.restart_peaks(self._require_request().loaded.device)
            for _ in self._progress("Benchmarking", planned_calls(config.measurement)):
                measured = self.time_generate(config, warmup=False)
                self._keep("measurement", measured)
                samples.append(measured[3] or [])
                if config.measurement.policy == "adaptive" and (stop := measurement_stop(config, record)):
                    break
            stop = stop or fixed_stop(config.measurement)
            record.measurement_status, record.measurement_stop = stop.status, stop.reason
            self._keep_peak("measurement", of_process=True)
            record.monitor = monitor.summary(samples) if monitor is not None else None
            record.energy = monitor.energy() if monitor is not None else Energy(source=None, reason=NO_MONITOR)
            self._keep_compile()
            if self.team is not None:
                gather_ranks(self.team, record, self._require_request().loaded.device)
            record.steadiness = judge(record)
            assert record.observed is not None
            self._mark(check(config, record.observed, [each.index for each in record.calls("measurement")]))
        self._tell(stage_log.measured)

    def _inspect(self, config: BenchmarkConfig, num_tokens_to_profile: int) -> None:
        """What is looked at once the figures are in."""
        record, request = self._require_record(), self._require_request()
        self._journal.iteration = len(record.iterations)  # after the last one
        with self._stage("evidence"):
            self._observe_attention(config)
        if self._reference is not None:
            with self._stage("fidelity"):
                assert record.output is not None
                assert record.observed is not None
                tokens, dtype = record.output.token_ids, record.observed.dtype
                record.fidelity = after_measurement.compare_with(self._reference, request, tokens, dtype)
        self._tell(stage_log.looked_at)
        with self._stage("roofline"):
            record.roofline = after_measurement.rate(record, request.loaded)
        if num_tokens_to_profile or config.profile.memory_snapshot:
            with self._stage("profile"):
                if num_tokens_to_profile:
                    after_measurement.write_profile(request, self._session, num_tokens_to_profile, self._folder)
                if config.profile.memory_snapshot:
                    after_measurement.write_memory_snapshot(request, self._session, self._folder)

    def write_reference(self, config: BenchmarkConfig, path: Path) -> Record:
        """Run the setting that `setup_benchmark` prepared once, and keep its tokens and logits in `path`.

        Raises:
            NotHonouredError: what ran is not what the config asked for.
            Exception: whatever generate raises.
        """
        record = self._require_record()
        if self._skipped is not None:
            self._skip(config)
            return record
        self._has_called = True
        with self._journal, self._stage("validation"):
            tokens = after_measurement.write_reference(self._require_request(), path)
            record.output = Output(
                shape=[len(tokens), config.workload.sequence_length + tokens.shape[1]],
                token_ids=tokens.tolist(),
                text=self._require_request().loaded.tokenizer.decode(tokens[0], skip_special_tokens=True),
                same_in_all_calls=True,
            )
            self._observe_attention(config)
        record.status, record.stage = "ok", None
        return record

    def _observe_attention(self, config: BenchmarkConfig) -> None:
        observed = self._require_record().observed
        assert observed is not None
        compiled = observed.compile.events if observed.compile is not None else []
        layers = observed.shape.layers if observed.shape is not None else None
        request, watch, compiling = self._require_request(), CallWatch(), compilation.CompileWatch()
        model, batched = request.loaded.model, self._session is not None
        with compiling.watching(model), watch.watching(model, batched=batched):
            seen = after_measurement.observe_attention(request, self._session, observed.attention, compiled, layers)
        self._require_record().observed = dataclasses.replace(observed, attention=seen)
        self._mark(check_attention(config, seen, request.loaded.device, layers))
        if watch.grad_mode is not None:
            check_guard(config, watch)
        check_same_arguments(config, self._compiled_with, compiling.arguments)
        if watch.steps and seen.error is None and observed.kv_cache is not None:
            check_same_cache(config, observed.kv_cache, watch.cache)

    def time_generate(
        self, config: BenchmarkConfig, warmup: bool
    ) -> tuple[float, list[float], str, list[MonitorSample] | None]:
        """Make one generate call and time it.

        Args:
            config: the setting that `setup_benchmark` prepared.
            warmup: without hardware monitor; all else is the same call.

        Returns:
            E2E latency in seconds, negative when the setting cannot run here; the time of each generated step, in
            seconds since the call's start; the result's shape and its first row decoded, or the reason; the
            monitor's samples, None with `warmup`.

        Raises:
            RuntimeError: generate returned another number of tokens than requested.
        """
        if self._skipped is not None:
            return -1.0, [], self._skipped, None
        if not warmup and self._monitor is None and config.monitor.enabled:
            with self._monitor_process(config):  # called by itself, outside of run_benchmark
                return self.time_generate(config, warmup=False)
        self._journal.iteration = len(self._require_record().iterations)
        self._last_call = None
        self._has_called = True
        watch = self._watch or CallWatch()
        with self._limits(config):
            self._last_call = make_call(
                self._require_request(),
                self._clock,
                session=self._session,
                monitor=None if warmup else self._monitor,
                steps=None if self._watch is None or self._session is not None else lambda: watch.steps,
            )
        if (call := self._last_call) is None:
            return -1.0, [], str(self._skipped), None
        samples = None if warmup else call.samples or []
        return call.e2e_s, call.token_times_s, f"{tuple(call.shape)} | {call.text}", samples

    def close(self) -> None:
        """Let go of the model and the temporary compile cache. Called again, it does nothing."""
        self._session = self._launched = None
        self._open.close()
        self._request = None
        if self._froze:  # else a first collection would look through all that the fork server has frozen
            gc.unfreeze()
            self._froze = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- before the calls --------------------------------------------------------------------------------------

    def _use_compile_cache(self, config: BenchmarkConfig, loaded: LoadedModel) -> None:
        fresh = self._compile_cache
        if config.compile.cache == "fresh" and fresh is None:
            fresh, lock = cache_folder.make_temporary()
            self._open.enter_context(lock)  # held for as long as the folder is there
            self._open.callback(cache_folder.remove, fresh)
        self._open.enter_context(use_compile_cache(config, loaded.device, fresh))

    def _start_batching(self, config: BenchmarkConfig, request: Request) -> None:
        """The worker of continuous batching, made outside of every timed call; `phases_s` tells what it took."""
        if not config.generation.continuous_batching:
            return
        start = time.perf_counter()
        self._session = self._open.enter_context(BatchingSession(request.loaded.model, config, request.generation))
        self._require_record().phases_s["batching_setup"] = time.perf_counter() - start

    def _flush_memory(self) -> None:
        """Before the validation call: collect, empty the device's allocator and restart its peaks.

        Between calls the allocator keeps what it has: emptying it would put its growth into every measured call.
        """
        gc.collect()
        memory.flush(self._require_request().loaded.device)

    def _launch_monitor(self, config: BenchmarkConfig) -> HardwareMonitor | None:
        """Start the monitor's process, which gets ready by itself; None where none is asked for."""
        if not config.monitor.enabled:
            return None
        device = resolve_device(config.device)
        index = self.team.rank if self.team is not None else device.index or 0
        uuid = gpu_uuid_of(index) if device.type == "cuda" else None
        monitor = HardwareMonitor.launch(device.type, config.monitor.interval_s, uuid, os.getpid())
        self._launched = self._open.enter_context(monitor)
        return monitor

    @contextlib.contextmanager
    def _monitor_process(self, config: BenchmarkConfig) -> Iterator[HardwareMonitor | None]:
        """One hardware monitor for the job: started while the model is loaded, idle until the first measured call."""
        monitor, self._launched = self._launched or self._launch_monitor(config), None
        if monitor is None:
            yield None
            return
        with monitor:
            monitor.wait_until_ready()
            self._monitor = monitor
            try:
                yield monitor
            finally:
                self._monitor = None

    # ---- what was seen -----------------------------------------------------------------------------------------

    def _keep(self, phase: str, timed: tuple[float, list[float], str, list[MonitorSample] | None]) -> None:
        record, call = self._require_record(), self._last_call
        if call is None or timed[0] < 0:
            raise RuntimeError(f"call {len(record.iterations)} failed after others had worked: {self._skipped}")
        record.iterations.append(
            Iteration(
                index=len(record.iterations),
                phase=phase,
                start_s=call.start_s - self._origin,
                e2e_s=timed[0],
                token_times_s=[] if self._late_tokens else list(timed[1]),
                graphs=call.graphs,
                compile_s=call.compile_s,
                device_reserved_bytes=memory.reserved(self._require_request().loaded.device),
                request_times_s=call.request_times_s,
            )
        )
        self._keep_peak(phase)
        same = record.output is None or (record.output.same_in_all_calls and record.output.token_ids == call.token_ids)
        record.output = Output(shape=call.shape, token_ids=call.token_ids, text=call.text, same_in_all_calls=same)

    def _keep_peak(self, phase: str, *, of_process: bool = False) -> None:
        record = self._require_record()
        peak = memory.peak(self._require_request().loaded.device, of_process=of_process)
        if phase == "measurement":
            record.memory = dataclasses.replace(record.memory, measurement_peak=peak)
        else:
            record.memory = dataclasses.replace(record.memory, warmup_peak=peak)

    def _mark(self, unverified: Sequence[Unverified]) -> None:
        """Keep what could not be seen, each once."""
        record = self._require_record()
        assert record.observed is not None
        known = dict.fromkeys([*record.observed.unverified, *unverified])
        record.observed = dataclasses.replace(record.observed, unverified=list(known))

    def _note_late_tokens(self, steps: int) -> None:
        """Keep no time of a token where generate hands it out after a later step has begun: it is another's time."""
        if steps:
            self._late_tokens = True
            reason = (
                f"transformers {transformers.__version__} hands tokens out {steps} step(s) late on "
                f"{self._require_request().loaded.device.type}: TTFT and the times of tokens are not known"
            )
            self._mark([Unverified(key="token times", reason=reason)])

    def _keep_cache(self, watch: CallWatch) -> None:
        """What the KV cache took, and what it must hold."""
        record, request = self._require_record(), self._require_request()
        assert record.observed is not None
        name, held = watch.cache, watch.cache_bytes
        if self._session is not None:
            batching = self._session.observe()
            name, held = batching.kv_cache, batching.cache_bytes
            self._mark([Unverified(key="generation.continuous_batching", reason=each) for each in batching.unseen])
            attention = dataclasses.replace(record.observed.attention, implementation=batching.attention_implementation)
            record.observed = dataclasses.replace(record.observed, attention=attention)
        record.observed = dataclasses.replace(record.observed, kv_cache=name)
        workload, shape = request.config.workload, record.observed.shape
        needed = None
        if shape is not None:
            needed = kv_cache_bytes(
                shape,
                batch_size=workload.batch_size,
                positions=workload.sequence_length + workload.num_tokens_to_generate - 1,
                element_bytes=request.loaded.model.dtype.itemsize,
            )
            needed = round(needed * kv_share(request.loaded.model))
        record.memory = dataclasses.replace(record.memory, kv_cache_bytes=held, kv_cache_computed_bytes=needed)

    def _keep_compile(self) -> None:
        record = self._require_record()
        if record.observed is not None and self._counters is not None:
            compiled = compilation.observe(self._compiled_with, self._counters, self._journal)
            record.observed = dataclasses.replace(record.observed, compile=compiled)

    # ---- small things ------------------------------------------------------------------------------------------

    def _skip(self, config: BenchmarkConfig) -> None:
        record = self._require_record()
        reason = self._skipped or "the validation call reported a negative latency"
        self.logger.warning("Skipping %s: %s", record.name or config.model.id, reason)
        record.skip(reason)

    def _tell(self, line: Callable[[Record], str]) -> None:
        """Log how a stage ended."""
        record = self._require_record()
        self.logger.info("%s: %s", title(record), line(record))

    def _limits(self, config: BenchmarkConfig) -> contextlib.AbstractContextManager[None, bool]:
        """A known limit of this machine or these libraries becomes the reason to skip; other errors pass."""
        return cast("contextlib.AbstractContextManager[None, bool]", self._catching_limits(config))

    @contextlib.contextmanager
    def _catching_limits(self, config: BenchmarkConfig) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._skipped = limit_reached(error, config)
            if self._skipped is None:
                raise

    def _settle_garbage(self) -> None:
        """Collect once and let later collections pass over what is left: it is long-lived, and millions of it."""
        gc.collect()
        gc.freeze()
        self._froze = True

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Mark where in the journey the record is, and how long it stayed there."""
        record = self._require_record()
        if name != record.stage and name not in COUNTED_STAGES:
            self._enter(name)
        if name not in ("load", record.stage) and self.team is not None:  # the others listen once they have loaded
            self.team.announce(Order(kind="stage", stage=name))
        record.stage = name
        start = time.perf_counter()
        try:
            yield
        finally:
            record.phases_s[name] = record.phases_s.get(name, 0.0) + time.perf_counter() - start

    def _require_record(self) -> Record:
        if self.record is None:
            raise RuntimeError("call setup_benchmark first")
        return self.record

    def _require_request(self) -> Request:
        if self._request is None:
            raise RuntimeError("call setup_benchmark first")
        return self._request


def _difference(prepared: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """The first key in which a config differs from the prepared one, with both values; None where none does."""
    if prepared == asked:
        return None
    for section, values in asked.items():
        known = prepared.get(section)
        if not isinstance(values, dict) or not isinstance(known, dict):
            if values != known:
                return f"{section}={values}: prepared was {known}"
            continue
        for name, value in values.items():
            if value != known.get(name):
                return f"{section}.{name}={value}: prepared was {known.get(name)}"
    return "another config"


def load_ready(config: BenchmarkConfig, team: Team | None) -> LoadedModel:
    """The model as all calls use it. Raises what `bench.trial.model.loading.load` and `kernelize` raise."""
    loaded = load(config) if team is None else load(config, team)
    if config.generation.kernelize:
        kernelize(loaded.model, loaded.device, compiled=config.compile.mode is not None)
    return loaded


@contextlib.contextmanager
def use_compile_cache(config: BenchmarkConfig, device: torch.device, fresh: Path | None) -> Iterator[None]:
    """Compile into `fresh`, or into the folder that settings like this one share, which is held meanwhile.

    Raises:
        ConfigError: the shared one cannot be written.
    """
    with contextlib.ExitStack() as stack:
        folder = fresh
        if config.compile.cache == "shared" or folder is None:
            folder = compilation.shared_cache(config, device)
            try:
                stack.enter_context(cache_folder.shared(folder))
                compilation.keep_recent(folder)
            except OSError as error:
                raise unusable_cache(folder, error) from error
        compilation.use_cache(folder)
        yield


def _tqdm_progress(name: str, total: int | None) -> Iterable[int]:
    bar: Iterable[int] = tqdm.tqdm(itertools.count() if total is None else range(total), desc=name)
    return bar
