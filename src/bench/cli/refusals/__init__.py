"""One line for a refused config: file or argument, key, value and remedy."""
