"""Tensor parallelism: several processes that measure one setting together."""
