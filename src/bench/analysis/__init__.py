"""Compute statistics from recorded times, in pure functions with numpy and scipy only."""
