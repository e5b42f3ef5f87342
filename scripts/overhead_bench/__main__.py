"""Run the command `python -m overhead_bench`, with src and scripts on the path; scripts/overhead starts it so."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.config.rules import ConfigError
from bench.results.record import RecordError
from overhead_bench.figures import MET, MISSED, NOISE, NotMeasuredError, Options, Result, status, table

# In the order in which they run; each is a module with TITLE and measure().
PARTS = ("commands", "start", "memory", "outside", "publish", "observer", "reading", "sweep")
LIBRARIES = ("torch", "transformers", "hydra-core", "mlflow")
REPEATS, QUICK_REPEATS = 5, 2
INTERRUPTED = 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/overhead",
        description="What the harness itself costs: each figure beside its target. Nothing else may run meanwhile.",
        epilog="Parts: " + ", ".join(PARTS) + ". Exit status: 0 when all targets are met, 1 when one is missed, 2 when "
        "a part could not run. More choices for the observer effect: scripts/overhead observer --help",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", choices=PARTS, metavar="PART", help="these parts; default: all"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help=f"default: {REPEATS}; with --quick {QUICK_REPEATS}")
    parser.add_argument("--quick", action="store_true", help="few repeats and the tiny model only: whether it runs")
    parser.add_argument("--device", default="auto", help="as the key device; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    parsed = parser.parse_args(arguments)
    if parsed.repeats is None:
        parsed.repeats = QUICK_REPEATS if parsed.quick else REPEATS
    if parsed.repeats < 1:
        parser.error(f"--repeats {parsed.repeats}: at least 1")
    if parsed.json is not None and not parsed.json.absolute().parent.is_dir():
        parser.error(f"--json {parsed.json}: there is no such folder")
    return parsed


def run(part: str, options: Options) -> Result:
    """Run one part. If it cannot run, the result says so."""
    try:
        module = importlib.import_module(f"overhead_bench.{part}")
        result: Result = module.measure(options)
    except (NotMeasuredError, ConfigError, RecordError, ImportError, OSError, RuntimeError) as error:
        return Result(error=" ".join(str(error).split()) or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - an error in one part must not cost the results of the others
        traceback.print_exc()
        return Result(error=" ".join(f"{type(error).__name__}: {error}".split()))
    return result


def machine(device: str) -> dict[str, Any]:
    """Describe the machine on which the figures were measured."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - no path of ours
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "device": device,
        "load_1_min": round(os.getloadavg()[0], 2),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def heading(found: dict[str, Any]) -> list[str]:
    """Describe the machine and the versions in two lines."""
    libraries = ", ".join(f"{name} {number or 'missing'}" for name, number in found["libraries"].items())
    size = f"{found['cores']} cores, {found['memory_gb']} GB"
    return [
        f"{found['cpu']}, {size}, {found['system']}, load {found['load_1_min']}",
        f"Python {found['python']}, {libraries}; device={found['device']}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and judge the results."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["observer"]:
        own: int = importlib.import_module("overhead_bench.observer").main(given[1:])
        return own
    parsed = parse(given)
    chosen = [part for part in PARTS if parsed.only is None or part in parsed.only]
    found, results, took_s = machine(parsed.device), {}, {}
    with tempfile.TemporaryDirectory(prefix="bench-overhead-", ignore_cleanup_errors=True) as name:
        for number, part in enumerate(chosen, start=1):
            print(f"{number}/{len(chosen)} {part}", file=sys.stderr, flush=True)
            folder, begun_s = Path(name) / part, time.perf_counter()
            folder.mkdir()
            options = Options(repeats=parsed.repeats, quick=parsed.quick, device=parsed.device, folder=folder)
            results[part], took_s[part] = run(part, options), time.perf_counter() - begun_s
            if parsed.json is not None:
                _write(parsed.json, found, results, took_s)
    titles = {part: _title(part) for part in chosen}
    print("\n".join([*heading(found), "", *table(results, titles), "", closing(results, took_s)]))
    return status(results)


def _title(part: str) -> str:
    try:
        return str(importlib.import_module(f"overhead_bench.{part}").TITLE)
    except ImportError:
        return ""


def closing(results: dict[str, Result], took_s: dict[str, float]) -> str:
    """Say how many targets are met, and how many seconds the parts took."""
    verdicts = [figure.verdict for each in results.values() for figure in each.figures]
    took = ", ".join(f"{part} {seconds:.0f}" for part, seconds in took_s.items())
    failed = sum(each.error is not None for each in results.values())
    met, missed, noise = (verdicts.count(each) for each in (MET, MISSED, NOISE))
    return f"{met} targets met, {missed} missed, {noise} in the noise, {failed} parts not measured\nseconds: {took}"


def _write(file: Path, found: dict[str, Any], results: dict[str, Result], took_s: dict[str, float]) -> None:
    parts = {part: each.to_dict() | {"took_s": took_s[part]} for part, each in results.items()}
    content = {"machine": found, "status": status(results), "parts": parts}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # its child processes end with it
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
