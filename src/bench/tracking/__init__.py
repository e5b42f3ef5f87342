"""Publish records to MLflow; the only package that imports it."""

from bench.host.home_folder import ensure_home

ensure_home()  # before MLflow is imported, which looks for it then
