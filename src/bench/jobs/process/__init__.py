"""One supervised process per job, and the processes beside it on the same device."""
