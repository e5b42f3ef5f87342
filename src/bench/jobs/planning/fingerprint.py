"""The fingerprint of an environment: the machine and the versions of the libraries that compute.

A sweep counts only records with the current fingerprint, and names what has changed in others. A library that is
imported from outside of pip's folder is included with its location and state (`bench.host.libraries`). Left out are
libraries that do not compute (Hydra, MLflow), values that change between jobs of one sweep (clocks, load), and the
host name, because the nodes of a cluster are alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import pynvml

from bench.host.libraries import unusual
from bench.host.machine import cpu_model, variables, versions

NOT_COMPUTING = ("hydra-core", "omegaconf", "mlflow", "psutil", "nvidia-ml-py", "huggingface-hub")
# Access to the hub does not change what is computed.
NO_MATTER = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
HARDWARE = ("cpu", "cores", "gpus", "driver")
GIVEN_BY_ENGINE = ("CUDA_VISIBLE_DEVICES",)  # different for each job


def fingerprint() -> dict[str, str]:
    """Return name → value of everything that must be equal in records that are compared."""
    found = {name: text for name, text in versions().items() if text is not None and name not in NOT_COMPUTING}
    found |= unusual()
    with contextlib.suppress(OSError):
        found["cpu"] = cpu_model() or "unknown"
        found["cores"] = str(len(os.sched_getaffinity(0)))
    found |= _gpus()
    return found | {name: value for name, value in variables(os.environ).items() if name not in NO_MATTER}


def _gpus() -> dict[str, str]:
    """Return the cards' names and their driver from NVML; {} without a card."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        count = pynvml.nvmlDeviceGetCount()
        names = [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(each))) for each in range(count)]
        return {"gpus": ", ".join(names), "driver": str(pynvml.nvmlSystemGetDriverVersion())} if names else {}
    except pynvml.NVMLError:
        return {}
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def software(found: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a fingerprint without hardware, for a machine that runs no jobs, such as a login node."""
    return {name: value for name, value in found.items() if name not in (*HARDWARE, *GIVEN_BY_ENGINE)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the differences, one text each: "torch 2.12.0 → 2.13.0"."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{each} {before.get(each, '–')} → {now.get(each, '–')}" for each in names if before.get(each) != now.get(each)
    ]
