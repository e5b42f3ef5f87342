"""Measure the overhead of the harness, part by part, each beside its target: scripts/overhead."""
