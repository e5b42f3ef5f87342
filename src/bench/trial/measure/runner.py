"""Measure settings in this process: validate, warm up, measure, then gather the evidence.

Read `BenchmarkRunner.run_benchmark` first: it is the whole measurement. `bench.trial.measure.call` makes one call, the
same in every phase but for the hardware monitor, which only measured calls have. What follows the last measured call
(`bench.trial.evidence.after_measurement`) changes no figure.

With tensor parallelism this is rank 0, whose commands the other ranks obey (`bench.trial.parallel.group`); all times
are its own.

Not covered: sampling and beam search (decoding is greedy), and encoder-decoder models.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import tqdm

from bench.analysis.calls.steadiness import judge
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.results.record import Memory, Record
from bench.trial.evidence import after_measurement
from bench.trial.evidence.observed import check
from bench.trial.hardware import memory
from bench.trial.measure import stage_log
from bench.trial.measure.call import Call, make_call
from bench.trial.measure.call_count import fixed_stop, measurement_stop, planned_calls, warmup_stop
from bench.trial.measure.recorder import RunRecorder, Timed
from bench.trial.measure.request import Request
from bench.trial.measure.result import Result, title
from bench.trial.measure.setup import NOT_SET_UP, Setup, check_same_config
from bench.trial.parallel.group import RankGroup, gather_ranks, require_ranks
from bench.trial.unsupported import NotHonouredError

# A progress bar: (name, number of iterations) → the indices to iterate over; without end when the number is None.
Progress = Callable[[str, int | None], Iterable[int]]


class BenchmarkRunner:
    """Measures settings, one after the other, in this process.

    Args:
        logger: gets a line (INFO) at the end of each stage, and warnings about skipped settings; None: the module's
            own.
        progress: progress bars; None: tqdm, named "Warmup" and "Benchmarking".
        enter: called with the name of each stage as it begins.
        clock: seconds, monotonic, float64.
        folder: where a profile is written; None: the current folder.
        record: the record to fill in the first run; None: a new one for each run. It is filled step by step, so that
            whatever ends the run leaves what was measured before.
        compile_cache: the folder for `compile.cache=fresh`; None: a temporary one, removed by `close`.
        reference: the file that `write_reference` wrote, to compare the output with; None: no comparison.

    A tensor-parallel job sets `group`: the ranks, of which this process is the first.
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
        self.group: RankGroup | None = None
        self._given_record = record
        self._progress = progress or _tqdm_progress
        self._enter = enter or (lambda _: None)
        self._clock = clock
        self._folder = folder or Path.cwd()
        self._compile_cache = compile_cache
        self._reference = reference
        self._setup: Setup | None = None
        self._run: RunRecorder | None = None
        self._has_run = self._has_called = False  # on this set-up
        self._last_call: Call | None = None

    # ---- stages ------------------------------------------------------------------------------------------------

    def setup_benchmark(self, model_id: str | None, config: BenchmarkConfig) -> None:
        """Load the model and prepare its inputs, its generation config and its compile cache.

        Args:
            model_id: hub id, checkpoint folder, or the label of a model with random weights.
            config: the setting; `model_id` replaces its `model.id`.

        Raises:
            ConfigError: this machine or this model cannot meet the request.
            OSError, ValueError: the model cannot be loaded.
        """
        self.close()
        config.model.id = None if model_id is None else str(model_id)
        config.check()
        require_ranks(config, self.group)
        new = Result(trial_id=config.trial_id(), started_at_s=time.time(), requested=config.to_dict())
        run = self._new_run(self._given_record or new)
        self._setup = setup = Setup(config, self.group)
        self._has_run = self._has_called = False
        if config.fidelity.reference == "eager" and self._reference is None and run.record.fidelity is None:
            remedy = "give the runner a reference (see write_reference), or run it as a job; or set it to none"
            raise ConfigError("fidelity.reference", "eager", remedy)
        with run.stage("load"):
            if (loaded := setup.load(self._compile_cache)) is None:
                setup.complete(run.record)
                return
            run.record.memory = Memory(after_load=memory.use(loaded.device))
            setup.finish_load()
        self._log(stage_log.loaded)
        with run.stage("validation"):
            run.record.observed = setup.observe()
            setup.start_batching(run.record)
        setup.complete(run.record)

    def run_benchmark(self, config: BenchmarkConfig, num_tokens_to_profile: int = 0) -> Result | None:
        """Measure the setting that `setup_benchmark` prepared: validate, warm up, measure, then gather the evidence.

        It may be called again. Each run has a record and evidence of its own, and code is compiled again, from the
        compile cache. Runs in one process are no repeats of each other, and only the first one has a cold start
        (`Record.warm_start`).

        Returns:
            The record, or None when the setting cannot run here (the reason is logged and in `self.record`).

        Raises:
            RuntimeError: another config than the prepared one, or nothing is prepared.
            NotHonouredError: what ran is not what the config asked for.
            Exception: whatever generate raises; the record keeps the calls before it.
        """
        run = self._begin_run(config)
        with run.compile_log:
            try:
                if not self._validate(config, run):
                    return None
                with self._require_setup().monitoring():
                    self._warm_up(config, run)
                    self._measure(config, run)
            except NotHonouredError:
                raise  # the compilations that it judges are in the record
            except Exception:
                run.keep_compilations()  # they may show why it failed
                raise
            self._inspect(config, run, num_tokens_to_profile)
        run.record.status, run.record.stage = "ok", None
        return Result.of(run.record)

    def _validate(self, config: BenchmarkConfig, run: RunRecorder) -> bool:
        """Make the first call: check whether the setting works here, and whether it does what the config asks for."""
        setup, timed = self._require_setup(), None
        if setup.limits.reason is None:
            request = setup.require_request()
            with run.stage("validation"), run.watching_first_call(request, setup.session):
                timed = self.time_generate(config, warmup=True)
        if timed is None or timed[0] < 0:
            self._skip(config, run.record)
            return False
        with run.stage("validation"):
            assert self._last_call is not None
            run.drop_late_token_times(self._last_call.steps_late, request.loaded.device)
            self._keep("validation", timed)
            run.check_first_call(config, request, setup.session)
            setup.freeze_garbage()  # compilation leaves as much behind as loading
        self._log(stage_log.validated)
        return True

    def _warm_up(self, config: BenchmarkConfig, run: RunRecorder) -> None:
        """Make the calls that no statistic counts: as many as requested, or until the latency is steady."""
        record, stop = run.record, None
        with run.stage("warmup"):
            for _ in self._progress("Warmup", planned_calls(config.warmup)):
                self._keep("warmup", self.time_generate(config, warmup=True))
                if config.warmup.policy == "auto" and (stop := warmup_stop(config, record, run.compile_log.events())):
                    break
            stop = stop or fixed_stop(config.warmup)
            record.warmup_status, record.warmup_stop = stop.status, stop.reason
            run.keep_peak("warmup", self._require_request().loaded.device, of_process=True)
        self._log(stage_log.warmed_up)

    def _measure(self, config: BenchmarkConfig, run: RunRecorder) -> None:
        """Make the calls that are counted, then check that nothing else ran than was requested."""
        record, device = run.record, self._require_request().loaded.device
        samples, stop = [], None
        with run.stage("measurement"):
            memory.restart_peaks(device)
            for _ in self._progress("Benchmarking", planned_calls(config.measurement)):
                timed = self.time_generate(config, warmup=False)
                self._keep("measurement", timed)
                samples.append(timed[3] or [])
                if config.measurement.policy == "adaptive" and (stop := measurement_stop(config, record)):
                    break
            stop = stop or fixed_stop(config.measurement)
            record.measurement_status, record.measurement_stop = stop.status, stop.reason
            run.keep_peak("measurement", device, of_process=True)
            run.keep_monitor(self._require_setup().monitor, samples)
            run.keep_compilations()
            if self.group is not None:
                gather_ranks(self.group, record, device)
            record.steadiness = judge(record)
            run.mark_unverified(check(config, run.observed, [each.index for each in record.calls("measurement")]))
        self._log(stage_log.measured)

    def _inspect(self, config: BenchmarkConfig, run: RunRecorder, num_tokens_to_profile: int) -> None:
        """Gather what needs calls of its own, once the figures are complete: evidence, fidelity, rates, profile."""
        record, setup, request = run.record, self._require_setup(), self._require_request()
        run.compile_log.iteration = len(record.iterations)  # after the last one
        with run.stage("evidence"):
            after_measurement.check_attention(config, run, request, setup.session)
        if self._reference is not None:
            with run.stage("fidelity"):
                record.fidelity = after_measurement.compare_with(self._reference, request, record)
        self._log(stage_log.inspected)
        with run.stage("roofline"):
            record.roofline = after_measurement.rate(record, request.loaded)
        if num_tokens_to_profile or config.profile.memory_snapshot:
            with run.stage("profile"):
                after_measurement.write_artifacts(request, setup.session, num_tokens_to_profile, self._folder)

    def write_reference(self, config: BenchmarkConfig, path: Path) -> Record:
        """Run the setting that `setup_benchmark` prepared once, and write its tokens and logits into `path`.

        Raises:
            NotHonouredError: what ran is not what the config asked for.
            Exception: whatever generate raises.
        """
        run, setup = self._require_run(), self._require_setup()
        if setup.limits.reason is not None:
            self._skip(config, run.record)
            return run.record
        self._has_called = True
        with run.compile_log, run.stage("validation"):
            request = setup.require_request()
            run.record.output = after_measurement.write_reference(request, path)
            after_measurement.check_attention(config, run, request, setup.session)
        run.record.status, run.record.stage = "ok", None
        return run.record

    def time_generate(self, config: BenchmarkConfig, warmup: bool) -> Timed:
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
        run, setup = self._require_run(), self._require_setup()
        if setup.limits.reason is not None:
            return -1.0, [], setup.limits.reason, None
        if not warmup and setup.monitor is None and config.monitor.enabled:
            with setup.monitoring():  # called by itself, outside of run_benchmark
                return self.time_generate(config, warmup=False)
        run.compile_log.iteration = len(run.record.iterations)
        self._last_call = None
        self._has_called = True
        with setup.limits:
            self._last_call = make_call(
                setup.require_request(),
                self._clock,
                session=setup.session,
                monitor=None if warmup else setup.monitor,
                steps=run.steps,
            )
        if (call := self._last_call) is None:
            return -1.0, [], str(setup.limits.reason), None
        samples = None if warmup else call.samples or []
        return call.e2e_s, call.token_times_s, f"{tuple(call.shape)} | {call.text}", samples

    def close(self) -> None:
        """Release the model and the temporary compile cache. Called again, it does nothing."""
        if self._setup is not None:
            self._setup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- runs on one set-up ------------------------------------------------------------------------------------

    def _new_run(self, record: Record) -> RunRecorder:
        self.record, self._last_call = record, None
        self._run = RunRecorder(record, start_s=self._clock(), enter=self._enter, group=self.group)
        return self._run

    def _begin_run(self, config: BenchmarkConfig) -> RunRecorder:
        """Return the run that the set-up began, or start another one."""
        run = self._require_run()
        check_same_config(run.record.requested, config.to_dict())
        if self._has_run:
            run = self._new_run(self._require_setup().new_record(run.record))
        elif run.record.iterations:
            raise RuntimeError("record: it holds the calls of another run already; give the runner a new one, or none")
        self._has_run = True
        run.record.warm_start = self._has_called
        return run

    def _keep(self, phase: str, timed: Timed) -> None:
        run, setup = self._require_run(), self._require_setup()
        if self._last_call is None or timed[0] < 0:
            index = len(run.record.iterations)
            raise RuntimeError(f"call {index} failed after others had worked: {setup.limits.reason}")
        run.keep_call(phase, timed, self._last_call, setup.require_request().loaded.device)

    def _skip(self, config: BenchmarkConfig, record: Record) -> None:
        reason = self._require_setup().limits.reason or "the validation call reported a negative latency"
        self.logger.warning("Skipping %s: %s", record.name or config.model.id, reason)
        record.skip(reason)

    def _log(self, line: Callable[[Record], str]) -> None:
        """Log how a stage ended."""
        record = self._require_run().record
        self.logger.info("%s: %s", title(record), line(record))

    def _require_run(self) -> RunRecorder:
        if self._run is None:
            raise RuntimeError(NOT_SET_UP)
        return self._run

    def _require_setup(self) -> Setup:
        if self._setup is None:
            raise RuntimeError(NOT_SET_UP)
        return self._setup

    def _require_request(self) -> Request:
        return self._require_setup().require_request()


def _tqdm_progress(name: str, total: int | None) -> Iterable[int]:
    bar: Iterable[int] = tqdm.tqdm(itertools.count() if total is None else range(total), desc=name)
    return bar
