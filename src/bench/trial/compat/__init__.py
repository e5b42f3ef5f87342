"""Names of torch and transformers that are not part of their public interface; see `bench.compat`."""
