"""Do a run, a sweep or a search from start to end with `bench.jobs`, `bench.tracking` and `bench.report`.

The first runs, the second publishes, the third shows; none of them imports another. They are imported at their first
use, because `--help` and the refusal of a config must be fast.
"""
