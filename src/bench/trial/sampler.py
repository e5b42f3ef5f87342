"""The hardware monitor's own process: looks at the GPU through NVML, or at the machine through psutil, during calls.

    python -m bench.trial.sampler --pid PID --interval S [--gpu-uuid UUID]

It says ``{"ready": true, "source": ...}`` once it can sample (or ``false`` and an ``error``), then obeys lines on
stdin. ``start``: take a sample now and one every interval. ``stop``: take a last one and write all of them as one
JSON line, with times on the clock of ``time.perf_counter``, which all processes of a Linux machine share. So the
shortest call has two samples. Between calls, and between samples, it sleeps in ``select``: it never reads the
hardware outside of a call, and never spins. It ends with its stdin, or with the process PID, whichever goes first.

What the numbers do not cover:

- NVML's utilisation and (on most GPUs) its power are means over the driver's own window, up to a second: in a shorter
  call they tell of the time before it as well. Utilisation is the share of time with any kernel running, not of the
  GPU's units in use.
- The CPU's utilisation is that of the whole machine since the sample before, other programs included, and counted by
  the kernel in ticks of typically 10 ms. A call's first sample has none.
- On a MIG instance memory is the instance's; clocks, temperature and throttling are those of the card; power, which
  only the card as a whole can tell, is left out.

Only the standard library, psutil and pynvml are imported: it is up in a tenth of a second and has no GPU context.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import psutil
import pynvml

# The fields of bench.record.MonitorSample; what is unknown is left out.
Sample = dict[str, float | int]
Query = Callable[[], float | int]

# The GPU is gone until the machine is repaired; any other NVML error only costs the field that it came from.
LOST = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)
CLOCK_QUERY_SHARE = 0.02  # the core clock is read only if that takes less than this share of the interval


class DeviceLostError(Exception):
    """The device can no longer be read."""


class Probe(Protocol):
    """What can be sampled."""

    source: str

    def prime(self) -> None:
        """Begin a new series: what is counted since the last sample starts here."""

    def read(self) -> Sample:
        """The fields that the device tells, without the time. Raises DeviceLostError."""


class CpuProbe:
    """The machine's load and clock, and the memory of one process."""

    source = "psutil"

    def __init__(self, pid: int, interval_s: float) -> None:
        self._process = psutil.Process(pid)
        # On machines with many cores the clock is slow to read and disturbs every one of them.
        began = time.perf_counter()
        clock = _core_clock_mhz()
        self._has_clock = clock is not None and time.perf_counter() - began < CLOCK_QUERY_SHARE * interval_s
        self.prime()

    def prime(self) -> None:
        self._ticks = _cpu_ticks()

    def read(self) -> Sample:
        sample: Sample = {}
        if (utilization := self._utilization_percent()) is not None:
            sample["utilization_percent"] = utilization
        with contextlib.suppress(psutil.Error):
            sample["memory_used_bytes"] = self._process.memory_info().rss
        if self._has_clock and (clock := _core_clock_mhz()) is not None:
            sample["sm_clock_mhz"] = clock
        return sample

    def _utilization_percent(self) -> float | None:
        busy, total = _cpu_ticks()
        busy_before, total_before = self._ticks
        if total <= total_before:  # no tick since: unknown, where psutil.cpu_percent says 0
            return None
        self._ticks = busy, total
        return min(100.0, max(0.0, 100 * (busy - busy_before) / (total - total_before)))


def _cpu_ticks() -> tuple[float, float]:
    """Seconds that the cores have been busy, and that have been counted at all, since boot."""
    times = psutil.cpu_times()._asdict()
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # part of user and nice
    return total - times["idle"] - times.get("iowait", 0.0), total


def _core_clock_mhz() -> float | None:
    """The mean clock of all cores."""
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError, AttributeError):  # differs by platform
        return None
    return float(clock.current) if clock is not None and clock.current > 0 else None


class GpuProbe:
    """One GPU, or one MIG instance, by its UUID."""

    source = "nvml"

    def __init__(self, uuid: str) -> None:
        pynvml.nvmlInit()
        device = _open(uuid)
        candidates = _queries(device, _card_of(device))
        self._queries = {name: query for name, each in candidates.items() if (query := _first_working(each))}
        if not self._queries:
            raise DeviceLostError(f"NVML tells nothing about {uuid}")

    def prime(self) -> None:
        """Nothing to do: each of NVML's answers stands for itself."""

    def read(self) -> Sample:
        sample: Sample = {}
        for name, query in list(self._queries.items()):
            try:
                sample[name] = query()
            except LOST as error:
                raise DeviceLostError(str(error)) from error
            except pynvml.NVMLError:
                del self._queries[name]
        return sample


def _open(uuid: str) -> Any:
    """The NVML handle of a GPU or MIG instance. CUDA leaves out the prefix that tells them apart."""
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        if not uuid.startswith("GPU-"):
            raise
        with contextlib.suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByUUID("MIG-" + uuid.removeprefix("GPU-"))
        raise


def _card_of(device: Any) -> Any:
    """The card that a MIG instance is part of, None for a device that is no instance."""
    with contextlib.suppress(pynvml.NVMLError, AttributeError):
        if pynvml.nvmlDeviceIsMigDeviceHandle(device):
            return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
    return None


def _queries(device: Any, card: Any) -> dict[str, tuple[Query, ...]]:
    """Field → ways to ask for it, the preferred one first: NVML renames functions, and retires the old names."""
    shared = device if card is None else card  # what instances cannot have of their own
    queries: dict[str, tuple[Query, ...]] = {
        "utilization_percent": (lambda: float(pynvml.nvmlDeviceGetUtilizationRates(device).gpu),),
        "memory_used_bytes": (lambda: int(pynvml.nvmlDeviceGetMemoryInfo(device).used),),
        "sm_clock_mhz": (lambda: float(pynvml.nvmlDeviceGetClockInfo(shared, pynvml.NVML_CLOCK_SM)),),
        "memory_clock_mhz": (lambda: float(pynvml.nvmlDeviceGetClockInfo(shared, pynvml.NVML_CLOCK_MEM)),),
        "power_w": (lambda: pynvml.nvmlDeviceGetPowerUsage(device) / 1000,),
        "temperature_c": (
            lambda: float(pynvml.nvmlDeviceGetTemperature(shared, pynvml.NVML_TEMPERATURE_GPU)),
            lambda: float(pynvml.nvmlDeviceGetTemperatureV(shared, pynvml.NVML_TEMPERATURE_GPU)),
        ),
        "throttle_bits": (
            lambda: int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(shared)),
            lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(shared)),
        ),
    }
    if card is not None:
        del queries["power_w"]
    return queries


def _first_working(candidates: tuple[Query, ...]) -> Query | None:
    """The first that this version of pynvml has and this driver and device answer."""
    for query in candidates:
        try:
            query()
        except LOST:
            raise
        except (pynvml.NVMLError, AttributeError):
            continue
        return query
    return None


class Sampler:
    """The samples of one call at a time."""

    def __init__(self, probe: Probe, interval_s: float) -> None:
        self._probe = probe
        self._interval_s = interval_s
        self._samples: list[Sample] = []
        self._due_s: float | None = None  # when the next sample is due; None: not sampling
        self._error: str | None = None

    def wait_s(self) -> float | None:
        """How long to sleep; None: until the next command."""
        return None if self._due_s is None else max(0.0, self._due_s - time.perf_counter())

    def start(self) -> None:
        """Begin a series, and forget one that was never stopped."""
        self._samples = []
        self._due_s = time.perf_counter() + self._interval_s
        self._probe.prime()
        self._take()

    def tick(self) -> None:
        """Take a sample if one is due. One that was missed is not made up for."""
        now = time.perf_counter()
        if self._due_s is not None and now >= self._due_s:
            missed = (now - self._due_s) // self._interval_s
            self._due_s += (1 + missed) * self._interval_s
            self._take()

    def stop(self) -> dict[str, Any]:
        """End the series: its samples, and why there are no more of them (None: nothing went wrong)."""
        if self._due_s is not None:
            self._take()
        self._due_s = None
        samples, self._samples = self._samples, []
        return {"samples": samples, "error": self._error}

    def _take(self) -> None:
        now = time.perf_counter()
        try:
            self._samples.append({"time_s": now, **self._probe.read()})
        except DeviceLostError as error:
            self._error = str(error)
            self._due_s = None


class Inbox:
    """The lines on stdin."""

    def __init__(self, pid: int) -> None:
        self._watched = [sys.stdin.fileno()]
        self._text = b""
        # A child that the process PID forked may hold our stdin open for longer than that process lives.
        with contextlib.suppress(AttributeError, OSError):
            self._watched.append(os.pidfd_open(pid))

    def next(self, timeout_s: float | None) -> str | None:
        """The next line; "" when there is none in time; None when there will be none any more."""
        stdin = self._watched[0]
        if b"\n" not in self._text:
            ready, _, _ = select.select(self._watched, [], [], timeout_s)
            received = os.read(stdin, 4096) if stdin in ready else b""
            if ready and not received:
                return None
            self._text += received
        line, newline, rest = self._text.partition(b"\n")
        if not newline:
            return ""
        self._text = rest
        return line.decode().strip()


def serve(sampler: Sampler, inbox: Inbox) -> None:
    """Obey commands until there are no more."""
    while (command := inbox.next(sampler.wait_s())) is not None:
        if command == "start":
            sampler.start()
        elif command == "stop":
            say(sampler.stop())
        else:
            sampler.tick()


def say(message: dict[str, Any]) -> None:
    """Write one JSON line to stdout."""
    line = memoryview(json.dumps(message, allow_nan=False).encode() + b"\n")
    while line:
        line = line[os.write(sys.stdout.fileno(), line) :]


def main() -> int:
    """The program; 1 when the device cannot be sampled."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; what it means is the parent's matter
    parser = argparse.ArgumentParser(description="Sample the hardware while calls run; commands come on stdin.")
    parser.add_argument("--pid", type=int, required=True, help="the process that runs the calls")
    parser.add_argument("--interval", type=float, required=True, help="seconds between samples")
    parser.add_argument("--gpu-uuid", help="NVML's name of the GPU; without it the CPU is sampled")
    arguments = parser.parse_args()
    with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
        inbox = Inbox(arguments.pid)
        try:
            uuid = arguments.gpu_uuid
            probe: Probe = GpuProbe(uuid) if uuid else CpuProbe(arguments.pid, arguments.interval)
        except (pynvml.NVMLError, DeviceLostError, psutil.Error) as error:
            say({"ready": False, "error": str(error) or type(error).__name__})
            return 1
        say({"ready": True, "source": probe.source})
        serve(Sampler(probe, arguments.interval), inbox)
    return 0


if __name__ == "__main__":
    sys.exit(main())
