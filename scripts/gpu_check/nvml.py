"""Query the real NVML for the GPU from this process, not from a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml

from bench.report.text.format import one_line
from bench.trial.hardware.sampler import GpuProbe, card_of, nvml_meter, open_gpu


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What NVML reports of the GPU; None: it does not."""

    uuid: str | None = None
    name: str | None = None
    driver: str | None = None
    power_limit_w: float | None = None
    memory_bandwidth_bytes_per_s: float | None = None  # by its clock and bus: what nothing can exceed
    fields: list[str] = field(default_factory=list)  # of a monitor's sample, that this GPU answers
    unanswered: list[str] = field(default_factory=list)  # and those that it does not
    energy_j: float | None = None  # over a moment of idling
    energy_reason: str | None = None
    error: str | None = None  # why NVML cannot be asked at all


SAMPLE_FIELDS = (
    "utilization_percent", "memory_used_bytes", "sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c",
    "throttle_bits",
)  # fmt: skip
IDLE_S = 0.3  # the energy counter advances every 20 to 100 ms


def ask_nvml(uuid: str | None) -> Gpu:
    """Query what the monitor and the checks rely on. Never raises."""
    try:
        if uuid is None:
            return Gpu(error="torch tells no UUID")
        pynvml.nvmlInit()
        device = open_gpu(uuid)
        card = card_of(device)
        shared = device if card is None else card
        answered = set(GpuProbe(device, card).read())
        meter = nvml_meter(device, card)
        meter.start()
        time.sleep(IDLE_S)
        joules = meter.stop()
        return Gpu(
            uuid=_asked(lambda: str(pynvml.nvmlDeviceGetUUID(device))),
            name=_asked(lambda: str(pynvml.nvmlDeviceGetName(shared))),
            driver=_asked(lambda: str(pynvml.nvmlSystemGetDriverVersion())),
            power_limit_w=_asked(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(shared) / 1000),
            memory_bandwidth_bytes_per_s=_asked(lambda: _bandwidth(shared)),
            fields=sorted(answered),
            unanswered=[each for each in SAMPLE_FIELDS if each not in answered],
            energy_j=joules,
            energy_reason=meter.reason,
        )
    except Exception as error:  # noqa: BLE001 - drivers differ in more ways than can be listed
        return Gpu(error=one_line(f"{type(error).__name__}: {error}"))


def _asked(query: Callable[[], Any]) -> Any:
    try:
        return query()
    except Exception:  # noqa: BLE001 - unknown is a value here
        return None


def _bandwidth(card: Any) -> float:
    """Return two transfers per clock over the whole bus: 2 × 2619 MHz × 5120 bits are the 3.35 TB/s of an H100 SXM."""
    clock_hz = 1e6 * float(pynvml.nvmlDeviceGetMaxClockInfo(card, pynvml.NVML_CLOCK_MEM))
    return 2 * clock_hz * float(pynvml.nvmlDeviceGetMemoryBusWidth(card)) / 8
