"""Why a running job was asked to end, in the words of its record."""

from __future__ import annotations


class SignalStop(KeyboardInterrupt):
    """A signal other than Ctrl-C that asks the command to end: SIGTERM, or SIGHUP when its terminal is closed.

    Args:
        name: the signal's.
    """

    def __init__(self, name: str) -> None:
        self.status, self.message = "interrupted", f"{name} to the command"
        super().__init__(self.message)


def asked_by(stop: KeyboardInterrupt) -> str:
    """Return who asked, in a few words; `bench.jobs.engine.EngineStop` has the same attribute."""
    return str(getattr(stop, "message", "by the user"))
