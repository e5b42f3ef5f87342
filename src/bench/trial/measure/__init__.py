"""The measurement: requests, timed calls, how many of them, and the runner that leads through the stages."""
