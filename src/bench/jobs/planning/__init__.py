"""Which jobs a sweep has, in which order, and which of them still have to run."""
