"""Run a rank other than rank 0: load its slices and make each call that rank 0 commands.

Such a rank measures no time. It reports what it used of its device: memory in the same stages as rank 0, and the energy
of each measured call if each rank has a counter of its own, as GPUs have. On the CPU the counter is the host's, and
rank 0 reads it for all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.generation.streamers import BaseStreamer

from bench.config.schema import BenchmarkConfig
from bench.results.record import Memory, Rank
from bench.trial.compat.workarounds import applied_workarounds
from bench.trial.evidence.fidelity import LogitTap
from bench.trial.evidence.profiling import StopAfter
from bench.trial.hardware import memory
from bench.trial.hardware.monitor import HardwareMonitor, gpu_uuid_of
from bench.trial.measure.request import Request, guards
from bench.trial.measure.setup import load_model, use_compile_cache
from bench.trial.parallel.group import RankCommand, RankGroup


class NullStreamer(BaseStreamer):  # type: ignore[misc]
    """Ignores tokens. With a streamer, generate takes the same code path as in rank 0."""

    def put(self, value: Any) -> None:
        """Ignore the tokens of one step."""

    def end(self) -> None:
        """Do nothing at the end of the call."""


def obey_commands(config: BenchmarkConfig, group: RankGroup, compile_cache: Path) -> None:
    """Load the slices, then obey rank 0's commands until it sends "stop".

    Raises:
        RuntimeError: rank 0 or another rank is gone.
        Exception: whatever loading and generate raise.
    """
    with applied_workarounds(config), contextlib.ExitStack() as until_stop:
        loaded = load_model(config, group)
        until_stop.enter_context(use_compile_cache(config, loaded.device, compile_cache))
        request = Request.prepare(config, loaded)
        gc.collect()
        gc.freeze()
        this = _OtherRank(request=request, group=group, memory=Memory(after_load=memory.use(loaded.device)))
        while (command := group.receive()).kind != "stop":
            if command.kind == "stage":
                this.enter(str(command.stage), until_stop)
            elif command.kind == "report":
                group.gather((this.report(), this.tokens))
            else:
                this.call(command)


@dataclasses.dataclass(kw_only=True)
class _OtherRank:
    request: Request
    group: RankGroup
    memory: Memory
    stage: str = "load"
    tokens: list[list[int]] = dataclasses.field(default_factory=list)  # new ones of the last call
    monitor: HardwareMonitor | None = None

    def enter(self, stage: str, until_stop: contextlib.ExitStack) -> None:
        """Begin a stage of the job as rank 0 does."""
        device, config = self.request.loaded.device, self.request.config
        if self.stage == "warmup":
            self.memory = dataclasses.replace(self.memory, warmup_peak=memory.peak(device, of_process=True))
        if stage == "validation":
            memory.flush(device)
        elif stage == "warmup" and config.monitor.enabled and device.type == "cuda":
            interval_s, uuid = config.monitor.interval_s, gpu_uuid_of(device.index)
            started = HardwareMonitor.start_process(device.type, interval_s, uuid, os.getpid())
            self.monitor = until_stop.enter_context(started)
        elif stage == "measurement":
            memory.restart_peaks(device)
        self.stage = stage

    def call(self, command: RankCommand) -> None:
        """Make the same generate call as rank 0."""
        request, more = self.request, _keywords(command)
        monitor = self.monitor if self.stage == "measurement" else None
        with _without_collections(), guards(request.config), _monitored(monitor):
            memory.synchronize(request.loaded.device)
            output = request.generate(**more)
            memory.synchronize(request.loaded.device)
        self.tokens = output[:, request.config.workload.sequence_length :].tolist()
        del output
        gc.collect()

    def report(self) -> Rank:
        """Return what this rank used, up to the end of the measured calls."""
        device = self.request.loaded.device
        return Rank(
            rank=self.group.rank,
            device=str(device),
            device_name=memory.device_name(device),
            memory=dataclasses.replace(self.memory, measurement_peak=memory.peak(device, of_process=True)),
            joules=self.monitor.energy().joules if self.monitor is not None else [],
        )


def _keywords(command: RankCommand) -> dict[str, Any]:
    """Return inert forms of the observers in rank 0's call, because they change the code path of generate."""
    more: dict[str, Any] = {}
    if command.shows_logits:
        more["logits_processor"] = [LogitTap(lambda _step, _scores: None, command.forced)]
    else:
        more["streamer"] = NullStreamer()
    if command.length is not None:
        more["stopping_criteria"] = [StopAfter(command.length)]
    return more


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage until the context ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _monitored(monitor: HardwareMonitor | None) -> Iterator[None]:
    """Measure the energy of a call; only rank 0 keeps samples."""
    if monitor is None:
        yield
        return
    monitor.begin()
    try:
        yield
    finally:
        monitor.end(0.0)
