"""Measure the memory of the harness from outside while a real sweep with MLflow runs.

    parent    the command itself: Hydra, MLflow, the report; it must not have imported torch (no libtorch is mapped)
    server    the fork server, which has torch imported and runs no model
    child     the job's process; `beyond the weights` is its peak RSS minus the bytes of the model's parameters
    sidecar   the process that samples the hardware

Peaks of RSS are the kernel's own (VmHWM), so none is missed between two samples. RSS counts a page in each process
that has it. A child is forked from the server and shares most of torch with it, so the PSS (each shared page divided
among its sharers) and the USS (its own pages alone) are shown too, as the largest sampled values.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from overhead_bench import running
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result

TITLE = "memory of the processes of a sweep"
AT_MOST_MB = 350.0  # parent
ROLES = ("parent", "server", "child", "sidecar")
LOOK_S, FULL_S = 0.02, 0.25  # reading a PSS takes milliseconds
SWEEP = ("attention=eager,sdpa", "workload.sequence_length=64", "sweep.name=memory")


@dataclass(kw_only=True)
class Seen:
    """Hold the peaks of one role, over all its processes. Megabytes; 0 before the first sample."""

    peak_rss: float = 0.0
    pss: float = 0.0
    uss: float = 0.0
    has_torch: bool = False
    full_at_s: dict[int, float] = field(default_factory=dict)  # process → time of the last reading of its PSS

    def look(self, process: psutil.Process) -> None:
        """Sample a process of this role."""
        self.peak_rss = max(self.peak_rss, peak_rss_mb(process.pid))
        now_s = time.monotonic()
        if now_s - self.full_at_s.get(process.pid, 0.0) < FULL_S:
            return
        self.full_at_s[process.pid] = now_s
        full = process.memory_full_info()
        self.pss, self.uss = max(self.pss, full.pss / 1e6), max(self.uss, full.uss / 1e6)
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
        self.has_torch = self.has_torch or "libtorch" in maps


def measure(options: Options) -> Result:
    """Measure the memory of sweeps."""
    found: dict[str, list[Seen]] = {role: [] for role in ROLES}
    weights: list[float] = []
    for number in range(1 if options.quick else max(2, options.repeats // 2)):
        folder = options.folder / str(number)
        folder.mkdir()
        few = ("warmup.iterations=1", "measurement.iterations=2") if options.quick else ()
        seen = watch(running.bench("-m", f"device={options.device}", *SWEEP, *few), folder)
        for role in ROLES:
            found[role].append(seen[role])
        trials = running.trials(running.records(folder / "multirun/memory"))
        weights.append(trials[0].observed.parameter_bytes / 1e6 if trials[0].observed else 0.0)
    parents, children = found["parent"], found["child"]
    if any(not each.peak_rss for role in ROLES for each in found[role]):
        raise NotMeasuredError("one of the sweep's processes was not seen")
    beyond = [each.peak_rss - size for each, size in zip(children, weights, strict=True)]
    has_torch = any(each.has_torch for each in parents)
    figures = [
        Figure(name="parent: peak RSS", unit="MB", values=[each.peak_rss for each in parents], at_most=AT_MOST_MB),
        Figure(name="parent: PSS", unit="MB", values=[each.pss for each in parents]),
        Figure(name="parent: has libtorch mapped (0: no)", unit="", values=[float(has_torch)], at_most=0.0),
        Figure(name="fork server: peak RSS", unit="MB", values=[each.peak_rss for each in found["server"]]),
        Figure(name="child: peak RSS beyond the weights", unit="MB", values=beyond),
        Figure(name="child: PSS", unit="MB", values=[each.pss for each in children]),
        Figure(name="child: USS", unit="MB", values=[each.uss for each in children]),
        Figure(name="sidecar: peak RSS", unit="MB", values=[each.peak_rss for each in found["sidecar"]]),
        Figure(name="sidecar: USS", unit="MB", values=[each.uss for each in found["sidecar"]]),
    ]
    return Result(figures=figures, notes=[f"the weights of the tiny model are {weights[0]:.1f} MB"])


def watch(command: list[str], folder: Path) -> dict[str, Seen]:
    """Run a sweep and sample its processes until it has ended. Raises NotMeasuredError if it fails."""
    seen = {role: Seen() for role in ROLES}
    with (folder / "said").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(  # noqa: S603 - this project's own command
            command, cwd=folder, env=running.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        parent = psutil.Process(process.pid)
        roles: dict[int, str] = {}
        while process.poll() is None:
            with contextlib.suppress(psutil.Error, OSError):
                for each in [parent, *parent.children(recursive=True)]:
                    if (role := roles.get(each.pid) or role_of(each, parent)) is not None:
                        roles[each.pid] = role
                        with contextlib.suppress(psutil.Error, OSError):  # it has just ended
                            seen[role].look(each)
            time.sleep(LOOK_S)
    if process.returncode:
        last = (folder / "said").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise NotMeasuredError(f"the sweep ended with status {process.returncode}: {' '.join(last)}")
    return seen


def role_of(process: psutil.Process, parent: psutil.Process) -> str | None:
    """Return the role by place below the command: parent ─ server ─ supervisor ─ child ─ sidecar; None for others."""
    if process.pid == parent.pid:
        return "parent"
    above = [each.pid for each in process.parents()]
    if parent.pid not in above:  # a process between the two has ended since the tree was read
        return None
    depth = above.index(parent.pid)
    words = " ".join(process.cmdline())
    if "sampler" in words:
        return "sidecar"
    if "forkserver" not in words:  # the examination of the settings, the resource tracker
        return None
    return {0: "server", 2: "child"}.get(depth)


def peak_rss_mb(pid: int) -> float:
    """Return the kernel's record of the largest RSS. Raises OSError for a process that has ended."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 / 1e6 if found else 0.0
