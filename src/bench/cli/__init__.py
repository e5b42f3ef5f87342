"""The commands: the Hydra application, its help and refusals, and the subcommands such as `bench compare`."""
