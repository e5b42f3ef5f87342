"""Observe a job from its parent: kills by the kernel's OOM killer, and whether GPU memory has been freed.

The parent has no torch, so it reads the kernel's counters and NVML. Where these do not answer, nothing is claimed.
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
TOLERANCE_BYTES = 64 << 20  # for what the driver keeps and what other processes allocate meanwhile


def oom_kills(
    root: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
    vmstat: Path = Path("/proc/vmstat"),
) -> int:
    """Return how many processes the OOM killer has ended in this process's control group; 0 where unknown.

    Both reasons count, the group's limit and the machine's memory. Version 2 of the interface counts
    descendants as well. Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    for file in [*_group_files(root, own), vmstat]:  # without a memory controller: the machine's own count
        with contextlib.suppress(OSError, ValueError, KeyError):
            counters = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
            return int(counters["oom_kill"])
    return 0


def _group_files(root: Path, own: Path) -> list[Path]:
    """Return the files that may hold the group's counters.

    The last ones are for containers that see their group's path on the host, but only their own part of the tree.
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
    """Return the UUIDs of the cards, or of instances of cards (MIG), that a job will use; [] where it uses none.

    They follow from CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, without torch. None where unknown: CUDA decides
    the order of cards of several models, and chooses an instance of a divided card itself.
    """
    known = cards()
    found = [uuid_of_name(each, known) for each in names_of(config, known)]
    uuids = [each for each in found if each is not None]
    return None if None in found or any(map(_is_divided, uuids)) else uuids


def _is_divided(uuid: str) -> bool:
    """Whether a card is in MIG mode, in which its memory belongs to several devices."""
    if uuid.startswith("MIG-"):
        return False
    try:
        with nvml():
            return bool(pynvml.nvmlDeviceGetMigMode(pynvml.nvmlDeviceGetHandleByUUID(uuid))[0])
    except pynvml.NVMLError:  # most cards do not support it
        return False


def used_bytes(only: Collection[str] | None = None) -> dict[str, int] | None:
    """Return UUID of a GPU → bytes in use on it, by any process; None without a GPU that NVML knows.

    `only` names the cards and instances to read; None: all cards of the machine.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    used = {}
    try:
        places: Collection[int | str] = range(pynvml.nvmlDeviceGetCount()) if only is None else only
        for place in places:
            with contextlib.suppress(pynvml.NVMLError):  # a lost card, or one of another user, does not hide the others
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
    """Wait until each GPU has no more memory in use than before the job: drivers free it after the process has ended.

    Args:
        before: UUID → bytes in use before, for the job's GPUs; None: do not wait.
        limit_s: the longest wait.

    Returns:
        The seconds waited, and the most bytes that any GPU still has in use beyond those before; None where unknown.
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
