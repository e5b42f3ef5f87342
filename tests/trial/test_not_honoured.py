"""Check that a setting that runs as something else ends `failed`, or with another output.

Each test breaks the real tiny model or the real libraries behind the runner's back. `backend=eager` compiles in a
second what Inductor takes half a minute for; what matters here is that TorchDynamo's compiled code runs, or does not.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import eager_attention_forward

from bench.config.schema import AttentionConfig, CompileConfig
from bench.jobs.reference import reference_config
from bench.trial.evidence import compile_cache
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.unsupported import NotHonouredError

QUICK = {"mode": "default", "backend": "eager"}


@pytest.fixture
def run():
    """Run a setting with a lie planted after its model is loaded; returns the record, whatever the end."""

    def run_with(config, plant=lambda runner: None, **keywords):
        with BenchmarkRunner(progress=lambda name, total: range(total), **keywords) as runner:
            runner.setup_benchmark("tiny", config)
            plant(runner)
            try:
                runner.run_benchmark(config)
            except NotHonouredError as error:
                runner.record.fail("failed", "NotHonouredError", str(error))
            return runner.record

    return run_with


@pytest.fixture
def stance():
    """Put torch.compile's stance back."""
    yield torch.compiler.set_stance
    torch.compiler.set_stance("default")


def after_calls(count, plant):
    """Plant once `count` calls have been made."""

    def planted(runner):
        original = runner.time_generate

        def counted(config, warmup):
            if len(runner.record.iterations) == count:
                plant(runner)
            return original(config, warmup)

        runner.time_generate = counted

    return planted


def model_of(runner):
    return runner._setup.request.loaded.model


# ---- compilation -------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_a_compiled_setting_as_requested_is_ok(run, tiny) -> None:
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, record.error) == ("ok", None)
    assert record.observed.attention.decode.compiled_regions == record.observed.attention.decode.steps == 2


@pytest.mark.contract
def test_compilation_that_is_disabled_from_the_start_fails(run, tiny, stance) -> None:
    record = run(tiny(compile_kwargs=QUICK), lambda runner: stance("force_eager"))
    assert (record.status, record.stage) == ("failed", "validation")
    assert record.error.message.startswith("compile.mode=default: generate compiled nothing")


@pytest.mark.contract
def test_compiled_code_that_is_not_called_after_the_validation_call_fails(run, tiny) -> None:
    """The counters are content by then: only the profiled call shows that no compiled code runs."""

    def bypass(runner) -> None:
        model_of(runner)._compiled_call = model_of(runner).__call__

    record = run(tiny(compile_kwargs=QUICK), after_calls(1, bypass))
    assert (record.status, record.stage) == ("failed", "evidence")
    assert record.error.message == "compile.mode=default: compiled code ran in 0 of 2 decoding steps"


@pytest.mark.contract
def test_compilation_that_is_disabled_after_the_validation_call_fails(run, tiny, stance) -> None:
    record = run(tiny(compile_kwargs=QUICK), after_calls(1, lambda runner: stance("force_eager")))
    assert record.status == "failed"
    assert "force_eager" in record.error.message


@pytest.mark.contract
def test_a_model_that_is_compiled_although_nobody_asked_fails(run, tiny) -> None:
    def compile_layers(runner) -> None:
        for layer in model_of(runner).model.layers:
            layer.mlp.forward = torch.compile(layer.mlp.forward, backend="eager")

    record = run(tiny(), compile_layers)
    assert record.status == "failed"
    assert record.error.message.startswith("compile.mode=null: ")


@pytest.mark.contract
def test_a_compilation_in_every_call_fails(run, tiny) -> None:
    def forget_before_each_call(runner) -> None:
        original = runner.time_generate

        def forgetful(config, warmup):
            torch.compiler.reset()
            return original(config, warmup)

        runner.time_generate = forgetful

    record = run(tiny(compile_kwargs=QUICK, measurement_iterations=3), forget_before_each_call)
    assert (record.status, record.stage) == ("failed", "measurement")
    assert "3 of 3 measured calls" in record.error.message
    assert len(record.calls("measurement")) == 3


@pytest.mark.contract
def test_a_recompilation_in_every_call_fails_with_its_guard(run, tiny) -> None:
    """A number in the model that changes with each call invalidates the compiled code each time."""

    def count_calls(runner) -> None:
        model = model_of(runner)
        layer = model.model.layers[0].mlp
        original, layer.calls = layer.forward, 0

        def counted(x):
            return original(x) + 0 * layer.calls

        layer.forward = counted
        timed = runner.time_generate

        def counting(config, warmup):
            layer.calls += 1
            return timed(config, warmup)

        runner.time_generate = counting

    config = tiny(measurement_iterations=3, compile_kwargs={**QUICK, "dynamic": False})
    record = run(config, count_calls)
    assert (record.status, record.stage) == ("failed", "measurement")
    assert "3 of 3 measured calls" in record.error.message
    assert "calls" in record.observed.compile.recompiles[0]
    assert [each.iteration for each in record.observed.compile.events if each.kind == "recompile"] == [1, 2, 3, 4]


def compile_otherwise(runner) -> None:
    """Let generate compile in another way than was asked for."""
    runner._setup.request.generation.compile_config.dynamic = True


@pytest.mark.contract
def test_another_argument_of_torch_compile_than_asked_for_fails(run, tiny) -> None:
    record = run(tiny(compile_kwargs=QUICK), compile_otherwise)
    assert (record.status, record.stage) == ("failed", "validation")
    assert record.error.message == "compile.dynamic=None: torch.compile was called with True"


def test_another_argument_of_torch_compile_after_the_validation_call_fails(run, tiny) -> None:
    record = run(tiny(compile_kwargs=QUICK), after_calls(1, compile_otherwise))
    assert record.status == "failed"
    assert "dynamic was None at first and True at the end" in record.error.message


@torch._dynamo.config.patch(recompile_limit=2)
def test_the_recompile_limit_is_an_error_and_not_eager_execution(tiny) -> None:
    config = tiny(compile_kwargs={**QUICK, "dynamic": False}, warmup_iterations=4)
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        layer = model_of(runner).model.layers[0].mlp
        original, layer.calls = layer.forward, 0
        layer.forward = lambda x: original(x) + 0 * layer.calls
        timed = runner.time_generate

        def counting(config, warmup):
            layer.calls += 1
            return timed(config, warmup)

        runner.time_generate = counting
        with pytest.raises(Exception, match=r"(?i)recompile.?limit"):
            runner.run_benchmark(config)
    assert runner.record.status != "ok"
    assert runner.record.stage == "warmup"


@pytest.mark.compiled
@pytest.mark.slow
def test_code_of_another_backend_from_a_shared_cache_fails(run, tiny, tmp_path, monkeypatch) -> None:
    """Inductor's key leaves the SDPA backend out; our folders do not, so they are made one here."""
    monkeypatch.setattr(compile_cache, "shared_cache", lambda config, device: tmp_path / "shared")

    def setting(backend):
        return tiny(
            attention=AttentionConfig(sdpa_backend=backend), compile=CompileConfig(mode="default", cache="shared")
        )

    honest = run(setting("flash_attention"))
    assert (honest.status, honest.observed.compile.cache_state) == ("ok", "cold")
    record = run(setting("math"))
    assert record.observed.compile.cache_state == "warm"
    assert (record.status, record.stage) == ("failed", "evidence")
    assert record.error.message.startswith("attention.sdpa_backend=math: decoding ran flash_attention")


# ---- attention ---------------------------------------------------------------------------------------------------


def swap(monkeypatch, name, function) -> None:
    monkeypatch.setitem(transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS._global_mapping, name, function)


@pytest.mark.contract
def test_eager_attention_in_place_of_sdpa_fails(run, tiny, monkeypatch) -> None:
    swap(monkeypatch, "sdpa", eager_attention_forward)
    record = run(tiny())
    assert (record.status, record.stage) == ("failed", "evidence")
    assert record.error.message == "attention.implementation=sdpa: prefill ran eager (aten::bmm)"


@pytest.mark.contract
def test_sdpa_in_place_of_eager_attention_fails(run, tiny, monkeypatch) -> None:
    sdpa = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS["sdpa"]

    def lie(runner) -> None:
        swap(monkeypatch, "eager", sdpa)
        monkeypatch.setattr("transformers.models.llama.modeling_llama.eager_attention_forward", sdpa)

    record = run(tiny(device="cpu", attn_implementation="eager"), lie)
    assert (record.status, record.stage) == ("failed", "evidence")
    assert record.error.message.startswith("attention.implementation=eager: prefill ran flash_attention")


@pytest.mark.contract
def test_eager_attention_in_one_layer_of_sdpa_fails(run, tiny, monkeypatch) -> None:
    honest = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS["sdpa"]

    def in_the_second_layer(module, *arguments, **keywords):
        function = eager_attention_forward if module.layer_idx == 1 else honest
        return function(module, *arguments, **keywords)

    swap(monkeypatch, "sdpa", in_the_second_layer)
    record = run(tiny())
    assert record.status == "failed"
    assert record.error.message.startswith("attention.implementation=sdpa: prefill ran eager")


@pytest.mark.contract
def test_another_cache_after_the_validation_call_fails(run, tiny) -> None:
    def change(runner) -> None:
        runner._setup.request.generation.cache_implementation = "static"

    record = run(tiny(), after_calls(1, change))
    assert record.status == "failed"
    assert "generate began with DynamicCache and ended with StaticCache" in record.error.message


@pytest.mark.contract
def test_generation_without_a_cache_fails(run, tiny) -> None:
    def change(runner) -> None:
        runner._setup.request.generation.use_cache = False

    record = run(tiny(), change)
    assert (record.status, record.stage) == ("failed", "validation")
    assert record.error.message.startswith("generation.kv_cache: generate made none")


@pytest.mark.contract
def test_another_sdpa_backend_than_requested_fails(run, tiny, monkeypatch) -> None:
    from bench.trial.measure import request

    monkeypatch.setitem(request.SDPA_BACKENDS, "math", request.SDPA_BACKENDS["flash_attention"])
    record = run(tiny(device="cpu", sdpa_backend="math"))
    assert record.status == "failed"
    assert "attention.sdpa_backend=math: prefill ran flash_attention" in record.error.message


# ---- output ------------------------------------------------------------------------------------------------------


@pytest.fixture
def reference(tiny, tmp_path):
    """The file of a reference run of the tiny model."""
    config = reference_config(tiny())
    with BenchmarkRunner() as runner:
        runner.setup_benchmark("tiny", config)
        runner.write_reference(config, tmp_path / "reference.safetensors")
    return tmp_path / "reference.safetensors"


@pytest.mark.contract
def test_an_unchanged_setting_agrees_with_the_reference(run, tiny, reference) -> None:
    record = run(tiny(), reference=reference)
    assert (record.status, record.fidelity.agrees, record.fidelity.reason) == ("ok", True, None)


@pytest.mark.contract
def test_one_perturbed_layer_differs_from_the_reference(run, tiny, reference) -> None:
    def perturb(runner) -> None:
        weight = model_of(runner).model.layers[1].mlp.down_proj.weight
        with torch.no_grad():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.01)  # one part in a hundred, in one layer

    record = run(tiny(), perturb, reference=reference)
    assert (record.status, record.fidelity.agrees) == ("ok", False)
    assert "exceeds" in record.fidelity.reason


@pytest.mark.contract
def test_a_layer_left_out_differs_from_the_reference(run, tiny, reference) -> None:
    def leave_out(runner) -> None:
        model_of(runner).model.layers[1].mlp.forward = torch.zeros_like

    assert run(tiny(), leave_out, reference=reference).fidelity.agrees is False


@pytest.mark.contract
def test_output_that_is_not_a_number_differs_from_the_reference(run, tiny, reference) -> None:
    def poison(runner) -> None:
        model_of(runner).model.norm.weight.data[0] = float("nan")

    record = run(tiny(), poison, reference=reference)
    assert record.fidelity.agrees is False
    assert record.fidelity.reason == "its logits are not all finite numbers"
