"""Measure the bandwidth of this device's memory and the rate of its matrix multiplications.

The rates are denominators, so they must be upper bounds: what a decoding step could reach at most. Each is therefore
the best of several access patterns in all rounds and never a median, because a disturbance only ever slows a round
down. No data sheet is used: it knows neither this machine's memory modules, nor its power limit, nor the share of it
that a container or virtual machine has.

- Bandwidth: the best of three patterns: a maximum, which only reads, as decoding nearly does; a copy, counted as one
  read and one write; a sum of two tensors into a third, counted as two reads and one write. The buffers are far
  larger than the caches. On the CPU the same is done within the caches, for models that fit there (see
  `bench.analysis.trials.roofline.bandwidth_for`).
- Matrices: square products in the model's dtype, in both layouts of the second factor, growing until one takes long
  enough to reach full speed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.results.record import DeviceRates
from bench.trial.hardware import environment

# Of the processor time that torch's threads could have had: with less, something else ran on their cores.
QUIET_SHARE = 0.9

# Runs an operation once; seconds that it took.
Stopwatch = Callable[[Callable[[], Any]], float]
# What an operation moves (bytes) or computes (FLOPs), and the operation.
Work = tuple[int, Callable[[], Any]]

MIB = 2**20
CPU_BUFFER_BYTES = 256 * MIB
CACHE_MULTIPLE = 8  # a buffer is so many times the caches, or what can be had
GPU_BUFFER_BYTES = 2048 * MIB
MEMORY_SHARE = 0.1  # of the free memory, for each of three buffers
CPU_STRETCHES = 8  # that a buffer is walked in
MEMORY_S, GPU_MEMORY_S = 1.2, 0.2  # of rounds
CACHE_S = 0.2
MATMUL_S, GPU_MATMUL_S = 0.8, 0.3
GROWING_S = 0.05  # of rounds for each size and layout on the way to the largest matrices
LONGEST_PRODUCT_S = 0.25  # matrices whose product takes longer are hardly faster
SMALLEST_MATRIX = 256
LARGEST_MATRIX = {"cpu": 4096, "cuda": 8192}
SLOW_LAYOUT = 3.0  # a layout that takes so many times the other's time is tried no more


def measure(device: torch.device, dtype: torch.dtype, fingerprint: str) -> DeviceRates:
    """Measure the rates now, whatever is known."""
    on_gpu = device.type == "cuda"
    stopwatch = _gpu_stopwatch(device) if on_gpu else _cpu_stopwatch
    cache_bytes = None if on_gpu else cpu_cache_bytes()
    try:
        with torch.inference_mode():
            bandwidth, processor_share = _memory_rate(device, stopwatch, _buffer_bytes(device, cache_bytes or 0))
            cached = None if cache_bytes is None else _cache_rate(device, stopwatch, cache_bytes)
            flops_per_s = _matmul_rate(device, dtype, stopwatch)
    finally:
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
    return DeviceRates(
        bandwidth_bytes_per_s=bandwidth,
        matmul_flops_per_s=flops_per_s,
        dtype=str(dtype).removeprefix("torch."),
        fingerprint=fingerprint,
        measured_at_s=time.time(),
        # Caches slower than memory would be a disturbance: nothing that moves within them is slower.
        cache_bandwidth_bytes_per_s=None if cached is None else max(cached, bandwidth),
        cache_bytes=cache_bytes,
        quiet=None if processor_share is None else processor_share >= QUIET_SHARE,
    )


def _cpu_stopwatch(operation: Callable[[], Any]) -> float:
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def _gpu_stopwatch(device: torch.device) -> Stopwatch:
    """Return seconds between two events on the device: what Python spends before a launch is not among them."""

    def stopwatch(operation: Callable[[], Any]) -> float:
        with torch.cuda.device(device):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            operation()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return stopwatch


def _best_rate(works: list[Work], stopwatch: Stopwatch, budget_s: float) -> float:
    """Return the best rate of any of the works, each at least three times; the first time warms up."""
    best, turns, end_s = 0.0, 0, time.perf_counter() + budget_s
    while turns < 3 or time.perf_counter() < end_s:
        best = max(best, *(amount / stopwatch(operation) for amount, operation in works))
        turns += 1
    return best


def _memory_rate(device: torch.device, stopwatch: Stopwatch, size_bytes: int) -> tuple[float, float | None]:
    """Return bytes per second of memory, and the share of the processor that the rounds got; None on a GPU.

    Args:
        device: cpu or cuda.
        stopwatch: of this device.
        size_bytes: of each of three buffers; less where there is no room for them.
    """
    while True:
        try:
            if device.type == "cuda":
                return _best_rate(_walks(device, size_bytes, 1), stopwatch, GPU_MEMORY_S), None
            return _host_memory_rate(_walks(device, size_bytes, CPU_STRETCHES), stopwatch)
        except RuntimeError:  # out of memory; on a GPU a subclass
            size_bytes //= 2
            if size_bytes < MIB:
                raise


def _host_memory_rate(works: list[Work], stopwatch: Stopwatch) -> tuple[float, float]:
    """Return bytes per second, and what the rounds got of the processor time that torch's threads could have had.

    All threads work, or spin, throughout the walks. The share is taken over all rounds, because the kernel adds up
    the time of running threads only now and then. A busy machine gets as many rounds again: one may go undisturbed.
    """
    cores = min(torch.get_num_threads(), usable_cores(), or_none(environment.cpu_limit_cores) or float("inf"))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    best = _best_rate(works, stopwatch, MEMORY_S)
    share = (time.process_time() - cpu_s) / ((time.perf_counter() - wall_s) * cores)
    if share < QUIET_SHARE:
        best = max(best, _best_rate(works, stopwatch, MEMORY_S))
    return best, share


def _cache_rate(device: torch.device, stopwatch: Stopwatch, cache_bytes: int) -> float:
    """Return bytes per second within the processor's caches: the best of three sizes, each read many times.

    The three buffers together take a third, an eighth and a 32nd of the caches.
    """
    times, parts = 20, (3, 8, 32)
    best = 0.0
    for part in parts:
        works = _walks(device, cache_bytes // (3 * part), 1)
        often = [(times * amount, _repeated(operation, times)) for amount, operation in works]
        best = max(best, _best_rate(often, stopwatch, CACHE_S / len(parts)))
    return best


def _repeated(operation: Callable[[], Any], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            operation()

    return repeated


def _walks(device: torch.device, size_bytes: int, stretches: int) -> list[Work]:
    """Return ways to walk through buffers of `size_bytes`, one stretch after the other: each stretch with each pattern.

    All in float32, which every device reads at full speed. A stretch of a large buffer is short, so that some rounds
    go undisturbed on a busy machine; when its turn comes again, the caches have long forgotten it.
    """
    count = max(stretches, size_bytes // 4)
    # Written here, so that the pages exist, and near to the threads that will read them.
    buffers = (torch.ones(count, device=device) for _ in range(3))
    by_stretch = [_patterns(*parts) for parts in zip(*(each.chunk(stretches) for each in buffers), strict=True)]
    return [work for by_pattern in zip(*by_stretch, strict=True) for work in by_pattern]


def _patterns(source: torch.Tensor, other: torch.Tensor, target: torch.Tensor) -> list[Work]:
    """Return bytes moved, and the operation: one read, one read and one write, two reads and one write.

    Such that each of torch's threads gets its part: a norm or a matrix × vector product often runs in one.
    """
    size_bytes = source.numel() * source.element_size()
    return [
        (size_bytes, source.amax),
        (2 * size_bytes, lambda: target.copy_(source)),
        (3 * size_bytes, lambda: torch.add(source, other, out=target)),
    ]


def _matmul_rate(device: torch.device, dtype: torch.dtype, stopwatch: Stopwatch) -> float:
    """Return FLOPs per second of square matrix products, 2 n³ each: n doubles until a product takes long enough.

    A kernel that is slow (float16 on most CPUs) shows it with small matrices, and gets no larger ones. On a busy
    machine small products suffer from what their threads wait for each other, and large ones seldom go undisturbed: so
    the best of all sizes counts, and the last rounds are those of the two largest.
    """
    size, layouts, best = SMALLEST_MATRIX, ["plain", "transposed"], 0.0
    smaller: list[Work] = []
    while True:
        works = _products(device, dtype, size)
        rates = {name: _best_rate([works[name]], stopwatch, GROWING_S) for name in layouts}
        fastest = max(rates.values())
        best = max(best, fastest)
        layouts = [name for name in layouts if SLOW_LAYOUT * rates[name] >= fastest]
        kept = [works[name] for name in layouts]
        next_s = 2 * (2 * size) ** 3 / fastest
        if next_s > LONGEST_PRODUCT_S or 2 * size > LARGEST_MATRIX[device.type] or not _has_room(device, dtype, size):
            break
        size, smaller = 2 * size, kept
    budget_s = GPU_MATMUL_S if device.type == "cuda" else MATMUL_S
    return max(best, _best_rate(smaller + kept, stopwatch, budget_s))


def _products(device: torch.device, dtype: torch.dtype, size: int) -> dict[str, Work]:
    """Return products of two random matrices: zeros would draw less power and let a GPU clock higher."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(left)
    return {
        "plain": (2 * size**3, lambda: torch.mm(left, right, out=result)),
        "transposed": (2 * size**3, lambda: torch.mm(left, right.T, out=result)),  # as in a linear layer
    }


def _has_room(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Check whether three matrices of twice this size, one in float32 for a moment, leave most memory free."""
    return bool((2 * size) ** 2 * (3 * dtype.itemsize + 4) < free_bytes(device) // 2)


# ---- the machine -----------------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_cache_bytes(root: Path = environment.SYS_CPU) -> int | None:
    """Return what the caches of the usable cores hold, from the second level on; None: unknown.

    All levels together, each cache once, because what one of them lets go another may keep.
    """
    caches: dict[tuple[str, str], int] = {}
    for core in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        for folder in root.glob(f"cpu{core}/cache/index*"):
            with contextlib.suppress(OSError, ValueError):
                level, size, cores = (
                    (folder / name).read_text(encoding="ascii").strip() for name in ("level", "size", "shared_cpu_list")
                )
                if int(level) >= 2:
                    caches[level, cores] = int(size.removesuffix("K")) * 1024  # the kernel writes KiB
    return sum(caches.values()) or None


def _buffer_bytes(device: torch.device, cache_bytes: int) -> int:
    """Return how large one of three buffers is: much larger than the caches, and a small part of the free memory."""
    wanted = GPU_BUFFER_BYTES if device.type == "cuda" else max(CPU_BUFFER_BYTES, CACHE_MULTIPLE * cache_bytes)
    return max(MIB, min(wanted, int(free_bytes(device) * MEMORY_SHARE)))


def free_bytes(device: torch.device) -> int:
    """Return what the device has free; of a CPU what machine and control group leave: it kills instead of refusing."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    limit = or_none(environment.memory_limit_bytes)
    return int(free if limit is None else min(free, max(0, limit - psutil.Process().memory_info().rss)))


def or_none(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception:  # noqa: BLE001 - machines differ in more ways than can be listed; unknown is a value here
        return None
