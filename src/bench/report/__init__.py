"""Show results: in the terminal, on a page, in figures and in tables."""
