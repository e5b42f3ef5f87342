"""Test the table of a dry run."""

from __future__ import annotations

import io

from rich.console import Console

from bench.report.terminal.dry_run_table import PlannedJob, print_plan

JOBS = [
    PlannedJob(
        number=1, name="sdpa [off]", trial_id="0" * 16, folder="1_off", state="done", estimate_s=0.0, known=True
    ),
    PlannedJob(
        number=2, name="eager", trial_id="1" * 16, folder="2_e", state="again: crashed", estimate_s=61.2, known=True
    ),
    PlannedJob(number=12, name="default", trial_id="f" * 16, folder="m/" + "d" * 90, estimate_s=30.0),
    PlannedJob(
        number=13, name="flash2", trial_id="e" * 16, folder="f", state="would be skipped: no package", estimate_s=0.0
    ),
    PlannedJob(number=14, name="new", trial_id="d" * 16, folder="n"),
]


def plan(console: Console, jobs: list[PlannedJob]) -> list[str]:
    print_plan(console, jobs)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def off_terminals() -> Console:
    return Console(file=io.StringIO(), _environ={})


def test_without_a_terminal_a_plan_has_one_line_per_job_and_the_sums_below() -> None:
    assert plan(off_terminals(), JOBS) == [
        "job  name        trial             state                         about  folder",
        "  1  sdpa [off]  0000000000000000  done                              –  1_off",
        "  2  eager       1111111111111111  again: crashed                 1:02  2_e",
        " 12  default     ffffffffffffffff  to run                         0:30  m/" + "d" * 90,
        " 13  flash2      eeeeeeeeeeeeeeee  would be skipped: no package      –  f",
        " 14  new         dddddddddddddddd  to run                            –  n",
        "5 jobs: 1 done, 3 to run, 1 to be skipped, about 2:17 "
        "(1 by records of the same setting, 1 by similar ones, 1 by the mean of the others)",
    ]


def test_without_earlier_records_nothing_is_estimated() -> None:
    assert plan(off_terminals(), JOBS[4:])[-1] == "1 jobs: 1 to run; no earlier record tells how long that takes"


def test_a_finished_plan_shows_no_time_left() -> None:
    assert plan(off_terminals(), JOBS[:1])[-1] == "1 jobs: 1 done, 0 to run"


def test_a_plan_fits_the_terminals_width() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    lines = plan(console, JOBS)
    assert max(len(line) for line in lines[:-1]) <= 80
    assert sum(line.count("d") for line in lines if "m/" in line or set(line.strip()) == {"d"}) >= 90
