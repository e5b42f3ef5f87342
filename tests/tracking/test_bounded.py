"""Calls in a thread that nobody waits for too long."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bench.tracking.bounded import BoundedThread, NotInTimeError

SOON_S = 0.2
LONG_S = 30.0


def test_a_call_gives_its_result():
    assert BoundedThread().call(lambda: 7, within_s=LONG_S) == 7


def test_a_call_raises_what_it_raised():
    def fail() -> None:
        raise KeyError("no")

    thread = BoundedThread()
    with pytest.raises(KeyError, match="no"):
        thread.call(fail, within_s=LONG_S)
    assert thread.call(lambda: 7, within_s=LONG_S) == 7


def test_a_call_that_takes_too_long_goes_on_and_those_after_it_are_refused_at_once():
    go, done = threading.Event(), threading.Event()
    thread = BoundedThread()

    def slow() -> None:
        go.wait(LONG_S)
        done.set()

    with pytest.raises(NotInTimeError) as late:
        thread.call(slow, within_s=SOON_S)
    begun: list[int] = []
    before_s = time.monotonic()
    for number in range(20):
        with pytest.raises(NotInTimeError) as refused:
            thread.call(lambda number=number: begun.append(number), within_s=LONG_S)
    assert time.monotonic() - before_s < 5
    assert (late.value.is_busy, refused.value.is_busy) == (False, True)
    go.set()
    assert done.wait(LONG_S)
    thread.wait_until_free(LONG_S)
    assert thread.call(lambda: 7, within_s=LONG_S) == 7
    assert begun == []


@pytest.fixture
def no_collection() -> Iterator[None]:
    """An interrupt that comes while a callback of the garbage collector runs is lost: Python raises nothing there."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_a_call_that_is_within_its_time_is_waited_for():
    """However soon the interrupt comes: often just as the waiting begins."""
    thread = BoundedThread()
    main = threading.main_thread().ident
    for _ in range(30):
        order: list[str] = []
        go = threading.Event()

        def interrupt_and_go_on(go: threading.Event = go, order: list[str] = order) -> None:
            signal.pthread_kill(main, signal.SIGINT)
            go.wait(LONG_S)
            order.append("first")

        with pytest.raises(KeyboardInterrupt):
            thread.call(interrupt_and_go_on, within_s=LONG_S)
        assert order == []  # the interrupt came through at once
        go.set()
        thread.call(lambda order=order: order.append("second"), within_s=LONG_S)
        assert order == ["first", "second"]  # and tore nothing


def test_the_thread_takes_no_signal():
    thread = BoundedThread()
    blocked = thread.call(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []), within_s=LONG_S)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= set(blocked)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_program_ends_while_its_thread_hangs(tmp_path):
    code = """
import socket, sys, threading
from bench.tracking.bounded import BoundedThread, NotInTimeError
from bench.tracking.store.store import MlflowClient
silent = socket.create_server(("127.0.0.1", 0))
client = MlflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
try:
    BoundedThread().call(lambda: client.search_experiments(), within_s=1)
except NotInTimeError:
    print("left behind", flush=True)
"""
    environment = os.environ | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left behind\n", "")
