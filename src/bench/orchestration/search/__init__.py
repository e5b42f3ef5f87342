"""Search: run a sweep whose settings are chosen from the results so far."""
