"""Print the table of a dry run: the jobs in order, and their estimated time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.report.text.format import clock, one_line
from bench.report.text.layout import grid, is_watched, print_at

HEADERS = ("job", "name", "trial", "state", "about", "folder")
RIGHT = ("job", "about")  # columns of numbers, aligned right
LAID_OUT = 1000  # jobs on a terminal: the layout of a longer table takes more time than all of the planning


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """Hold one row."""

    number: int
    name: str
    trial_id: str
    folder: str
    state: str = "to run"  # or "done", "again: crashed", "would be skipped: …"
    estimate_s: float | None = None  # None: no earlier record has it; 0 for a job that will not run
    known: bool = False  # the estimate is from this exact setting


def print_plan(console: Console, jobs: Sequence[PlannedJob]) -> None:
    """Print number, name, trial id, state, estimate and folder per job (off terminals in one line); then the sums."""
    rows = [_cells(job) for job in jobs]
    if is_watched(console) and len(rows) <= LAID_OUT:
        print_at(console, _table(rows), console.width)
    elif rows:
        console.out("\n".join(_lines(rows)), highlight=False)
    console.print(_sums(jobs), markup=False, highlight=False, soft_wrap=True)


def _cells(job: PlannedJob) -> tuple[str, ...]:
    about = "–" if not job.estimate_s else clock(math.ceil(job.estimate_s))
    return (str(job.number), *(one_line(each) for each in (job.name, job.trial_id, job.state, about, job.folder)))


def _table(rows: Sequence[Sequence[str]]) -> Table:
    """Print a table for a terminal: columns share its width, and cells are folded if the column is too narrow."""
    table = grid(gap=2)
    table.add_column("job", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("trial", no_wrap=True)
    table.add_column("state", overflow="fold")
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("folder", overflow="fold")
    for number, *cells in rows:
        table.add_row(number, *map(Text, cells))
    return table


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Print one line per job, of any width."""
    table = [HEADERS, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(_padded, HEADERS, row, widths)).rstrip() for row in table]


def _padded(header: str, cell: str, width: int) -> str:
    padding = " " * (width - cell_len(cell))
    return padding + cell if header in RIGHT else cell + padding


def _sums(jobs: Sequence[PlannedJob]) -> str:
    """Count the jobs of each kind and estimate their time: "4 jobs: 1 done, 3 to run, about 2:10 (…)"."""
    done = sum(job.state == "done" for job in jobs)
    skipped = sum(job.state.startswith("would be skipped") for job in jobs)
    to_run = [job for job in jobs if job.state != "done" and not job.state.startswith("would be skipped")]
    parts = [f"{done} done" if done else "", f"{len(to_run)} to run", f"{skipped} to be skipped" if skipped else ""]
    text = f"{len(jobs)} jobs: {', '.join(part for part in parts if part)}"
    if not to_run:
        return text
    own = sum(job.known for job in to_run)
    told = [job for job in to_run if job.estimate_s is not None]
    if not told:
        return f"{text}; no earlier record tells how long that takes"
    mean_s = sum(job.estimate_s or 0.0 for job in told) / len(told)
    total_s = mean_s * len(to_run)
    by = [f"{own} by records of the same setting" if own else "", f"{len(told) - own} by similar ones", ""]
    by[1:2] = by[1:2] if len(told) > own else []
    if len(to_run) > len(told):
        by.append(f"{len(to_run) - len(told)} by the mean of the others")
    return f"{text}, about {clock(math.ceil(total_s))} ({', '.join(part for part in by if part)})"
