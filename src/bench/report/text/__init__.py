"""Numbers, names, tables and sentences, as written for people."""
