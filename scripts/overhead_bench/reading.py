"""Measure the cost of reading a sweep: `bench.report` and `bench.compare` of 1,000 and 10,000 records, a process each.

One real job of the tiny model is run first. Each trial is its record with another setting's name and other times: all
calls of a trial are longer by up to a factor of three, and each call scatters by 2 %. So the records are as large as
real ones (26 calls of 32 tokens, attention evidence, environment), and no two rows, curves or points are alike. For the
report each record is a separate setting, which gives the maximum number of rows and points; for the comparison five
records make one setting, because a test needs repeats.

    wall    from the command's start to its end, imports included
    cpu     processor time of the process, all threads
    peak    of its memory

Not covered: how long a browser takes to show it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overhead_bench import running
from overhead_bench.figures import Figure, NotMeasuredError, Options, Result

TITLE = "reading many records"
AT_MOST_S = 10.0  # 1,000 records
SIZES = (1000, 10_000)
PROCESSES = 5  # of a setting, for the comparison
SEED = 0


def measure(options: Options) -> Result:
    """Time both commands over sweeps of each size."""
    _, pattern = running.one_record(options.folder, options, "fidelity.reference=eager")
    figures: list[Figure] = []
    sizes: dict[str, Mapping[str, float]] = {}
    for size in (20,) if options.quick else SIZES:
        repeats = 1 if options.quick or size > SIZES[0] else min(options.repeats, 3)
        for what, processes in (("comparison", PROCESSES), ("report", 1)):
            sweep = options.folder / f"{what}-{size}"
            make_sweep(sweep, pattern, size, processes)
            command = [sys.executable, "-P", "-m", *_command(what, sweep)]
            runs = [read(command) for _ in range(repeats)]
            figures += _figures(f"{size:,} records into a {what}", runs, AT_MOST_S if size == SIZES[0] else None)
            if what == "report":
                sizes[str(size)] = {each.name: each.stat().st_size for each in sweep.glob("report.*")}
            shutil.rmtree(sweep)
    return Result(figures=figures, raw={"report_bytes": sizes})


def _command(what: str, sweep: Path) -> list[str]:
    if what == "report":
        return ["bench.report", str(sweep)]
    return ["bench.compare", str(sweep), "--baseline", "warmup=0"]


def _figures(name: str, runs: Sequence[Mapping[str, float]], at_most: float | None) -> list[Figure]:
    return [
        Figure(name=f"{name}: wall", unit="s", values=[each["wall_s"] for each in runs], at_most=at_most),
        Figure(name=f"{name}: cpu", unit="s", values=[each["cpu_s"] for each in runs]),
        Figure(name=f"{name}: peak", unit="MB", values=[each["peak_mb"] for each in runs]),
    ]


def make_sweep(folder: Path, pattern: Mapping[str, Any], size: int, processes: int) -> None:
    """Make a sweep's folder with so many records, so many per setting."""
    chance = random.Random(SEED)  # noqa: S311 - reproducible times, not a secret
    factor = 1.0
    for number in range(size):
        setting, repeat = divmod(number, processes)
        factor = chance.uniform(1.0, 3.0) if repeat == 0 else factor
        record = dict(pattern) | {
            "trial_id": f"{setting:012x}",
            "sweep_id": "reading",
            "name": f"warmup={setting}",
            "swept": {"warmup.iterations": str(setting)},
            "repeat": repeat + 1,
            "iterations": [_stretched(each, factor * chance.gauss(1.0, 0.02)) for each in pattern["iterations"]],
        }
        job = folder / f"{number:05}"
        job.mkdir(parents=True)
        (job / "record.json").write_text(json.dumps(record), encoding="utf-8")


def _stretched(call: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return a call that takes so many times as long."""
    times = [each * factor for each in call["token_times_s"]]
    return dict(call) | {"e2e_s": call["e2e_s"] * factor, "token_times_s": times}


def read(command: Sequence[str]) -> dict[str, float]:
    """Run one command in a separate process. Raises NotMeasuredError if it fails."""
    begun_s = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - this project's own command
        command, env=running.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begun_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise NotMeasuredError(f"{' '.join(command[3:5])}: status {process.returncode}: {last}")
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss * 1024 / 1e6}
