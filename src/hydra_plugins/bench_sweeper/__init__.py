"""Provide Hydra's sweeper for bench, which composes and checks all points before the first one runs."""
