"""Which process a run in MLflow belongs to, and whether that process is gone.

A process that is killed ends no run, and MLflow would show it as running for ever; so whoever starts next ends what
belongs to the dead. A process counts as gone only where that is certain. Not covered: runs of other machines, and of a
container that was replaced since, whose processes cannot be seen from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import psutil

TAG = "owner"


def own_tag() -> str:
    """This process, as text for a tag."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pids": _pid_namespace(),
            "pid": os.getpid(),
            "start": _start_ticks(os.getpid()),
            "started_s": round(psutil.Process().create_time(), 3),
        }
    )


def is_gone(tag: str | None) -> bool:
    """Whether the process of a tag ran on this machine and does so no more; False where that is not known."""
    owner = _parsed(tag)
    if owner is None or owner.get("host") != socket.gethostname():
        return False
    if owner.get("boot") != _boot_id():
        # Machines may share a name. What began after this one was booted did not run before that.
        started_s = owner.get("started_s")
        return isinstance(started_s, int | float) and started_s < psutil.boot_time()
    pid = owner.get("pid")
    if owner.get("pids") != _pid_namespace() or not isinstance(pid, int) or pid <= 0:
        return False
    if not psutil.pid_exists(pid):
        return True
    start = _start_ticks(pid)  # None for a process that may not be looked at, which then counts as living
    return None not in (start, owner.get("start")) and start != owner.get("start")


def _parsed(tag: str | None) -> dict[str, Any] | None:
    try:
        owner = json.loads(tag or "")
    except ValueError:
        return None
    return owner if isinstance(owner, dict) else None


def _boot_id() -> str | None:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


def _pid_namespace() -> str | None:
    """Containers of one machine share its boot, and may share its name, but each counts processes of its own."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return None


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, which unlike Unix time no clock adjustment moves.

    0 for one that has ended and is not yet waited for; None for one that cannot be looked at.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
