"""Replace layers of the model by kernels from the hub (`generation.kernelize`).

transformers marks layers that have a counterpart on the hub, and the package `kernels` fetches and installs those. If
it has none for a device, it leaves the layer unchanged without a message, so the layers are inspected afterwards.

Not covered: attention kernels (`attention.implementation` names those), and whether a kernel is any faster.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import torch

from bench.trial.compat import transformers_internals
from bench.trial.unsupported import one_line

# Where the errors of a hub that cannot be reached come from; those of the disk are OSErrors.
_NETWORK_PACKAGES = ("huggingface_hub", "httpx", "httpcore", "requests")


class NoKernelError(RuntimeError):
    """This machine, this model or these packages have no hub kernel to offer: a limit, not a fault."""


def kernelize(model: Any, device: torch.device, *, compiled: bool) -> list[str]:
    """Put hub kernels in place of the layers that have one for this device.

    Args:
        model: a transformers model on `device`, in eval mode.
        device: where the model is; named in the error.
        compiled: take only kernels that torch.compile can go through, if this transformers supports that.

    Returns:
        The names of the layers and functions that run a kernel now: at least one, if that can be seen at all.

    Raises:
        NoKernelError: the package `kernels` is missing, the kernels cannot be fetched, or no layer has one.
        Exception: whatever a kernel that was fetched raises at its import.
    """
    if not is_available():
        wanted = transformers_internals.kernels_requirement()
        raise NoKernelError(f"this transformers needs the package {wanted}, which is not installed")
    try:
        model.set_use_kernels(True, mode=_mode(compiled=compiled))
    except Exception as error:
        if not _is_out_of_reach(error):
            raise
        raise NoKernelError(f"the kernels cannot be fetched: {type(error).__name__}: {one_line(error, 80)}") from error
    names = kernelized(model)
    can_see = any(_replaceable(model)) or transformers_internals.KERNEL_LAYER.is_here()
    if not names and can_see:
        raise NoKernelError(f"no layer of this model has a kernel for {device.type}, or none that could be had")
    return names


def is_available() -> bool:
    """Check whether a version of `kernels` that this transformers accepts is installed; True if unknown."""
    return transformers_internals.kernels_available() is not False


def kernelized(model: Any) -> list[str]:
    """Return the layers and functions whose forward is not that of their class, by name."""
    return [name for name, module in _replaceable(model) if _runs_a_kernel(module)]


def _replaceable(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if transformers_internals.takes_kernel(module):
            yield name, module
        for function, hidden in transformers_internals.kernel_functions(module).items():
            yield f"{name}.{function}", hidden


def _runs_a_kernel(module: Any) -> bool:
    # Where there is no kernel the package puts the class's own forward on the instance.
    forward = vars(module).get("forward")
    return forward is not None and getattr(forward, "__func__", forward) is not type(module).forward


def _mode(*, compiled: bool) -> Any:
    mode = importlib.import_module("kernels").Mode
    return mode.INFERENCE | mode.TORCH_COMPILE if compiled else mode.INFERENCE


def _is_out_of_reach(error: BaseException) -> bool:
    """Check whether an error means that the hub, or a build for this machine on it, was unavailable."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in _NETWORK_PACKAGES or "offline mode" in str(error)
