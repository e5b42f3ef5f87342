"""Map device numbers to GPUs: NVML and CUDA count differently, and both sides of a job must agree.

NVML lists every GPU of the machine in the order of the bus; CUDA lists those in CUDA_VISIBLE_DEVICES, in that order,
and otherwise the fastest first. Nothing here needs torch or initialises CUDA.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

import pynvml


@contextlib.contextmanager
def nvml() -> Iterator[None]:
    """Initialise NVML for the block. Raises NVMLError where it cannot be loaded."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def cards() -> list[tuple[str, str]]:
    """Return UUID and model of each card of the machine, in NVML's order; [] where NVML knows none."""
    try:
        with nvml():
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return [(str(pynvml.nvmlDeviceGetUUID(each)), str(pynvml.nvmlDeviceGetName(each))) for each in handles]
    except pynvml.NVMLError:
        return []


def visible_names(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """Return the names of devices in CUDA_VISIBLE_DEVICES; None when it is not set."""
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names = []
    for each in value.split(","):
        name = each.strip()
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break  # CUDA too ignores what follows
        names.append(name)
    return names


def visible_name(device_index: int) -> str:
    """Return the name in CUDA_VISIBLE_DEVICES of a CUDA device: its number if that is not set, "" if not visible."""
    names = visible_names()
    if names is None:
        return str(device_index)
    return names[device_index] if device_index < len(names) else ""


def uuid_of_name(name: str, known: list[tuple[str, str]]) -> str | None:
    """Return the UUID of a device by its name in CUDA_VISIBLE_DEVICES: a number, or the beginning of a UUID.

    Args:
        name: as there.
        known: from `cards`.

    Returns:
        None when it is unknown. The name of a MIG instance is returned unchanged.
    """
    if name.startswith("MIG-"):
        return name
    uuids = [uuid for uuid, _ in known]
    if name.isdecimal():
        # Where models differ, CUDA decides which is the fastest: better no GPU than the wrong one.
        same_order = len({model for _, model in known}) == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        return uuids[int(name)] if same_order and int(name) < len(uuids) else None
    found = [each for each in uuids if name and each.startswith(name)]
    return found[0] if len(found) == 1 else None
