"""Implement the commands: the Hydra application, its help and refusals, and subcommands such as `bench compare`."""
