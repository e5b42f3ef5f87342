"""What this device can do: the bandwidth of its memory and the rate of its matrix multiplications, measured here.

These are denominators, so they must be upper bounds: what a decoding step could reach at most. Hence the best of
several access patterns and of all their rounds, and never a median; a disturbance only ever slows a round down. And
hence no data sheet: it knows neither this machine's memory modules nor its power limit nor the part of it that a
container or virtual machine was given.

- Bandwidth: the best of three patterns: a maximum, which only reads, as decoding nearly does; a copy, counted as one
  read and one write; a sum of two tensors into a third, counted as two reads and one write. The buffers are far
  larger than the caches. On the CPU the same is done within the caches, for models that fit there (see
  `bench.analysis.trials.roofline.bandwidth_for`).
- Matrices: square products in the model's dtype, in both layouts of the second factor, growing until one takes long
  enough to be at full speed.

Measured once for a machine and kept in a file whose name stands for all that changes the rates. Where something else
took this process's cores meanwhile, the figures are too low: up to MAX_MEASUREMENTS jobs then measure again, and the
best of each figure counts. A busy memory, a hypervisor's doing or another process on the same GPU is not seen that
way; but a call that is faster than the rates allow gives them away (`anew`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil
import torch

from bench.host.atomic_files import write_whole
from bench.host.home_folder import cache_home
from bench.host.libraries import imported, key_of, unusual
from bench.host.machine import cpu_model
from bench.results.record import DeviceRates
from bench.trial.hardware import environment
from bench.trial.hardware.monitor import gpu_uuid_of

METHOD = 1  # of measuring; a change makes the figures in old files count no more
MAX_MEASUREMENTS = 3
# Another job of this machine may be measuring: it takes seconds. Then one measures for oneself.
LOCK_TIMEOUT_S = 60.0

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


def device_rates(
    device: torch.device, dtype: torch.dtype, *, anew: bool = False, cache_folder: Path | None = None
) -> DeviceRates:
    """The rates of `device`, from the file of this machine, or measured now: some 3 s on a CPU, below 2 s on a GPU.

    To be called when nothing is being timed. All memory that it takes is given back.

    Args:
        device: cpu or cuda.
        dtype: of the matrices.
        anew: measure again and keep the best of both: for when a call was faster than the rates allow
            (`Roofline.rejected`).
        cache_folder: where the files lie; None: bench/rates below XDG_CACHE_HOME or ~/.cache. A folder that cannot be
            written to, or a broken file, costs a measurement and is no error.

    Raises:
        RuntimeError, torch.OutOfMemoryError: not even the smallest measurement was possible.
    """
    conditions = conditions_of(device, dtype)
    fingerprint = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
    path = (cache_folder or _default_folder()) / f"{fingerprint}.json"
    if not anew and (known := _read(path, fingerprint)) is not None and _is_settled(known):
        return known
    with _lock(path):
        # Another process may have measured while this one waited.
        known = _read(path, fingerprint)
        if not anew and known is not None and _is_settled(known):
            return known
        rates = measure(device, dtype, fingerprint)
        rates = rates if known is None else _better(known, rates)
        _write(path, rates, conditions)
    return rates


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


# ---- measuring ------------------------------------------------------------------------------------------------------


def _cpu_stopwatch(operation: Callable[[], Any]) -> float:
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def _gpu_stopwatch(device: torch.device) -> Stopwatch:
    """Seconds between two events on the device: what Python spends before a launch is not among them."""

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
    """The best rate of any of the works, in turn until the time is spent: at least three times, the first warms up."""
    best, turns, end_s = 0.0, 0, time.perf_counter() + budget_s
    while turns < 3 or time.perf_counter() < end_s:
        best = max(best, *(amount / stopwatch(operation) for amount, operation in works))
        turns += 1
    return best


def _memory_rate(device: torch.device, stopwatch: Stopwatch, size_bytes: int) -> tuple[float, float | None]:
    """Bytes per second of memory, and the share of the processor that the rounds got; None on a GPU.

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
    """Bytes per second, and what the rounds got of the processor time that torch's threads could have had.

    All threads work, or spin, throughout the walks. The share is taken over all rounds, because the kernel adds up
    the time of running threads only now and then. A busy machine gets as many rounds again: one may go undisturbed.
    """
    cores = min(torch.get_num_threads(), usable_cores(), _or_none(environment.cpu_limit_cores) or float("inf"))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    best = _best_rate(works, stopwatch, MEMORY_S)
    share = (time.process_time() - cpu_s) / ((time.perf_counter() - wall_s) * cores)
    if share < QUIET_SHARE:
        best = max(best, _best_rate(works, stopwatch, MEMORY_S))
    return best, share


def _cache_rate(device: torch.device, stopwatch: Stopwatch, cache_bytes: int) -> float:
    """Bytes per second of what stays in the processor's caches: the best of three sizes, each walked often in a row.

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
    """Ways to walk through buffers of `size_bytes`, one stretch after the other: each stretch with each pattern.

    All in float32, which every device reads at full speed. A stretch of a large buffer is short, so that some rounds
    go undisturbed on a busy machine; when its turn comes again, the caches have long forgotten it.
    """
    count = max(stretches, size_bytes // 4)
    # Written here, so that the pages exist, and near to the threads that will read them.
    buffers = (torch.ones(count, device=device) for _ in range(3))
    by_stretch = [_patterns(*parts) for parts in zip(*(each.chunk(stretches) for each in buffers), strict=True)]
    return [work for by_pattern in zip(*by_stretch, strict=True) for work in by_pattern]


def _patterns(source: torch.Tensor, other: torch.Tensor, target: torch.Tensor) -> list[Work]:
    """Bytes moved, and the operation: one read, one read and one write, two reads and one write.

    Such that each of torch's threads gets its part: a norm or a matrix × vector product often runs in one.
    """
    size_bytes = source.numel() * source.element_size()
    return [
        (size_bytes, source.amax),
        (2 * size_bytes, lambda: target.copy_(source)),
        (3 * size_bytes, lambda: torch.add(source, other, out=target)),
    ]


def _matmul_rate(device: torch.device, dtype: torch.dtype, stopwatch: Stopwatch) -> float:
    """FLOPs per second of square matrix products, 2 n³ each: n doubles until a product takes long enough.

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
    """Products of two random matrices: zeros would draw less power and let a GPU clock higher."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(left)
    return {
        "plain": (2 * size**3, lambda: torch.mm(left, right, out=result)),
        "transposed": (2 * size**3, lambda: torch.mm(left, right.T, out=result)),  # as in a linear layer
    }


def _has_room(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether three matrices of twice this size, one of them in float32 for a moment, leave most of the memory free."""
    return bool((2 * size) ** 2 * (3 * dtype.itemsize + 4) < free_bytes(device) // 2)


# ---- the machine ----------------------------------------------------------------------------------------------------


def conditions_of(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """All that changes the rates, as plain values."""
    return {
        "method": METHOD,
        "dtype": str(dtype),
        "torch": [torch.__version__, torch.version.git_version],
        "float32_matmul_precision": _or_none(torch.get_float32_matmul_precision),
        **(_gpu_conditions(device) if device.type == "cuda" else _cpu_conditions()),
        **{name: copy for name, copy in unusual(imported()).items() if name == key_of("torch")},
    }


def _cpu_conditions() -> dict[str, Any]:
    return {
        "device": "cpu",
        "model": _or_none(cpu_model),
        "machine": platform.machine(),
        "host": platform.node(),  # machines that share a home may differ in nothing but their memory
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "usable_cores": usable_cores(),
        "limit_cores": _or_none(environment.cpu_limit_cores),
        "torch_threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "caches": cpu_cache_bytes(),
        "clock": _or_none(environment.clock_settings),
        "pages": _or_none(environment.transparent_hugepages),
        "float32": _or_none(lambda: torch.backends.mkldnn.matmul.fp32_precision),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
    }


def _gpu_conditions(device: torch.device) -> dict[str, Any]:
    index = torch.cuda.current_device() if device.index is None else device.index
    uuid = gpu_uuid_of(index)
    matmul = torch.backends.cuda.matmul
    # The power limit and the clocks among them; who else runs there is no setting, and changes from job to job.
    settings = {name: each for name, each in environment.gpu_settings(uuid).items() if name != "other_processes"}
    return {
        "device": "cuda",
        "name": torch.cuda.get_device_name(device),
        "uuid": uuid,
        "cuda": torch.version.cuda,
        "driver": _or_none(environment.driver_version),
        "settings": settings,
        "float32": _or_none(lambda: matmul.fp32_precision),
        "reduced_precision": [
            bool(matmul.allow_fp16_reduced_precision_reduction),
            bool(matmul.allow_bf16_reduced_precision_reduction),
            _or_none(lambda: bool(matmul.allow_fp16_accumulation)),
        ],
    }


def _or_none(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception:  # noqa: BLE001 - machines differ in more ways than can be listed; unknown is a value here
        return None


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_cache_bytes(root: Path = environment.SYS_CPU) -> int | None:
    """What the caches of the usable cores hold, from the second level on; None where the kernel does not tell.

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
    """How large one of three buffers is: much larger than the caches, and a small part of the free memory."""
    wanted = GPU_BUFFER_BYTES if device.type == "cuda" else max(CPU_BUFFER_BYTES, CACHE_MULTIPLE * cache_bytes)
    return max(MIB, min(wanted, int(free_bytes(device) * MEMORY_SHARE)))


def free_bytes(device: torch.device) -> int:
    """What the device has free; of a CPU what machine and control group leave: it kills instead of refusing."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    limit = _or_none(environment.memory_limit_bytes)
    return int(free if limit is None else min(free, max(0, limit - psutil.Process().memory_info().rss)))


# ---- the file -------------------------------------------------------------------------------------------------------


def _default_folder() -> Path:
    return cache_home() / "rates"


def _is_settled(rates: DeviceRates) -> bool:
    """Whether another measurement would tell no more."""
    return rates.quiet is not False or rates.measurements >= MAX_MEASUREMENTS


def _better(known: DeviceRates, new: DeviceRates) -> DeviceRates:
    """The best of both: each is a rate that this device has reached."""
    cached = [each for each in (known.cache_bandwidth_bytes_per_s, new.cache_bandwidth_bytes_per_s) if each is not None]
    return dataclasses.replace(
        new,
        bandwidth_bytes_per_s=max(known.bandwidth_bytes_per_s, new.bandwidth_bytes_per_s),
        matmul_flops_per_s=max(known.matmul_flops_per_s, new.matmul_flops_per_s),
        cache_bandwidth_bytes_per_s=max(cached, default=None),
        measurements=known.measurements + 1,
    )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Only one process of the machine measures at a time; where that cannot be arranged, each for itself."""
    lock = None
    with contextlib.suppress(OSError, NotImplementedError, filelock.Timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        # One lock for all rates: two measurements at once would disturb each other, whatever they measure.
        lock = filelock.FileLock(path.parent / "measuring.lock", timeout=LOCK_TIMEOUT_S)
        lock.acquire()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _read(path: Path, fingerprint: str) -> DeviceRates | None:
    """The rates in the file; None when there is none that can be used."""
    try:
        rates = DeviceRates(**json.loads(path.read_text(encoding="utf-8"))["rates"])
        figures = (rates.bandwidth_bytes_per_s, rates.matmul_flops_per_s)
        usable = rates.fingerprint == fingerprint and all(0 < each < float("inf") for each in figures)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return rates if usable else None


def _write(path: Path, rates: DeviceRates, conditions: dict[str, Any]) -> None:
    """Keep the rates, with what they hold for beside them for people; a folder that refuses them is no error."""
    text = json.dumps({"rates": dataclasses.asdict(rates), "conditions": conditions}, indent=1)
    with contextlib.suppress(OSError):
        write_whole(path, text)
