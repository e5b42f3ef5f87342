"""Where the rooms meet: a job is run by `bench.jobs`, published by `bench.tracking`, shown by `bench.report`.

None of the three knows the others. They are imported where they are used, so that `--help` and a refused config answer
at once.
"""
