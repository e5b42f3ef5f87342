"""Check what the environment fingerprint contains, what it omits and how a change is reported."""

from __future__ import annotations

import os

import pytest

import fake_nvml
from bench.jobs.planning import fingerprint as module
from bench.jobs.planning.fingerprint import changes, fingerprint


@pytest.fixture
def here(monkeypatch):
    """Take the fingerprint with exactly these environment variables."""

    def take(**variables: str) -> dict[str, str]:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return fingerprint()

    return take


def test_the_fingerprint_is_reproducible(here) -> None:
    assert here() == here()


@pytest.mark.parametrize("name", ["python", "torch", "transformers", "tokenizers", "numpy", "cpu", "cores"])
def test_libraries_that_compute_are_included(here, name: str) -> None:
    assert here()[name]


@pytest.mark.parametrize("name", ["mlflow", "hydra-core", "omegaconf", "psutil", "nvidia-ml-py", "huggingface-hub"])
def test_libraries_that_do_not_compute_are_excluded(here, name: str) -> None:
    assert name not in here()


def test_packages_that_are_not_installed_are_excluded(here, monkeypatch) -> None:
    monkeypatch.setattr(module, "versions", lambda: {"python": "3.11.7", "flash-attn": None})
    assert "flash-attn" not in here()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_NUM_THREADS", "1"),
        ("CUDA_VISIBLE_DEVICES", "3"),
        ("TORCHINDUCTOR_FREEZING", "1"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so"),
        ("NVIDIA_TF32_OVERRIDE", "0"),
    ],
)
def test_variables_that_change_results_are_included(here, name: str, value: str) -> None:
    assert changes(here(), here(**{name: value})) == [f"{name} – → {value}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", "/home/me"),
        ("HOSTNAME", "node17"),
        ("SLURM_JOB_ID", "4711"),
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("MLFLOW_TRACKING_URI", "http://mlflow:5000"),
        ("COLUMNS", "80"),
        ("TORCHINDUCTOR_CACHE_DIR", "/tmp/cache"),
    ],
)
def test_variables_that_do_not_change_results_are_excluded(here, name: str, value: str) -> None:
    assert changes(here(), here(**{name: value})) == []


def test_secrets_are_excluded(here) -> None:
    values = here(TORCH_COMPILE_TOKEN="hf_Recognise4ble0123", CUDA_PATH="https://me:Recognise4ble@host/cuda")
    assert "Recognise4ble" not in str(values)


def test_only_cores_the_process_may_use_are_counted(here, monkeypatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert here()["cores"] == "3"


def test_clocks_load_and_host_name_are_excluded(here, monkeypatch) -> None:
    before = here()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "another", "9.9", "#1", "x86_64")))
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 99.0, 99.0))
    assert here() == before


# ---- cards ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch):
    monkeypatch.setattr(module, "pynvml", fake_nvml)
    monkeypatch.setattr(fake_nvml, "settings", fake_nvml.DEFAULTS | {"raises": {}})
    monkeypatch.setitem(fake_nvml._state, "initialised", 0)
    yield fake_nvml.settings
    assert fake_nvml._state["initialised"] == 0


def test_cards_and_driver_are_included(nvml) -> None:
    found = fingerprint()
    assert (found["gpus"], found["driver"]) == ("NVIDIA Fake, NVIDIA Fake", "999.1")


def test_another_card_or_one_card_fewer_is_a_change(nvml) -> None:
    before = fingerprint()
    nvml["gpus"] = [{"uuid": "GPU-3", "name": "NVIDIA Other"}]
    assert changes(before, fingerprint()) == ["gpus NVIDIA Fake, NVIDIA Fake → NVIDIA Other"]


def test_renumbering_the_same_cards_is_no_change(nvml) -> None:
    before = fingerprint()
    nvml["gpus"] = [{"uuid": "GPU-4", "name": "NVIDIA Fake"}, {"uuid": "GPU-5", "name": "NVIDIA Fake"}]
    assert changes(before, fingerprint()) == []


@pytest.mark.parametrize(
    "function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName"]
)
def test_without_a_driver_cards_are_not_mentioned(nvml, function: str) -> None:
    nvml["raises"] = {function: "DriverNotLoaded"}
    assert not {"gpus", "driver"} & set(fingerprint())


def test_without_cards_the_driver_does_not_matter(nvml) -> None:
    nvml["gpus"] = []
    assert not {"gpus", "driver"} & set(fingerprint())


# ---- changes -------------------------------------------------------------------------------------------------------


def test_changes_list_the_differences_in_order() -> None:
    before = {"torch": "2.12.0", "numpy": "2.3.1", "triton": "3.7.0"}
    now = {"numpy": "2.3.1", "torch": "2.13.0", "OMP_NUM_THREADS": "1"}
    assert changes(before, now) == ["torch 2.12.0 → 2.13.0", "triton 3.7.0 → –", "OMP_NUM_THREADS – → 1"]


def test_reordering_is_no_change() -> None:
    assert changes({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []


def test_an_absent_value_against_a_present_one_is_a_change() -> None:
    assert changes({}, {"torch": "2.13.0"}) == ["torch – → 2.13.0"]


def test_hardware_assigned_by_an_engine_is_no_software_change() -> None:
    from bench.jobs.planning.fingerprint import software

    job = {"torch": "2", "cpu": "EPYC", "gpus": "H100", "CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "4"}
    assert software(job) == {"torch": "2", "OMP_NUM_THREADS": "4"}
