"""Measure error rates of `bench.analysis` on synthetic series with known truth: one module per group of rows."""
