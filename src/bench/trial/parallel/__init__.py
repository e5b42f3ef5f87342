"""Measure one setting in several processes (tensor parallelism)."""
