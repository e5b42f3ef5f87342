"""`python -m bench`, and the `bench` command."""

from __future__ import annotations

import gc
import importlib
import sys

from bench.host.command_line import ExitStatus, note_start
from bench.host.import_path import leave_current_folder
from bench.report.terminal import startup_line


def main() -> None:
    """Run the command line, or one of the small commands: `bench compare`."""
    leave_current_folder()  # for the `bench` command; with -m it is done
    try:
        _run()
    except KeyboardInterrupt:  # while it imports: whatever runs has its own way to end
        sys.exit(ExitStatus.INTERRUPTED)
    finally:
        startup_line.erase()
        if (interrupt := sys.modules.get("bench.orchestration.signals")) is not None:
            interrupt.from_now_at_once()  # else Ctrl-C would show where Python is while it ends
        gc.freeze()  # else the end of Python looks through all that was imported, for most of a second


def _run() -> None:
    arguments = sys.argv[1:]
    if (word := note_start(sys.argv[0], arguments)) is not None:
        sys.exit(importlib.import_module(f"bench.cli.{word}").main(arguments[1:]))  # before Hydra is imported
    startup_line.show(arguments)

    from bench.jobs.process.fork_server import start_ahead  # noqa: PLC0415

    start_ahead(arguments)  # before Hydra is imported: its own imports take longest of all

    from bench.cli import application  # noqa: PLC0415

    application.main()


if __name__ == "__main__":
    main()
