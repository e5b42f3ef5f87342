"""Start the sampling process, tell it when a measured call begins and ends, and take its samples.

One process serves a whole job (``bench.trial.hardware.sampler``, whose docstring defines the figures). The job only
writes a line before a call and reads one after it. That process needs about a millisecond of a core per sample,
including the one at the call's start: if the call keeps all cores busy, it takes that from the call.

The job does not wait after the line before the call: the first sample may be taken a moment before the call begins or
after, so its time may be slightly negative. It is kept as it is.

A monitor never makes a job fail: its failure is kept in ``error``, and calls after that have no samples and no energy.
If only the energy counter cannot be read, only the energy is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pynvml

from bench.host.gpus import cards, nvml, uuid_of_name, visible_name
from bench.results.record import Energy, Monitor, MonitorSample
from bench.trial.hardware.sampler import open_gpu

READY_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 5.0  # without a byte; long series are written in many pieces
EXIT_TIMEOUT_S = 1.0
# Run as a file, with no folder added to the path: neither the current folder nor how bench came to be importable
# in this process can change what it runs.
_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("sampler.py")))


class _SamplingError(Exception):
    """The sampling process cannot be used."""


class HardwareMonitor:
    """The sampling process of one job, alive or not. Use as a context manager, or close it."""

    def __init__(self, *, source: str, interval_s: float) -> None:
        """Without a process; ``launch`` and ``start_process`` are the ways to one with."""
        self.source = source
        self.interval_s = interval_s
        self.error: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._in_call = self._is_ready = False
        self._energy_source: str | None = None
        self._energy_reason: str | None = None
        self._joules: list[float | None] = []

    @classmethod
    def start_process(cls, device: str, interval_s: float, gpu_uuid: str | None, pid: int) -> HardwareMonitor:
        """Launch the process and wait until it is ready."""
        monitor = cls.launch(device, interval_s, gpu_uuid, pid)
        monitor.wait_until_ready()
        return monitor

    @classmethod
    def launch(cls, device: str, interval_s: float, gpu_uuid: str | None, pid: int) -> HardwareMonitor:
        """Start sampling ``device`` (the GPU ``gpu_uuid`` when it is a cuda device, else the CPU and process ``pid``).

        The process gets ready by itself, in a tenth of a second; ``wait_until_ready`` before the first call. Never
        raises: look at ``error``.
        """
        on_gpu = device.startswith("cuda")
        monitor = cls(source="nvml" if on_gpu else "psutil", interval_s=interval_s)
        if on_gpu and gpu_uuid is None:
            monitor._fail(f"NVML knows no GPU that is {device}")
            return monitor
        options = ["--pid", str(pid), "--interval", str(interval_s)]
        if on_gpu and gpu_uuid:
            options += ["--gpu-uuid", gpu_uuid]
        monitor._start(options)
        return monitor

    def wait_until_ready(self) -> None:
        """Wait for the process's first message. Never raises: look at ``error``."""
        if self._process is None or self._is_ready:
            return
        try:
            answer = self._receive(READY_TIMEOUT_S)
        except _SamplingError as error:
            self._fail(str(error))
            return
        if not answer.get("ready"):
            self._fail(str(answer.get("error")))
            return
        self._is_ready = True
        self._energy_source, self._energy_reason = answer.get("energy_source"), answer.get("energy_reason")

    def begin(self) -> None:
        """Begin a measured call. Returns at once."""
        self._in_call = True
        self._send("start")

    def end(self, call_start: float) -> list[MonitorSample]:
        """End the call and return its samples, with times since ``call_start`` (a ``time.perf_counter`` reading).

        [] when the monitor has failed, now or before. A device that is lost during the call leaves the samples that
        were taken until then. The call's energy is kept for ``energy``.
        """
        reply = self._stop()
        if self._in_call:
            self._joules.append(reply.get("joules"))
        self._in_call = False
        self._energy_reason = self._energy_reason or reply.get("energy_reason")
        if reply.get("error"):
            self._fail(reply["error"])
        return [_sample(each, call_start) for each in reply.get("samples", [])]

    def summary(self, samples_per_call: list[list[MonitorSample]]) -> Monitor:
        """Return what goes into the record, given what ``end`` returned for each measured call."""
        return Monitor(source=self.source, interval_s=self.interval_s, samples=samples_per_call, error=self.error)

    def energy(self) -> Energy:
        """Return for the record the joules of each call between ``begin`` and ``end``; None: unknown.

        What the figure covers stands in ``bench.trial.hardware.sampler``.
        """
        return Energy(source=self._energy_source, joules=list(self._joules), reason=self._energy_reason or self.error)

    def close(self) -> None:
        """End the process; a second time does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        stdin, stdout = _pipes(process)
        with contextlib.suppress(OSError):
            stdin.close()
        try:
            process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, options: list[str]) -> None:
        try:
            # Unbuffered, so that begin is one write. Its stderr is the job's: a traceback lands in the job's log.
            self._process = subprocess.Popen(  # noqa: S603  # our own file, no shell
                [*_COMMAND, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            self._fail(str(error))

    def _stop(self) -> dict[str, Any]:
        """Return the process's answer to the end of a call; {} when there is none."""
        self._send("stop")
        if self._process is None:
            return {}
        try:
            return self._receive(REPLY_TIMEOUT_S)
        except _SamplingError as error:
            self._fail(str(error))
            return {}

    def _send(self, command: str) -> None:
        if self._process is None:
            return
        try:
            _pipes(self._process)[0].write(command.encode() + b"\n")
        except OSError:
            self._fail(self._how_it_ended())

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        """Return the process's next line. Blocks without using a core."""
        assert self._process is not None
        descriptor = _pipes(self._process)[1].fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        line = bytearray()
        while not line.endswith(b"\n"):
            if not poll.poll(timeout_s * 1000):
                raise _SamplingError(f"the monitor's process did not answer within {timeout_s:g} s")
            received = os.read(descriptor, 1 << 16)
            if not received:
                raise _SamplingError(self._how_it_ended())
            line += received
        try:
            message = json.loads(line)
        except ValueError as error:
            raise _SamplingError(f"the monitor's process wrote {bytes(line[:80])!r}") from error
        if not isinstance(message, dict):
            raise _SamplingError(f"the monitor's process wrote {bytes(line[:80])!r}")
        return message

    def _how_it_ended(self) -> str:
        code: int | None = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(EXIT_TIMEOUT_S)
        if code is None:
            return "the monitor's process closed its pipe"
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return f"the monitor's process ended {how}"

    def _fail(self, reason: str) -> None:
        """Keep the first reason, and do without samples from here on."""
        self.error = self.error or reason
        self.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _sample(values: dict[str, Any], call_start: float) -> MonitorSample:
    return MonitorSample(**{**values, "time_s": values["time_s"] - call_start})


# ---- which GPU ------------------------------------------------------------------------------------------------------


def gpu_uuid_of(device_index: int) -> str | None:
    """Return NVML's UUID of the GPU or MIG instance that torch calls ``cuda:<device_index>``; None: unknown.

    Torch is asked first, which knows best, and initialises CUDA for it; then NVML (`bench.host.gpus`).
    """
    name = visible_name(device_index)
    if name.startswith("MIG-"):
        return name
    return _uuid_from_torch(device_index) or uuid_of_name(name, cards())


def _uuid_from_torch(device_index: int) -> str | None:
    import torch  # noqa: PLC0415  # the monitor is of use without it, and starts faster

    try:
        uuid = str(torch.cuda.get_device_properties(device_index).uuid)
    except (AssertionError, AttributeError, RuntimeError):  # no CUDA in this build, no such field, no such device
        return None
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def process_bytes_of(device_index: int) -> int | None:
    """Return the bytes that this process holds on torch's ``cuda:<device_index>``, from NVML; None: unknown.

    NVML counts the CUDA context and the libraries' own memory, which torch's allocator does not know. In a container
    NVML may know the process by another number; then, too, it is None.
    """
    uuid = gpu_uuid_of(device_index)
    if uuid is None:
        return None
    try:
        with nvml():
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(open_gpu(uuid))
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):  # the second, of old drivers, is not one of the first
        return None
    return next((each.usedGpuMemory for each in processes if each.pid == os.getpid()), None)
