"""Build the addresses of MLflow's pages for a sweep, and save its view."""
