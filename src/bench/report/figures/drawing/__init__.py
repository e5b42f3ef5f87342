"""What the figures share: sheet, axes, SVG, and the settings shown."""
