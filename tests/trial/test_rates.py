"""Check the rates of this machine, measured for real, and the file that keeps them; CUDA is faked."""

from __future__ import annotations

import gc
import json
import os
import threading
import time

import pytest
import torch

from bench.results.record import DeviceRates
from bench.trial.hardware import peak_rates, rate_measurement
from bench.trial.measure.runner import BenchmarkRunner

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


class Meter:
    """Stands for the measurement: tells what it is given, in turn, and counts."""

    def __init__(self, *results: dict, duration_s: float = 0.0) -> None:
        self.results, self.duration_s, self.count = list(results), duration_s, 0

    def __call__(self, device, dtype, fingerprint) -> DeviceRates:
        time.sleep(self.duration_s)
        result = self.results[min(self.count, len(self.results) - 1)]
        self.count += 1
        fields = {"bandwidth_bytes_per_s": 1e9, "matmul_flops_per_s": 1e9, "measured_at_s": 1.7e9, "quiet": True}
        return DeviceRates(dtype="float32", fingerprint=fingerprint, **fields | result)


@pytest.fixture
def meter(monkeypatch):
    def install(*results: dict, duration_s: float = 0.0) -> Meter:
        one = Meter(*(results or ({},)), duration_s=duration_s)
        monkeypatch.setattr(peak_rates, "measure", one)
        return one

    return install


@pytest.fixture
def quick(monkeypatch):
    """Real measurements, but short ones."""
    short = {"MEMORY_S": 0.02, "CACHE_S": 0.01, "MATMUL_S": 0.02, "GROWING_S": 0.0, "LONGEST_PRODUCT_S": 0.001}
    for name, value in short.items():
        monkeypatch.setattr(rate_measurement, name, value)
    monkeypatch.setattr(rate_measurement, "_buffer_bytes", lambda device, cache_bytes: 8 * rate_measurement.MIB)


# ---- real measurements ----------------------------------------------------------------------------------------------


def test_on_this_machine_the_tiny_model_reaches_a_part_of_what_the_device_can_do(tiny, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = tiny(device="cpu", num_tokens_to_generate=8, warmup_iterations=2)
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        result = runner.run_benchmark(config).roofline
    assert result.reason is None
    for share in (result.prefill_mbu, result.prefill_mfu, result.decode_mbu, result.decode_mfu):
        assert 0 < share < 1.05
    assert 1e8 < result.rates.bandwidth_bytes_per_s <= result.rates.cache_bandwidth_bytes_per_s
    assert result.rates.matmul_flops_per_s > 1e8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_dtype_that_models_come_in_has_a_rate(quick, dtype) -> None:
    measured = rate_measurement.measure(CPU, dtype, "f")
    assert measured.matmul_flops_per_s > 0
    assert measured.dtype == str(dtype).removeprefix("torch.")


def test_what_was_measured_leaves_no_memory_taken(quick) -> None:
    rate_measurement.measure(CPU, torch.float32, "f")
    live = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    assert sum(each.numel() for each in live if each.numel() >= rate_measurement.MIB) == 0


def test_where_memory_is_short_the_buffers_are_small(monkeypatch) -> None:
    monkeypatch.setattr(rate_measurement, "free_bytes", lambda device: 100 * rate_measurement.MIB)
    assert rate_measurement._buffer_bytes(CPU, 32 * rate_measurement.MIB) == 10 * rate_measurement.MIB
    assert rate_measurement._buffer_bytes(CUDA, 0) == 10 * rate_measurement.MIB


def test_buffers_are_far_larger_than_the_caches(monkeypatch) -> None:
    monkeypatch.setattr(rate_measurement, "free_bytes", lambda device: 2**40)
    assert rate_measurement._buffer_bytes(CPU, 2**30) == 8 * 2**30
    assert rate_measurement._buffer_bytes(CPU, 2**20) == rate_measurement.CPU_BUFFER_BYTES


def test_buffers_that_cannot_be_had_are_halved(monkeypatch) -> None:
    sizes = []

    def walks(device, size_bytes, stretches):
        sizes.append(size_bytes)
        if size_bytes > 8 * rate_measurement.MIB:
            raise torch.OutOfMemoryError
        return [(100, lambda: None)]

    monkeypatch.setattr(rate_measurement, "_walks", walks)
    monkeypatch.setattr(rate_measurement, "MEMORY_S", 0.0)
    best, _ = rate_measurement._memory_rate(CPU, lambda operation: 2.0, 32 * rate_measurement.MIB)
    assert sizes == [32 * rate_measurement.MIB, 16 * rate_measurement.MIB, 8 * rate_measurement.MIB]
    assert best == 50.0


def test_where_not_even_a_mebibyte_can_be_had_it_says_so(monkeypatch) -> None:
    def walks(device, size_bytes, stretches):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(rate_measurement, "_walks", walks)
    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        rate_measurement._memory_rate(CPU, lambda operation: 1.0, 4 * rate_measurement.MIB)


def test_a_walk_goes_through_all_of_its_buffers_with_each_pattern() -> None:
    moved = sum(amount for amount, _ in rate_measurement._walks(CPU, 4 * rate_measurement.MIB, 8))
    assert moved == (1 + 2 + 3) * 4 * rate_measurement.MIB


def test_the_best_round_of_the_best_work_counts() -> None:
    times = iter([4.0, 1.0, 2.0, 3.0, 5.0, 6.0])  # of two works, three times in turn
    assert rate_measurement._best_rate([(100, abs), (40, abs)], lambda operation: next(times), 0.0) == 50.0


def test_a_slow_layout_is_tried_no_more_and_slow_matrices_do_not_grow(monkeypatch) -> None:
    tried = []

    def products(device, dtype, size):
        return {name: (2 * size**3, (name, size)) for name in ("plain", "transposed")}

    def stopwatch(work):
        name, size = work
        tried.append(work)
        return 2 * size**3 / (1e9 if name == "transposed" else 1e8)  # as float16 on a CPU

    monkeypatch.setattr(rate_measurement, "_products", products)
    monkeypatch.setattr(rate_measurement, "GROWING_S", 0.0)
    monkeypatch.setattr(rate_measurement, "MATMUL_S", 0.0)
    assert rate_measurement._matmul_rate(CPU, torch.float16, stopwatch) == pytest.approx(1e9)
    # A product of 512 would take 0.27 s.
    assert set(tried) == {("plain", 256), ("transposed", 256)}
    assert tried.count(("plain", 256)) == 3


# ---- a GPU ----------------------------------------------------------------------------------------------------------


def test_on_a_gpu_what_was_taken_is_given_back_even_when_the_measurement_fails(monkeypatch) -> None:
    emptied = []

    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**36, 2**37))
    monkeypatch.setattr(rate_measurement, "_memory_rate", fail)
    with pytest.raises(torch.OutOfMemoryError):
        rate_measurement.measure(CUDA, torch.bfloat16, "f")
    assert emptied == [True]


def test_on_a_gpu_neither_caches_nor_processor_time_say_anything(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**36, 2**37))
    monkeypatch.setattr(rate_measurement, "_memory_rate", lambda *_: (3e12, None))
    monkeypatch.setattr(rate_measurement, "_matmul_rate", lambda *_: 7e14)
    measured = rate_measurement.measure(CUDA, torch.bfloat16, "f")
    assert (measured.bandwidth_bytes_per_s, measured.matmul_flops_per_s) == (3e12, 7e14)
    assert (measured.cache_bandwidth_bytes_per_s, measured.cache_bytes, measured.quiet) == (None, None, None)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that can be asked for its name and settings; the dictionary changes them."""
    settings = {"power_limit_w": 700.0, "other_processes": 0}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    monkeypatch.setattr(peak_rates, "gpu_uuid_of", lambda index: "GPU-1")
    monkeypatch.setattr(peak_rates.environment, "gpu_settings", lambda uuid: dict(settings))
    monkeypatch.setattr(peak_rates.environment, "driver_version", lambda: "600.1")
    return settings


def test_another_power_limit_is_another_device(gpu) -> None:
    before = peak_rates.conditions_of(CUDA, torch.float32)
    gpu["power_limit_w"] = 350.0
    assert peak_rates.conditions_of(CUDA, torch.float32) != before


def test_who_else_uses_a_gpu_does_not_make_it_another_one(gpu) -> None:
    before = peak_rates.conditions_of(CUDA, torch.float32)
    gpu["other_processes"] = 3
    assert peak_rates.conditions_of(CUDA, torch.float32) == before


# ---- what the rates hold for ----------------------------------------------------------------------------------------


def test_the_same_machine_has_the_same_conditions_twice() -> None:
    first, second = (peak_rates.conditions_of(CPU, torch.float32) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_the_dtype_the_threads_and_the_precision_change_the_conditions(monkeypatch) -> None:
    seen = [peak_rates.conditions_of(CPU, torch.float32), peak_rates.conditions_of(CPU, torch.bfloat16)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    seen.append(peak_rates.conditions_of(CPU, torch.float32))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    seen.append(peak_rates.conditions_of(CPU, torch.float32))
    assert len({json.dumps(each) for each in seen}) == 4


def test_caches_from_the_second_level_on_count_once_each(tmp_path) -> None:
    def cache(core: int, index: int, level: int, size: str, cores: str) -> None:
        folder = tmp_path / f"cpu{core}/cache/index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("size", size), ("shared_cpu_list", cores)):
            (folder / name).write_text(f"{value}\n")

    for core in (0, 1, 2):
        cache(core, 0, 1, "32K", str(core))
        cache(core, 2, 2, "1024K", str(core))
        cache(core, 3, 3, "16384K", "0-2")
    usable = len(os.sched_getaffinity(0) & {0, 1, 2})
    assert rate_measurement.cpu_cache_bytes(tmp_path) == (usable + 16) * rate_measurement.MIB


def test_where_the_kernel_tells_of_no_caches_they_are_unknown(tmp_path) -> None:
    assert rate_measurement.cpu_cache_bytes(tmp_path) is None


# ---- the file -------------------------------------------------------------------------------------------------------


def test_what_was_measured_once_is_read_from_then_on(meter, tmp_path) -> None:
    one = meter({"bandwidth_bytes_per_s": 5e9})
    first = peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path)
    assert peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path) == first
    assert first.bandwidth_bytes_per_s == 5e9
    assert one.count == 1


def test_the_cache_lies_where_the_user_keeps_caches(meter, monkeypatch, tmp_path) -> None:
    meter()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = peak_rates.device_rates(CPU, torch.float32)
    assert (tmp_path / "bench/rates" / f"{made.fingerprint}.json").is_file()


def test_another_dtype_is_measured_by_itself(meter, tmp_path) -> None:
    one = meter()
    fingerprints = {
        peak_rates.device_rates(CPU, dtype, cache_folder=tmp_path).fingerprint
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert (len(fingerprints), one.count) == (2, 2)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"rates": {}}', '{"rates": {"bandwidth_bytes_per_s": 1}}', "\x00\xff"],
    ids=["empty", "half", "list", "no fields", "few fields", "binary"],
)
def test_a_broken_file_is_measured_anew(meter, tmp_path, content: str) -> None:
    one = meter()
    path = tmp_path / f"{peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path).fingerprint}.json"
    path.write_bytes(content.encode("latin-1"))
    peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path)
    assert one.count == 2
    assert json.loads(path.read_text())["rates"]["measurements"] == 1


@pytest.mark.parametrize("value", [0, -1.0, "fast", None, float("nan")])
def test_a_file_with_an_impossible_rate_is_measured_anew(meter, tmp_path, value) -> None:
    one = meter()
    path = tmp_path / f"{peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path).fingerprint}.json"
    data = json.loads(path.read_text())
    data["rates"]["bandwidth_bytes_per_s"] = value
    path.write_text(json.dumps(data))
    assert peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path).bandwidth_bytes_per_s == 1e9
    assert one.count == 2


def test_a_folder_that_cannot_be_written_costs_a_measurement_and_no_error(meter, tmp_path) -> None:
    one = meter()
    (tmp_path / "file").write_text("")
    for _ in range(2):
        peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path / "file" / "rates")
    assert one.count == 2


def test_of_two_at_once_the_second_waits_and_reads(meter, tmp_path) -> None:
    one = meter(duration_s=0.5)
    results = []

    def ask() -> None:
        results.append(peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results[0] == results[1]
    assert one.count == 1


def test_a_lock_that_is_never_given_back_is_waited_for_no_longer_than_the_limit(meter, monkeypatch, tmp_path) -> None:
    one = meter()
    monkeypatch.setattr(peak_rates, "LOCK_TIMEOUT_S", 0.2)
    with peak_rates.filelock.FileLock(tmp_path / "measuring.lock"):
        asked = threading.Thread(
            target=peak_rates.device_rates, args=(CPU, torch.float32), kwargs={"cache_folder": tmp_path}
        )
        asked.start()
        asked.join(timeout=20)
        assert not asked.is_alive()
    assert one.count == 1


def test_a_disturbed_measurement_is_repeated_and_the_best_of_each_rate_kept(meter, tmp_path) -> None:
    one = meter(
        {"bandwidth_bytes_per_s": 5e9, "matmul_flops_per_s": 1e9, "quiet": False},
        {"bandwidth_bytes_per_s": 3e9, "matmul_flops_per_s": 2e9, "quiet": True},
    )
    made = [peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path) for _ in range(3)]
    assert (made[0].bandwidth_bytes_per_s, made[0].matmul_flops_per_s) == (5e9, 1e9)
    assert (made[1].bandwidth_bytes_per_s, made[1].matmul_flops_per_s) == (5e9, 2e9)
    assert (made[1].quiet, made[1].measurements) == (True, 2)
    assert made[2] == made[1]
    assert one.count == 2


def test_settled_rates_are_measured_anew_when_asked_and_never_become_lower(meter, tmp_path) -> None:
    one = meter({"bandwidth_bytes_per_s": 5e9}, {"bandwidth_bytes_per_s": 7e9}, {"bandwidth_bytes_per_s": 6e9})
    made = [peak_rates.device_rates(CPU, torch.float32, anew=index > 0, cache_folder=tmp_path) for index in range(3)]
    assert [each.bandwidth_bytes_per_s for each in made] == [5e9, 7e9, 7e9]
    assert peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path) == made[-1]
    assert one.count == 3


def test_a_machine_that_is_always_busy_is_measured_a_few_times_only(meter, tmp_path) -> None:
    one = meter({"quiet": False})
    for _ in range(6):
        peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path)
    assert one.count == peak_rates.MAX_MEASUREMENTS


def test_nothing_half_written_is_left_in_the_folder(meter, tmp_path) -> None:
    meter()
    made = peak_rates.device_rates(CPU, torch.float32, cache_folder=tmp_path)
    left = {each.name for each in tmp_path.iterdir()} - {"measuring.lock"}
    assert left == {f"{made.fingerprint}.json"}
