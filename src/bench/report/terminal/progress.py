"""Show the progress of a sweep: one live line for the running job, and one permanent line per finished job.

The live line is for terminals only; elsewhere nothing is printed while a job runs. The parent redraws it four times a
second, which takes well under a hundredth of a core during the measured job. Nothing is measured here: the caller
supplies phase, counts and times.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.analysis.ranking import standing_of
from bench.analysis.settings import unverified_in
from bench.analysis.trials.summary import summarize
from bench.report.quantities import COLD_START, E2E, OUTPUT_THROUGHPUT, TTFT
from bench.report.text import unverified
from bench.report.text.format import (
    FAILURE_STYLE,
    UNDEFINED,
    clock,
    milliseconds,
    one_line,
    reason,
    run_title,
    significant,
    status_style,
)
from bench.report.text.layout import can_redraw, is_watched
from bench.results.record import Record

PHASE_WORDS = {
    "start": "Starting",
    "load": "Loading",
    "validation": "Validating",
    "warmup": "Warmup",
    "measurement": "Benchmarking",
    "evidence": "Checking",
    "fidelity": "Comparing",
    "roofline": "Rating",
    "profile": "Profiling",
}
# Kind of reason why an ok job is not ranked → text and style in its line.
WARNINGS = {
    "output": ("OUTPUT DIFFERS", FAILURE_STYLE),
    "warm-up": ("not warm", "yellow"),
    "unsteady": ("unsteady", "yellow"),
}
COUNTED = ("warmup", "measurement")  # the phases with a bar; the others are one step each
REDRAWS_PER_S = 4
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
NAME_CELLS = 24  # width of a name in the permanent lines
NAME_CELLS_KEPT = 16  # of a name in the live line, before other parts are shortened
BAR_CELLS = (6, 20)  # minimum and maximum width of the bar
GAP = "   "
WAITING_FOR = "waiting for a neighbour: "
SHORT_WAIT_S = 1.0  # too short for a permanent line


@dataclass(frozen=True, kw_only=True)
class Position:
    """Describe the progress of a job: the phase, and its calls done and due (due 0: not counted, or not known yet)."""

    phase: str = "start"
    done: int = 0
    total: int = 0
    e2e_s: float | None = None  # of the last call
    median_s: float | None = None  # of the measured calls so far


def estimate_left(position: Position, *, elapsed_s: float, to_measure: int, jobs_after: int) -> float | None:
    """Estimate the seconds left for a job and those after it, from the job's own calls; None before the first call.

    The estimate assumes that each remaining call takes as long as the present one, and each later job as long as this
    one.

    Args:
        position: the job's progress.
        elapsed_s: seconds since its start, without the wait for its turn and the reference before it.
        to_measure: number of measured calls; 0: not known yet.
        jobs_after: number of jobs after it.
    """
    call_s = position.median_s if position.median_s is not None else position.e2e_s
    if call_s is None or not position.total or position.phase not in COUNTED:
        return None
    calls = position.total - position.done
    if position.phase == "warmup":
        if not to_measure or not position.done:  # the first call of all is a cold start
            return None
        calls += to_measure
    rest_s = calls * call_s
    return rest_s + jobs_after * (elapsed_s + rest_s)


class JobProgress:
    """Show the live line of one job; a context manager that prints nothing if no line can be redrawn.

    ``left_s`` is the estimate for the rest of the sweep at the start of this job, including this job. None: not known,
    and then estimated from the job's own calls. ``to_measure`` is the number of measured calls (0: not known yet).
    ``jobs_after`` is the number of jobs that will run after this one; None: all with a higher number.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        job: int,
        jobs: int,
        left_s: float | None,
        to_measure: int = 0,
        jobs_after: int | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._title, self._job, self._jobs, self._left_s = console, one_line(title), job, jobs, left_s
        self._to_measure, self._jobs_after = to_measure, jobs - job if jobs_after is None else jobs_after
        self._clock_s, self._started_s = clock_s, clock_s()
        self._begun_s = self._started_s
        self._position = Position()
        self._measured_s: list[float] = []
        self._told = False  # that it waits
        self._live = (
            Live(console=console, get_renderable=self.line, refresh_per_second=REDRAWS_PER_S, transient=True)
            if can_redraw(console)
            else None
        )

    def __enter__(self) -> Self:
        self._started_s = self._begun_s = self._clock_s()
        if self._live:
            try:
                self._live.start(refresh=True)
            except (OSError, RuntimeError):  # no thread can be started to redraw it: the job runs without the line
                self._live = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, phase: str, done: int, total: int, e2e_s: float | None) -> None:
        """Record progress only; the next redraw does the computation, because a measured call begins now."""
        self._position = Position(phase=phase, done=done, total=total, e2e_s=e2e_s)
        if phase != "measurement" or not done:
            self._measured_s = []
        elif e2e_s is not None:
            self._measured_s.append(e2e_s)

    def begin(self) -> None:
        """Record that the job itself begins: estimates of later jobs exclude an earlier wait or reference."""
        self._position, self._measured_s, self._begun_s = Position(), [], self._clock_s()

    def wait(self, neighbour: str | None, waited_s: float) -> None:
        """Record a wait for another job of this host; None: it is over. Without a live line, print it once.

        Args:
            neighbour: the awaited job, in words.
            waited_s: seconds waited so far.
        """
        if neighbour is None:
            self.begin()
            return
        text = f"{WAITING_FOR}{one_line(neighbour)}"
        self._position = Position(phase=f"{text}, since {int(waited_s)} s")
        if self._live is None and not self._told and waited_s >= SHORT_WAIT_S:
            self._told = True
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> Text:
        """Return the current line, no longer than the width of the console."""
        elapsed_s = self._clock_s() - self._started_s
        position, measured_s = self._position, self._measured_s
        if measured_s:
            position = dataclasses.replace(position, median_s=statistics.median(measured_s))
        return live_line(
            self._console.width,
            title=self._title,
            job=self._job,
            jobs=self._jobs,
            position=position,
            elapsed_s=elapsed_s,
            left_s=self._still_left(position, elapsed_s),
        )

    def _still_left(self, position: Position, elapsed_s: float) -> float | None:
        """Count the estimate down, but never below the estimate from this job's own calls and the later jobs.

        None: used up, or unknown.
        """
        after, own_s = self._jobs_after, self._clock_s() - self._begun_s

        def by_own_calls(jobs_after: int) -> float | None:
            return estimate_left(position, elapsed_s=own_s, to_measure=self._to_measure, jobs_after=jobs_after)

        if self._left_s is None:
            return by_own_calls(after)
        later_s = self._left_s * after / (after + 1)
        return max(self._left_s - elapsed_s, later_s + (by_own_calls(0) or 0.0)) or None


def live_line(
    width: int, *, title: str, job: int, jobs: int, position: Position, elapsed_s: float, left_s: float | None
) -> Text:
    """Return spinner, job, name, phase, bar, count, median or last latency, elapsed, left; first the bar is cut."""
    due = position.total if position.phase in COUNTED else 0
    count = f" {position.done:>{len(str(due))}}/{due}" if due else ""
    if position.phase in COUNTED and not due:
        count = f" {position.done}"  # a rule decides the number during the calls
    latency = ""
    if position.median_s is not None:
        latency = f"{GAP}median {milliseconds(position.median_s):>5} ms"
    elif position.done > 0 and position.e2e_s is not None:  # from a phase's first call on: the last is of its kind
        latency = f"{GAP}{milliseconds(position.e2e_s):>5} ms"
    elapsed = f"{GAP}{clock(elapsed_s)}"
    left = f"{GAP}left ~{clock(left_s)}" if left_s is not None else ""
    head = f"{SPINNER[int(elapsed_s * REDRAWS_PER_S) % len(SPINNER)]} {job}/{jobs}  "
    phase = f"{GAP}{PHASE_WORDS.get(position.phase, one_line(position.phase)):<12}"

    short = count + latency + (left or elapsed)
    for tail in (count + latency + elapsed + left, short, count + latency, count + elapsed, count):
        room = width - cell_len(head + phase + tail)
        if room >= min(cell_len(title), NAME_CELLS_KEPT):
            break
    name = Text(title, style="bold")
    name.truncate(max(room, 1), overflow="ellipsis")

    line = Text(head, no_wrap=True, end="").append_text(name).append(phase, style="cyan")
    bar_cells = min(room - name.cell_len - 1, BAR_CELLS[1])
    if due and bar_cells >= BAR_CELLS[0]:
        line.append(" ").append_text(_bar(position.done / due, bar_cells))
    line.append(tail)
    line.truncate(width)
    return line


def _bar(fraction: float, cells: int) -> Text:
    full = round(min(max(fraction, 0.0), 1.0) * cells)
    return Text("█" * full, style="green").append("░" * (cells - full), style="dim")


def print_job_line(console: Console, record: Record, job: int, jobs: int) -> None:
    """Print the permanent line: how the job ended, with its headline figures or the reason.

    On a terminal it is cut to the width; elsewhere it is one whole line of any length.
    """
    watched = is_watched(console)
    unseen = unverified.words(unverified_in([record]))
    line = Text(f"{job:>{len(str(jobs))}}/{jobs}  " if jobs > 1 else "", end="")
    line.append(f"{record.status:<7}", style=status_style(record.status))
    name = Text(run_title(record))
    name.truncate(max(name.cell_len, NAME_CELLS), pad=True)
    line.append("  ").append_text(name)
    if record.status == "ok":
        for each in standing_of([record]).reasons:
            if each.kind in WARNINGS:
                words, style = WARNINGS[each.kind]
                line.append(f"  {words}", style=style)
        if unseen is not None:
            line.append(f"  {unverified.WORD}", style="yellow")
        for piece in _headline(record):
            # A cut figure misleads: a narrow terminal gets fewer figures.
            if not watched or line.cell_len + 2 + len(piece) <= console.width:
                line.append(f"  {piece}")
        if unseen is not None:
            line.append(f"  {unseen}")
    else:
        line.append(f"  {reason(record)}")
    if watched:
        line.truncate(console.width, overflow="ellipsis")
    line.rstrip()
    console.print(line, soft_wrap=True)


def print_reference_line(console: Console, record: Record) -> None:
    """Print how the reference run for the output comparison ended; dim, because it is no result."""
    line = Text("reference for fidelity (eager, not compiled)", style="dim")
    ended = record.ended_at_s - record.started_at_s if record.ended_at_s is not None else None
    line.append(f": {record.status}" if record.status == "ok" else f": {record.status}: {reason(record)}")
    if record.status == "ok":
        line.append(f", {significant(ended, 2)} s, not counted")
    console.print(line, soft_wrap=True)


def _headline(record: Record) -> Iterator[str]:
    summary = summarize(record)
    for label, quantity, unit in (
        ("E2E ", E2E, "ms"),
        ("TTFT ", TTFT, "ms"),
        ("", OUTPUT_THROUGHPUT, "tok/s"),
        ("cold ", COLD_START, "s"),
    ):
        value = quantity.text(summary)
        yield f"{label}{value:>5} {unit}" if value != UNDEFINED else f"{label}{UNDEFINED}"
