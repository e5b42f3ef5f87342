"""Read the names of torch and transformers that are not public; see `bench.compat`."""
