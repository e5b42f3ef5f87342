"""What ran, as observed: attention kernels, compilation, KV cache, output fidelity."""
