"""Return the peak rates of this device: from a file of this machine, or measured now.

They are measured once per machine and kept in a file whose name is a hash of all that changes the rates. If something
else used this process's cores during the measurement, the figures are too low: up to MAX_MEASUREMENTS jobs then measure
again, and the best of each figure counts. A busy memory, a hypervisor or another process on the same GPU cannot be
noticed that way; but a call that is faster than the rates allow shows it (`anew`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterator
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
from bench.trial.hardware.rate_measurement import cpu_cache_bytes, measure, or_none, usable_cores

METHOD = 1  # of measuring; a change makes the figures in old files count no more
MAX_MEASUREMENTS = 3
# Another job of this machine may be measuring: it takes seconds. Then one measures for oneself.
LOCK_TIMEOUT_S = 60.0


def device_rates(
    device: torch.device, dtype: torch.dtype, *, anew: bool = False, cache_folder: Path | None = None
) -> DeviceRates:
    """Return the rates of `device`, known or measured now, in some 3 s on a CPU and below 2 s on a GPU.

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


# ---- the machine ----------------------------------------------------------------------------------------------------


def conditions_of(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return all that changes the rates, as plain values."""
    return {
        "method": METHOD,
        "dtype": str(dtype),
        "torch": [torch.__version__, torch.version.git_version],
        "float32_matmul_precision": or_none(torch.get_float32_matmul_precision),
        **(_gpu_conditions(device) if device.type == "cuda" else _cpu_conditions()),
        **{name: copy for name, copy in unusual(imported()).items() if name == key_of("torch")},
    }


def _cpu_conditions() -> dict[str, Any]:
    return {
        "device": "cpu",
        "model": or_none(cpu_model),
        "machine": platform.machine(),
        "host": platform.node(),  # machines that share a home may differ in nothing but their memory
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "usable_cores": usable_cores(),
        "limit_cores": or_none(environment.cpu_limit_cores),
        "torch_threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "caches": cpu_cache_bytes(),
        "clock": or_none(environment.clock_settings),
        "pages": or_none(environment.transparent_hugepages),
        "float32": or_none(lambda: torch.backends.mkldnn.matmul.fp32_precision),
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
        "driver": or_none(environment.driver_version),
        "settings": settings,
        "float32": or_none(lambda: matmul.fp32_precision),
        "reduced_precision": [
            bool(matmul.allow_fp16_reduced_precision_reduction),
            bool(matmul.allow_bf16_reduced_precision_reduction),
            or_none(lambda: bool(matmul.allow_fp16_accumulation)),
        ],
    }


# ---- the file -------------------------------------------------------------------------------------------------------


def _default_folder() -> Path:
    return cache_home() / "rates"


def _is_settled(rates: DeviceRates) -> bool:
    """Check whether another measurement would tell no more."""
    return rates.quiet is not False or rates.measurements >= MAX_MEASUREMENTS


def _better(known: DeviceRates, new: DeviceRates) -> DeviceRates:
    """Return the best of both: each is a rate that this device has reached."""
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
    """Return the rates in the file; None when there is none that can be used."""
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
