"""Warm up, then measure: one setting, one model, one process.

Read `run_benchmark` first: it is the whole measurement. `time_generate` is one call, the same in every phase but for
the hardware monitor, which only measured calls have.

What is not covered: sampling and beam search (decoding is greedy), encoder-decoder models, and more than one device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import torch
import tqdm

from bench.config import BenchmarkConfig
from bench.record import Iteration, Memory, MonitorSample, Output, Record
from bench.trial import compilation, memory
from bench.trial.evidence import CacheWatch, check, observe_call, observe_model
from bench.trial.model import LoadedModel, load
from bench.trial.monitor import HardwareMonitor, gpu_uuid_of
from bench.trial.request import guards, make_generation_config, make_inputs
from bench.trial.streamer import TokenClock
from bench.trial.support import limit_reached

# A progress bar: (name, number of iterations) → the indices to iterate over.
Progress = Callable[[str, int], Iterable[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallDetail:
    """What one call leaves beside the four values of `time_generate`."""

    start_s: float = 0.0  # clock reading at the call's start
    shape: list[int] = dataclasses.field(default_factory=list)
    token_ids: list[list[int]] = dataclasses.field(default_factory=list)
    text: str = ""
    graphs: int = 0
    compile_s: float = 0.0


class BenchmarkRunner:
    """Measures settings, one after the other, in this process.

    Args:
        logger: takes warnings about skipped settings; None: the module's own.
        progress: progress bars; None: tqdm, named "Warmup" and "Benchmarking".
        clock: seconds, monotonic, float64.
        folder: where a profile is written; None: the current folder.
        record: the record to fill; None: a new one for each `setup_benchmark`. It is filled as the work goes on, so
            that whatever ends the work leaves what was measured before.
        compile_cache: the folder for `compile.cache=fresh`; None: a temporary one, removed by `close`.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
        folder: Path | None = None,
        record: Record | None = None,
        compile_cache: Path | None = None,
    ) -> None:
        self.logger = logger or logging.getLogger(__name__)
        self.record = record
        self._given_record = record
        self._progress = progress or _tqdm_progress
        self._clock = clock
        self._folder = folder or Path.cwd()
        self._compile_cache = compile_cache
        self._own_cache: Path | None = None
        self._monitor: HardwareMonitor | None = None
        self._loaded: LoadedModel | None = None
        self._skipped: str | None = None
        self._last_call = CallDetail()

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
        self._origin = self._clock()
        self.record = self._given_record or Record(
            trial_id=config.trial_id(), started_at_s=time.time(), requested=config.to_dict()
        )
        self._skipped = None
        with self._stage("load"):
            compilation.reset()
            try:
                self._loaded = load(config)
            except Exception as error:
                self._skipped = limit_reached(error, config)
                if self._skipped is None:
                    raise
                return
            self._use_compile_cache(config)
            self._inputs = make_inputs(config, self._loaded)
            self._generation = make_generation_config(config, self._loaded, config.workload.num_tokens_to_generate)
            self.record.memory = Memory(after_load=memory.use(self._loaded.device))
            _settle_garbage()
        with self._stage("validation"):
            self.record.observed = observe_model(config, self._loaded, self._inputs["input_ids"].shape[1])

    def run_benchmark(self, config: BenchmarkConfig, num_tokens_to_profile: int = 0) -> Record | None:
        """Measure the setting that `setup_benchmark` prepared: validate, warm up, measure, profile.

        Returns:
            The record, or None when the setting cannot run here (the reason is logged and in `self.record`).

        Raises:
            NotHonouredError: what ran is not what the config asked for.
            Exception: whatever generate raises; the record keeps the calls before it.
        """
        record = self._require_record()
        if record.iterations or config.to_dict() != record.requested:
            raise RuntimeError("run_benchmark runs once what setup_benchmark prepared; call that with this config")
        if self._skipped is None:
            with self._stage("validation"):
                self._flush_memory()
                before = compilation.read_counters()
                cache = CacheWatch()
                with cache.watching(self._require_model().model):
                    validation = self.time_generate(config, warmup=True)
        if self._skipped is not None or validation[0] < 0:
            self._skip(config)
            return None

        with self._stage("validation"):
            self._keep("validation", validation)
            assert record.observed is not None
            compiled = compilation.observe(self._require_model().model, before)
            record.observed = observe_call(record.observed, compiled, cache.class_name, len(validation[1]))
            check(config, record.observed)
            _settle_garbage()  # compilation has left as much behind as loading
        with self._monitor_process(config) as monitor:
            with self._stage("warmup"):
                for _ in self._progress("Warmup", config.warmup.iterations):
                    self._keep("warmup", self.time_generate(config, warmup=True))
            with self._stage("measurement"):
                samples = []
                memory.restart_peaks(self._require_model().device)
                for _ in self._progress("Benchmarking", config.measurement.iterations):
                    measured = self.time_generate(config, warmup=False)
                    self._keep("measurement", measured)
                    samples.append(measured[3] or [])
                record.monitor = monitor.summary(samples) if monitor is not None else None
                compiled = compilation.observe(self._require_model().model, before)
                record.observed = dataclasses.replace(record.observed, compile=compiled)
                check(config, record.observed)
        if num_tokens_to_profile:
            with self._stage("profile"):
                self._profile(config, num_tokens_to_profile)
        record.status, record.stage = "ok", None
        return record

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
        if self._loaded is None and self._skipped is not None:
            return -1.0, [], self._skipped, None
        if not warmup and self._monitor is None and config.monitor.enabled:
            with self._monitor_process(config):  # called by itself, outside of run_benchmark
                return self.time_generate(config, warmup=False)
        loaded = self._require_model()
        monitor = None if warmup else self._monitor
        streamer = TokenClock(self._clock)
        before = compilation.read_counters()
        samples: list[MonitorSample] | None = None if warmup else []
        gc.disable()
        if monitor is not None:
            monitor.begin()
        start = self._clock()  # for the monitor, should anything fail before the call's own start
        try:
            with guards(config):
                memory.synchronize(loaded.device)
                start = self._clock()
                output = loaded.model.generate(**self._inputs, generation_config=self._generation, streamer=streamer)
                memory.synchronize(loaded.device)
                end = self._clock()
        except Exception as error:
            self._skipped = limit_reached(error, config)
            if self._skipped is None:
                raise
            return -1.0, [], self._skipped, None
        finally:
            if monitor is not None:
                samples = monitor.end(start)
            gc.enable()
        self._check_tokens(config, output, streamer)
        after = compilation.read_counters()
        new_tokens = output[:, config.workload.sequence_length :]
        self._last_call = CallDetail(
            start_s=start,
            shape=list(output.shape),
            token_ids=new_tokens.tolist(),
            text=loaded.tokenizer.decode(new_tokens[0], skip_special_tokens=True),
            graphs=after.graphs - before.graphs,
            compile_s=after.compile_s - before.compile_s,
        )
        del output, new_tokens
        gc.collect()
        described = f"{tuple(self._last_call.shape)} | {self._last_call.text}"
        return end - start, [each - start for each in streamer.times], described, samples

    def close(self) -> None:
        """Let go of the model and the temporary compile cache. Called again, it does nothing."""
        self._loaded = None
        gc.unfreeze()
        if self._own_cache is not None:
            shutil.rmtree(self._own_cache, ignore_errors=True)
            self._own_cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- before the calls --------------------------------------------------------------------------------------

    def _use_compile_cache(self, config: BenchmarkConfig) -> None:
        if config.compile.cache == "shared":
            folder = compilation.shared_cache(config, self._require_model().device)
        elif self._compile_cache is not None:
            folder = self._compile_cache
        else:
            folder = self._own_cache = Path(tempfile.mkdtemp(prefix="bench-compile-"))
        compilation.use_cache(folder)

    # ---- one call ----------------------------------------------------------------------------------------------

    def _check_tokens(self, config: BenchmarkConfig, output: torch.Tensor, streamer: TokenClock) -> None:
        workload = config.workload
        expected = (workload.batch_size, workload.sequence_length + workload.num_tokens_to_generate)
        if tuple(output.shape) != expected:
            raise RuntimeError(f"generate returned tokens of shape {tuple(output.shape)}, not {expected}")
        if len(streamer.times) != workload.num_tokens_to_generate:
            steps, wanted = len(streamer.times), workload.num_tokens_to_generate
            raise RuntimeError(f"generate handed out {steps} steps to the streamer, not {wanted}")

    def _flush_memory(self) -> None:
        """Before the validation call: collect, empty the device's allocator and restart its peaks.

        Between calls the allocator keeps what it has: emptying it would put its growth into every measured call.
        """
        gc.collect()
        memory.flush(self._require_model().device)

    @contextlib.contextmanager
    def _monitor_process(self, config: BenchmarkConfig) -> Iterator[HardwareMonitor | None]:
        """One hardware monitor for the job: started before the warm-up, idle until the first measured call."""
        if not config.monitor.enabled:
            yield None
            return
        device = self._require_model().device
        uuid = gpu_uuid_of(device.index or 0) if device.type == "cuda" else None
        with HardwareMonitor.start_process(device.type, config.monitor.interval_s, uuid, os.getpid()) as monitor:
            self._monitor = monitor
            try:
                yield monitor
            finally:
                self._monitor = None

    # ---- what was seen -----------------------------------------------------------------------------------------

    def _keep(self, phase: str, timed: tuple[float, list[float], str, list[MonitorSample] | None]) -> None:
        record, call = self._require_record(), self._last_call
        if timed[0] < 0:
            raise RuntimeError(f"call {len(record.iterations)} failed after others had worked: {self._skipped}")
        record.iterations.append(
            Iteration(
                index=len(record.iterations),
                phase=phase,
                start_s=call.start_s - self._origin,
                e2e_s=timed[0],
                token_times_s=list(timed[1]),
                graphs=call.graphs,
                compile_s=call.compile_s,
                device_reserved_bytes=memory.reserved(self._require_model().device),
            )
        )
        peak = memory.peak(self._require_model().device)
        if phase == "measurement":
            record.memory = dataclasses.replace(record.memory, measurement_peak=peak)
        else:
            record.memory = dataclasses.replace(record.memory, warmup_peak=peak)
        same = record.output is None or (record.output.same_in_all_calls and record.output.token_ids == call.token_ids)
        record.output = Output(shape=call.shape, token_ids=call.token_ids, text=call.text, same_in_all_calls=same)

    def _profile(self, config: BenchmarkConfig, num_tokens: int) -> None:
        """A Chrome trace of one more call, of `num_tokens` new tokens, after a call of that length to settle it."""
        loaded = self._require_model()
        generation = make_generation_config(config, loaded, num_tokens)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if loaded.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with guards(config):
            loaded.model.generate(**self._inputs, generation_config=generation)
            with torch.profiler.profile(activities=activities) as profiler:
                loaded.model.generate(**self._inputs, generation_config=generation)
                memory.synchronize(loaded.device)
        profiler.export_chrome_trace(str(self._folder / "trace.json.gz"))

    # ---- small things ------------------------------------------------------------------------------------------

    def _skip(self, config: BenchmarkConfig) -> None:
        record = self._require_record()
        reason = self._skipped or "the validation call reported a negative latency"
        self.logger.warning("Skipping %s: %s", record.name or config.model.id, reason)
        record.skip(reason)

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Mark where in the journey the record is, and how long it stayed there."""
        record = self._require_record()
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

    def _require_model(self) -> LoadedModel:
        if self._loaded is None:
            raise RuntimeError("call setup_benchmark first")
        return self._loaded


def _settle_garbage() -> None:
    """Collect once and let later collections pass over what is left: it is long-lived, and there are millions of it."""
    gc.collect()
    gc.freeze()


def _tqdm_progress(name: str, total: int) -> Iterable[int]:
    bar: Iterable[int] = tqdm.trange(total, desc=name)
    return bar
