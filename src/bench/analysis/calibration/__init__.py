"""How often the statistics of `bench.analysis` are right on series whose truth is known: one module a group of rows."""
