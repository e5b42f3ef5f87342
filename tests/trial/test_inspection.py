"""Check what a record proves beside its times, on the real tiny model."""

from __future__ import annotations

import contextlib
import gzip
import json

import pytest
import torch

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, FidelityConfig, ModelConfig, ProfileConfig, WorkloadConfig
from bench.jobs.job import new_record, run_job
from bench.jobs.reference import reference_config
from bench.trial.evidence import after_measurement, profiling
from bench.trial.measure import setup
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.request import Request
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import load


@pytest.fixture
def run(tmp_path):
    """Run a setting in this process; keywords are those of the runner."""

    def run_with(config, **keywords):
        with BenchmarkRunner(progress=lambda name, total: range(total), folder=tmp_path, **keywords) as runner:
            runner.setup_benchmark("tiny", config)
            return runner.run_benchmark(config, config.profile.num_tokens) or runner.record

    return run_with


def test_bandwidth_and_its_use_are_possible_figures(run, tiny) -> None:
    roofline = run(tiny(measurement_iterations=5, sequence_length=64)).roofline
    assert roofline.reason is None
    assert 1e9 < roofline.rates.bandwidth_bytes_per_s < 1e13
    assert 1e9 < roofline.rates.matmul_flops_per_s < 1e16
    for share in (roofline.prefill_mbu, roofline.prefill_mfu, roofline.decode_mbu, roofline.decode_mfu):
        assert 0 < share < 1.05


def test_rates_that_cannot_be_measured_cost_no_measurement(run, tiny, monkeypatch) -> None:
    def fail(*arguments):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(after_measurement, "device_rates", fail)
    record = run(tiny())
    assert record.status == "ok"
    assert record.roofline.rates is None
    assert record.roofline.reason == "the device's rates could not be measured: CUDA out of memory"
    assert record.roofline.decode_bytes > 0


def test_a_profiler_that_cannot_run_costs_no_measurement(run, tiny, monkeypatch) -> None:
    def fail(*arguments):
        raise RuntimeError("no permission")

    monkeypatch.setattr(profiling, "profile_call", fail)
    record = run(tiny())
    assert record.status == "ok"
    assert record.observed.attention.error == "the profiler cannot run: no permission"


@pytest.mark.parametrize("kv_cache", ["dynamic", "static"])
def test_the_cache_holds_what_was_computed(run, tiny, kv_cache) -> None:
    config = tiny(batch_size=2)
    config.generation.kv_cache = kv_cache
    memory = run(config).memory
    # 2 tensors × 2 layers × 4 heads × 32 numbers × (16 + 4 - 1) positions × 2 rows × 4 bytes
    assert memory.kv_cache_computed_bytes == 2 * 2 * 4 * 32 * 19 * 2 * 4
    assert memory.kv_cache_bytes == memory.kv_cache_computed_bytes


def test_the_host_s_memory_grows_with_the_model(tiny_model, tmp_path) -> None:
    """In processes of their own: 64 MiB of weights more are 64 MiB more in each stretch."""
    records = []
    for number, width in enumerate((688, 688 + 21846)):
        architecture = {**tiny_model["architecture"], "intermediate_size": width}
        config = BenchmarkConfig(
            device="cpu",
            model=ModelConfig(**{**tiny_model, "architecture": architecture}),
            workload=WorkloadConfig(sequence_length=16, num_tokens_to_generate=4),
            warmup_iterations=1,
            measurement_iterations=1,
        )
        folder = tmp_path / str(number)
        folder.mkdir()
        records.append(run_job(config, new_record(config), folder, lambda *event: None))
    small, large = records
    more = large.observed.parameter_bytes - small.observed.parameter_bytes
    assert more > 120 * 2**20
    for stretch in ("after_load", "warmup_peak", "measurement_peak"):
        grown = getattr(large.memory, stretch).host_rss_bytes - getattr(small.memory, stretch).host_rss_bytes
        assert 0.8 * more < grown < 1.6 * more, stretch


def test_energy_is_unknown_with_the_reason_where_there_is_no_counter(run, tiny, monkeypatch, tmp_path) -> None:
    energy = run(tiny()).energy
    if energy.source is None:
        assert energy.joules == [None, None]
        assert "/sys/class/powercap" in energy.reason
    else:
        assert all(each is not None and each >= 0 for each in energy.joules)


def test_a_comparison_without_a_reference_is_refused(run, tiny) -> None:
    with pytest.raises(ConfigError, match=r"fidelity\.reference=eager: give the runner a reference"):
        run(tiny(fidelity=FidelityConfig(reference="eager")))


def test_the_library_compares_with_a_reference_that_it_wrote(run, tiny, tmp_path) -> None:
    config = tiny(fidelity=FidelityConfig(reference="eager"))
    plain = reference_config(config)
    with BenchmarkRunner() as runner:
        runner.setup_benchmark("tiny", plain)
        assert runner.write_reference(plain, tmp_path / "r.safetensors").status == "ok"
    assert run(config, reference=tmp_path / "r.safetensors").fidelity.agrees is True


def test_without_monitor_energy_says_why_it_is_unknown(run, tiny) -> None:
    energy = run(tiny(gpu_monitoring=False)).energy
    assert (energy.source, energy.reason) == (None, "monitor.enabled=false: nothing read the counter")


def test_a_profile_is_a_trace_and_a_table_and_changes_nothing_else(run, tiny, tmp_path) -> None:
    config = tiny(device="cpu", profile=ProfileConfig(num_tokens=3))
    record = run(config)
    assert len(record.iterations) == 4
    trace = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))
    steps = [each for each in trace["traceEvents"] if each.get("name") == profiling.DECODE]
    assert len(steps) == 3  # two steps, and the mark after the last token
    table = (tmp_path / "operators.txt").read_text()
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in table


def test_a_short_profiled_call_needs_no_other_compiled_code(run, tiny) -> None:
    """A shorter call by its own length would have another static cache, and be compiled anew."""
    config = tiny(compile_kwargs={"mode": "default", "backend": "eager"}, num_tokens_to_generate=8)
    config.profile = ProfileConfig(num_tokens=4)
    record = run(config)
    assert record.observed.compile.graphs == 1
    # The profiled calls included: torch counts from zero since the setting was made ready.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_memory_snapshot_needs_a_gpu(run, tiny) -> None:
    record = run(tiny(device="cpu", profile=ProfileConfig(memory_snapshot=True)))
    assert record.status == "skipped"
    assert "profile.memory_snapshot=true" in record.error.message


def test_continuous_batching_leaves_the_same_record(run, tiny, tmp_path) -> None:
    config = tiny(device="cpu", continuous_batching=True, batch_size=3)
    record = run(config)
    assert (record.status, record.observed.kv_cache) == ("ok", "PagedAttentionCache")
    for call in record.calls("measurement"):
        assert [len(times) for times in call.request_times_s] == [4, 4, 4]
        assert call.token_times_s == [max(times) for times in zip(*call.request_times_s, strict=True)]
        assert 0 < call.token_times_s[0] < call.token_times_s[-1] < call.e2e_s
    assert record.observed.attention.decode.families == ["flash_attention"]
    assert record.phases_s["batching_setup"] > 0
    alone = run(tiny(device="cpu", batch_size=3))
    assert record.output.token_ids == alone.output.token_ids


def test_continuous_batching_that_is_not_supported_is_skipped_with_the_reason(run, tiny) -> None:
    record = run(tiny(continuous_batching=True, attn_implementation="flex_attention"))
    assert record.status == "skipped"
    assert "attention.implementation=flex_attention cannot run here" in record.error.message


def test_a_worker_that_fails_without_a_message_is_a_failure(tiny) -> None:
    config = tiny(continuous_batching=True)
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        layer = runner._setup.request.loaded.model.model.layers[0]

        def broken(*_, **__):
            raise FloatingPointError("planted")

        layer.forward = broken
        with pytest.raises(RuntimeError, match="planted"):
            runner.run_benchmark(config)
        assert runner.record.status != "ok"


@pytest.mark.parametrize("batching", [False, True])
def test_a_memory_snapshot_is_of_the_call_that_was_measured(run, tiny, monkeypatch, batching) -> None:
    """As on a GPU, whose allocator keeps the history: paged attention without its paged cache fails, or is another."""
    inside, made = [], []

    @contextlib.contextmanager
    def memory_history(device, folder):
        inside.append(folder)
        yield
        inside.clear()

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*arguments, **keywords):
            if inside:
                made.append(f"{owner.__name__}.{name}")
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, name, watched)

    watch(Request, "generate")
    watch(BatchingSession, "call")
    monkeypatch.setattr(profiling, "memory_history", memory_history)
    # On a CPU loading refuses the snapshot.
    monkeypatch.setattr(setup, "load", lambda config: load(tiny(continuous_batching=batching)))
    config = tiny()
    config.generation.continuous_batching = batching
    config.profile.memory_snapshot = True
    assert run(config).status == "ok"
    assert made == ["BatchingSession.call" if batching else "Request.generate"]
