"""Measure the cost of planning a sweep of ten thousand jobs: dry runs of two sweeps, stage by stage, a process each.

    values    100 batch sizes × 100 prompt lengths: all points choose the same files
    groups    1200 choices of six groups × 8 batch sizes: the largest possible number of file combinations

Stages, in seconds of processor time (user and system), which other programs on the machine affect least:

    compose   overrides to Hydra's config, for each point
    check     Hydra's config to a BenchmarkConfig, with all rules
    plan      drop duplicates, shuffle, name
    print     look up earlier records, print one line per job
    all       the process from its first to its last instruction

Shown are medians over --repeats, and the highest peak memory. Hydra's own composition of a point is timed too, for
comparison. Not covered: the cost of running the jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES = {
    "values": ["workload.batch_size=range(1,101)", "workload.sequence_length=range(1,101)"],
    "groups": [
        "attention=glob(*)",
        "compile=glob(*)",
        "workload=glob(*)",
        "warmup=glob(*)",
        "measurement=glob(*)",
        "model=glob(*)",
        "workload.batch_size=range(1,9)",
    ],
}
ALWAYS = ["-m", "tracking=off", "sweep.dry_run=true", "sweep.max_jobs=20000"]
STAGES = ("compose", "check", "plan", "print", "all")
BY_HYDRA = 30  # points that are composed by Hydra, for comparison


def main() -> None:
    """Measure each shape in separate processes and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes for each shape (3)")
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this one")
    parser.add_argument("--inside", choices=SHAPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.inside)
        return
    runs = {shape: [run(shape) for _ in range(arguments.repeats)] for shape in arguments.shape or SHAPES}
    if arguments.json:
        print(json.dumps(runs, indent=1))
        return
    print(f"{'shape':8}{'points':>8}" + "".join(f"{stage + ' s':>11}" for stage in STAGES), end="")
    print(f"{'wall s':>9}{'peak MiB':>10}{'ms a point':>12}{'by Hydra':>10}")
    for shape, each in runs.items():
        median = {key: statistics.median(one[key] for one in each) for key in each[0]}
        print(f"{shape:8}{median['points']:8.0f}" + "".join(f"{median[stage]:11.1f}" for stage in STAGES), end="")
        print(f"{median['wall']:9.1f}{max(one['peak_mib'] for one in each):10.0f}", end="")
        print(f"{median['compose'] / median['points'] * 1e3:12.2f}{median['by_hydra_ms']:10.1f}")


def run(shape: str) -> dict[str, float]:
    """Run one process, in a folder where its plan leaves nothing behind."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - this file itself
            [sys.executable, "-P", str(Path(__file__).resolve()), "--inside", shape],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(done.stderr)
    return {**json.loads(done.stderr.splitlines()[-1]), "wall": time.perf_counter() - begun}


def measure(shape: str) -> None:
    """Do the dry run with a timer around each stage; print the figures as the last line of stderr."""
    from hydra.core.plugins import Plugins  # noqa: PLC0415 - part of what is measured

    Plugins.instance()  # loads the sweeper's modules, and would load them again after this
    from bench.cli import application  # noqa: PLC0415
    from bench.cli.composition import checked_config  # noqa: PLC0415
    from bench.orchestration import dry_run  # noqa: PLC0415
    from bench.orchestration import sweep as course  # noqa: PLC0415
    from hydra_plugins.bench_sweeper import bench_sweeper  # noqa: PLC0415

    taken = dict.fromkeys(STAGES, 0.0)
    points = 0

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def clocked(*arguments: Any, **keywords: Any) -> Any:
            nonlocal points
            begun = time.process_time()
            try:
                return call(*arguments, **keywords)
            finally:
                taken[stage] += time.process_time() - begun
                points += stage == "compose"

        return clocked

    composer = bench_sweeper.Composer
    composer.compose = timed("compose", composer.compose)
    checked_config.to_config = timed("check", checked_config.to_config)
    course.make_plan = timed("plan", course.make_plan)
    dry_run.print_plan_of = timed("print", dry_run.print_plan_of)
    sweeper = bench_sweeper.BenchSweeper
    setup, seen = sweeper.setup, {}

    def remember(self: Any, **keywords: Any) -> None:
        seen.update(keywords)
        setup(self, **keywords)

    sweeper.setup = remember
    sys.argv = ["bench", *ALWAYS, *SHAPES[shape]]
    with contextlib.suppress(SystemExit):
        application.main()
    taken["all"] = time.process_time()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.process_time()
    for number in range(BY_HYDRA):
        loader = seen["hydra_context"].config_loader
        loader.load_sweep_config(seen["config"], ["attention=flex", f"workload.batch_size={number + 1}"])
    by_hydra_ms = (time.process_time() - begun) / BY_HYDRA * 1e3
    figures = {**taken, "points": points, "peak_mib": peak_mib, "by_hydra_ms": by_hydra_ms}
    print(json.dumps(figures), file=sys.stderr)


if __name__ == "__main__":
    main()
