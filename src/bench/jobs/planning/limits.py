"""Limits of this machine that are known without torch, before a setting has run here.

Only for planning, and only where it is certain: whether a setting is skipped is decided in its job, by the libraries.
"""

from __future__ import annotations

import importlib.util

from bench.config.schema import BenchmarkConfig


def foreseen_limit(config: BenchmarkConfig) -> str | None:
    """Return why a setting would be skipped, as far as the installed packages show; None where they do not."""
    attention = config.attention.implementation
    if "flash_attention" in attention and not _is_installed("flash_attn") and not _is_installed("kernels"):
        return f"attention.implementation={attention} needs the package flash-attn"
    if config.generation.kernelize and not _is_installed("kernels"):
        return "generation.kernelize=true needs the package kernels"
    return None


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
