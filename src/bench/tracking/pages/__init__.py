"""Addresses of MLflow's pages that show a sweep, and the view saved for it."""
