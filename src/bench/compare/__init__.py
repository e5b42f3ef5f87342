"""`python -m bench.compare`: the module form of `bench compare`, whose code is `bench.cli.compare`."""
