"""Test the output of a sweep on interactive and non-interactive terminals, in pipes and in CI logs.

One sweep of two settings (one is measured, one is skipped) for each kind of output.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

import faults
from conftest import run_bench

COLUMNS = 100
SWEEP = ("-m", "attention=sdpa,flash2", "warmup.iterations=1", "measurement.iterations=4", "fidelity.reference=none")
SETTINGS = {"CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*[349][0-7](?:;[0-9]+)*m")
LIVE = ("Benchmarking", "Starting", "\u280b")  # words of the live line, and the first picture of its spinner


def on_terminal(folder: Path, *arguments: str, status: int = 0, **variables: str) -> str:
    """Return the command's whole output on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"} | variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            some = os.read(ours, 1 << 16)
        except OSError:  # nobody has the other end any more
            break
        if not some:
            break
        written += some
    os.close(ours)
    assert process.wait() == status, written.decode()
    return written.decode().replace("\r\n", "\n")


def is_clean(text: str) -> bool:
    """Return whether there is no escape sequence, no progress line and no two empty lines in a row."""
    return not ("\x1b" in text or "\r" in text or "\n\n\n" in text or any(each in text for each in LIVE))


def lines_of_jobs(text: str) -> list[str]:
    """Return the beginnings of the permanent lines, in order."""
    return [" ".join(line.split()[:3]) for line in text.splitlines() if re.match(r"[12]/2  ", line)]


def test_a_terminal_shows_the_median_and_the_time_left_and_keeps_the_jobs_lines(tmp_path) -> None:
    # So many calls take longer than a redraw on any machine.
    text = on_terminal(tmp_path, *SWEEP, "measurement.iterations=20", "tracking=off")
    drawn = [ESCAPE.sub("", each).rstrip() for each in re.split(r"[\r\n]", text)]
    assert any(re.search(r"sdpa   Benchmarking .* [0-9]+/20   median +[0-9.]+ ms ", each) for each in drawn)
    assert any(re.search(r"   left ~0:", each) for each in drawn)
    # Paths stay in one line, to be copied.
    assert max(cell_len(each) for each in drawn if not each.startswith((" Report: ", "Records: "))) <= COLUMNS
    kept = lines_of_jobs("\n".join(drawn))
    assert sorted(each.split()[0] for each in dict.fromkeys(kept) if each.split()[1] in ("ok", "skipped")) == [
        "1/2",
        "2/2",
    ]


@pytest.mark.slow
def test_a_job_that_crashes_raises_or_times_out_says_so_before_the_next(tmp_path) -> None:
    model = faults.make_model(tmp_path / "model")
    faults.plant(model, {1: ("sigkill", 3), 2: ("plain_exception", 3), 3: ("hang_in_python", 3)})
    sizes = ["workload.batch_size=1,2,3,4", "sweep.order=given", "isolation.timeout_s=30", "tracking=off"]
    text = ESCAPE.sub("", on_terminal(tmp_path, "-m", *faults.arguments(model), *sizes, status=1)).replace("\r", "\n")
    ends = [text.index(f"\n{each}") for each in ("1/4  crashed ", "2/4  failed ", "3/4  timeout ", "4/4  ok ")]
    begins = [text.index(f" {number}/4  batch_size={number}   Starting") for number in (1, 2, 3, 4)]
    assert sorted([*begins, *ends]) == [each for pair in zip(begins, ends, strict=True) for each in pair]
    assert "\n2/4  failed   batch_size=2              in measurement: RuntimeError: planted failure\n" in text


@pytest.mark.slow
def test_no_color_removes_the_colours_and_keeps_the_live_line(tmp_path) -> None:
    text = on_terminal(tmp_path, *SWEEP, "tracking=off", NO_COLOR="1")
    assert not COLOUR.search(text)
    assert "Benchmarking" in text


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "dumb"}], ids=["ci", "dumb"])
def test_a_non_interactive_terminal_gets_no_live_line(tmp_path, variables: dict[str, str]) -> None:
    text = on_terminal(tmp_path, *SWEEP, "tracking=off", **variables)
    assert is_clean(text)
    assert len(lines_of_jobs(text)) == 2


def test_a_pipe_gets_no_live_line_and_no_progress_of_libraries(tmp_path) -> None:
    done = run_bench(*SWEEP, folder=tmp_path, TERM="xterm-256color", CI="", FORCE_COLOR="")
    assert (done.returncode, done.stderr) == (0, "")
    assert is_clean(done.stdout)
    assert len(lines_of_jobs(done.stdout)) == 2
    assert "it/s" not in done.stdout
    assert "alembic" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "xterm"}], ids=["ci", "xterm"])
def test_forced_colour_reaches_a_pipe_without_a_live_line(tmp_path, variables: dict[str, str]) -> None:
    done = run_bench(*SWEEP, "tracking=off", folder=tmp_path, FORCE_COLOR="1", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert COLOUR.search(done.stdout)
    assert is_clean(ESCAPE.sub("", done.stdout))
    assert {each[-1] for each in ESCAPE.findall(done.stdout)} == {"m"}  # styles only: nothing is moved or erased
