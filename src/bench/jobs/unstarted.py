"""The record of a job that could not be started, or that an error outside of its process ended, with the remedy.

Such an error fails the job. Only a full disk ends a sweep, because no further job could keep its result.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from bench.config.rules import ConfigError
from bench.host.secrets import scrub
from bench.results.record import Record, RecordError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
PROCESSES = "the limit of processes is reached: end some, or raise ulimit -u and the control group's pids.max"
FORK_SERVER = "the process that starts jobs did not answer: isolation.mode=spawn does without it"
REMEDIES = {
    errno.EAGAIN: PROCESSES,
    errno.EMFILE: "this command has too many open files: raise ulimit -n",
    errno.ENFILE: "the system has too many open files: close some",
    errno.ENOMEM: "the system has no memory left: end what else needs it, or ask for less",
    errno.ENOENT: "put it back",
    errno.EACCES: "make it accessible to this user",
    errno.EPERM: "make it accessible to this user",
    errno.ECONNRESET: FORK_SERVER,
    errno.ECONNREFUSED: FORK_SERVER,
    errno.EPIPE: FORK_SERVER,
}


def is_out_of_space(error: BaseException) -> bool:
    """Whether the disk is full, over its quota or read-only."""
    return isinstance(error, OSError) and error.errno in OUT_OF_SPACE


def explain(error: BaseException, mode: str = "forkserver") -> str:
    """Return what went wrong, where and what to do, in one line without secrets; `mode`: the job's `isolation.mode`."""
    text = " ".join(str(error).split()) or type(error).__name__
    remedy = None
    if isinstance(error, OSError):
        if error.strerror:
            text = f"{error.strerror}: {os.fsdecode(error.filename)}" if error.filename else error.strerror
        remedy = REMEDIES.get(error.errno or 0)
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM) and not error.filename:
            remedy = None
    elif isinstance(error, EOFError):
        remedy = FORK_SERVER
    elif isinstance(error, MemoryError):
        remedy = REMEDIES[errno.ENOMEM]
    elif isinstance(error, RuntimeError) and "can't start new thread" in text:
        remedy = PROCESSES
    if remedy == FORK_SERVER and mode != "forkserver":
        remedy = None
    return scrub(f"{text}; {remedy}" if remedy else text)


def write_unstarted(record: Record, folder: Path, error: Exception, ended_at_s: float) -> Record:
    """Write the record of a job whose process never started, or that an error in this process ended.

    What the job itself has written stays.

    Raises:
        OSError: the record cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        vars(record).update(vars(Record.read(folder)))
    except RecordError:
        record.stage = "start"
    if record.ended_at_s is None:
        record.ended_at_s = max(record.started_at_s, ended_at_s)
    mode = str(record.requested["isolation"]["mode"])
    begun = "could not be started" if record.stage == "start" else "was broken off"
    # A refused config names key, value and remedy by itself.
    message = scrub(str(error)) if isinstance(error, ConfigError) else f"the job {begun}: {explain(error, mode)}"
    record.fail("failed", type(error).__name__, message)
    record.write(folder)
    return record
