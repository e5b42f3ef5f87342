"""The files of a job and of a sweep: their schema, and reading and writing them."""
