"""A fake pynvml without a GPU: the names, errors and units of nvidia-ml-py, with answers that a test chooses.

Imported in the test's process, its answers are in ``settings``. For another process copy this file as ``pynvml.py``
into a folder on its PYTHONPATH and put the settings as JSON into the variable FAKE_NVML.
"""

# ruff: noqa: N802, N803, N816  # these are NVML's names

import ctypes
import json
import os

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18

NVML_CLOCK_SM = 1
NVML_CLOCK_MEM = 2
NVML_TEMPERATURE_GPU = 0
NVML_COMPUTEMODE_DEFAULT = 0
NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3

nvmlClocksEventReasonSwPowerCap = 0x4

DEFAULTS = {
    "gpus": [
        {"uuid": "GPU-11111111-aaaa", "name": "NVIDIA Fake"},
        {"uuid": "GPU-22222222-bbbb", "name": "NVIDIA Fake"},
    ],
    "mig": {"MIG-33333333-cccc": "GPU-22222222-bbbb"},  # instance → its card
    "raises": {},  # function → name of the error that it raises, without NVMLError_
    "lost_after": None,  # answers until the GPU is lost
    "missing": [],  # functions that this version of pynvml does not have
    "energy_steps_mj": [12_500],  # what a card consumes between two readings, repeated
    "processes": {},  # GPU or instance → [pid, bytes or None] of each process
}
settings = DEFAULTS | json.loads(os.environ.get("FAKE_NVML", "{}"))
_state = {"initialised": 0, "answers": 0, "energy_readings": 0}


class NVMLError(Exception):
    value = 999
    text = "Unknown Error"

    def __init__(self, *_):
        super().__init__(self.text)

    def __str__(self):
        return self.text


def _error(name, value, text):
    return type(f"NVMLError_{name}", (NVMLError,), {"value": value, "text": text})


NVMLError_Uninitialized = _error("Uninitialized", NVML_ERROR_UNINITIALIZED, "Uninitialized")
NVMLError_InvalidArgument = _error("InvalidArgument", NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument")
NVMLError_NotSupported = _error("NotSupported", NVML_ERROR_NOT_SUPPORTED, "Not Supported")
NVMLError_NoPermission = _error("NoPermission", NVML_ERROR_NO_PERMISSION, "Insufficient Permissions")
NVMLError_NotFound = _error("NotFound", NVML_ERROR_NOT_FOUND, "Not Found")
NVMLError_DriverNotLoaded = _error("DriverNotLoaded", NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded")
NVMLError_LibraryNotFound = _error("LibraryNotFound", NVML_ERROR_LIBRARY_NOT_FOUND, "NVML Shared Library Not Found")
NVMLError_FunctionNotFound = _error("FunctionNotFound", NVML_ERROR_FUNCTION_NOT_FOUND, "Function Not Found")
NVMLError_GpuIsLost = _error("GpuIsLost", NVML_ERROR_GPU_IS_LOST, "GPU is lost")
NVMLError_ResetRequired = _error("ResetRequired", NVML_ERROR_RESET_REQUIRED, "GPU requires restart")


NVMLError_LibRmVersionMismatch = _error(
    "LibRmVersionMismatch", NVML_ERROR_LIB_RM_VERSION_MISMATCH, "RM has detected an NVML/RM version mismatch."
)


class NVMLLibraryMismatchError(Exception):
    """Raised by functions with several versions on drivers without the newest. The real one is no NVMLError either."""


class _Fields:
    def __init__(self, **values):
        self.__dict__.update(values)


def _check(function):
    if not _state["initialised"]:
        raise NVMLError_Uninitialized
    if name := settings["raises"].get(function):
        raise globals()[f"NVMLError_{name}"]


def _ask(handle, function, value):
    """Answer a query of one device: MIG instances refuse values that only a card has."""
    _check(function)
    of_instances = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses")
    if handle in settings["mig"] and function not in of_instances:
        raise NVMLError_NotSupported
    _state["answers"] += 1
    if settings["lost_after"] is not None and _state["answers"] > settings["lost_after"]:
        raise NVMLError_GpuIsLost
    return value


def nvmlInit():
    if name := settings["raises"].get("nvmlInit"):
        raise globals()[f"NVMLError_{name}"]
    _state["initialised"] += 1


def nvmlShutdown():
    _check("nvmlShutdown")
    _state["initialised"] -= 1


def nvmlSystemGetDriverVersion():
    _check("nvmlSystemGetDriverVersion")
    return "999.1"


def nvmlDeviceGetCount():
    _check("nvmlDeviceGetCount")
    return len(settings["gpus"])


def nvmlDeviceGetHandleByIndex(index):
    _check("nvmlDeviceGetHandleByIndex")
    if index >= len(settings["gpus"]):
        raise NVMLError_InvalidArgument
    return settings["gpus"][index]["uuid"]


def nvmlDeviceGetHandleByUUID(uuid):
    _check("nvmlDeviceGetHandleByUUID")
    if uuid not in [each["uuid"] for each in settings["gpus"]] + list(settings["mig"]):
        raise NVMLError_NotFound
    return uuid


def nvmlDeviceGetUUID(handle):
    _check("nvmlDeviceGetUUID")
    return handle


def nvmlDeviceGetName(handle):
    _check("nvmlDeviceGetName")
    return next(each["name"] for each in settings["gpus"] if each["uuid"] == handle)


def nvmlDeviceIsMigDeviceHandle(device):
    _check("nvmlDeviceIsMigDeviceHandle")
    return ctypes.c_uint(device in settings["mig"])


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(migDevice):
    _check("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
    return settings["mig"][migDevice]


def nvmlDeviceGetUtilizationRates(handle):
    return _ask(handle, "nvmlDeviceGetUtilizationRates", _Fields(gpu=87, memory=40))


def nvmlDeviceGetMemoryInfo(handle):
    used = (1 << 30) if handle in settings["mig"] else (4 << 30)
    return _ask(handle, "nvmlDeviceGetMemoryInfo", _Fields(total=8 << 30, free=(8 << 30) - used, used=used))


def nvmlDeviceGetClockInfo(handle, type):  # noqa: A002
    return _ask(handle, "nvmlDeviceGetClockInfo", {NVML_CLOCK_SM: 1755, NVML_CLOCK_MEM: 2619}[type])


def nvmlDeviceGetPowerUsage(handle):
    return _ask(handle, "nvmlDeviceGetPowerUsage", 312_500)  # mW


def nvmlDeviceGetTemperature(handle, sensor):
    return _ask(handle, "nvmlDeviceGetTemperature", {NVML_TEMPERATURE_GPU: 61}[sensor])


def nvmlDeviceGetTemperatureV(handle, sensor):
    return _ask(handle, "nvmlDeviceGetTemperatureV", {NVML_TEMPERATURE_GPU: 62}[sensor])


def nvmlDeviceGetCurrentClocksEventReasons(handle):
    return _ask(handle, "nvmlDeviceGetCurrentClocksEventReasons", nvmlClocksEventReasonSwPowerCap)


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return _ask(handle, "nvmlDeviceGetCurrentClocksThrottleReasons", 0x20)


def nvmlDeviceGetTotalEnergyConsumption(handle):
    steps, readings = settings["energy_steps_mj"], _state["energy_readings"]
    taken = sum(steps[each % len(steps)] for each in range(readings))
    answer = _ask(handle, "nvmlDeviceGetTotalEnergyConsumption", 7_000_000_000 + taken)
    _state["energy_readings"] += 1
    return answer


def nvmlDeviceGetComputeRunningProcesses(handle):
    running = [_Fields(pid=pid, usedGpuMemory=used) for pid, used in settings["processes"].get(handle, [])]
    try:
        return _ask(handle, "nvmlDeviceGetComputeRunningProcesses", running)
    except NVMLError_FunctionNotFound as error:
        raise NVMLLibraryMismatchError("Unversioned function called") from error


def nvmlDeviceGetEnforcedPowerLimit(handle):
    return _ask(handle, "nvmlDeviceGetEnforcedPowerLimit", 350_000)  # mW


def nvmlDeviceGetPowerManagementDefaultLimit(handle):
    return _ask(handle, "nvmlDeviceGetPowerManagementDefaultLimit", 700_000)  # mW


def nvmlDeviceGetPersistenceMode(handle):
    return _ask(handle, "nvmlDeviceGetPersistenceMode", 1)


def nvmlDeviceGetMaxClockInfo(handle, type):  # noqa: A002
    return _ask(handle, "nvmlDeviceGetMaxClockInfo", {NVML_CLOCK_SM: 1980, NVML_CLOCK_MEM: 2619}[type])


def nvmlDeviceGetApplicationsClock(handle, type):  # noqa: A002
    return _ask(handle, "nvmlDeviceGetApplicationsClock", {NVML_CLOCK_SM: 1500, NVML_CLOCK_MEM: 2600}[type])


def nvmlDeviceGetComputeMode(handle):
    return _ask(handle, "nvmlDeviceGetComputeMode", NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)


def nvmlDeviceGetMigMode(device):
    return _ask(device, "nvmlDeviceGetMigMode", [int(device in settings["mig"].values()), 0])


def nvmlDeviceGetEccMode(handle):
    return _ask(handle, "nvmlDeviceGetEccMode", [1, 0])


for _name in settings["missing"]:
    del globals()[_name]
