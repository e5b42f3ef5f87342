"""Check time and memory on an asynchronous GPU, with a double of `torch.cuda`."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.config.schema import BenchmarkConfig
from bench.results.record import Memory, MemoryUse, Rank
from bench.trial.hardware import memory
from bench.trial.measure.call import make_call
from bench.trial.measure.continuous_batching import BatchResult
from bench.trial.measure.request import Request
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import load
from factories import make_record

MIB = 2**20


class Gpu:
    """GPUs that do what is asked of them in order, later: only `synchronize` waits, and for one of them alone.

    Its allocator keeps what it was given: reserved bytes are no fewer than allocated ones until `empty_cache`.
    """

    def __init__(self) -> None:
        self.now_s = 100.0
        self.busy_until_s: dict[int, float] = {}
        self.allocated = self.reserved = self.most_allocated = self.most_reserved = 0

    def clock(self) -> float:
        return self.now_s

    def launch(self, work_s: float, index: int = 0) -> None:
        """Ask for work: the host goes on after a moment."""
        self.now_s += 0.001
        self.busy_until_s[index] = max(self.now_s, self.busy_until_s.get(index, 0.0)) + work_s

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated + self.allocated // 4)
        self.most_allocated = max(self.most_allocated, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)

    def free(self, size: int) -> None:
        self.allocated -= size

    # As torch.cuda has them.

    def synchronize(self, device: torch.device) -> None:
        self.now_s = max(self.now_s, self.busy_until_s.get(device.index or 0, 0.0))

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def reset_peak_memory_stats(self, _: torch.device) -> None:
        self.most_allocated, self.most_reserved = self.allocated, self.reserved

    def memory_allocated(self, _: torch.device) -> int:
        return self.allocated

    def memory_reserved(self, _: torch.device) -> int:
        return self.reserved

    def max_memory_allocated(self, _: torch.device) -> int:
        return self.most_allocated

    def max_memory_reserved(self, _: torch.device) -> int:
        return self.most_reserved


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    double = Gpu()
    names = [each for each in dir(Gpu) if hasattr(torch.cuda, each) and not each.startswith("_")]
    assert len(names) >= 7
    for name in names:
        monkeypatch.setattr(torch.cuda, name, getattr(double, name))
    monkeypatch.setattr(memory, "process_bytes_of", lambda _: None)
    return double


def on_gpu(request: Request, index: int = 0) -> Request:
    """The request as if its model were there; its tensors stay where they are."""
    return dataclasses.replace(request, loaded=dataclasses.replace(request.loaded, device=torch.device("cuda", index)))


# ---- time ----------------------------------------------------------------------------------------------------------


def generating(gpu: Gpu, config: BenchmarkConfig, *, step_s: float, rest_s: float, index: int) -> Any:
    """A `generate` whose tokens come as they are ready, and which leaves work behind that nothing waited for."""
    rows, length, new = (
        config.workload.batch_size,
        config.workload.sequence_length,
        config.workload.num_tokens_to_generate,
    )

    def generate(_: Request, streamer: Any = None, **__: Any) -> torch.Tensor:
        streamer.put(None)
        for _step in range(new):
            gpu.launch(step_s, index)
            gpu.synchronize(torch.device("cuda", index))  # the tokens come to the host
            streamer.put(None)
        gpu.launch(rest_s, index)
        return torch.zeros((rows, length + new), dtype=torch.int64)

    return generate


@pytest.mark.parametrize("index", [0, 1])
def test_e2e_holds_what_the_device_still_does_when_generate_has_returned(tiny, gpu, monkeypatch, index) -> None:
    config = tiny()
    ready = on_gpu(Request.prepare(config, load(config)), index)
    monkeypatch.setattr(Request, "generate", generating(gpu, config, step_s=0.5, rest_s=3.0, index=index))
    call = make_call(ready, gpu.clock)
    assert call.token_times_s == pytest.approx([0.501, 1.002, 1.503, 2.004])
    assert call.e2e_s == pytest.approx(2.004 + 3.001)


@pytest.mark.parametrize("index", [0, 1])
def test_work_that_was_asked_for_before_the_call_is_none_of_its_time(tiny, gpu, monkeypatch, index) -> None:
    config = tiny()
    ready = on_gpu(Request.prepare(config, load(config)), index)
    monkeypatch.setattr(Request, "generate", generating(gpu, config, step_s=0.5, rest_s=0.0, index=index))
    gpu.launch(40.0, index)
    call = make_call(ready, gpu.clock)
    assert call.start_s == pytest.approx(140.001)
    assert call.token_times_s[0] == pytest.approx(0.501)
    assert call.e2e_s == pytest.approx(2.005)


def test_with_batching_e2e_holds_it_as_well(tiny, gpu) -> None:
    config = tiny(continuous_batching=True)
    ready = on_gpu(Request.prepare(config, load(config)))

    def call(_: Any) -> BatchResult:
        gpu.launch(2.0)
        return BatchResult(token_ids=[[1, 2, 3, 4]], request_times_s=[[gpu.now_s] * 4])

    gpu.launch(40.0)
    made = make_call(ready, gpu.clock, session=types.SimpleNamespace(call=call))
    assert made.e2e_s == pytest.approx(2.001)


# ---- memory --------------------------------------------------------------------------------------------------------


def test_a_peak_is_that_since_it_was_restarted(gpu) -> None:
    device = torch.device("cuda", 0)
    gpu.allocate(800 * MIB)
    gpu.free(700 * MIB)
    assert memory.peak(device).device_allocated_bytes == 800 * MIB
    assert memory.peak(device).device_reserved_bytes == 1000 * MIB
    memory.restart_peaks(device)
    assert memory.peak(device).device_allocated_bytes == 100 * MIB
    gpu.allocate(50 * MIB)
    gpu.free(50 * MIB)
    found = memory.peak(device)
    assert (found.device_allocated_bytes, found.device_reserved_bytes) == (150 * MIB, 1000 * MIB)
    now = memory.use(device)
    assert (now.device_allocated_bytes, now.device_reserved_bytes) == (100 * MIB, 1000 * MIB)
    assert memory.reserved(device) == 1000 * MIB


def test_a_flush_gives_unused_memory_back_before_it_restarts_the_peaks(gpu) -> None:
    device = torch.device("cuda", 0)
    gpu.allocate(800 * MIB)
    gpu.free(700 * MIB)
    memory.flush(device)
    found = memory.peak(device)
    assert (found.device_allocated_bytes, found.device_reserved_bytes) == (100 * MIB, 100 * MIB)


def test_the_peak_of_a_process_on_the_host_is_that_since_it_was_restarted() -> None:
    cpu = torch.device("cpu")
    memory.restart_peaks(cpu)
    held = torch.ones(200 * MIB // 4)
    before = memory.peak(cpu).host_rss_bytes
    del held
    memory.restart_peaks(cpu)
    after = memory.peak(cpu)
    if not memory.CLEAR_REFS.exists():
        pytest.skip("this kernel restarts no peak")
    assert before - after.host_rss_bytes > 150 * MIB
    assert (after.device_allocated_bytes, after.device_reserved_bytes) == (None, None)


@pytest.fixture
def runner(monkeypatch) -> Iterator[BenchmarkRunner]:
    monkeypatch.setattr(BenchmarkRunner, "_inspect", lambda *_: None)  # it would look for the GPU's kernels
    with BenchmarkRunner(progress=lambda _, total: range(total or 0)) as one:
        yield one


def test_each_stage_of_a_job_has_the_peak_of_its_own_calls(runner, tiny, gpu, monkeypatch) -> None:
    config = tiny(warmup_iterations=2, measurement_iterations=3, gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    runner._setup.request = on_gpu(runner._setup.request)
    gpu.allocate(100 * MIB)  # the weights
    of_the_calls = iter([900, 500, 300, 60, 80, 40])  # validation, warm-up, measurement
    original = Request.generate

    def generate(self: Request, **more: Any) -> torch.Tensor:
        size = next(of_the_calls) * MIB
        gpu.allocate(size)
        gpu.free(size)
        return original(self, **more)

    monkeypatch.setattr(Request, "generate", generate)
    record = runner.run_benchmark(config)
    assert record.status == "ok"
    assert record.memory.warmup_peak.device_allocated_bytes == 1000 * MIB
    assert record.memory.measurement_peak.device_allocated_bytes == 180 * MIB
    assert record.memory.warmup_peak.device_reserved_bytes == 1250 * MIB
    # What the allocator holds is not given back between the calls, and is what another process could not have.
    assert record.memory.measurement_peak.device_reserved_bytes == 1250 * MIB
    assert record.peak_bytes == 1250 * MIB
    assert [each.device_reserved_bytes for each in record.iterations] == [1250 * MIB] * 6


def test_what_was_held_before_the_validation_call_is_not_in_a_peak(runner, tiny, gpu) -> None:
    """Loading may take more than all calls; it has a figure of its own."""
    config = tiny(warmup_iterations=0, measurement_iterations=1, gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    runner._setup.request = on_gpu(runner._setup.request)
    gpu.allocate(900 * MIB)
    gpu.free(860 * MIB)
    record = runner.run_benchmark(config)
    assert record.memory.warmup_peak.device_reserved_bytes == 40 * MIB


@pytest.mark.parametrize("stretch", ["after_load", "warmup_peak", "measurement_peak"])
def test_the_peak_that_decides_is_the_largest_reserve_of_any_stretch(stretch: str) -> None:
    def use(reserved: int) -> MemoryUse:
        return MemoryUse(host_rss_bytes=10_000, device_allocated_bytes=reserved // 2, device_reserved_bytes=reserved)

    stretches = {"after_load": use(100), "warmup_peak": use(200), "measurement_peak": use(150)}
    assert Memory(**stretches).peak_bytes == 200
    assert Memory(**stretches | {stretch: use(900)}).peak_bytes == 900


def test_on_the_cpu_the_peak_that_decides_is_the_host_s() -> None:
    stretches = {"after_load": MemoryUse(host_rss_bytes=5), "measurement_peak": MemoryUse(host_rss_bytes=9)}
    assert Memory(**stretches).peak_bytes == 9
    assert Memory().peak_bytes is None


@pytest.mark.parametrize(("device", "peak"), [("cpu", 30), ("cuda:0", 20)])
def test_ranks_share_the_memory_of_a_host_and_have_a_gpu_each(device: str, peak: int) -> None:
    def rank(number: int, size: int) -> Rank:
        used = MemoryUse(host_rss_bytes=size) if device == "cpu" else MemoryUse(device_reserved_bytes=size)
        return Rank(rank=number, device=device, device_name="x", memory=Memory(measurement_peak=used))

    assert make_record(ranks=[rank(0, 10), rank(1, 20)]).peak_bytes == peak


def test_the_peak_on_the_host_is_in_bytes() -> None:
    cpu = torch.device("cpu")
    memory.restart_peaks(cpu)
    held = memory.use(cpu).host_rss_bytes
    assert 0.99 * held < memory.peak(cpu).host_rss_bytes < held + 50 * MIB
