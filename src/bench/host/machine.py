"""Describe the machine without torch: versions, processor, and the environment variables that change results.

Both sides of a job use it: the job for its record, and its parent for the fingerprint. Only variables on a list of
names are kept, and none that could hold a secret.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping
from pathlib import Path

# Packages that compute, load or measure. NVIDIA names its wheels with CUDA's number or, from CUDA 13 on, some without.
PACKAGES = (
    "torch", "transformers", "triton", "numpy", "tokenizers", "safetensors", "accelerate", "huggingface-hub", "gguf",
    "kernels", "flash-attn", "nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
    "hydra-core", "omegaconf", "mlflow", "psutil", "nvidia-ml-py",
)  # fmt: skip

# Each as a whole name, or with a star as its beginning.
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "BLIS_NUM_THREADS", "CC", "CUBLASLT_*", "CUBLAS_*", "CUDA_CACHE_*",
    "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_DEVICE_ORDER", "CUDA_DISABLE_PTX_JIT", "CUDA_FORCE_PTX_JIT", "CUDA_HOME",
    "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_MPS_*", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "CUDNN_*",
    "CUTEDSL_*", "CUTLASS_*", "CXX", "DISABLE_KERNEL_MAPPING", "DNNL_*", "ENABLE_PERSISTENT_TMA_MATMUL",
    "ENABLE_TEMPLATE_TMA_STORE", "ENABLE_TMA_LOAD_FOR_TEMPLATE_EPILOGUE", "FLASH_ATTENTION_*", "GLIBC_TUNABLES",
    "GOMP_*", "HF_HUB_OFFLINE", "KMP_*", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOCAL_KERNELS", "MALLOC_ARENA_MAX",
    "MALLOC_CONF", "MKL_*", "NVIDIA_TF32_OVERRIDE", "OMP_*", "ONEDNN_*", "OPENBLAS_*", "PYTHONDEVMODE", "PYTHONMALLOC",
    "PYTHONOPTIMIZE", "PYTHON_GIL", "PYTHON_JIT", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING", "PYTORCH_TUNABLEOP_*", "TENSORIFY_PYTHON_SCALARS", "TOKENIZERS_PARALLELISM",
    "TORCHDYNAMO_*", "TORCHINDUCTOR_*", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_*", "TORCH_CACHING_PRECOMPILE",
    "TORCH_COMPILE_*", "TORCH_CUBLASLT_*", "TORCH_CUDNN_*", "TORCH_DYNAMO_*", "TORCH_LINALG_*", "TORCH_LOGS",
    "TORCH_TRACE", "TRANSFORMERS_DISABLE_*", "TRANSFORMERS_OFFLINE", "TRANSFORMERS_SDPA_*", "TRITON_*",
    "USE_HUB_KERNELS",
)  # fmt: skip
# Set by torch at its import and by bench for each job; compile.cache covers their effect.
OUR_OWN = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
HARMLESS = ("TOKENIZERS_PARALLELISM",)  # though it contains one of the words below
_SENSITIVE = r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIAL|AUTH|COOKIE|BEARER"
SECRET_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
SECRET_VALUE = re.compile(
    rf"\S:\S*@"  # a user and password before a host
    rf"|({_SENSITIVE})\w*\s*[=:\s]"  # a setting inside of the value, or of an address's query
    r"|\b(hf_|gh[a-z]_|github_pat_|glpat-|sk-|xox[a-z]-|AKIA|eyJ)[\w-]{8}",  # how well-known services' tokens begin
    re.IGNORECASE,
)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change results, without any that could hold a secret."""
    return {name: value for name, value in sorted(environment.items()) if _is_listed(name) and _is_public(name, value)}


def _is_listed(name: str) -> bool:
    if name in OUR_OWN:
        return False
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in VARIABLES)


def _is_public(name: str, value: str) -> bool:
    return (name in HARMLESS or not SECRET_NAME.search(name)) and not SECRET_VALUE.search(value)


def versions() -> dict[str, str | None]:
    """Return package → its version, None where it is not installed; with the version of Python."""
    found: dict[str, str | None] = {"python": platform.python_version(), **dict.fromkeys(PACKAGES)}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = _version(package)
    return found


def _version(package: str) -> str | None:
    """Read a version from the metadata without importing the package; importlib's own function parses all of them."""
    metadata = importlib.metadata.distribution(package).read_text("METADATA") or ""
    found = re.search(r"^Version: *(\S+)", metadata, re.MULTILINE)
    return found[1] if found else None


def cpu_model(path: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the processor's name, under the key that its architecture uses."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Hardware", "cpu model", "cpu") and value.strip():
                return value.strip()
    return platform.processor() or None
