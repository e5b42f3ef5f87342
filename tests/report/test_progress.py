from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from bench.config.schema import SweepConfig
from bench.report.terminal.progress import JobProgress, Position, estimate_left, live_line, print_job_line
from bench.results.record import Failure, Fidelity, Record, Steadiness
from factories import make_config, make_record


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, _environ={"TERM": "xterm"})


def pipe(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def job_line(console: Console, record: Record, job: int = 2, jobs: int = 8) -> str:
    print_job_line(console, record, job, jobs)
    return without_styles(written(console))


def failed(status: str = "failed", message: str = "no such layer", name: str = "sdpa default") -> Record:
    error = Failure(type="RuntimeError", message=message)
    return make_record(name=name, status=status, stage="warmup", error=error, iterations=[])


def shown(
    width: int, position: Position, *, title: str = "sdpa default", elapsed_s: float = 31.0, left_s: float | None = 250
) -> str:
    return live_line(width, title=title, job=2, jobs=8, position=position, elapsed_s=elapsed_s, left_s=left_s).plain


MEASURING = Position(phase="measurement", done=12, total=20, e2e_s=0.2, median_s=0.11832)


# ---- a wait for a neighbour ------------------------------------------------------------------------------------------


def waiting(console: Console) -> JobProgress:
    return JobProgress(console, title="sdpa default", job=1, jobs=1, left_s=None, clock_s=lambda: 0.0)


@pytest.mark.parametrize("width", [70, 80, 200])
def test_the_live_line_names_the_awaited_job_and_the_time_waited(width: int) -> None:
    progress = waiting(terminal(width))
    progress.wait("eager\x1b[2J, pid 123", 12.9)
    assert "waiting for a neighbour: eager, pid 123, since 12 s" in progress.line().plain
    assert cell_len(progress.line().plain) <= width
    progress.wait(None, 13.0)
    assert "Starting" in progress.line().plain


def test_without_a_terminal_a_wait_of_a_second_is_reported_once() -> None:
    console = pipe(40)
    progress = waiting(console)
    progress.wait("eager [1], pid 123", 0.5)
    assert written(console) == ""
    for waited_s in (1.0, 2.0):
        progress.wait("eager [1], pid 123", waited_s)
    assert written(console) == "waiting for a neighbour: eager [1], pid 123\n"


# ---- the estimate ------------------------------------------------------------------------------------------------


def left(position: Position, *, to_measure: int = 20, jobs_after: int = 3) -> float | None:
    """Return the estimate ten seconds after a job began."""
    return estimate_left(position, elapsed_s=10.0, to_measure=to_measure, jobs_after=jobs_after)


def test_the_estimate_takes_the_median_call_and_the_same_time_per_later_job() -> None:
    position = Position(phase="measurement", done=12, total=20, e2e_s=9.0, median_s=0.5)
    assert left(position) == 4.0 + 3 * 14.0
    assert left(position, jobs_after=0) == 4.0


def test_the_warm_up_estimate_takes_the_last_call_and_includes_measured_calls() -> None:
    assert left(Position(phase="warmup", done=1, total=5, e2e_s=0.5)) == 12.0 + 3 * 22.0


@pytest.mark.parametrize(
    ("position", "to_measure"),
    [
        (Position(phase="load", total=1), 20),
        (Position(phase="warmup", done=0, total=5, e2e_s=31.0), 20),  # the call before was a cold start
        (Position(phase="warmup", done=1, total=5, e2e_s=0.5), 0),  # a rule decides how many are measured
        (Position(phase="measurement", done=3, e2e_s=0.5, median_s=0.5), 0),
        (Position(phase="evidence", total=1), 20),
    ],
)
def test_without_usable_calls_there_is_no_estimate(position: Position, to_measure: int) -> None:
    assert left(position, to_measure=to_measure) is None


def test_a_first_job_shows_an_estimate_once_its_calls_allow_it() -> None:
    progress = JobProgress(pipe(100), title="off", job=1, jobs=2, left_s=None, to_measure=4, clock_s=lambda: 0.0)
    assert "left" not in progress.line().plain
    progress.update("warmup", 1, 2, 10.0)
    assert progress.line().plain.endswith("   left ~1:40")


def test_the_estimate_counts_down_but_not_below_the_jobs_after_this_one() -> None:
    now = [100.0]
    progress = JobProgress(pipe(100), title="off", job=2, jobs=4, left_s=90.0, clock_s=lambda: now[0])
    assert progress.line().plain.endswith("   0:00   left ~1:30")
    now[0] = 110.0
    assert progress.line().plain.endswith("   0:10   left ~1:20")
    now[0] = 500.0  # 30 of the 90 seconds are for this job; two jobs follow
    assert progress.line().plain.endswith("   6:40   left ~1:00")


def test_the_estimate_is_at_least_the_remaining_calls_plus_the_later_jobs() -> None:
    progress = JobProgress(pipe(100), title="off", job=2, jobs=4, left_s=3.0, clock_s=lambda: 0.0)
    progress.update("measurement", 10, 20, 6.0)
    assert progress.line().plain.endswith("   left ~1:02")  # ten calls, and two thirds of the estimate


def test_a_last_job_that_overruns_its_estimate_shows_none() -> None:
    now = [0.0]
    progress = JobProgress(pipe(100), title="off", job=4, jobs=4, left_s=30.0, clock_s=lambda: now[0])
    now[0] = 45.0
    assert progress.line().plain.endswith("   0:45")


# ---- the live line -----------------------------------------------------------------------------------------------


def test_the_live_line_at_100_columns() -> None:
    assert shown(100, MEASURING) == (
        "⠼ 2/8  sdpa default   Benchmarking ████████████░░░░░░░░ 12/20   median 118.3 ms   0:31   left ~4:10"
    )


def test_a_narrow_live_line_drops_bar_then_elapsed_then_time_left_then_median() -> None:
    assert shown(80, MEASURING) == "⠼ 2/8  sdpa default   Benchmarking 12/20   median 118.3 ms   0:31   left ~4:10"
    assert shown(75, MEASURING) == "⠼ 2/8  sdpa default   Benchmarking 12/20   median 118.3 ms   left ~4:10"
    assert shown(60, MEASURING) == "⠼ 2/8  sdpa default   Benchmarking 12/20   median 118.3 ms"
    assert shown(50, MEASURING) == "⠼ 2/8  sdpa default   Benchmarking 12/20   0:31"


def test_with_unknown_time_left_the_elapsed_time_takes_its_place() -> None:
    assert shown(70, MEASURING, left_s=None) == ("⠼ 2/8  sdpa default   Benchmarking 12/20   median 118.3 ms   0:31")


def test_the_median_is_that_of_the_measured_calls_so_far() -> None:
    progress = JobProgress(pipe(100), title="off", job=1, jobs=1, left_s=9.0, clock_s=lambda: 0.0)
    progress.update("warmup", 4, 5, 70.0)
    assert " 4/5   70000 ms" in progress.line().plain
    progress.update("measurement", 0, 20, 60.0)  # the last call of the warm-up
    assert "ms" not in progress.line().plain
    for done, e2e_s in enumerate((0.3, 0.1, 0.2), 1):
        progress.update("measurement", done, 20, e2e_s)
    assert " 3/20   median 200.0 ms" in progress.line().plain


def test_the_median_of_another_run_in_the_same_job_is_discarded() -> None:
    progress = JobProgress(pipe(100), title="off", job=1, jobs=1, left_s=9.0, clock_s=lambda: 0.0)
    progress.update("measurement", 1, 20, 60.0)
    progress.update("load", 0, 1, None)
    progress.update("measurement", 1, 20, 0.1)
    assert "median 100.0 ms" in progress.line().plain


def test_a_long_name_is_cut_and_the_figures_are_kept() -> None:
    assert shown(66, MEASURING, title="sdpa max-autotune-no-cudagraphs") == (
        "⠼ 2/8  sdpa max-autotune-n…   Benchmarking 12/20   median 118.3 ms"
    )


@pytest.mark.parametrize("width", [100, 80, 60, 40, 20, 8])
@pytest.mark.parametrize("title", ["off", "sdpa max-autotune-no-cudagraphs" * 4, "模型" * 30])
def test_the_live_line_never_exceeds_the_width(width: int, title: str) -> None:
    line = shown(width, MEASURING, title=title, elapsed_s=36_000.0, left_s=360_000.0)
    assert cell_len(line) <= width
    assert "\n" not in line


def test_warmup_and_measurement_are_named_like_their_bars() -> None:
    assert "Warmup       ████" in shown(100, Position(phase="warmup", done=2, total=5, e2e_s=0.2))
    assert "Benchmarking ████" in shown(100, MEASURING)


def test_phases_of_one_step_have_no_bar() -> None:
    assert shown(100, Position(phase="validation", total=1)) == "⠼ 2/8  sdpa default   Validating     0:31   left ~4:10"


def test_the_latency_of_the_previous_phase_is_not_shown() -> None:
    assert "ms" not in shown(100, Position(phase="warmup", done=0, total=5, e2e_s=31.0))


def test_a_terminal_shows_the_live_line_and_is_cleared(monkeypatch) -> None:
    monkeypatch.delenv("CI", raising=False)  # CI logs cannot redraw a line even on a terminal
    console = terminal(100)
    with JobProgress(console, title="[red]off", job=1, jobs=2, left_s=None) as progress:
        progress.update("measurement", 3, 20, 0.1)
        console.file.write("|")  # the text after it was drawn at the end
    text = without_styles(written(console))
    assert "1/2  [red]off" in text
    assert " 3/20   median 100.0 ms" in text.partition("|")[2]
    assert text.endswith("\x1b[2K")  # the live line is erased


def test_no_live_line_is_printed_without_a_terminal() -> None:
    console = pipe()
    with JobProgress(console, title="off", job=1, jobs=2, left_s=9.0) as progress:
        for done in range(20):
            progress.update("measurement", done, 20, 0.1)
    assert written(console) == ""


def test_no_live_line_is_printed_on_a_terminal_that_cannot_redraw() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    with JobProgress(console, title="off", job=1, jobs=2, left_s=9.0):
        pass
    assert written(console) == ""


def redraws(console: Console) -> bool:
    with JobProgress(console, title="off", job=1, jobs=2, left_s=9.0):
        pass
    return written(console) != ""


def test_a_pipe_with_forced_colour_gets_no_live_line(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not redraws(Console(file=io.StringIO(), width=100, _environ={"TERM": "xterm", "FORCE_COLOR": "1"}))


def test_forced_colour_does_not_cut_the_reason_in_a_log(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console(file=io.StringIO(), width=60, _environ={"TERM": "xterm", "FORCE_COLOR": "1"})
    assert job_line(console, failed(message="x" * 300)).endswith("x" * 300 + "\n")


@pytest.mark.parametrize(("value", "expected"), [("true", False), ("1", False), ("false", True), ("", True)])
def test_ci_gets_no_live_line_even_on_a_terminal(monkeypatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("CI", value)
    assert redraws(terminal(100)) is expected


# ---- the permanent line -----------------------------------------------------------------------------------------


def test_the_line_of_an_ok_job() -> None:
    assert job_line(pipe(), make_record(name="sdpa default")) == (
        "2/8  ok       sdpa default              E2E 948.0 ms  TTFT 100.0 ms  10.55 tok/s  cold 5.000 s\n"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steadiness": Steadiness(steady=False, flags=["trend"], shape="slowdown", power="enough")}, "unsteady"),
        ({"warmup_status": "not_converged"}, "not warm"),
        ({"fidelity": Fidelity(reference="eager", agrees=False)}, "OUTPUT DIFFERS"),
    ],
)
def test_an_unranked_ok_job_says_why_before_its_figures(changes, words: str) -> None:
    assert f"{'sdpa default':24}  {words}  E2E 948.0 ms" in job_line(
        pipe(), make_record(name="sdpa default", **changes)
    )


def test_a_narrow_terminal_gets_fewer_but_complete_figures() -> None:
    assert job_line(terminal(60), make_record(name="off")) == "2/8  ok       off                       E2E 948.0 ms\n"


def test_repeats_are_distinguished() -> None:
    requested = make_config(sweep=SweepConfig(repeats=3)).to_dict()
    line = job_line(pipe(), make_record(name="off", repeat=1, requested=requested))
    assert line.startswith("2/8  ok       off #1   ")


def test_a_single_run_is_named_by_its_model_and_has_no_number() -> None:
    assert job_line(pipe(), make_record(), 1, 1).startswith("ok       org/tiny   ")


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "crashed", "interrupted"])
def test_a_failed_job_says_so_in_words_with_stage_and_reason(status: str) -> None:
    assert job_line(pipe(), failed(status)) == (
        f"2/8  {status:<7}  sdpa default              in warmup: RuntimeError: no such layer\n"
    )


def test_a_skipped_job_gives_only_its_reason() -> None:
    assert job_line(pipe(), failed("skipped", "attention.implementation=x: not installed")) == (
        "2/8  skipped  sdpa default              attention.implementation=x: not installed\n"
    )


def test_a_job_without_an_error_says_where_it_ended() -> None:
    record = make_record(name="off", status="interrupted", stage="load", iterations=[])
    assert job_line(pipe(), record) == "2/8  interrupted  off                       ended in load\n"


def test_undefined_figures_of_an_ok_job_are_dashes() -> None:
    assert job_line(pipe(), make_record(name="off", iterations=[])).endswith("E2E –  TTFT –  –  cold –\n")


def test_without_a_terminal_the_reason_is_one_full_line_without_escape_codes() -> None:
    line = job_line(pipe(60), failed(message="\x1b[31mred\x1b[0m [bold]first\nsecond[/bold]\t" + "x" * 300))
    assert line.endswith("in warmup: RuntimeError: red [bold]first second[/bold] " + "x" * 300 + "\n")
    assert line.count("\n") == 1
    assert "\x1b" not in line


@pytest.mark.parametrize("width", [100, 60])
def test_on_a_terminal_the_line_is_cut_to_the_width(width: int) -> None:
    line = job_line(terminal(width), failed(message="x" * 300))
    assert cell_len(line.rstrip("\n")) == width
    assert line.endswith("…\n")


def test_without_colour_the_text_is_the_same() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, _environ={"TERM": "xterm", "NO_COLOR": "1"})
    print_job_line(console, make_record(name="off"), 2, 8)
    assert written(console).startswith("2/8  ok       off ")
