"""Measure: make the calls, time them, decide how many, and write the record."""
