"""What memory a job took, and the device's synchronisation point.

The device's figures are those of torch's allocator in this process; the host's are the process's resident set.
"""

from __future__ import annotations

import dataclasses
import platform
import resource

import psutil
import torch

from bench.record import Memory


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; a CPU has when the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flush(device: torch.device) -> None:
    """Give the allocator's unused memory back and restart its peaks."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def reserved(device: torch.device) -> int | None:
    """Bytes that the allocator holds now; None on the CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None


def after_load(device: torch.device) -> Memory:
    """Memory with the model loaded and nothing run."""
    return Memory(
        host_rss_after_load_bytes=psutil.Process().memory_info().rss,
        device_after_load_bytes=torch.cuda.memory_allocated(device) if device.type == "cuda" else None,
    )


def peaks(memory: Memory, device: torch.device) -> Memory:
    """The same with the peaks so far."""
    on_gpu = device.type == "cuda"
    return dataclasses.replace(
        memory,
        host_rss_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux counts KiB
        device_peak_allocated_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        device_peak_reserved_bytes=torch.cuda.max_memory_reserved(device) if on_gpu else None,
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a device of the kernel, not a path
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
