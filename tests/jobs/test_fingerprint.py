"""By what two records may stand in one sweep: what is in it, what is not, and how a change is told."""

from __future__ import annotations

import os

import pytest

import fake_nvml
from bench.jobs.planning import fingerprint as module
from bench.jobs.planning.fingerprint import changes, fingerprint


@pytest.fixture
def here(monkeypatch):
    """Fingerprint of an environment with exactly these variables."""

    def take(**variables: str) -> dict[str, str]:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return fingerprint()

    return take


def test_it_is_the_same_twice(here) -> None:
    assert here() == here()


@pytest.mark.parametrize("name", ["python", "torch", "transformers", "tokenizers", "numpy", "cpu", "cores"])
def test_what_computes_is_in_it(here, name: str) -> None:
    assert here()[name]


@pytest.mark.parametrize("name", ["mlflow", "hydra-core", "omegaconf", "psutil", "nvidia-ml-py", "huggingface-hub"])
def test_what_does_not_compute_is_not(here, name: str) -> None:
    assert name not in here()


def test_no_package_that_is_not_installed_is_in_it(here, monkeypatch) -> None:
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
def test_variables_that_change_results_are_in_it(here, name: str, value: str) -> None:
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
def test_variables_that_do_not_are_not(here, name: str, value: str) -> None:
    assert changes(here(), here(**{name: value})) == []


def test_no_secret_gets_into_it(here) -> None:
    values = here(TORCH_COMPILE_TOKEN="hf_Recognise4ble0123", CUDA_PATH="https://me:Recognise4ble@host/cuda")
    assert "Recognise4ble" not in str(values)


def test_the_cores_are_those_that_the_process_may_use(here, monkeypatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert here()["cores"] == "3"


def test_clocks_load_and_the_machines_name_are_not_in_it(here, monkeypatch) -> None:
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


def test_cards_and_driver_are_in_it(nvml) -> None:
    found = fingerprint()
    assert (found["gpus"], found["driver"]) == ("NVIDIA Fake, NVIDIA Fake", "999.1")


def test_another_card_or_one_less_is_a_change(nvml) -> None:
    before = fingerprint()
    nvml["gpus"] = [{"uuid": "GPU-3", "name": "NVIDIA Other"}]
    assert changes(before, fingerprint()) == ["gpus NVIDIA Fake, NVIDIA Fake → NVIDIA Other"]


def test_the_same_cards_under_other_numbers_are_none(nvml) -> None:
    before = fingerprint()
    nvml["gpus"] = [{"uuid": "GPU-4", "name": "NVIDIA Fake"}, {"uuid": "GPU-5", "name": "NVIDIA Fake"}]
    assert changes(before, fingerprint()) == []


@pytest.mark.parametrize(
    "function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName"]
)
def test_without_a_driver_there_is_no_word_of_cards(nvml, function: str) -> None:
    nvml["raises"] = {function: "DriverNotLoaded"}
    assert not {"gpus", "driver"} & set(fingerprint())


def test_without_cards_the_driver_does_not_matter(nvml) -> None:
    nvml["gpus"] = []
    assert not {"gpus", "driver"} & set(fingerprint())


# ---- changes -------------------------------------------------------------------------------------------------------


def test_changes_name_what_differs_in_order() -> None:
    before = {"torch": "2.12.0", "numpy": "2.3.1", "triton": "3.7.0"}
    now = {"numpy": "2.3.1", "torch": "2.13.0", "OMP_NUM_THREADS": "1"}
    assert changes(before, now) == ["torch 2.12.0 → 2.13.0", "triton 3.7.0 → –", "OMP_NUM_THREADS – → 1"]


def test_what_is_equal_in_another_order_is_no_change() -> None:
    assert changes({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []


def test_nothing_against_something_is_a_change() -> None:
    assert changes({}, {"torch": "2.13.0"}) == ["torch – → 2.13.0"]


def test_what_an_engine_gives_each_job_is_no_change_of_the_software() -> None:
    from bench.jobs.planning.fingerprint import software

    job = {"torch": "2", "cpu": "EPYC", "gpus": "H100", "CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "4"}
    assert software(job) == {"torch": "2", "OMP_NUM_THREADS": "4"}
