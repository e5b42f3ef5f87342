"""Compute statistics of the calls of one process."""
