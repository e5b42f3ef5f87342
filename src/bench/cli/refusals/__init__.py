"""Explain a refused config in one line: file or argument, key, value and remedy."""
