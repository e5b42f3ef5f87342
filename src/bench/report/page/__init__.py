"""Write the report of a sweep as one page: the answer first, then the evidence for it."""
