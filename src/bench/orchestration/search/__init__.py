"""A search: a sweep whose settings are chosen as it goes."""
