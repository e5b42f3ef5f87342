"""What MLflow's runs hold: of a trial, and of its sweep."""
