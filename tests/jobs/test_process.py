"""Test signals during the start of a child: the fork server may import for many seconds before it answers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from bench.orchestration import signals
from started import default_signals

PROGRAM = """
import sys, time
from pathlib import Path
from bench.jobs.process import child as process
from bench.orchestration import signals

class Starting:
    pid = None

    def start(self):
        print("starts", flush=True)
        time.sleep({seconds})  # a system call, as the wait for the fork server is
        self.pid = 1 << 22

signals.install()
child = process.Child(
    mode="forkserver", entry=("", ""), folder=Path("."), log=Path("log"), on_event=lambda *_: None
)
child._process = Starting()
try:
    child._start()
except KeyboardInterrupt as error:
    print(type(error).__name__, process._running == {{1 << 22}}, flush=True)
    sys.exit(130)
"""


def starting(seconds: float) -> subprocess.Popen[str]:
    command = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    assert command.stdout.readline() == "starts\n"
    return command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_stops_at_once_even_while_a_child_starts(number: int) -> None:
    with starting(60) as command:
        command.send_signal(number)
        command.stderr.readline()  # an empty line comes first
        assert "interrupted; ends the running job" in command.stderr.readline()  # printed at once
        time.sleep(2 * signals.ECHO_S)
        begin = time.monotonic()
        command.send_signal(number)
        assert command.wait(20) == 130
        assert time.monotonic() - begin < 10
        assert command.stderr.read().endswith("bench: stopped at once\n")


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SignalStop")])
def test_the_first_signal_waits_until_the_child_has_a_pid(number: int, name: str) -> None:
    with starting(1) as command:
        command.send_signal(number)
        assert command.stdout.readline() == f"{name} True\n"
        assert command.wait(20) == 130
