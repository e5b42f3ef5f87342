"""One measurement in one process: the only room that imports torch and transformers."""
