"""`python -m bench`, and the `bench` command."""

from __future__ import annotations

import gc
import importlib
import sys

from bench import opening
from bench.interpreter import leave_current_folder

INTERRUPTED = 130  # as `bench.conductor.interrupt` has it, which is not imported yet


def main() -> None:
    """Run the command line, or one of the small commands: `bench compare`."""
    leave_current_folder()  # for the `bench` command; with -m it is done
    try:
        _run()
    except KeyboardInterrupt:  # while it imports: whatever runs has its own way to end
        sys.exit(INTERRUPTED)
    finally:
        opening.erase()
        if (interrupt := sys.modules.get("bench.conductor.interrupt")) is not None:
            interrupt.from_now_at_once()  # else Ctrl-C would show where Python is while it ends
        gc.freeze()  # else the end of Python looks through all that was imported, for most of a second


def _run() -> None:
    # Imported here: a spawned child imports this module again and has no use for Hydra.
    from bench.command import note_start  # noqa: PLC0415

    arguments = sys.argv[1:]
    if (module := note_start(sys.argv[0], arguments)) is not None:
        sys.exit(importlib.import_module(module).main(arguments[1:]))  # before Hydra, of which it has no need
    opening.show(arguments)

    from bench.sweep.fork_server import start_ahead  # noqa: PLC0415

    start_ahead(arguments)  # before Hydra is imported: its own imports take longest of all

    from bench import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()
