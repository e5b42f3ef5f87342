"""Print to the terminal before, during and after a run."""
