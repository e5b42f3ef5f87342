"""Run and time this project's own command as a process, and read the records of its sweeps.

Variables of the caller's environment that change a sweep (HYDRA_…, MLFLOW_…) are removed. Jobs of this host still
wait for each other as usual: beside another sweep, none of these figures are valid.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.results.record import Iteration, Record
from overhead_bench.figures import NotMeasuredError, Options

CHECKOUT = Path(__file__).parents[2]
LAST_LINES = 3  # of a failed command's output


def environment() -> dict[str, str]:
    """Return the environment of the measured commands."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "MLFLOW_"))}
    found = [str(CHECKOUT / "src"), str(CHECKOUT / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
    always = {"COLUMNS": "100", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(found)}
    return own | always


def bench(*arguments: str) -> list[str]:
    """Return the command line of `python -m bench`."""
    return [sys.executable, "-P", "-m", "bench", *arguments]


def timed(command: Sequence[str], folder: Path, *, status: int = 0) -> tuple[float, str]:
    """Run a command in `folder`; return its wall time in seconds, and its output on stdout.

    Raises:
        NotMeasuredError: it ended with another status.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun_s = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - this project's own commands
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    wall_s = time.perf_counter() - begun_s
    if done.returncode != status:
        raise NotMeasuredError(_failure(command, done.returncode, done.stderr.strip() or done.stdout.strip()))
    return wall_s, done.stdout


def _failure(command: Sequence[str], status: int, said: str) -> str:
    last = " | ".join(said.splitlines()[-LAST_LINES:]) or "it said nothing"
    return f"{' '.join(command[2:])}: status {status}: {last}"


def sweep(folder: Path, name: str, options: Options, *arguments: str) -> tuple[float, list[Record]]:
    """Run a sweep in `folder`; return its wall time in seconds, and its records, including reference runs."""
    own = (f"sweep.name={name}", f"device={options.device}")
    wall_s, _ = timed(bench("-m", *own, *arguments), folder)
    return wall_s, records(folder / "multirun" / name)


def records(folder: Path) -> list[Record]:
    """Return all records of a sweep in order of their start, including reference runs."""
    found = [Record.read(path) for path in folder.rglob("record.json")]
    if not found:
        raise NotMeasuredError(f"no record in {folder}")
    return sorted(found, key=lambda each: each.started_at_s)


def trials(found: Sequence[Record]) -> list[Record]:
    """Return the records that count, without reference runs; all of them ok."""
    counted = [each for each in found if each.kind == "trial"]
    for each in counted:
        if each.status != "ok":
            why = each.error.message if each.error else each.status
            raise NotMeasuredError(f"the job {each.name} is {each.status}: {why}")
    return counted


def one_record(folder: Path, options: Options, *arguments: str) -> tuple[Path, dict[str, Any]]:
    """Run one job of the tiny model with the defaults, 5 + 20 calls, unpublished; return its folder and its record."""
    own = ("tracking=off", "hydra.run.dir=one", f"device={options.device}")
    timed(bench(*own, *arguments), folder)
    return folder / "one", Record.read(folder / "one").to_dict()


def calls_s(found: Sequence[Record]) -> float:
    """Return the seconds within all generate calls."""
    return sum(call.e2e_s for each in found for call in each.iterations)


def gaps_s(calls: Sequence[Iteration]) -> list[float]:
    """Return the seconds from the end of each call to the start of the next one."""
    return [after.start_s - (before.start_s + before.e2e_s) for before, after in itertools.pairwise(calls)]


def waited_note(found: Sequence[Record]) -> list[str]:
    """Return a line if jobs waited for other sweeps on this host: the wall times are then invalid."""
    waited_s = sum(each.neighbours.waited_s for each in found if each.neighbours is not None)
    if waited_s < 0.5:  # the queue alone takes milliseconds
        return []
    return [f"NOT QUIET: jobs waited {waited_s:.1f} s for other jobs of bench on this host"]
