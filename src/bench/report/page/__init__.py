"""The report of a sweep as one page: the answer first, then all that it rests on."""
