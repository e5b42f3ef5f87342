"""Load results: records from folders and MLflow, and tables of them for notebooks."""
