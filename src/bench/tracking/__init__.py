"""Where records go: the only room that imports mlflow."""

from bench.host.home_folder import ensure_home

ensure_home()  # before MLflow is imported, which looks for it then
