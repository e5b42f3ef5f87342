"""Where a job ran: versions, processor, memory, GPU, commit, and the environment variables that change results.

Taken once a job, outside of every measured call, in a few hundredths of a second. What cannot be found out is None:
no probe's failure is the job's.

It does not cover what changes while the job runs (clocks, temperature, load: ``bench.trial.sampler``), firmware,
settings of the kernel other than the governor, or other users of the machine. Only variables on a list of names are
kept, and of those none that could hold a secret.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pynvml
import torch

import bench
from bench.trial.monitor import gpu_uuid_of

PACKAGES = ("torch", "transformers", "hydra-core", "omegaconf", "mlflow", "numpy", "triton")
GIT_TIMEOUT_S = 1.0

# Each as a whole name, or with a star as its beginning.
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLASLT_*", "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_VISIBLE_DEVICES", "DNNL_*", "GLIBC_TUNABLES", "GOMP_*", "HF_HUB_OFFLINE", "KMP_*", "LD_PRELOAD",
    "MALLOC_ARENA_MAX", "MALLOC_CONF", "MKL_*", "NVIDIA_TF32_OVERRIDE", "OMP_*", "ONEDNN_*", "OPENBLAS_*",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "PYTORCH_TUNABLEOP_*",
    "TOKENIZERS_PARALLELISM", "TORCHDYNAMO_*", "TORCHINDUCTOR_*", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_COMPILE_*", "TORCH_LOGS", "TRANSFORMERS_OFFLINE", "TRITON_*", "USE_HUB_KERNELS",
)  # fmt: skip
# Set by torch at its import and by bench for each job; compile.cache tells what matters of them.
OUR_OWN = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
HARMLESS = ("TOKENIZERS_PARALLELISM",)  # though it contains one of the words below
SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|AUTH", re.IGNORECASE)
SECRET_VALUE = re.compile(r"://[^/\s]*@")  # a user and password inside an address

# cgroup v1 writes "no limit" as the largest number of whole pages.
NO_LIMIT_BYTES = 1 << 60

_Found = TypeVar("_Found")


def describe_environment(device: str) -> dict[str, Any]:
    """The environment of a job on ``device`` (cpu, cuda, cuda:N), as plain values for ``record.json``.

    Initialises CUDA when the device is a GPU.
    """
    return {
        "versions": _versions(),
        "platform": _try(platform.platform),
        "hostname": _try(platform.node),
        "cpu": _cpu(),
        "memory": {
            "total_bytes": _try(lambda: psutil.virtual_memory().total),
            "limit_bytes": _try(memory_limit_bytes),
        },
        "gpu": _try(lambda: _gpu(device)) if device.startswith("cuda") else None,
        "git": _try(git_state),
        "variables": variables(os.environ),
    }


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change results, without any that could hold a secret."""
    return {name: value for name, value in sorted(environment.items()) if _is_listed(name) and _is_public(name, value)}


def _is_listed(name: str) -> bool:
    if name in OUR_OWN:
        return False
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in VARIABLES)


def _is_public(name: str, value: str) -> bool:
    return (name in HARMLESS or not SECRET_NAME.search(name)) and not SECRET_VALUE.search(value)


def _try(probe: Callable[[], _Found]) -> _Found | None:
    """What the probe finds, None where it fails: machines differ in more ways than can be listed."""
    try:
        return probe()
    except Exception:  # noqa: BLE001  # see above
        return None


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"bench": bench.__version__, "python": platform.python_version()}
    versions |= dict.fromkeys(PACKAGES)
    for package in PACKAGES:  # from their metadata: none is imported for it
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


# ---- processor ------------------------------------------------------------------------------------------------------


def _cpu() -> dict[str, Any]:
    return {
        "model": _try(cpu_model),
        "physical_cores": _try(lambda: psutil.cpu_count(logical=False)),
        "logical_cores": _try(psutil.cpu_count),
        "usable_cores": _try(lambda: len(os.sched_getaffinity(0))),
        "limit_cores": _try(cpu_limit_cores),
        "governor": _try(governor),
        "torch_threads": _try(torch.get_num_threads),
        "torch_interop_threads": _try(torch.get_num_interop_threads),
        "float32_matmul_precision": _try(torch.get_float32_matmul_precision),
    }


def cpu_model(path: Path = Path("/proc/cpuinfo")) -> str | None:
    """The processor's name for itself, under the key that its architecture uses."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Hardware", "cpu model", "cpu") and value.strip():
                return value.strip()
    return platform.processor() or None


def governor(path: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) -> str | None:
    """How the kernel chooses the first core's clock."""
    return path.read_text(encoding="ascii").strip() or None


# ---- limits of the control group ------------------------------------------------------------------------------------


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The smallest memory limit on this process's control group and those around it; None: no limit."""
    limits = []
    for folder in _groups(root, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name)
            if text is not None and text != "max" and int(text) < NO_LIMIT_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def cpu_limit_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The smallest CPU quota on this process's control group and those around it, in cores; None: no limit."""
    limits = []
    for folder in _groups(root, own, "cpu"):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us") or "", _text(folder / "cpu.cfs_period_us") or ""
        if quota not in ("", "max", "-1") and period:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _groups(root: Path, own: Path, controller: str) -> list[Path]:
    """The folders of this process's group for one controller, innermost first, in either version of the interface."""
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
    """A small file's content; None where there is none, as for groups outside of a container."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii").strip()
    return None


# ---- GPU ------------------------------------------------------------------------------------------------------------


def _gpu(device: str) -> dict[str, Any]:
    index = torch.device(device).index
    if index is None:
        index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "uuid": _try(lambda: gpu_uuid_of(index)),
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": _try(driver_version),
        "cuda": torch.version.cuda,  # what torch was built with
    }


def driver_version() -> str:
    """NVIDIA's driver: from the kernel module, or where a container hides that, from NVML, which takes longer."""
    loaded = _text(Path("/sys/module/nvidia/version"))
    if loaded:
        return loaded
    pynvml.nvmlInit()
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


# ---- commit ---------------------------------------------------------------------------------------------------------


def git_state(folder: Path = Path()) -> dict[str, Any] | None:
    """The commit that ``folder`` is at, and whether tracked files differ from it; None outside of a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    # One process for both, which does not write to the repository and starts no watcher for it.
    command = [git, "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch",
               "--untracked-files=no", "--ignore-submodules=dirty"]  # fmt: skip
    ended = subprocess.run(  # noqa: S603  # fixed arguments, no shell
        command, cwd=folder, capture_output=True, timeout=GIT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )
    if ended.returncode != 0:
        return None
    lines = ended.stdout.decode(errors="replace").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}
