"""Results read again: records from folders and MLflow, and tables of them for notebooks."""
