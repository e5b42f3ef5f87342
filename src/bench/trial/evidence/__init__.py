"""Observe what ran: attention kernels, compilation, KV cache and output fidelity."""
