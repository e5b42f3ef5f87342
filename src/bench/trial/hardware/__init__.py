"""The machine during a trial: monitor, memory, peak rates, environment."""
