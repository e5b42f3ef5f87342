"""Run the command `python -m gpu_check`; scripts/gpu-check puts src and scripts on the path."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.trials.summary import summarize
from bench.jobs.process.fork_server import start_fork_server
from bench.report.text.format import milliseconds, one_line
from bench.results.record import PHASES, Record
from gpu_check.checks import check_lines, judged
from gpu_check.jobs import GPU, REHEARSED, Job, Target, jobs_for
from gpu_check.judge import Check, Run
from gpu_check.nvml import Gpu, ask_nvml
from gpu_check.printing import shortened, tables
from gpu_check.running import Clock, Outcome, e2e_s, run_all

BUDGET_S = 450.0
PROBE_TIMEOUT_S = 120.0
REHEARSAL = "REHEARSAL ON THE CPU: nothing about a GPU is shown"

# Asks torch in a process of its own, so that a crashing driver does not end this one.
PROBE = """
import json, torch, transformers
found = {"torch": str(torch.__version__), "transformers": transformers.__version__, "cuda": torch.version.cuda}
gpus = []
if torch.cuda.is_available():
    for each in map(torch.cuda.get_device_properties, range(torch.cuda.device_count())):
        uuid = str(getattr(each, "uuid", "")) or None
        gpus.append({"name": each.name, "uuid": uuid, "memory_bytes": each.total_memory})
print(json.dumps({**found, "gpus": gpus}))
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu-check",
        description="Runs what needs a CUDA GPU and checks what the records say of it. Exit status: 0 when no check "
        "failed, or when there is no GPU (skipped); 1 when one failed; 2 when nothing could be run.",
    )
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, metavar="S", help="for all; default: %(default)g")
    parser.add_argument("--only", type=re.compile, metavar="REGEX", help="only the jobs whose name it is found in")
    parser.add_argument(
        "--json", type=Path, default=Path("gpu-check.json"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep records, logs and profiles there")
    parser.add_argument(
        "--rehearse", action="store_true", help="on the CPU, a few jobs of a tiny model: shows nothing of a GPU"
    )
    parser.add_argument("--list", action="store_true", help="name the jobs and stop")
    parsed = parser.parse_args(arguments)
    if not (math.isfinite(parsed.budget_s) and parsed.budget_s > 0):
        parser.error(f"--budget-s {parsed.budget_s:g}: must be above 0")
    if not parsed.json.absolute().parent.is_dir():
        parser.error(f"--json {parsed.json}: there is no such folder")
    return parsed


def probe() -> dict[str, Any]:
    """Return what torch finds here. RuntimeError: it could not be asked."""
    command = [sys.executable, "-P", "-c", PROBE]
    try:
        ended = subprocess.run(  # noqa: S603 - our own code, no shell
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
        found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        lines = "" if isinstance(error, subprocess.TimeoutExpired) else ended.stderr.strip()
        why = lines.splitlines()[-1] if lines else f"{type(error).__name__}: {error}"
        raise RuntimeError(f"torch cannot be asked for its GPUs: {one_line(why)}") from error
    return found


@contextlib.contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """Yield a folder for the jobs, and set caches that begin empty: the user's are neither read nor changed."""
    with tempfile.TemporaryDirectory(prefix="bench-gpu-check-", ignore_cleanup_errors=True) as temporary:
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        os.environ.setdefault("HF_HOME", str(Path(home) / "huggingface"))  # kernels that were fetched before
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")
        folder = Path(temporary) / "jobs" if keep is None else keep.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs, print the tables and the checks, and return the exit status."""
    parsed = parse(arguments)
    clock = Clock(parsed.budget_s)
    target = REHEARSED if parsed.rehearse else GPU
    jobs = [each for each in jobs_for(target) if parsed.only is None or parsed.only.search(each.name)]
    if parsed.list or not jobs:
        print("\n".join(each.name for each in jobs) or "gpu-check: --only finds no job")
        return 0 if jobs else 2
    try:
        found = probe()
    except RuntimeError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    content: dict[str, Any] = {"status": "unfinished", "note": REHEARSAL if target.rehearsal else None, "found": found}
    if not target.rehearsal and not found["gpus"]:
        line = f"skipped: torch {found['torch']} finds no CUDA GPU here; --rehearse runs this script on the CPU"
        print(f"gpu-check: {line}")
        write(parsed.json, content | {"status": "skipped", "reason": line})
        return 0
    gpu = Gpu() if target.rehearsal else ask_nvml(_uuid(found))
    content |= {"gpu": dataclasses.asdict(gpu), "target": dataclasses.asdict(target), "budget_s": parsed.budget_s}
    print(_heading(found, gpu, target, parsed.budget_s), flush=True)
    with working_folder(parsed.keep) as folder:
        start_fork_server()
        outcomes, interrupted = _run(jobs, target, clock, folder, lambda done: _keep(parsed.json, content, done))
    run = Run(outcomes=outcomes, target=target, gpu=gpu)
    checks = judged(run)
    failed = any(each.verdict == "fail" for each in checks)
    content["status"] = "interrupted" if interrupted else "failed" if failed else "passed"
    content["checks"] = [dataclasses.asdict(each) for each in checks]
    _keep(parsed.json, content, outcomes)
    print("\n".join(["", *tables(outcomes), "", *check_lines(checks), "", _closing(checks, parsed.json)]))
    if target.rehearsal:
        print(REHEARSAL)
    return 130 if interrupted else int(failed)


def _run(
    jobs: Sequence[Job], target: Target, clock: Clock, folder: Path, keep: Callable[[list[Outcome]], None]
) -> tuple[list[Outcome], bool]:
    """Run the jobs, print and keep each as it ends; return the outcomes and whether Ctrl-C ended the run."""
    outcomes: list[Outcome] = []
    try:
        for outcome in run_all(jobs, target, clock, folder):
            outcomes.append(outcome)
            keep(outcomes)
            if outcome.status != "not reached":
                median, took_s = milliseconds(e2e_s(outcome)), outcome.took_s + outcome.reference_s
                print(f"  {outcome.status:<8}{outcome.job.name:<26}E2E {median:>8} ms{took_s:>7.1f} s", flush=True)
    except KeyboardInterrupt:
        return outcomes, True
    return outcomes, False


def _closing(checks: Sequence[Check], file: Path) -> str:
    counts = [sum(each.verdict == name for each in checks) for name in ("pass", "fail", "unknown")]
    return f"{counts[0]} passed, {counts[1]} failed, {counts[2]} unknown; all of it: {file}"


def _uuid(found: dict[str, Any]) -> str | None:
    """Return NVML's form of the first GPU's UUID."""
    uuid = found["gpus"][0]["uuid"]
    return uuid if uuid is None or uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _heading(found: dict[str, Any], gpu: Gpu, target: Target, budget_s: float) -> str:
    versions = f"torch {found['torch']}, transformers {found['transformers']}"
    what = f"{target.model}, {target.dtype}, {target.prompt_tokens} + {target.new_tokens} tokens"
    where = REHEARSAL if target.rehearsal else f"{found['gpus'][0]['name']}, driver {gpu.driver}"
    return "\n".join(shortened(each) for each in (where, versions, f"{what}; at most {budget_s:g} s"))


# ---- the JSON file --------------------------------------------------------------------------------------------------


def _keep(file: Path, content: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write what is known so far."""
    environments = (each.record.environment for each in outcomes if each.record is not None)
    environment = next((each for each in environments if each), None)
    write(file, content | {"environment": environment, "jobs": [as_json(each) for each in outcomes]})


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return a job as JSON: its request, its result, and what its record holds beside the calls."""
    record = outcome.record
    found: dict[str, Any] = {
        **dataclasses.asdict(outcome.job),
        "status": outcome.status,
        "reason": outcome.reason,
        "took_s": outcome.took_s,
        "reference_s": outcome.reference_s,
        "reference_problem": outcome.reference_problem,
        "artifacts": outcome.artifacts,
    }
    if record is None:
        return found
    plain = record.to_dict()
    kept = ("error", "stage", "requested", "observed", "fidelity", "energy", "roofline", "memory", "phases_s", "output")
    compiled = record.observed.compile if record.observed is not None else None
    return found | {
        "trial_id": record.trial_id,
        **{name: plain[name] for name in kept},
        "summary": dataclasses.asdict(summarize(record)),
        "compile_cache": compiled.cache_state if compiled is not None else None,
        "e2e_s": {phase: [each.e2e_s for each in record.calls(phase)] for phase in PHASES},
        "monitor": _monitor(record),
    }


def _monitor(record: Record) -> dict[str, Any] | None:
    """Return the monitor's summary with only the last sample."""
    monitor = record.monitor
    if monitor is None:
        return None
    return {
        "source": monitor.source,
        "error": monitor.error,
        "samples": [len(each) for each in monitor.samples],
        "last": dataclasses.asdict(monitor.samples[-1][-1]) if monitor.samples and monitor.samples[-1] else None,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the file through a rename: a reader finds the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False, default=str), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
