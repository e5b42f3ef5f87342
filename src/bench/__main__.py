"""`python -m bench`, and the `bench` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    # Imported here: a spawned child imports this module again and has no use for Hydra.
    from bench import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()
