"""Record which process a run in MLflow belongs to, and check whether that process has ended.

A killed process does not end its run, which MLflow would show as running for ever; the next start ends it. A process
counts as ended only if that is certain. Not covered: runs of other machines, and of a container that was replaced
since, whose processes are not visible here.
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
    """Return this process as text for a tag."""
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
    """Check whether the process of a tag ran on this machine and has ended; False if unknown."""
    owner = _parsed(tag)
    if owner is None or owner.get("host") != socket.gethostname():
        return False
    if owner.get("boot") != _boot_id():
        # Two machines may have the same name: a process that began after this boot did not belong to an earlier one.
        started_s = owner.get("started_s")
        return isinstance(started_s, int | float) and started_s < psutil.boot_time()
    pid = owner.get("pid")
    if owner.get("pids") != _pid_namespace() or not isinstance(pid, int) or pid <= 0:
        return False
    if not psutil.pid_exists(pid):
        return True
    start = _start_ticks(pid)  # None for a process that cannot be inspected, which counts as running
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
    """Return the PID namespace: containers share the machine's boot id, perhaps its name, but not their PIDs."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return None


def _start_ticks(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot, which clock adjustments do not change.

    0 for a zombie; None for a process that cannot be inspected.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
