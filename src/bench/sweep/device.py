"""What the kernel and the GPU's driver say about a job from outside: killed for want of memory, memory free again.

Both are asked by the parent, which has no torch: the kernel by its counters, the GPU by NVML. Where they do not answer,
nothing is claimed.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pynvml

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


def used_bytes() -> dict[str, int] | None:
    """GPU (by UUID) → bytes in use on it, by whomever; None without a GPU that NVML knows."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    used = {}
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):  # one that is lost, or not ours, says nothing of the others
                card = pynvml.nvmlDeviceGetHandleByIndex(index)
                used[str(pynvml.nvmlDeviceGetUUID(card))] = int(pynvml.nvmlDeviceGetMemoryInfo(card).used)
    except pynvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return used or None


def wait_until_free(before: dict[str, int] | None, limit_s: float = FREE_WAIT_S) -> tuple[float, int] | None:
    """Wait until each GPU has no more in use than before the job: a driver gives memory back after the process's end.

    Returns:
        The seconds waited, and the most bytes that a GPU still had more than before; None where nothing is known.
    """
    if before is None:
        return None
    start = time.monotonic()
    while True:
        now = used_bytes()
        if now is None:
            return None
        left = max((used - before.get(card, used) for card, used in now.items()), default=0)
        waited_s = time.monotonic() - start
        if left <= TOLERANCE_BYTES or waited_s >= limit_s:
            return waited_s, max(0, left) if left > TOLERANCE_BYTES else 0
        time.sleep(FREE_POLL_S)
