"""Define the structured config: keys, defaults, units and value rules."""
