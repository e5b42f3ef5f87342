"""Read the memory that a job holds, and synchronise with the device.

The device's figures are those of torch's allocator in this process; the host's are the process's resident set.
"""

from __future__ import annotations

import contextlib
import platform
import resource
from pathlib import Path

import psutil
import torch

from bench.results.record import MemoryUse
from bench.trial.hardware.monitor import process_bytes_of

# Writing 5 there sets the process's RSS peak back to what it holds now (proc(5)).
CLEAR_REFS = Path("/proc/self/clear_refs")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; a CPU has when the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flush(device: torch.device) -> None:
    """Give the allocator's unused memory back and restart the peaks."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    restart_peaks(device)


def reserved(device: torch.device) -> int | None:
    """Return bytes that the allocator holds now; None on the CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None


def use(device: torch.device) -> MemoryUse:
    """Return what the job holds now."""
    on_gpu = device.type == "cuda"
    return MemoryUse(
        host_rss_bytes=psutil.Process().memory_info().rss,
        device_allocated_bytes=torch.cuda.memory_allocated(device) if on_gpu else None,
        device_reserved_bytes=torch.cuda.memory_reserved(device) if on_gpu else None,
        device_process_bytes=_process_bytes(device) if on_gpu else None,
    )


def restart_peaks(device: torch.device) -> None:
    """Restart the peaks: what was held before counts only as far as it still is."""
    with contextlib.suppress(OSError):  # an older or guarded kernel keeps the peak of the whole process
        CLEAR_REFS.write_text("5", encoding="ascii")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device, *, of_process: bool = False) -> MemoryUse:
    """Return the most that the job held since `restart_peaks`; only with `of_process` from NVML, which is slow."""
    on_gpu = device.type == "cuda"
    return MemoryUse(
        host_rss_bytes=_peak_rss_bytes(),
        device_allocated_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        device_reserved_bytes=torch.cuda.max_memory_reserved(device) if on_gpu else None,
        # A single reading: the allocator gives nothing back on its own, so the end of a stage is its peak.
        device_process_bytes=_process_bytes(device) if on_gpu and of_process else None,
    )


def _peak_rss_bytes() -> int:
    """Return the kernel's own high-water mark, in bytes."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def _process_bytes(device: torch.device) -> int | None:
    """Return this process's memory on the GPU as NVML counts it; None: NVML does not report it."""
    return None if device.index is None else process_bytes_of(device.index)


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a device of the kernel, not a path
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
