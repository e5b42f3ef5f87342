"""Hold the state of a running sweep, which all its steps share."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.config.schema import BenchmarkConfig
from bench.host.command_line import program
from bench.host.secrets import scrub
from bench.jobs.planning.plan import Plan
from bench.jobs.planning.resume import Found, Resumption
from bench.results.record import Record, RecordError
from bench.tracking.store.destination import Destination

if TYPE_CHECKING:
    from bench.tracking.publisher import Publisher


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepState:
    """Describe a running sweep."""

    console: Console
    config: BenchmarkConfig  # for keys of the whole sweep
    folder: Path
    found: Found  # earlier contents of the folder
    left: Resumption  # the plan, and which of its jobs are left to run
    publisher: Publisher | None  # None: not tracked
    destination: Destination  # where it is published, if it is
    is_local: bool  # whether the jobs run on this machine

    @property
    def plan(self) -> Plan:
        """Return the plan of all jobs, done or not."""
        return self.left.plan

    def say(self, line: str, style: str = "") -> None:
        """Print one line unchanged, with any width and characters."""
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def records_of(state: SweepState) -> list[Record]:
    """Return the records of a plan's jobs, with the setting names of the plan."""
    records = []
    for each in state.plan.jobs:
        with contextlib.suppress(RecordError):
            record = Record.read(state.folder / each.folder)
            record.name, record.swept = each.name, each.swept
            records.append(record)
    return records


def resume_command(state: SweepState) -> str:
    """Return the command that resumes this sweep: the typed one, with the sweep's name and `sweep.resume`."""
    typed = [each for each in sys.argv[1:] if not re.match(r"\+*sweep\.(resume|name)=", each)]
    named = state.config.sweep.name or not any("hydra.sweep.dir=" in each for each in typed)
    names = [f"sweep.name={state.folder.name}"] if named else []
    return shlex.join([*program(), *typed, *names, "sweep.resume=true"])


def command_again() -> str:
    """Return the typed command, for another sweep."""
    typed = [each for each in sys.argv[1:] if not re.match(r"\+*sweep\.(resume|name)=", each)]
    return scrub(shlex.join(["python", "-m", "bench", *typed]))
