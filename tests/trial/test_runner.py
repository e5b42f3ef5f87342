"""Check the runner's contract on the real tiny model, in this process, uncompiled."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

import pytest
import torch

from bench.config.rules import ConfigError
from bench.config.schema import AttentionConfig, CompileConfig, GenerationConfig, ModelConfig, MonitorConfig
from bench.jobs.folders.scratch import remove_stale_caches
from bench.trial.evidence import compilation
from bench.trial.measure.result import milliseconds
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.unsupported import NotHonouredError

pytestmark = pytest.mark.contract


@pytest.fixture
def runner():
    with BenchmarkRunner(progress=lambda name, total: range(total)) as one:
        yield one


class Ticks:
    """A clock that moves by one at each reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_calls_come_in_the_order_of_the_contract(runner, tiny) -> None:
    config = tiny(warmup_iterations=3, measurement_iterations=4)
    runner.setup_benchmark("tiny", config)
    seen = []
    original = runner.time_generate

    def watched(config, warmup):
        seen.append(warmup)
        return original(config, warmup)

    runner.time_generate = watched
    record = runner.run_benchmark(config)
    assert seen == [True] + [True] * 3 + [False] * 4
    assert [each.phase for each in record.iterations] == ["validation"] + ["warmup"] * 3 + ["measurement"] * 4
    assert (record.status, record.stage) == ("ok", None)


def test_progress_bars_have_the_contract_names_and_lengths(tiny) -> None:
    bars = []

    def progress(name, total):
        bars.append((name, total))
        return range(total)

    config = tiny(warmup_iterations=2, measurement_iterations=3)
    with BenchmarkRunner(progress=progress) as runner:
        runner.setup_benchmark("tiny", config)
        runner.run_benchmark(config)
    assert bars == [("Warmup", 2), ("Benchmarking", 3)]


def test_a_negative_validation_latency_skips_with_a_warning_and_none(tiny, caplog) -> None:
    config = tiny()
    with BenchmarkRunner(logger=logging.getLogger("mine")) as runner:
        runner.setup_benchmark("tiny", config)
        runner.time_generate = lambda config, warmup: (-1.0, [], "", None)
        with caplog.at_level(logging.WARNING, logger="mine"):
            assert runner.run_benchmark(config) is None
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert runner.record.status == "skipped"
    assert runner.record.iterations == []


def test_warm_up_runs_without_monitor_and_measurement_with_it(runner, tiny) -> None:
    config = tiny(warmup_iterations=1, measurement_iterations=2)
    runner.setup_benchmark("tiny", config)
    monitored = []
    original = runner.time_generate

    def watched(config, warmup):
        timed = original(config, warmup)
        monitored.append(timed[3])
        return timed

    runner.time_generate = watched
    record = runner.run_benchmark(config)
    assert monitored[0] is None
    assert monitored[1] is None
    assert all(len(samples) >= 2 for samples in monitored[2:])
    assert [len(samples) for samples in record.monitor.samples] == [len(samples) for samples in monitored[2:]]


def test_the_monitor_samples_in_measured_calls_alone(runner, tiny) -> None:
    """It runs beside the warm-up, too, for its process is started before: it must not look then."""
    seen = []

    class Monitor:
        error = None

        def begin(self) -> None:
            seen.append("begin")

        def end(self, start: float) -> list:
            seen.append("end")
            return []

    config = tiny()
    runner.setup_benchmark("tiny", config)
    runner._setup.monitor = Monitor()
    runner.time_generate(config, warmup=True)
    assert seen == []
    runner.time_generate(config, warmup=False)
    assert seen == ["begin", "end"]


def test_without_monitor_there_is_none_in_the_record(runner, tiny) -> None:
    config = tiny(monitor=MonitorConfig(enabled=False))
    runner.setup_benchmark("tiny", config)
    assert runner.run_benchmark(config).monitor is None


def test_times_are_exactly_the_clock_readings_of_the_call(tiny) -> None:
    config = tiny(num_tokens_to_generate=5)
    with BenchmarkRunner(clock=Ticks()) as runner:
        runner.setup_benchmark("tiny", config)
        latency, timestamps, described, samples = runner.time_generate(config, warmup=True)
    # One reading at the start, one for each of the five tokens, one at the end.
    assert timestamps == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert latency == 6.0
    assert described.startswith("(1, 21) | ")
    assert samples is None


def test_the_digits_of_a_clock_that_runs_for_months_are_kept(tiny) -> None:
    class Old(Ticks):
        def __call__(self) -> float:
            return 1.0e7 + super().__call__() * 1e-4  # 115 days; a float32 steps by a whole second there

    config = tiny(num_tokens_to_generate=3)
    with BenchmarkRunner(clock=Old()) as runner:
        runner.setup_benchmark("tiny", config)
        _, timestamps, _, _ = runner.time_generate(config, warmup=True)
    assert timestamps == pytest.approx([1e-4, 2e-4, 3e-4], rel=1e-3)


def test_calls_are_placed_in_time_from_the_setup_on(tiny) -> None:
    class Late(Ticks):
        def __call__(self) -> float:
            return 1.0e7 + super().__call__()

    config = tiny(warmup_iterations=1, measurement_iterations=1, gpu_monitoring=False)
    with BenchmarkRunner(clock=Late(), progress=lambda _, total: range(total or 0)) as runner:
        runner.setup_benchmark("tiny", config)
        record = runner.run_benchmark(config)
    starts = [each.start_s for each in record.iterations]
    assert 0 < starts[0] < starts[1] < starts[2] < 1000
    assert [each.index for each in record.iterations] == [0, 1, 2]


@pytest.mark.parametrize(("batch", "length", "new"), [(1, 1, 2), (3, 7, 5), (2, 100, 4)])
def test_shapes_are_what_was_asked_for(runner, tiny, batch: int, length: int, new: int) -> None:
    config = tiny(batch_size=batch, sequence_length=length, num_tokens_to_generate=new, measurement_iterations=1)
    runner.setup_benchmark("tiny", config)
    record = runner.run_benchmark(config)
    assert record.output.shape == [batch, length + new]
    assert [len(row) for row in record.output.token_ids] == [new] * batch
    assert {len(each.token_times_s) for each in record.iterations} == {new}
    assert record.observed.prompt_tokens == length
    assert record.observed.new_tokens == new


def test_a_prompt_file_is_recorded_by_its_content(runner, tiny, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Once more the harbour lay quiet.", encoding="utf-8")
    config = tiny(warmup_iterations=0, measurement_iterations=1)
    config.workload.prompt_file = str(path)
    runner.setup_benchmark("tiny", config)
    record = runner.run_benchmark(config)
    assert record.observed.prompt_digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_eos_never_ends_a_call_early(runner, tiny) -> None:
    config = tiny(num_tokens_to_generate=8)
    runner.setup_benchmark("tiny", config)
    runner.time_generate(config, warmup=True)
    # Declare every token that greedy decoding chose to be EOS: any of them would now end a careless call.
    runner._setup.request.generation.eos_token_id = sorted(set(runner._last_call.token_ids[0]))
    latency, timestamps, _, _ = runner.time_generate(config, warmup=True)
    assert latency > 0
    assert len(timestamps) == 8


def test_a_wrong_number_of_tokens_is_an_error(runner, tiny) -> None:
    config = tiny(num_tokens_to_generate=6)
    runner.setup_benchmark("tiny", config)
    runner._setup.request.generation.max_new_tokens = runner._setup.request.generation.min_new_tokens = 4
    with pytest.raises(RuntimeError, match=r"shape \(1, 20\), not \(1, 22\)"):
        runner.time_generate(config, warmup=True)


def test_what_was_measured_before_an_error_stays_in_the_record(runner, tiny) -> None:
    config = tiny(warmup_iterations=1, measurement_iterations=5)
    runner.setup_benchmark("tiny", config)
    original = runner.time_generate
    calls = iter(range(100))

    def breaks(config, warmup):
        if next(calls) == 4:
            raise RuntimeError("lost the device")
        return original(config, warmup)

    runner.time_generate = breaks
    with pytest.raises(RuntimeError, match="lost the device"):
        runner.run_benchmark(config)
    assert [each.phase for each in runner.record.iterations] == ["validation", "warmup", "measurement", "measurement"]
    assert runner.record.stage == "measurement"


def test_the_same_setting_generates_the_same_tokens_in_all_calls(runner, tiny) -> None:
    config = tiny()
    runner.setup_benchmark("tiny", config)
    record = runner.run_benchmark(config)
    assert record.output.same_in_all_calls
    assert len(set(record.output.token_ids[0])) > 1


@pytest.mark.parametrize(
    ("tokens", "same"), [("AAAA", True), ("ABBB", False), ("ABAA", False), ("AAAB", False), ("AABA", False)]
)
def test_a_difference_in_any_call_is_not_forgotten(runner, tiny, tokens: str, same: bool) -> None:
    config = tiny(warmup_iterations=1, measurement_iterations=2, gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    model, original, calls = (
        runner._setup.request.loaded.model,
        runner._setup.request.loaded.model.generate,
        iter(tokens),
    )

    def generate(**keywords):
        output = original(**keywords)
        if next(calls, "A") == "B":
            output[:, -1] = (output[:, -1] + 1) % 256
        return output

    model.generate = generate
    record = runner.run_benchmark(config)
    assert record.output.same_in_all_calls is same


def test_random_weights_follow_the_seed(runner, tiny, tiny_model) -> None:
    def tokens(seed: int) -> list:
        config = tiny()
        config.model = ModelConfig(**tiny_model, seed=seed)
        runner.setup_benchmark("tiny", config)
        runner.time_generate(config, warmup=True)
        return runner._last_call.token_ids

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_dtype_is_honoured_and_observed(runner, tiny) -> None:
    config = tiny(dtype="bfloat16")
    runner.setup_benchmark("tiny", config)
    assert runner.record.observed.dtype == "bfloat16"
    assert runner.record.observed.parameter_bytes == 2 * runner.record.observed.parameters


@pytest.mark.parametrize(("requested", "used"), [("static", "StaticCache"), ("dynamic", "DynamicCache")])
def test_the_kv_cache_is_the_requested_one(runner, tiny, requested: str, used: str) -> None:
    config = tiny(generation=GenerationConfig(kv_cache=requested))
    runner.setup_benchmark("tiny", config)
    record = runner.run_benchmark(config)
    assert record.observed.kv_cache == used
    assert record.observed.compile.graphs == 0


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_is_the_requested_one(runner, tiny, implementation: str) -> None:
    runner.setup_benchmark("tiny", tiny(attn_implementation=implementation))
    assert runner.record.observed.attention.implementation == implementation


def test_only_the_requested_sdpa_backend_is_allowed_in_a_call(runner, tiny) -> None:
    config = tiny(attention=AttentionConfig(sdpa_backend="math"))
    runner.setup_benchmark("tiny", config)
    assert runner.record.observed.attention.allowed_backends == ["math"]
    assert runner.run_benchmark(config).status == "ok"


def test_an_sdpa_backend_that_the_device_lacks_is_skipped_with_its_reason(runner, tiny) -> None:
    config = tiny(attention=AttentionConfig(sdpa_backend="cudnn_attention"))
    runner.setup_benchmark("tiny", config)
    assert runner.run_benchmark(config) is None
    assert runner.record.status == "skipped"
    assert runner.record.error.message.startswith("attention.sdpa_backend=cudnn_attention cannot run here")
    assert runner.record.observed.compile is None  # not known, which is not 0


def test_flash_attention_without_its_package_is_skipped_with_the_remedy(runner, tiny) -> None:
    config = tiny(attn_implementation="flash_attention_2")
    runner.setup_benchmark("tiny", config)
    assert runner.run_benchmark(config) is None
    assert "attention.implementation=flash_attention_2 cannot run here" in runner.record.error.message
    assert "use attention=sdpa" in runner.record.error.message


def test_a_compilation_that_did_not_happen_is_never_ok(runner, tiny, monkeypatch) -> None:
    config = tiny(device="cpu", compile_kwargs={"mode": "default"})
    honest = compilation.arguments

    def disabled(request):
        made = honest(request)
        made._compile_all_devices = None  # as anybody's CompileConfig: generate then goes on uncompiled
        return made

    monkeypatch.setattr(compilation, "arguments", disabled)
    runner.setup_benchmark("tiny", config)
    with pytest.raises(NotHonouredError, match=r"compile\.mode=default: generate compiled nothing"):
        runner.run_benchmark(config)
    assert runner.record.stage == "validation"


def test_a_swapped_attention_is_never_ok(runner, tiny, monkeypatch) -> None:
    import bench.trial.measure.setup as module

    load = module.load

    def swapped(config):
        loaded = load(config)
        loaded.model.set_attn_implementation("eager")
        return loaded

    monkeypatch.setattr(module, "load", swapped)
    with pytest.raises(NotHonouredError, match=r"attention\.implementation=sdpa: transformers set eager"):
        runner.setup_benchmark("tiny", tiny())
    assert runner.record.stage == "validation"


def test_a_device_that_is_not_there_is_named(runner, tiny) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="device=cuda: torch finds no CUDA GPU here; use device=cpu"):
        runner.setup_benchmark("tiny", tiny(device="cuda"))


def test_more_positions_than_the_model_has_are_refused(runner, tiny) -> None:
    with pytest.raises(ConfigError, match="makes 4104 positions; the model has 4096"):
        runner.setup_benchmark("tiny", tiny(sequence_length=4100))


def test_a_checkpoint_folder_runs_as_in_the_python_example(runner, tiny, tmp_path) -> None:
    runner.setup_benchmark("tiny", tiny())
    runner._setup.request.loaded.model.save_pretrained(tmp_path)
    runner._setup.request.loaded.tokenizer.save_pretrained(tmp_path)
    from bench import BenchmarkConfig

    config = BenchmarkConfig(warmup_iterations=1, measurement_iterations=2, attn_implementation="eager")
    runner.setup_benchmark(str(tmp_path), config)
    result = runner.run_benchmark(config, num_tokens_to_profile=0)
    assert result.status == "ok"
    assert result.requested["model"]["id"] == str(tmp_path)
    assert len(result.calls("measurement")) == 2


def test_the_generation_config_of_a_checkpoint_is_ignored(runner, tiny, tmp_path) -> None:
    from bench import BenchmarkConfig

    def tokens(folder) -> list:
        config = BenchmarkConfig(num_tokens_to_generate=16)
        runner.setup_benchmark(str(folder), config)
        runner.time_generate(config, warmup=True)
        return runner._last_call.token_ids

    runner.setup_benchmark("tiny", tiny())
    model, tokenizer = runner._setup.request.loaded.model, runner._setup.request.loaded.tokenizer
    for name, habits in (("plain", {}), ("lively", {"do_sample": True, "repetition_penalty": 9.0, "num_beams": 2})):
        for key, value in habits.items():
            setattr(model.generation_config, key, value)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    assert tokens(tmp_path / "lively") == tokens(tmp_path / "plain")


def test_a_revision_of_a_folder_is_refused_rather_than_ignored(runner, tmp_path) -> None:
    from bench import BenchmarkConfig

    config = BenchmarkConfig(model=ModelConfig(revision="v2"))
    with pytest.raises(ConfigError, match=r"model\.revision=v2: .* is a folder and has none"):
        runner.setup_benchmark(str(tmp_path), config)


@torch._dynamo.config.patch(suppress_errors=True)  # as TORCHDYNAMO_SUPPRESS_ERRORS=1 does
def test_nothing_that_fails_to_compile_goes_on_uncompiled(runner, tiny) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no code for this")

    config = tiny(compile=CompileConfig(mode="default", backend="broken"))
    torch._dynamo.register_backend(broken, name="broken")
    runner.setup_benchmark("tiny", config)
    with pytest.raises(Exception, match="no code for this"):
        runner.run_benchmark(config)
    assert runner.record.status != "ok"


def test_code_that_comes_with_a_model_is_not_run_unasked(runner, tmp_path) -> None:
    from bench import BenchmarkConfig

    (tmp_path / "config.json").write_text(
        '{"model_type": "mine", "architectures": ["Mine"], "auto_map": {"AutoConfig": "mine.C", '
        '"AutoModelForCausalLM": "mine.M"}}',
        encoding="utf-8",
    )
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()", encoding="utf-8")
    with pytest.raises(ValueError, match="trust_remote_code"):
        runner.setup_benchmark(str(tmp_path), BenchmarkConfig())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("mode", "expected"), [("inference_mode", True), ("no_grad", False)])
def test_the_grad_mode_is_the_requested_one(runner, tiny, mode: str, expected: bool) -> None:
    config = tiny(generation=GenerationConfig(grad_mode=mode))
    runner.setup_benchmark("tiny", config)
    seen = []
    original = runner._setup.request.loaded.model.generate

    def watched(**keywords):
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return original(**keywords)

    runner._setup.request.loaded.model.generate = watched
    runner.time_generate(config, warmup=True)
    assert seen == [(expected, False)]


def test_nothing_but_the_call_stands_between_the_clock_readings(tiny, monkeypatch) -> None:
    import gc

    events = []

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    config = tiny(num_tokens_to_generate=2)
    with BenchmarkRunner(clock=clock) as runner:
        runner.setup_benchmark("tiny", config)
        original = runner._setup.request.loaded.model.generate

        def generate(**keywords):
            events.append("generate")
            return original(**keywords)

        class Monitor:
            error = None

            def begin(self) -> None:
                events.append("begin")

            def end(self, start: float) -> list:
                events.append("end")
                return []

        runner._setup.request.loaded.model.generate = generate
        runner._setup.monitor = Monitor()
        monkeypatch.setattr(gc, "collect", lambda: events.append("collect"))
        monkeypatch.setattr(
            type(runner._setup.request.loaded.tokenizer), "decode", lambda *_, **__: events.append("decode") or ""
        )
        events.clear()
        runner.time_generate(config, warmup=False)
    # Start, generate, one reading a token, and the end; the first reading only has a start for the monitor's failure.
    start = events.index("begin")
    timed = events[start + 1 : events.index("end")]
    assert timed == ["clock", "clock", "generate", "clock", "clock", "clock"]
    assert events[events.index("end") :] == ["end", "decode", "collect"]


def test_another_config_than_the_prepared_one_is_refused(runner, tiny) -> None:
    runner.setup_benchmark("tiny", tiny())
    with pytest.raises(RuntimeError, match=r"^attention\.implementation=eager: prepared was sdpa; [^\n]*$"):
        runner.run_benchmark(tiny(attn_implementation="eager"))
    assert runner.record.iterations == []


def test_the_stages_and_the_median_appear_on_the_logger(tiny, caplog) -> None:
    config = tiny(gpu_monitoring=False)
    with (
        BenchmarkRunner(logging.getLogger("mine"), progress=lambda _, total: range(total or 0)) as runner,
        caplog.at_level(logging.INFO, logger="mine"),
    ):
        runner.setup_benchmark("tiny", config)
        result = runner.run_benchmark(config)
    assert repr(result).startswith("<Result tiny: ok, median E2E ")
    lines = [each.getMessage() for each in caplog.records if each.name == "mine"]
    assert [each.partition(" done")[0] for each in lines[1:]] == [
        "tiny: validation", "tiny: warm-up", "tiny: measurement", "tiny: evidence",
    ]  # fmt: skip
    assert lines[0].startswith("tiny: model loaded in ")
    assert "(cold start)" in lines[1]
    assert f"median E2E {milliseconds(result.summary()['e2e_ms'] / 1e3)} ms of 2 calls" in lines[3]
    assert {each.levelname for each in caplog.records if each.name == "mine"} == {"INFO"}


def test_a_call_that_fails_after_the_validation_is_never_kept(runner, tiny) -> None:
    config = tiny()
    runner.setup_benchmark("tiny", config)
    original, calls = runner._setup.request.loaded.model.generate, iter(range(10))

    def breaks(**keywords):
        if next(calls) == 3:
            raise RuntimeError("No available kernel. Aborting execution.")
        return original(**keywords)

    runner._setup.request.loaded.model.generate = breaks
    with pytest.raises(RuntimeError, match="call 3 failed after others had worked"):
        runner.run_benchmark(config)
    assert [each.e2e_s > 0 for each in runner.record.iterations] == [True] * 3


def test_a_measured_call_by_itself_is_monitored(runner, tiny) -> None:
    config = tiny()
    runner.setup_benchmark("tiny", config)
    assert len(runner.time_generate(config, warmup=False)[3]) >= 2


def test_weights_are_never_read_from_a_pickle(runner, tiny, tmp_path) -> None:
    runner.setup_benchmark("tiny", tiny())
    runner._setup.request.loaded.model.config.save_pretrained(tmp_path)
    runner._setup.request.loaded.tokenizer.save_pretrained(tmp_path)
    torch.save(runner._setup.request.loaded.model.state_dict(), tmp_path / "pytorch_model.bin")
    from bench import BenchmarkConfig

    with pytest.raises(ConfigError, match="safetensors"):
        runner.setup_benchmark(str(tmp_path), BenchmarkConfig())


def test_a_profile_is_written_after_the_measurement(tiny, tmp_path) -> None:
    config = tiny()
    with BenchmarkRunner(folder=tmp_path) as runner:
        runner.setup_benchmark("tiny", config)
        record = runner.run_benchmark(config, num_tokens_to_profile=3)
    assert (tmp_path / "trace.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert len(record.iterations) == 4  # the profiled calls are not among them


def test_a_used_runner_counts_from_zero(runner, tiny) -> None:
    for size in (1, 2):
        config = tiny(batch_size=size)
        runner.setup_benchmark("tiny", config)
        record = runner.run_benchmark(config)
        assert [each.index for each in record.iterations] == [0, 1, 2, 3]


def test_a_temporary_cache_lasts_until_its_runner_closes(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with BenchmarkRunner(folder=tmp_path) as runner:
        runner.setup_benchmark("tiny", tiny())
        (cache,) = tmp_path.glob("bench-compile-*")
        assert remove_stale_caches() == 0
        assert cache.is_dir()
    assert not cache.exists()
