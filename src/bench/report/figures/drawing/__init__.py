"""Provide the common parts of figures: sheet, axes, SVG, and the settings shown."""
