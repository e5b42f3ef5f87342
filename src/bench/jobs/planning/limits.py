"""What can be told of a machine's limits without torch, before a setting has ever run here.

Only for planning: whether a setting is skipped is decided in its job, by what the libraries then say. So only what is
certain is told here.
"""

from __future__ import annotations

import importlib.util

from bench.config.schema import BenchmarkConfig


def foreseen_limit(config: BenchmarkConfig) -> str | None:
    """Why a setting would be skipped, as far as that can be told from what is installed; None when it cannot."""
    attention = config.attention.implementation
    if "flash_attention" in attention and not _is_installed("flash_attn") and not _is_installed("kernels"):
        return f"attention.implementation={attention} needs the package flash-attn"
    if config.generation.kernelize and not _is_installed("kernels"):
        return "generation.kernelize=true needs the package kernels"
    return None


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
