"""Write the MLflow runs of trials and sweeps."""
