"""Prepare a setting for its calls: load the model, choose the compile cache, start monitor and batching worker."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.config.rules import unusable_cache
from bench.config.schema import BenchmarkConfig
from bench.host import cache_folder
from bench.results.record import Memory, Observed, Record
from bench.trial.compat.workarounds import applied_workarounds
from bench.trial.evidence import compilation, compile_cache
from bench.trial.evidence.observed import observe_model
from bench.trial.hardware.monitor import HardwareMonitor, gpu_uuid_of
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.request import Request
from bench.trial.measure.result import Result
from bench.trial.model.hub_kernels import kernelize, kernelized
from bench.trial.model.loading import LoadedModel, load, resolve_device
from bench.trial.parallel.group import RankGroup
from bench.trial.unsupported import LimitCatcher

NOT_SET_UP = "call setup_benchmark first"


class Setup:
    """A setting that is ready for its calls, with everything that lasts as long as its model.

    Args:
        config: the setting.
        group: the ranks of a tensor-parallel job; None: one process.
    """

    def __init__(self, config: BenchmarkConfig, group: RankGroup | None) -> None:
        self.limits = LimitCatcher(config)  # its `reason` is why the setting is skipped
        self.request: Request | None = None
        self.session: BatchingSession | None = None
        self.monitor: HardwareMonitor | None = None  # while calls may be measured
        self._workarounds: list[str] = []
        self._config = config
        self._group = group
        self._open = contextlib.ExitStack()
        self._froze = False
        self._launched: HardwareMonitor | None = None  # until a run uses it
        self._ready: _Ready | None = None

    # ---- preparation -------------------------------------------------------------------------------------------

    def load(self, fresh_cache: Path | None) -> LoadedModel | None:
        """Load the model while the monitor's process starts, and prepare its inputs and its compile cache.

        `fresh_cache` is the folder for `compile.cache=fresh`; None: a temporary one.

        Returns:
            The model; None when a known limit prevents loading it: see `limits`.

        Raises:
            ConfigError: this machine or this model cannot meet the request.
            OSError, ValueError: the model cannot be loaded.
        """
        compilation.reset()
        self._workarounds = self._open.enter_context(applied_workarounds(self._config))
        loaded: LoadedModel | None = None
        with self.limits:
            self._launched = self._launch_monitor()
            loaded = load_model(self._config, self._group)
        if loaded is None:
            return None
        self._open.enter_context(use_compile_cache(self._config, loaded.device, fresh_cache))
        self.request = Request.prepare(self._config, loaded, self._group)
        return loaded

    def finish_load(self) -> None:
        """Leave nothing of the load for the calls: collect garbage and wait for the monitor."""
        self.freeze_garbage()
        if self._launched is not None:
            self._launched.wait_until_ready()

    def observe(self) -> Observed:
        """Return what was loaded. NotHonouredError: it is not what the config asks for."""
        request = self.require_request()
        prompt_tokens = request.inputs["input_ids"].shape[1]
        kernels = kernelized(request.loaded.model) if self._config.generation.kernelize else []
        observed = observe_model(self._config, request.loaded, prompt_tokens)
        return dataclasses.replace(observed, kernels=kernels, mends=self._workarounds)

    def start_batching(self, record: Record) -> None:
        """Start the worker of continuous batching outside of every timed call, and record how long that takes."""
        if not self._config.generation.continuous_batching:
            return
        request, start = self.require_request(), time.perf_counter()
        with self.limits:
            session = BatchingSession(request.loaded.model, self._config, request.generation)
            self.session = self._open.enter_context(session)
            record.phases_s["batching_setup"] = time.perf_counter() - start

    def complete(self, record: Record) -> None:
        """Keep what the record and this process hold now, at the end of the preparation."""
        self._ready = _Ready(
            observed=record.observed,
            memory=record.memory,
            skip_reason=self.limits.reason,
            compile_cache=os.environ.get("TORCHINDUCTOR_CACHE_DIR"),
        )

    # ---- runs --------------------------------------------------------------------------------------------------

    def require_request(self) -> Request:
        """Return the request. RuntimeError: nothing is prepared, or it was closed."""
        if self.request is None:
            raise RuntimeError(NOT_SET_UP)
        return self.request

    def new_record(self, before: Record) -> Result:
        """Forget what was compiled, and return a record without calls for a further run.

        The next run compiles again, from the compile cache of this set-up, and so shows by itself that it compiles as
        requested.

        Args:
            before: the record of a run before on this set-up.

        Raises:
            RuntimeError: there is nothing to run on any more, or the ranks of this job have measured already.
        """
        ready = self._ready
        if ready is None or (ready.skip_reason is None and self.request is None):
            raise RuntimeError(f"{NOT_SET_UP}: what it prepared was closed")
        if self._group is not None:
            raise RuntimeError("model.tp_size: the ranks of a tensor-parallel job measure once; start another job")
        compilation.reset()
        if ready.compile_cache is not None:
            compile_cache.use_cache(Path(ready.compile_cache))  # another runner may have set its own since
        self.limits.reason = ready.skip_reason
        return Result(
            kind=before.kind,
            trial_id=before.trial_id,
            sweep_id=before.sweep_id,
            repeat=before.repeat,
            name=before.name,
            swept=before.swept,
            started_at_s=time.time(),
            requested=before.requested,
            observed=ready.observed,
            memory=ready.memory,
            environment=before.environment,
            fingerprint=before.fingerprint,
        )

    @contextlib.contextmanager
    def monitoring(self) -> Iterator[None]:
        """Let the hardware monitor measure calls until the context ends, if the config asks for one.

        It is the one that was started with the load, or a new one in a further run.
        """
        monitor, self._launched = self._launched or self._launch_monitor(), None
        if monitor is None:
            yield
            return
        with monitor:
            monitor.wait_until_ready()
            self.monitor = monitor
            try:
                yield
            finally:
                self.monitor = None

    def freeze_garbage(self) -> None:
        """Collect once, and exclude the millions of long-lived objects that are left from later collections."""
        gc.collect()
        gc.freeze()
        self._froze = True

    def close(self) -> None:
        """Release the model, the temporary compile cache and the processes. Called again, it does nothing."""
        self.session = self._launched = None
        self._open.close()
        self.request = None
        if self._froze:  # else a first collection would look through all that the fork server has frozen
            gc.unfreeze()
            self._froze = False

    def _launch_monitor(self) -> HardwareMonitor | None:
        """Start the monitor's process without waiting for it; None when the config asks for none."""
        monitor = self._config.monitor
        if not monitor.enabled:
            return None
        device = resolve_device(self._config.device)
        index = self._group.rank if self._group is not None else device.index or 0
        uuid = gpu_uuid_of(index) if device.type == "cuda" else None
        return self._open.enter_context(HardwareMonitor.launch(device.type, monitor.interval_s, uuid, os.getpid()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ready:
    """The state at the end of the preparation, as further runs need it."""

    observed: Observed | None  # of the loaded model; None when it could not be loaded
    memory: Memory
    skip_reason: str | None
    compile_cache: str | None  # folder


def check_same_config(prepared: dict[str, Any], requested: dict[str, Any]) -> None:
    """Raise RuntimeError with the first key in which the requested config differs from the prepared one."""
    if prepared == requested:
        return
    difference = next(_differences(prepared, requested), "another config")
    raise RuntimeError(
        f"{difference}; run_benchmark measures what setup_benchmark prepared: call that with this config first"
    )


def _differences(prepared: dict[str, Any], requested: dict[str, Any]) -> Iterator[str]:
    for section, values in requested.items():
        known = prepared.get(section)
        if isinstance(values, dict) and isinstance(known, dict):
            for name, value in values.items():
                if value != known.get(name):
                    yield f"{section}.{name}={value}: prepared was {known.get(name)}"
        elif values != known:
            yield f"{section}={values}: prepared was {known}"


def load_model(config: BenchmarkConfig, group: RankGroup | None) -> LoadedModel:
    """Load the model as all calls use it. Raises what `bench.trial.model.loading.load` and `kernelize` raise."""
    loaded = load(config) if group is None else load(config, group)
    if config.generation.kernelize:
        kernelize(loaded.model, loaded.device, compiled=config.compile.mode is not None)
    return loaded


@contextlib.contextmanager
def use_compile_cache(config: BenchmarkConfig, device: torch.device, fresh: Path | None) -> Iterator[None]:
    """Compile into the folder that `compile.cache` asks for, and lock a shared one until the context ends.

    Args:
        config: the setting. `compile.cache=shared` uses one folder for all settings that compile to the same code.
        device: where the model is.
        fresh: an empty folder for `compile.cache=fresh`; None: a temporary one, which is removed at the end.

    Raises:
        ConfigError: the shared folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if config.compile.cache == "shared":
            folder = compile_cache.shared_cache(config, device)
            try:
                stack.enter_context(cache_folder.shared(folder))
                compile_cache.keep_recent(folder)
            except OSError as error:
                raise unusable_cache(folder, error) from error
        elif fresh is not None:
            folder = fresh
        else:
            folder, lock = cache_folder.make_temporary()
            stack.enter_context(lock)  # held for as long as the folder exists
            stack.callback(cache_folder.remove, folder)
        compile_cache.use_cache(folder)
        yield
