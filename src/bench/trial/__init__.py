"""Measure one setting in one process; the only package that imports torch and transformers."""

from bench.host.home_folder import ensure_home

ensure_home()  # before transformers is imported, which looks for it then
