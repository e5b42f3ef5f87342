"""Which processes are gone: with real ones, killed and living."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psutil
import pytest

from bench.tracking.runs import run_owner

SLEEPER = (
    "from bench.tracking.runs.run_owner import own_tag; import time; print(own_tag(), flush=True); time.sleep(600)"
)


@pytest.fixture
def sleeper():
    """A process, and the tag by which it names itself."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True)
    yield process, process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_living_process_is_not_gone(sleeper):
    assert not run_owner.is_gone(sleeper[1])
    assert not run_owner.is_gone(run_owner.own_tag())


def test_a_killed_process_is_gone_even_before_its_parent_has_waited_for_it(sleeper):
    process, tag = sleeper
    process.kill()
    deadline_s = time.monotonic() + 20
    while not run_owner.is_gone(tag) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert run_owner.is_gone(tag)
    process.wait()
    assert run_owner.is_gone(tag)


def changed(tag: str, **changes: object) -> str:
    return json.dumps(json.loads(tag) | changes)


def test_another_process_that_got_the_number_since_is_another_one():
    assert run_owner.is_gone(changed(run_owner.own_tag(), start=1))


def test_a_process_that_cannot_be_looked_at_counts_as_living(monkeypatch):
    monkeypatch.setattr(run_owner, "_start_ticks", lambda pid: None)
    assert not run_owner.is_gone(changed(run_owner.own_tag(), start=1))


def test_processes_elsewhere_are_left_alone(sleeper):
    process, tag = sleeper
    process.kill()
    process.wait()
    assert run_owner.is_gone(tag)
    assert not run_owner.is_gone(changed(tag, host="elsewhere"))
    assert not run_owner.is_gone(changed(tag, pids="pid:[1]"))  # another container
    assert not run_owner.is_gone(changed(tag, boot="of another machine with this name"))


def test_what_ran_before_this_machine_was_booted_is_gone():
    before_s = psutil.boot_time() - 60
    assert run_owner.is_gone(changed(run_owner.own_tag(), boot="earlier", started_s=before_s))


@pytest.mark.parametrize("tag", [None, "", "me", "[]", "7", '{"host": 1}'])
def test_what_names_no_process_is_left_alone(tag):
    assert not run_owner.is_gone(tag)
