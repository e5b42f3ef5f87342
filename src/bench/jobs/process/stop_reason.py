"""Who or what asked a running job to end, as the record says it."""

from __future__ import annotations


class SignalStop(KeyboardInterrupt):
    """A signal other than Ctrl-C asks the command to end: SIGTERM, or SIGHUP of a terminal that is closed.

    Args:
        name: the signal's.
    """

    def __init__(self, name: str) -> None:
        self.status, self.message = "interrupted", f"{name} to the command"
        super().__init__(self.message)


def asked_by(stop: KeyboardInterrupt) -> str:
    """Who asked, in a few words; `bench.jobs.engine.EngineStop` says it in the same way."""
    return str(getattr(stop, "message", "by the user"))
