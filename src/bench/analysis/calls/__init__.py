"""Statistics of the calls of one process."""
