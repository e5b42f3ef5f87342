"""Figures derived from the record of one trial."""
