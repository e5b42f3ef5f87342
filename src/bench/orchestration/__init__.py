"""A run, a sweep and a search from start to end: `bench.jobs` runs, `bench.tracking` publishes, `bench.report` shows.

None of the three imports another. They are imported where they are used, so that `--help` and a refused config answer
at once.
"""
