"""Pure functions from recorded times to statistics: numpy and scipy only."""
