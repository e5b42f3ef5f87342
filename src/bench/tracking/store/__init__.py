"""The MLflow store: where it is, how it is opened, and what to do when it cannot be used."""
