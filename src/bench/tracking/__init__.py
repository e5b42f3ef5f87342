"""Where records go: the only room that imports mlflow."""
