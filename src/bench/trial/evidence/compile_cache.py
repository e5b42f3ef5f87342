"""Choose the folder on disk in which torch.compile keeps its code.

Each job has a folder of its own (`fresh`), or each setting has one (`shared`). All settings in one folder would get
each other's kernels: Inductor's own key leaves out the SDPA backend.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import torch
import transformers

from bench.config.schema import BenchmarkConfig
from bench.host import cache_folder
from bench.host.home_folder import cache_home
from bench.host.libraries import imported, unusual
from bench.trial.compat import torch_internals

SHARED_CACHES = 32  # settings whose compiled code is kept; each takes some hundred megabytes
# Sections of the config that change no compiled code.
BESIDE_THE_CODE = (
    "sweep", "search", "tracking", "isolation", "profile", "warmup", "measurement", "monitor", "fidelity",
)  # fmt: skip


def shared_cache(config: BenchmarkConfig, device: torch.device) -> Path:
    """Return the folder of compiled code for this setting: keyed by all that changes the code."""
    defining = config.to_dict()
    for section in BESIDE_THE_CODE:
        del defining[section]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = [torch.__version__, torch.version.git_version, transformers.__version__, name]
    versions += sorted(unusual(imported()).values())  # another copy of a library may make other code
    key = hashlib.sha256(json.dumps([defining, versions], sort_keys=True).encode()).hexdigest()[:16]
    return cache_home() / "compile" / key


def keep_recent(folder: Path, most: int = SHARED_CACHES) -> None:
    """Mark a shared cache as used now, and remove those of other settings that were not used for longest.

    One that a process holds stays, and so does what is no cache of bench.
    """
    with cache_folder.shared(folder):
        os.utime(folder)
        used: list[tuple[float, Path]] = []
        for each in filter(cache_folder.is_own, folder.parent.iterdir()):
            with contextlib.suppress(OSError):  # another job has just removed it
                used.append((each.stat().st_mtime, each))
        for _, each in sorted(used, reverse=True)[most:]:
            cache_folder.remove_unused(each)


def use_cache(folder: Path) -> None:
    """Make Inductor (and Triton below it) keep compiled code in `folder` from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    # Inductor keeps the C++ headers that it precompiles in one place for all, wherever the cache is: the first job on a
    # machine would pay for them, and no other.
    torch_internals.keep_headers_in(str(folder))
