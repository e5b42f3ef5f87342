"""Describe where a job ran: versions, processor, memory, GPU, commits, and environment variables that change results.

This is done once per job, outside of every measured call, in a few hundredths of a second. What cannot be found out is
None: a probe that fails does not fail the job.

It does not cover what changes while the job runs (clocks, temperature, load: ``bench.trial.hardware.sampler``),
firmware, settings of the kernel other than those of clocks and huge pages, or what other users of the machine do; the
load average, which counts bench's own jobs before this one as well, is a hint of that. Clocks that were locked with
``nvidia-smi --lock-gpu-clocks`` cannot be seen: NVML sets them and has no function that reads them back. Only variables
on a list of names are kept, and of those none that could hold a secret.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pynvml
import torch

from bench.host import __version__
from bench.host.git import git_state
from bench.host.gpus import nvml
from bench.host.libraries import INSTALLED, imported
from bench.host.machine import cpu_model, variables, versions
from bench.trial.hardware.monitor import gpu_uuid_of
from bench.trial.hardware.sampler import card_of, open_gpu

SYS_CPU = Path("/sys/devices/system/cpu")
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # Linux, include/linux/proc_ns.h: PROC_PID_INIT_INO
# cgroup v1 writes "no limit" as the largest number of whole pages.
NO_LIMIT_BYTES = 1 << 60

_Found = TypeVar("_Found")


def describe_environment(device: str) -> dict[str, Any]:
    """Return the environment of a job on ``device`` (cpu, cuda, cuda:N), as plain values for ``record.json``.

    Initialises CUDA when the device is a GPU.
    """
    return {
        "versions": {"bench": __version__, **versions()},
        "platform": _try(platform.platform),
        "hostname": _try(platform.node),
        "cpu": _cpu(),
        "load_average": _try(lambda: list(os.getloadavg())),  # over the last 1, 5 and 15 minutes
        "memory": {
            "total_bytes": _try(lambda: psutil.virtual_memory().total),
            "limit_bytes": _try(memory_limit_bytes),
            "transparent_hugepages": _try(transparent_hugepages),
        },
        "gpu": _try(lambda: _gpu(device)) if device.startswith("cuda") else None,
        "git": _try(own_commit),
        "start_folder": _try(git_state),  # the user's commit: that of the folder in which the command was started
        "variables": variables(os.environ),
    }


def own_commit() -> dict[str, Any] | None:
    """Return the commit of the checkout that bench runs from, and whether tracked files differ from it.

    None where it is installed. Where the command was typed has no part in it.
    """
    own = imported()["bench"]
    return None if own["came_from"] == INSTALLED else git_state(Path(own["folder"]))


def _try(probe: Callable[[], _Found]) -> _Found | None:
    """Return what the probe finds, None where it fails: machines differ in more ways than can be listed."""
    try:
        return probe()
    except Exception:  # noqa: BLE001  # see above
        return None


# ---- processor ------------------------------------------------------------------------------------------------------


def _cpu() -> dict[str, Any]:
    return {
        "model": _try(cpu_model),
        "physical_cores": _try(lambda: psutil.cpu_count(logical=False)),
        "logical_cores": _try(psutil.cpu_count),
        "usable_cores": _try(lambda: len(os.sched_getaffinity(0))),
        "limit_cores": _try(cpu_limit_cores),
        "numa_nodes": _try(numa_nodes),
        "instructions": _try(torch.backends.cpu.get_cpu_capability),  # the widest that torch's kernels use here
        **clock_settings(),
        "torch_threads": _try(torch.get_num_threads),
        "torch_interop_threads": _try(torch.get_num_interop_threads),
        "float32_matmul_precision": _try(torch.get_float32_matmul_precision),
    }


def clock_settings(root: Path = SYS_CPU, core: int | None = None) -> dict[str, str | bool | float | None]:
    """Return how the kernel chooses the clock of ``core`` (None: the first that this process may use).

    With the drivers intel_pstate and amd-pstate-epp the governor says little and the energy preference much.
    """
    if core is None:
        core = min(_try(lambda: os.sched_getaffinity(0)) or {0})
    folder = root / f"cpu{core}" / "cpufreq"
    return {
        "clock_driver": _text(folder / "scaling_driver"),
        "governor": _text(folder / "scaling_governor"),
        "energy_preference": _text(folder / "energy_performance_preference"),
        "boost": _try(lambda: _boost(root)),
        "min_clock_mhz": _try(lambda: _mhz(folder / "scaling_min_freq")),
        "max_clock_mhz": _try(lambda: _mhz(folder / "scaling_max_freq")),
    }


def _boost(root: Path) -> bool | None:
    """Return whether cores may exceed their nominal clock; None: the kernel does not say."""
    if (boost := _text(root / "cpufreq" / "boost")) is not None:
        return boost == "1"
    no_turbo = _text(root / "intel_pstate" / "no_turbo")
    return None if no_turbo is None else no_turbo == "0"


def _mhz(path: Path) -> float | None:
    kilohertz = _text(path)
    return None if kilohertz is None else int(kilohertz) / 1000


def numa_nodes(path: Path = Path("/sys/devices/system/node/online")) -> int:
    """Return how many NUMA nodes the machine has: the kernel lists them as in 0-1,3."""
    ranges = [each.partition("-") for each in path.read_text(encoding="ascii").strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def transparent_hugepages(path: Path = Path("/sys/kernel/mm/transparent_hugepage/enabled")) -> str | None:
    """always, madvise or never: the one in brackets."""
    chosen = re.search(r"\[(\w+)\]", path.read_text(encoding="ascii"))
    return chosen[1] if chosen else None


# ---- limits of the control group ------------------------------------------------------------------------------------


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the smallest memory limit on this process's control group and those around it; None: no limit."""
    limits = []
    for folder in _groups(root, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name)
            if text is not None and text != "max" and int(text) < NO_LIMIT_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def cpu_limit_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the smallest CPU quota on this process's control group and those around it, in cores; None: no limit."""
    limits = []
    for folder in _groups(root, own, "cpu"):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us") or "", _text(folder / "cpu.cfs_period_us") or ""
        if quota not in ("", "max", "-1") and period:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _groups(root: Path, own: Path, controller: str) -> list[Path]:
    """Return the folders of this process's control group for a controller, innermost first (cgroup v1 and v2)."""
    folders = []
    for line in own.read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            top = root
        elif controller in controllers.split(","):
            top = root / controller
        else:
            continue
        inner = top / group.lstrip("/")
        folders += [each for each in (inner, *inner.parents) if each.is_relative_to(top)]
    return folders


def _text(path: Path) -> str | None:
    """Return a small file's content; None where there is none, as for groups outside of a container."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii").strip()
    return None


# ---- GPU ------------------------------------------------------------------------------------------------------------


def _gpu(device: str) -> dict[str, Any]:
    index = torch.device(device).index
    if index is None:
        index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    uuid = _try(lambda: gpu_uuid_of(index))
    return {
        "name": properties.name,
        "uuid": uuid,
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": _try(driver_version),
        "cuda": torch.version.cuda,  # what torch was built with
        "cudnn": _try(torch.backends.cudnn.version),  # as one number: 91002 is 9.10.2
        **gpu_settings(uuid),
        "others_visible": _try(lambda: [_named(each) for each in range(torch.cuda.device_count()) if each != index]),
    }


def _named(index: int) -> dict[str, str | None]:
    return {"name": torch.cuda.get_device_properties(index).name, "uuid": _try(lambda: gpu_uuid_of(index))}


def gpu_settings(uuid: str | None) -> dict[str, Any]:
    """Return what was set on a GPU and what else runs there; None where NVML does not report it.

    A MIG instance has its card's settings, and its own processes.
    """
    unknown = dict.fromkeys([*GPU_SETTINGS, "other_processes"])
    return unknown if uuid is None else _try(lambda: _settings_of(uuid)) or unknown


def _settings_of(uuid: str) -> dict[str, Any]:
    with nvml():
        device = open_gpu(uuid)
        card = card_of(device)
        shared = device if card is None else card
        found = {name: _try(functools.partial(query, shared)) for name, query in GPU_SETTINGS.items()}
        return {**found, "other_processes": _try(lambda: other_processes(device))}


COMPUTE_MODES = ("default", "exclusive_thread", "prohibited", "exclusive_process")  # by NVML's number
# Name → how NVML is asked, given a card's handle. Application clocks end with CUDA 14, says nvidia-ml-py.
GPU_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "power_limit_w": lambda card: pynvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000,
    "default_power_limit_w": lambda card: pynvml.nvmlDeviceGetPowerManagementDefaultLimit(card) / 1000,
    "persistence_mode": lambda card: bool(pynvml.nvmlDeviceGetPersistenceMode(card)),
    "compute_mode": lambda card: COMPUTE_MODES[pynvml.nvmlDeviceGetComputeMode(card)],
    "mig_mode": lambda card: bool(pynvml.nvmlDeviceGetMigMode(card)[0]),
    "ecc_mode": lambda card: bool(pynvml.nvmlDeviceGetEccMode(card)[0]),
    "max_sm_clock_mhz": lambda card: pynvml.nvmlDeviceGetMaxClockInfo(card, pynvml.NVML_CLOCK_SM),
    "max_memory_clock_mhz": lambda card: pynvml.nvmlDeviceGetMaxClockInfo(card, pynvml.NVML_CLOCK_MEM),
    "application_sm_clock_mhz": lambda card: pynvml.nvmlDeviceGetApplicationsClock(card, pynvml.NVML_CLOCK_SM),
    "application_memory_clock_mhz": lambda card: pynvml.nvmlDeviceGetApplicationsClock(card, pynvml.NVML_CLOCK_MEM),
}


def other_processes(device: Any, namespace: Path = Path("/proc/self/ns/pid")) -> int | None:
    """Return how many processes but this one compute on a device; None in a container.

    There NVML reports the process ids outside of the container, or none at all, so this process cannot be excluded.
    """
    if namespace.stat().st_ino != FIRST_PID_NAMESPACE:
        return None
    return len([each for each in pynvml.nvmlDeviceGetComputeRunningProcesses(device) if each.pid != os.getpid()])


def driver_version() -> str:
    """Return NVIDIA's driver version from the kernel module; if a container hides it, from NVML, which is slower."""
    loaded = _text(Path("/sys/module/nvidia/version"))
    if loaded:
        return loaded
    with nvml():
        return str(pynvml.nvmlSystemGetDriverVersion())
