"""Hydra's sweeper for bench: all points are composed and checked before the first one runs."""
