"""Derive figures from the record of one trial."""
