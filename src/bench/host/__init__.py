"""This machine and this process: files, folders, libraries, GPUs, secrets. Imports nothing else of bench."""

__version__ = "0.1.0"  # of bench, here because every package may import it
