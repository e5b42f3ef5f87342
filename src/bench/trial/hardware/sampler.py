"""Sample the hardware during calls, in a process of its own: the GPU through NVML, or the machine through psutil.

    python -m bench.trial.hardware.sampler --pid PID --interval S [--gpu-uuid UUID]

It writes ``{"ready": true, "source": ..., "energy_source": ...}`` once it can sample (or ``false`` and an ``error``),
then obeys lines on stdin. ``start``: read the energy counter, take a sample now and one every interval. ``stop``: read
the counter, take a last sample and write all of them as one JSON line, with times on the clock of
``time.perf_counter``, which all processes of a Linux machine share, and with the joules in between. So the shortest
call has two samples. Between calls, and between samples, it sleeps in ``select``: it never reads the hardware outside
of a call, and never polls. It ends when its stdin is closed or the process PID ends, whichever comes first.

What the numbers do not cover:

- NVML's utilisation and (on most GPUs) its power are means over the driver's own window, up to a second: in a shorter
  call they include the time before it. Utilisation is the share of time with any kernel running, not of the
  GPU's units in use.
- The CPU's utilisation is that of the whole machine since the sample before, other programs included, and counted by
  the kernel in ticks of typically 10 ms. A call's first sample has none.
- On a MIG instance memory is the instance's; clocks, temperature and throttling are those of the card; power and
  energy, which only the whole card reports, are left out.
- Energy is that of the whole GPU (NVML), or of all processor packages together (RAPL), idle draw and other programs
  included. RAPL's packages are without the memory's modules; neither has fans, disks or losses of the power supply.
- NVML's energy counter advances in steps of 20 to 100 ms (petsc.org, PetscLogGpuEnergyMeter; 100 ms on an H100),
  RAPL's of about 1 ms (Khan et al., RAPL in Action, 2018). One short call is coarse, down to 0 J; the sum over many
  calls means something. Reading NVML's took 3 ms there, anything else of NVML 20 to 50 us.
- The counter is read when this process gets the line, which may be a moment after the call's start and end.

It is one file, because it runs as a file with no folder on its import path. Only the standard library, psutil and
pynvml are imported: it starts in a tenth of a second and has no GPU context.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import pynvml

# The fields of bench.results.record.MonitorSample; what is unknown is left out.
Sample = dict[str, float | int]
Query = Callable[[], float | int]

# The GPU is lost until the machine is repaired; after any other NVML error only its field is missing.
LOST = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)
CLOCK_QUERY_SHARE = 0.02  # the core clock is read only if that takes less than this share of the interval

POWERCAP = Path("/sys/class/powercap")  # kernel.org, Documentation/power/powercap/powercap.rst
# RAPL's counters have 32 bits: in AMD's unit of 15.3 uJ one wraps around after 65 kJ, at 500 W after 131 s. Read this
# often during a call, none can do so twice unnoticed.
METER_INTERVAL_S = 30.0


class DeviceLostError(Exception):
    """The device can no longer be read."""


class Probe(Protocol):
    """A device that can be sampled."""

    source: str

    def prime(self) -> None:
        """Begin a series: counts since the last sample start here."""

    def read(self) -> Sample:
        """Return the fields that the device reports, without the time. Raises DeviceLostError."""


class CpuProbe:
    """Samples the machine's load and clock, and the memory of one process."""

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
    """Return seconds that the cores have been busy, and that have been counted at all, since boot."""
    times = psutil.cpu_times()._asdict()
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # part of user and nice
    return total - times["idle"] - times.get("iowait", 0.0), total


def _core_clock_mhz() -> float | None:
    """Return the mean clock of all cores."""
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError, AttributeError):  # differs by platform
        return None
    return float(clock.current) if clock is not None and clock.current > 0 else None


class GpuProbe:
    """Samples one GPU or one MIG instance."""

    source = "nvml"

    def __init__(self, device: Any, card: Any = None) -> None:
        """`device` and `card` are handles; the card is None unless the device is one of its MIG instances."""
        candidates = _queries(device, card)
        self._queries = {name: query for name, each in candidates.items() if (query := _first_working(each))}
        if not self._queries:
            raise DeviceLostError("NVML reports nothing about this GPU")

    def prime(self) -> None:
        """Do nothing: NVML's values do not depend on earlier ones."""

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


def open_gpu(uuid: str) -> Any:
    """Return the NVML handle of a GPU or MIG instance. CUDA leaves out the prefix that tells them apart."""
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        if not uuid.startswith("GPU-"):
            raise
        with contextlib.suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByUUID("MIG-" + uuid.removeprefix("GPU-"))
        raise


def card_of(device: Any) -> Any:
    """Return the card that a MIG instance is part of, None for a device that is no instance."""
    with contextlib.suppress(pynvml.NVMLError, AttributeError):
        if pynvml.nvmlDeviceIsMigDeviceHandle(device):
            return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
    return None


def _queries(device: Any, card: Any) -> dict[str, tuple[Query, ...]]:
    """Return the ways to query each field, the preferred one first: NVML renames functions."""
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
    """Return the first that this version of pynvml has and this driver and device answer."""
    for query in candidates:
        try:
            query()
        except LOST:
            raise
        except (pynvml.NVMLError, AttributeError):
            continue
        return query
    return None


class Meter:
    """Measures the energy of a call with the hardware's counter. After its first error it stays off."""

    def __init__(
        self,
        *,
        source: str | None,
        read_j: Callable[[], Sequence[float]] = tuple,
        ranges_j: Sequence[float] = (),
        reason: str | None = None,
    ) -> None:
        """Read the counters of a source, or have none for a reason.

        Args:
            source: "nvml" or "rapl"; None: there is no counter.
            read_j: the counter of each domain, in joules. May raise OSError, ValueError or NVMLError.
            ranges_j: the value at which each of them wraps around; 0: never.
            reason: why there is no counter.
        """
        self.source = source
        self.reason = reason
        self._read_j = read_j
        self._ranges_j = ranges_j
        self._last_j: Sequence[float] | None = None  # None: no call has begun, or its energy is unknown
        self._last_s = 0.0
        self._spent_j = 0.0

    def start(self) -> None:
        """Begin a call."""
        self._spent_j, self._last_j = 0.0, self._now_j()

    def keep_up(self) -> None:
        """Read the counter in a call so long that it could wrap around more than once."""
        if self._last_j is not None and time.perf_counter() - self._last_s >= METER_INTERVAL_S:
            self._advance(self._last_j)

    def stop(self) -> float | None:
        """End the call and return its joules; None: unknown."""
        if self._last_j is not None:
            self._advance(self._last_j)
        known, self._last_j = self._last_j is not None, None
        return self._spent_j if known else None

    def _advance(self, before_j: Sequence[float]) -> None:
        self._last_j = self._now_j()
        if self._last_j is None:
            return
        for before, now, range_j in zip(before_j, self._last_j, self._ranges_j, strict=True):
            step = now - before + (range_j if now < before else 0.0)
            if step < 0:
                self.reason, self._last_j = "the energy counter went back", None
                return
            self._spent_j += step

    def _now_j(self) -> Sequence[float] | None:
        if self.reason is not None:
            return None
        self._last_s = time.perf_counter()
        try:
            return self._read_j()
        except (OSError, ValueError, pynvml.NVMLError) as error:
            self.reason = f"the energy counter can no longer be read: {error}"
            return None


def nvml_meter(device: Any, card: Any) -> Meter:
    """Return the energy counter of a GPU, which has none for its MIG instances."""
    if card is not None:
        return Meter(source=None, reason="a MIG instance has no energy counter: NVML's is that of the whole card")

    def read_j() -> tuple[float]:
        return (pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000,)

    try:
        read_j()
    except pynvml.NVMLError_NotSupported:
        return Meter(source=None, reason="this GPU has no energy counter (Not Supported; GPUs have one since Volta)")
    except pynvml.NVMLError as error:
        return Meter(source=None, reason=f"NVML does not report the energy: {error}")
    return Meter(source="nvml", read_j=read_j, ranges_j=(0.0,))


def rapl_meter(root: Path = POWERCAP) -> Meter:
    """Return the energy counters of all processor packages, Intel's or AMD's, below ``root``.

    Only domains that are a whole package: what is inside of one (core, uncore) it has counted, and psys is no
    substitute, because which parts of a machine it covers differs from board to board. Domains of single dies are left
    out as well: some kernels give AMD's several of them that read one counter.
    """
    try:
        domains = [each for each in sorted(root.glob("intel-rapl:*")) if _is_package(each)]
        ranges_j = [_microjoules(each / "max_energy_range_uj") for each in domains]
        for each in domains:
            _microjoules(each / "energy_uj")
    except PermissionError:
        remedy = f"sudo chmod a+r {root}/intel-rapl:*/energy_uj"
        return Meter(
            source=None,
            reason=f"only root may read RAPL's energy counters (CVE-2020-8694); until the next boot: {remedy}",
        )
    except (OSError, ValueError) as error:
        return Meter(source=None, reason=f"RAPL's energy counters cannot be read (containers hide them): {error}")
    if not domains:
        return Meter(source=None, reason=f"no package's energy counter below {root} (virtual machines have none)")
    return Meter(
        source="rapl", read_j=lambda: [_microjoules(each / "energy_uj") for each in domains], ranges_j=ranges_j
    )


def _is_package(domain: Path) -> bool:
    name = (domain / "name").read_text(encoding="ascii").strip()
    return re.fullmatch(r"package-\d+", name) is not None


def _microjoules(path: Path) -> float:
    """Return a counter of microjoules, in joules."""
    return int(path.read_text(encoding="ascii")) / 1e6


class Sampler:
    """Collects the samples and the energy of one call at a time."""

    def __init__(self, probe: Probe, meter: Meter, interval_s: float) -> None:
        self._probe = probe
        self._meter = meter
        self._interval_s = interval_s
        self._samples: list[Sample] = []
        self._due_s: float | None = None  # when the next sample is due; None: not sampling
        self._error: str | None = None

    def wait_s(self) -> float | None:
        """Return how long to sleep; None: until the next command."""
        return None if self._due_s is None else max(0.0, self._due_s - time.perf_counter())

    def start(self) -> None:
        """Begin a series, and drop one that was never stopped."""
        self._meter.start()  # before the sample, as at the call's end: both readings are late by the same
        self._samples = []
        self._due_s = time.perf_counter() + self._interval_s
        self._probe.prime()
        self._take()

    def tick(self) -> None:
        """Take a sample if one is due. Missed samples are not taken later."""
        now = time.perf_counter()
        if self._due_s is not None and now >= self._due_s:
            missed = (now - self._due_s) // self._interval_s
            self._due_s += (1 + missed) * self._interval_s
            self._take()
            self._meter.keep_up()

    def stop(self) -> dict[str, Any]:
        """End the series and return its samples, its joules, and the error that ended it early (None: none did)."""
        joules = self._meter.stop()
        if self._due_s is not None:
            self._take()
        self._due_s = None
        samples, self._samples = self._samples, []
        return {"samples": samples, "error": self._error, "joules": joules, "energy_reason": self._meter.reason}

    def _take(self) -> None:
        now = time.perf_counter()
        try:
            self._samples.append({"time_s": now, **self._probe.read()})
        except DeviceLostError as error:
            self._error = str(error)
            self._due_s = None


class Inbox:
    """Reads the lines on stdin."""

    def __init__(self, pid: int) -> None:
        self._watched = [sys.stdin.fileno()]
        self._text = b""
        # A child that the process PID forked may hold our stdin open for longer than that process lives.
        with contextlib.suppress(AttributeError, OSError):
            self._watched.append(os.pidfd_open(pid))

    def next(self, timeout_s: float | None) -> str | None:
        """Return the next line; "" after the timeout; None at the end of the input."""
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


def _instruments(arguments: argparse.Namespace) -> tuple[Probe, Meter]:
    """Return the probe and the energy counter."""
    if not arguments.gpu_uuid:
        return CpuProbe(arguments.pid, arguments.interval), rapl_meter(arguments.powercap)
    pynvml.nvmlInit()
    device = open_gpu(arguments.gpu_uuid)
    card = card_of(device)
    return GpuProbe(device, card), nvml_meter(device, card)


def main() -> int:
    """Run the program and return its exit status: 1 when the device cannot be sampled."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
    parser = argparse.ArgumentParser(description="Sample the hardware while calls run; commands come on stdin.")
    parser.add_argument("--pid", type=int, required=True, help="the process that runs the calls")
    parser.add_argument("--interval", type=float, required=True, help="seconds between samples")
    parser.add_argument("--gpu-uuid", help="NVML's name of the GPU; without it the CPU is sampled")
    parser.add_argument("--powercap", type=Path, default=POWERCAP, help="where the CPU's energy counters are")
    arguments = parser.parse_args()
    with contextlib.suppress(BrokenPipeError):  # the reader is gone
        inbox = Inbox(arguments.pid)
        try:
            probe, meter = _instruments(arguments)
        except (pynvml.NVMLError, DeviceLostError, psutil.Error) as error:
            say({"ready": False, "error": str(error) or type(error).__name__})
            return 1
        energy = {"energy_source": meter.source, "energy_reason": meter.reason}
        say({"ready": True, "source": probe.source, **energy})
        serve(Sampler(probe, meter, arguments.interval), inbox)
    return 0


if __name__ == "__main__":
    sys.exit(main())
