"""Test the first line on a terminal: shown before any library is loaded, erased before any other output."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from bench.report.terminal import startup_line
from bench.report.terminal.console import Terminal
from conftest import user_environment
from refusals import answer


class Screen(io.StringIO):
    """A terminal that stores its output."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch) -> Screen:
    """Replace stdout by an interactive terminal."""
    found = Screen()
    monkeypatch.setattr(startup_line, "_shown", [])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    return found


def show(screen: io.StringIO, typed: list[str]) -> str:
    """Return all output of a terminal after the line was due."""
    with contextlib.redirect_stdout(screen):
        startup_line.show(typed)
    return screen.getvalue()


@pytest.mark.parametrize(
    "typed",
    [[], ["attention=sdpa"], ["-m", "attention=eager,sdpa"], ["--multirun", "a=1,2"], ["--config-dir", "conf", "a=1"],
     ["--config-dir=conf", "a=1"], ["-cd", "conf", "-m", "a=1,2"], ["-m", "hydra/launcher=ray", "a=1,2"]],
)  # fmt: skip
def test_a_measuring_command_shows_a_line_at_once(screen, typed: list[str]) -> None:
    assert show(screen, typed) == startup_line.TEXT


@pytest.mark.parametrize(
    "typed",
    [["--help"], ["-h"], ["--hydra-help"], ["--cfg", "job"], ["-c", "job"], ["--cfg=job"], ["--info"], ["--version"],
     ["--keys"], ["--keys", "warmup"], ["-sc", "install=bash"], ["--hel"], ["-m", "--cfg", "job"], ["--nonsense"]],
)  # fmt: skip
def test_a_command_that_only_prints_shows_no_line(screen, typed: list[str]) -> None:
    assert show(screen, typed) == ""


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_terminal_that_cannot_erase_shows_nothing(screen, monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert show(screen, []) == ""


def test_a_pipe_shows_nothing(screen, monkeypatch) -> None:
    assert show(io.StringIO(), []) == ""
    monkeypatch.setattr(sys, "stdout", None)
    startup_line.show([])


def test_the_line_is_erased_once_before_anything_is_written(screen) -> None:
    show(screen, [])
    with contextlib.redirect_stdout(screen):
        console = Terminal()
        console.print("first")
        console.print("second")
    assert screen.getvalue() == f"{startup_line.TEXT}{startup_line.ERASE}first\nsecond\n"


@pytest.mark.parametrize("typed", [["warmup.iterations=-1"], ["--nonsense"], ["attention=egaer"]])
def test_a_refusal_is_still_one_line(tmp_path, screen, typed: list[str]) -> None:
    show(screen, [])
    ended = answer(tmp_path, *typed)
    assert ended.err.count("\n") == 1
    assert (ended.status, ended.out) == (2, startup_line.ERASE)


# Prints on the terminal when any process first searches for a library.
TELLING = """
import os, sys
class Tell:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "hydra", "mlflow"):
            os.write(2, f"<{name}>".encode())
sys.meta_path.insert(0, Tell())
"""


@pytest.mark.slow
def test_a_terminal_shows_the_line_before_a_library_is_loaded(tmp_path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(TELLING, encoding="utf-8")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "tracking=off", "warmup.iterations=1", "measurement.iterations=2"],
        cwd=tmp_path,
        env=user_environment(TERM="xterm", CI="", PYTHONPATH=str(site)),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    written = bytearray()
    deadline_s = time.monotonic() + 300
    try:
        while not (b"<torch>" in written and b"<hydra>" in written) and time.monotonic() < deadline_s:
            written += os.read(ours, 1 << 16)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
    text = written.decode()
    assert text.startswith(startup_line.TEXT), text
    assert text.index(startup_line.TEXT) < min(text.index("<torch>"), text.index("<hydra>"))
