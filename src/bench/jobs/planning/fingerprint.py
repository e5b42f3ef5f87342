"""By what a finished record is recognised besides its setting: the machine and the libraries that computed.

Two records with the same fingerprint may stand in one sweep; where it changed, the sweep says what did. A library that
is imported from elsewhere than pip's own folder is in it with that place and its state (`bench.host.libraries`). Left
out is what does not compute (Hydra, MLflow), what changes between two jobs of one sweep (clocks, load), and the
machine's name: the nodes of a cluster are alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import pynvml

from bench.host.libraries import unusual
from bench.host.machine import cpu_model, variables, versions

NOT_COMPUTING = ("hydra-core", "omegaconf", "mlflow", "psutil", "nvidia-ml-py", "huggingface-hub")
# Whether a hub may be asked changes nothing of what is computed.
NO_MATTER = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


HARDWARE = ("cpu", "cores", "gpus", "driver")
GIVEN_BY_ENGINE = ("CUDA_VISIBLE_DEVICES",)  # to each job its own


def fingerprint() -> dict[str, str]:
    """Name → value of all that two records must share."""
    found = {name: text for name, text in versions().items() if text is not None and name not in NOT_COMPUTING}
    found |= unusual()
    with contextlib.suppress(OSError):
        found["cpu"] = cpu_model() or "unknown"
        found["cores"] = str(len(os.sched_getaffinity(0)))
    found |= _gpus()
    return found | {name: value for name, value in variables(os.environ).items() if name not in NO_MATTER}


def _gpus() -> dict[str, str]:
    """The cards' names and their driver, as NVML has them; {} where there is none."""
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
    """The part of a fingerprint that a machine which does not compute, such as a cluster's login node, can compare."""
    return {name: value for name, value in found.items() if name not in (*HARDWARE, *GIVEN_BY_ENGINE)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, one text each: "torch 2.12.0 → 2.13.0"."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{each} {before.get(each, '–')} → {now.get(each, '–')}" for each in names if before.get(each) != now.get(each)
    ]
