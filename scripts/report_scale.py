"""What the report of a sweep costs: `python -m bench.report` over 6, 100 and 1,000 trials, each in its process.

One real job of the tiny model is run first. Each trial is its record with another setting's name and other times: all
calls of one are longer by up to a factor of three, and each call scatters by 2 %. So the records are as large as real
ones (26 calls of 32 tokens, attention evidence, environment), and no two rows, curves or points are alike.

    wall s    from the command's start to its end, imports included: median over --repeats
    cpu s     processor time of the process
    MiB       peak of its memory
    html kB   report.html; svg kB: all figures together

Not covered: how long a browser takes to show it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (6, 100, 1000)
JOB = ("tracking=off", "model=tiny", "fidelity.reference=eager", "hydra.run.dir=one")
SEED = 0


def main() -> None:
    """Make the sweeps, report on each, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="reports of each size (3)")
    parser.add_argument("--trials", type=int, action="append", help=f"a size; may be given again {SIZES}")
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    arguments = parser.parse_args()
    sizes = arguments.trials or SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pattern = one_real_record(folder)
        runs = {}
        for size in sizes:
            make_sweep(folder / f"of-{size}", pattern, size)
            runs[size] = [report(folder / f"of-{size}") for _ in range(arguments.repeats)]
    if arguments.json:
        print(json.dumps(runs, indent=1))
        return
    keys = ("wall_s", "cpu_s", "peak_mib", "html_kb", "markdown_kb", "svg_kb")
    print(f"{'trials':>7}" + "".join(f"{key.replace('_', ' '):>13}" for key in keys))
    for size, each in runs.items():
        print(f"{size:7}" + "".join(f"{statistics.median(one[key] for one in each):13.4g}" for key in keys))


def one_real_record(folder: Path) -> dict[str, Any]:
    """Run one job and return its record as plain values."""
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-m", "bench", *JOB], cwd=folder, capture_output=True, text=True, check=False
    )
    path = folder / "one" / "record.json"
    if done.returncode or not path.is_file():
        sys.exit(f"the job that all trials are made from did not come through:\n{done.stdout}{done.stderr}")
    return json.loads(path.read_text(encoding="utf-8"))


def make_sweep(folder: Path, pattern: dict[str, Any], size: int) -> None:
    """A sweep's folder of so many trials, each of a setting of its own."""
    chance = random.Random(SEED)  # noqa: S311 - times that can be had again, not a secret
    for number in range(size):
        factor = chance.uniform(1.0, 3.0)
        name = f"warmup={number}"
        record = dict(pattern)
        record |= {
            "trial_id": f"{number:012x}",
            "sweep_id": "scale",
            "name": name,
            "swept": {"warmup.iterations": str(number)},
            "iterations": [stretched(each, factor * chance.gauss(1.0, 0.02)) for each in pattern["iterations"]],
        }
        job = folder / f"{number:04}"
        job.mkdir(parents=True)
        (job / "record.json").write_text(json.dumps(record), encoding="utf-8")


def stretched(call: dict[str, Any], factor: float) -> dict[str, Any]:
    """A call that takes so many times as long."""
    times = [each * factor for each in call["token_times_s"]]
    return call | {"e2e_s": call["e2e_s"] * factor, "token_times_s": times}


def report(folder: Path) -> dict[str, float]:
    """Write the report of a sweep in a process of its own."""
    begun_s = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - this project's own command
        [sys.executable, "-m", "bench.report", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begun_s
    if status:
        sys.exit(f"no report of {folder.name}:\n{said}")
    return {
        "wall_s": wall_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "html_kb": (folder / "report.html").stat().st_size / 1000,
        "markdown_kb": (folder / "report.md").stat().st_size / 1000,
        "svg_kb": sum(each.stat().st_size for each in (folder / "figures").glob("*.svg")) / 1000,
    }


if __name__ == "__main__":
    main()
