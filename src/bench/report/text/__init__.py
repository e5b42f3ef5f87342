"""Format numbers, names, tables and sentences for readers."""
