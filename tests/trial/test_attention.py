"""Check which family a profile shows: real profiles on the CPU, and events shaped like CUDA's for the rest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench.config.schema import BenchmarkConfig
from bench.results.record import AttentionObserved, CompileEvent, PhaseEvidence
from bench.trial.evidence.attention import read, with_evidence
from bench.trial.evidence.attention_check import contradiction, without_compiled_code
from bench.trial.evidence.profiling import DECODE, PREFILL
from bench.trial.measure.runner import BenchmarkRunner


def event(name, start, end, *, kernel=False, annotation=False, parent=None, device_us=0.0):
    """As torch.profiler's FunctionEvent: times in microseconds. On a GPU an annotation is there twice (see `mirrored`)."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        device_type="DeviceType.CUDA" if kernel else "DeviceType.CPU",
        is_user_annotation=annotation,
        cpu_parent=parent,
        device_time_total=device_us,
    )


def mirrored(annotation):
    """Its shadow on the GPU: from the first to the last kernel that was launched below it."""
    start, end = annotation.time_range.start + 5, annotation.time_range.end - 5
    return event(annotation.name, start, end, kernel=True, annotation=True)


MARKS = [
    event(PREFILL, 0, 100, annotation=True),
    event(DECODE, 100, 200, annotation=True),
    event(DECODE, 200, 300, annotation=True),
    event(DECODE, 300, 301, annotation=True),
]


def seen(*events, on_gpu=False, compiled=()):
    return read([*MARKS, *events], compiled, on_gpu=on_gpu)


# ---- real profiles -----------------------------------------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.parametrize(
    ("attention", "family", "operator"),
    [
        ({"attn_implementation": "eager"}, "eager", "aten::bmm"),
        ({"sdpa_backend": "math"}, "math", "aten::_scaled_dot_product_attention_math"),
        ({"sdpa_backend": "flash_attention"}, "flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    ],
)
def test_each_setting_shows_its_own_kernels(tiny, attention, family, operator) -> None:
    config = tiny(device="cpu", **attention, measurement_iterations=1)
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        attention = runner.run_benchmark(config).observed.attention
    for phase, steps, layers in ((attention.prefill, 1, 2), (attention.decode, 1, 2)):
        assert (phase.families, phase.steps) == ([family], steps)
        shown = {each.name: each.calls for each in phase.operators}
        # eager multiplies twice, and with older versions the rotary embedding does once a step more
        assert shown[operator] in (steps * layers, 2 * steps * layers, 2 * steps * layers + steps)
        assert 0 < phase.attention_share < 1
        assert phase.compiled_regions == 0


def test_two_new_tokens_are_enough_for_evidence_of_both_phases(tiny) -> None:
    config = tiny(num_tokens_to_generate=2, measurement_iterations=1)
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        attention = runner.run_benchmark(config).observed.attention
    assert (attention.prefill.steps, attention.decode.steps) == (1, 1)


# ---- events ------------------------------------------------------------------------------------------------------


def test_an_operator_below_another_of_attention_counts_once() -> None:
    outer = event("aten::_scaled_dot_product_flash_attention", 10, 30)
    inner = event("aten::_flash_attention_forward", 12, 28, parent=outer)
    prefill, decode = seen(outer, inner)
    assert [(each.name, each.calls) for each in prefill.operators] == [(outer.name, 1)]
    assert prefill.attention_share == pytest.approx(0.2)
    assert decode.families == []


def test_the_softmax_of_the_math_backend_is_not_eager_attention() -> None:
    math = event("aten::_scaled_dot_product_attention_math", 10, 30)
    parts = [event(name, 12, 14, parent=math) for name in ("aten::bmm", "aten::_softmax")]
    assert seen(math, *parts)[0].families == ["math"]


def test_products_without_a_softmax_are_no_attention() -> None:
    assert seen(event("aten::bmm", 10, 20))[0].families == []


def test_the_mark_after_the_last_token_is_no_step() -> None:
    assert seen()[1].steps == 2


def test_compiled_code_without_a_kernel_of_its_own_is_decomposed() -> None:
    regions = [event("Torch-Compiled Region: 0/0", 110, 190), event("Torch-Compiled Region: 0/0", 210, 290)]
    decode = seen(*regions)[1]
    assert (decode.families, decode.compiled_regions, decode.attention_share) == (["decomposed"], 2, None)


def test_a_region_of_flex_attention_s_own_is_flex_attention() -> None:
    compiled = [
        CompileEvent(iteration=0, kind="graph", compile_id="1/0", file="/x/torch/nn/attention/flex_attention.py"),
        CompileEvent(iteration=0, kind="graph", compile_id="0/0", file="/x/modeling_llama.py"),
    ]
    regions = [event("Torch-Compiled Region: 1/0", 10, 40), event("Torch-Compiled Region: 0/0", 110, 190)]
    prefill, decode = seen(*regions, compiled=compiled)
    assert (prefill.families, prefill.compiled_regions) == (["flex_attention"], 0)
    assert prefill.attention_share == pytest.approx(0.3)
    assert (decode.families, decode.compiled_regions) == (["decomposed"], 1)


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, ...>>", "flash_attention"),
        ("void pytorch_flash::flash_fwd_splitkv_kernel<...>", "flash_attention"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::...)", "efficient_attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3", "cudnn_attention"),
        ("triton_tem_fused_flex_attention_3", "flex_attention"),
        ("triton_flex_decoding_0", "flex_attention"),
        ("void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, ...>>", "flash_attention_2"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>", "flash_attention_3"),
    ],
)
def test_kernels_tell_where_a_cuda_graph_hides_the_operators(kernel, family) -> None:
    launch = event("cudaGraphLaunch", 110, 112)
    region = event("Torch-Compiled Region: 0/0", 105, 150)
    decode = seen(
        launch, region, event(kernel, 120, 150, kernel=True), event("gemm", 150, 180, kernel=True), on_gpu=True
    )[1]
    assert (decode.families, decode.cudagraph_launches) == ([family], 1)
    assert decode.attention_share == pytest.approx(0.5)


def test_what_a_gpu_repeats_of_marks_and_regions_is_neither_a_step_nor_a_kernel() -> None:
    regions = [event("Torch-Compiled Region: 0/0", a, a + 80, annotation=True) for a in (110, 210)]
    kernels = [event("pytorch_flash::flash_fwd_kernel", a, a + 20, kernel=True) for a in (20, 120, 220)]
    gemms = [event("gemm", a, a + 20, kernel=True) for a in (60, 160, 260)]
    shadows = [mirrored(each) for each in (*MARKS[:3], *regions)]
    prefill, decode = seen(*regions, *kernels, *gemms, *shadows, on_gpu=True)
    assert (prefill.steps, decode.steps, decode.compiled_regions) == (1, 2, 2)
    assert (prefill.duration_s, decode.duration_s) == pytest.approx((100e-6, 200e-6))
    assert (prefill.attention_share, decode.attention_share) == pytest.approx((0.5, 0.5))
    assert without_compiled_code(BenchmarkConfig(compile_kwargs={"mode": "default"}), observed(prefill, decode)) is None


def test_on_a_gpu_the_making_of_flex_attention_s_mask_does_not_stand_for_its_kernel() -> None:
    made = [CompileEvent(iteration=0, kind="graph", compile_id="1/0", file="/x/torch/nn/attention/flex_attention.py")]
    mask = event("Torch-Compiled Region: 1/0", 110, 120, annotation=True, device_us=5.0)
    step = event("Torch-Compiled Region: 0/0", 120, 190, annotation=True)
    kernels = [
        event("triton_poi_fused_mask", 112, 117, kernel=True),
        event("triton_tem_fused_flex_attention_1", 130, 160, kernel=True),
        event("gemm", 160, 185, kernel=True),
    ]
    decode = seen(mask, step, *kernels, compiled=made, on_gpu=True)[1]
    assert (decode.families, decode.attention_share) == (["flex_attention"], pytest.approx(0.5))
    assert [each.name for each in decode.operators] == ["triton_tem_fused_flex_attention_1"]


def test_a_graph_s_launch_counts_whatever_the_api_s_variant() -> None:
    names = ("cudaGraphLaunch", "cudaGraphLaunch_ptsz_v10000", "cudaGraphInstantiate", "cudaLaunchKernel")
    launches = [event(name, 110 + index, 111 + index) for index, name in enumerate(names)]
    assert seen(*launches, on_gpu=True)[1].cudagraph_launches == 2


def test_on_a_gpu_an_operator_took_what_its_kernels_took() -> None:
    operator = event("aten::_scaled_dot_product_cudnn_attention", 10, 12, device_us=30.0)
    prefill = seen(operator, event("some kernel", 20, 80, kernel=True), on_gpu=True)[0]
    assert prefill.attention_share == pytest.approx(0.5)
    assert prefill.operators[0].total_s == pytest.approx(30e-6)


@pytest.mark.parametrize(
    ("operator", "family"),
    [
        ("flash_attn::_flash_attn_forward", "flash_attention_2"),
        ("FlashAttnVarlenFunc", "flash_attention_2"),
        ("_flash_attn2_cuda_9e27194::fwd", "flash_attention_2"),
        ("flash_attn_3::fwd", "flash_attention_3"),
        ("_vllm_flash_attn3_cuda_5c1d::fwd", "flash_attention_3"),
        ("aten::_efficient_attention_forward", "efficient_attention"),
        ("aten::_scaled_dot_product_fused_attention_overrideable", "overrideable"),
    ],
)
def test_operators_of_every_family_are_known(operator, family) -> None:
    assert seen(event(operator, 10, 20))[0].families == [family]


def test_a_gpu_whose_kernels_stay_hidden_is_not_judged() -> None:
    operator = event("aten::_scaled_dot_product_attention_math", 10, 12)
    prefill, decode = seen(operator, event("Torch-Compiled Region: 0/0", 110, 190), on_gpu=True)
    attention = with_evidence(observed(), prefill, decode, on_gpu=True)
    assert "CUPTI" in attention.error
    assert decode.families == []
    assert contradiction(BenchmarkConfig(sdpa_backend="flash_attention"), attention) is None


# ---- verdicts ----------------------------------------------------------------------------------------------------


def phase(*families, regions=0) -> PhaseEvidence:
    return PhaseEvidence(
        steps=2, duration_s=1.0, families=list(families), operators=[], attention_share=None, compiled_regions=regions
    )


def observed(prefill=None, decode=None) -> AttentionObserved:
    return AttentionObserved(implementation="sdpa", allowed_backends=[], prefill=prefill, decode=decode)


COMPILED = {"compile_kwargs": {"mode": "default"}}


@pytest.mark.parametrize(
    ("config", "prefill", "decode"),
    [
        ({}, "flash_attention", "efficient_attention"),
        ({"sdpa_backend": "math"}, "math", "math"),
        ({"sdpa_backend": "math", **COMPILED}, "math", "decomposed"),
        (COMPILED, "flash_attention", "decomposed"),
        ({"attn_implementation": "eager", **COMPILED}, "eager", "efficient_attention"),
        ({"attn_implementation": "flex_attention"}, "flex_attention", "flex_attention"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2", "flash_attention_2"),
        ({"attn_implementation": "somebody/kernel"}, "math", "eager"),
    ],
)
def test_what_ran_as_asked_is_no_contradiction(config, prefill, decode) -> None:
    assert contradiction(BenchmarkConfig(**config), observed(phase(prefill), phase(decode))) is None


@pytest.mark.parametrize(
    ("config", "prefill", "decode", "reason"),
    [
        ({}, "eager", "eager", "attention.implementation=sdpa: prefill ran eager"),
        (
            {"sdpa_backend": "flash_attention"},
            "math",
            "math",
            "attention.sdpa_backend=flash_attention: prefill ran math",
        ),
        (
            {"sdpa_backend": "flash_attention", **COMPILED},
            "flash_attention",
            "decomposed",
            "attention.sdpa_backend=flash_attention: decoding ran decomposed",
        ),
        ({"sdpa_backend": "math"}, "math", "decomposed", "attention.sdpa_backend=math: decoding ran decomposed"),
        (
            {"attn_implementation": "flex_attention"},
            "eager",
            "flex_attention",
            "attention.implementation=flex_attention: prefill ran eager",
        ),
        (
            {"attn_implementation": "flash_attention_2"},
            "flash_attention",
            "flash_attention",
            "attention.implementation=flash_attention_2: prefill ran flash_attention",
        ),
        ({"attn_implementation": "eager"}, "eager", "math", "attention.implementation=eager: decoding ran math"),
    ],
)
def test_what_ran_instead_is_named_with_what_was_asked_for(config, prefill, decode, reason) -> None:
    assert contradiction(BenchmarkConfig(**config), observed(phase(prefill), phase(decode))) == reason


def test_no_kernel_at_all_is_not_what_was_asked_for() -> None:
    reason = contradiction(BenchmarkConfig(), observed(phase(), phase()))
    assert reason == "attention.implementation=sdpa: prefill ran no such kernel"
    assert contradiction(BenchmarkConfig(attn_implementation="eager"), observed(phase(), phase())) is None


def test_decoding_steps_must_run_compiled_exactly_when_asked() -> None:
    compiled = BenchmarkConfig(**COMPILED)
    assert without_compiled_code(compiled, observed(decode=phase("math", regions=2))) is None
    assert without_compiled_code(BenchmarkConfig(), observed(decode=phase("math"))) is None
    half = without_compiled_code(compiled, observed(decode=phase("math", regions=1)))
    assert half == "compile.mode=default: compiled code ran in 1 of 2 decoding steps"
    unasked = without_compiled_code(BenchmarkConfig(), observed(decode=phase("math", regions=2)))
    assert unasked == "compile.mode=null: compiled code ran 2 time(s) in 2 decoding steps"


@pytest.mark.parametrize("wanted", ["flash_attention", "math"])
def test_a_layer_that_ran_another_family_than_the_others_is_named(wanted) -> None:
    """Whichever comes first in the alphabet."""
    config, other = BenchmarkConfig(sdpa_backend=wanted), {"math": "flash_attention"}.get(wanted, "math")
    both, right = phase("flash_attention", "math"), phase(wanted)
    assert contradiction(config, observed(both, right)).startswith(
        f"attention.sdpa_backend={wanted}: prefill ran {other}"
    )
    assert contradiction(config, observed(right, both)).startswith(
        f"attention.sdpa_backend={wanted}: decoding ran {other}"
    )


@pytest.mark.parametrize("asked", [{"attn_implementation": "eager"}, {"sdpa_backend": "math"}], ids=["eager", "math"])
def test_a_prefill_that_ran_compiled_code_is_not_what_was_asked_for(asked) -> None:
    """Generate compiles the decoding step alone."""
    config = BenchmarkConfig(**asked, **COMPILED)
    right = phase("eager" if "attn_implementation" in asked else "math")
    assert "prefill ran decomposed" in contradiction(config, observed(phase("decomposed"), right))
    assert contradiction(config, observed(right, phase("decomposed"))) is None


def test_the_paged_form_of_an_implementation_is_judged_as_the_implementation() -> None:
    config = BenchmarkConfig(attn_implementation="paged|sdpa")
    assert contradiction(config, observed(phase("math"), phase("math"))) is None
    wrong = contradiction(config, observed(phase("math"), phase("eager")))
    assert wrong == "attention.implementation=paged|sdpa: decoding ran eager"


@pytest.mark.parametrize("eager", [0, 1, 2])
def test_a_layer_of_eager_attention_among_others_is_seen_in_any_decoding_step(eager) -> None:
    """Of two layers in two steps."""
    places = [110, 150, 210, 250]
    flash = [event("aten::_scaled_dot_product_flash_attention", at, at + 20) for at in places[eager:]]
    products = [
        event(name, at, at + 5) for at in places[:eager] for name in ("aten::bmm", "aten::_softmax", "aten::bmm")
    ]
    _, decode = read([*MARKS, *flash, *products], [], on_gpu=False, layers=2)
    assert decode.families == (["eager", "flash_attention"] if eager else ["flash_attention"])
