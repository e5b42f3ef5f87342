"""`python -m bench`, and the `bench` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    # Imported here: a spawned child imports this module again and has no use for Hydra.
    from bench.sweep.fork_server import start_ahead  # noqa: PLC0415

    start_ahead(sys.argv[1:])  # before Hydra is imported: its own imports take longest of all

    from bench import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()
