"""What the kernel and the GPU's driver say about a job from outside: killed for want of memory, memory free again.

Both are asked by the parent, which has no torch: the kernel by its counters, the GPU by NVML. Where they do not answer,
nothing is claimed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

import pynvml

from bench.config.schema import BenchmarkConfig
from bench.host.gpus import cards, nvml, uuid_of_name
from bench.jobs.process.neighbours import names_of

FREE_WAIT_S = 10.0
FREE_POLL_S = 0.05
TOLERANCE_BYTES = 64 << 20  # of what a driver keeps and other processes do meanwhile


def oom_kills(
    root: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
    vmstat: Path = Path("/proc/vmstat"),
) -> int:
    """How many processes the kernel's OOM killer has ended in this process's control group; 0 where none is known.

    Counts whatever the group's limit or the machine's memory was the reason. Version 2 of the interface counts
    descendants as well. Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    for file in [*_group_files(root, own), vmstat]:  # without a memory controller: the machine's own count
        with contextlib.suppress(OSError, ValueError, KeyError):
            counters = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
            return int(counters["oom_kill"])
    return 0


def _group_files(root: Path, own: Path) -> list[Path]:
    """Where the group's counters may be.

    The last ones are for containers that see the path of their group on the host, but only their own part of the tree.
    """
    found: dict[Path, None] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if "memory" in controllers.split(","):
                found |= dict.fromkeys(
                    [root / "memory" / each / "memory.oom_control" for each in (group.lstrip("/"), "")]
                )
            elif controllers == "":
                found |= dict.fromkeys([root / each / "memory.events" for each in (group.lstrip("/"), "")])
    return list(found)


def cards_of(config: BenchmarkConfig) -> list[str] | None:
    """The UUIDs of the cards, or of the instances of cards (MIG), that a job will use; [] where it uses none.

    Told without torch, from CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER. None where it cannot be told: with cards of
    several models CUDA decides on their order, and of a divided card it takes an instance of its own choice.
    """
    known = cards()
    found = [uuid_of_name(each, known) for each in names_of(config, known)]
    told = [each for each in found if each is not None]
    return None if None in found or any(map(_is_divided, told)) else told


def _is_divided(uuid: str) -> bool:
    """Whether a card is in MIG mode: then its memory is that of several devices."""
    if uuid.startswith("MIG-"):
        return False
    try:
        with nvml():
            return bool(pynvml.nvmlDeviceGetMigMode(pynvml.nvmlDeviceGetHandleByUUID(uuid))[0])
    except pynvml.NVMLError:  # most cards cannot be divided, and say so
        return False


def used_bytes(only: Collection[str] | None = None) -> dict[str, int] | None:
    """GPU (by UUID) → bytes in use on it, by whomever; None without a GPU that NVML knows.

    `only` names those to look at, cards and instances of cards; None: all cards of the machine.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    used = {}
    try:
        places: Collection[int | str] = range(pynvml.nvmlDeviceGetCount()) if only is None else only
        for place in places:
            with contextlib.suppress(pynvml.NVMLError):  # one that is lost, or not ours, says nothing of the others
                by_uuid = isinstance(place, str)
                card = (pynvml.nvmlDeviceGetHandleByUUID if by_uuid else pynvml.nvmlDeviceGetHandleByIndex)(place)
                uuid = place if isinstance(place, str) else str(pynvml.nvmlDeviceGetUUID(card))
                used[uuid] = int(pynvml.nvmlDeviceGetMemoryInfo(card).used)
    except pynvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return used or None


def wait_until_free(before: dict[str, int] | None, limit_s: float = FREE_WAIT_S) -> tuple[float, int] | None:
    """Wait until each GPU has no more in use than before the job: a driver gives memory back after the process's end.

    Args:
        before: what was in use on the GPUs that count, those of the job; None: nothing is waited for.
        limit_s: the longest wait.

    Returns:
        The seconds waited, and the most bytes that a GPU still had more than before; None where nothing is known.
    """
    if not before:
        return None
    start = time.monotonic()
    while True:
        now = used_bytes(before)
        if now is None:
            return None
        left = max((used - before.get(card, used) for card, used in now.items()), default=0)
        waited_s = time.monotonic() - start
        if left <= TOLERANCE_BYTES or waited_s >= limit_s:
            return waited_s, max(0, left) if left > TOLERANCE_BYTES else 0
        time.sleep(FREE_POLL_S)
