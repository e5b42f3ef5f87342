"""Build a record whose figures are all known: one validation call, five warm-up calls, twenty measured ones."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.results.record import (
    AttentionObserved,
    CompileObserved,
    DeviceRates,
    Energy,
    Fidelity,
    Iteration,
    Memory,
    MemoryUse,
    Observed,
    OperatorTime,
    Output,
    PhaseEvidence,
    Record,
    Roofline,
    Steadiness,
)

BATCH_SIZE = 2
NEW_TOKENS = 5
MEASURED = 20
STARTED_AT_S = 1_700_000_000.0

# Measured call i of 0..19: first token after 0.1 s, then four gaps of 0.2 s + i ms, then 0.01 s to the return.
TTFT_S = 0.1
MEDIAN_GAP_S = 0.2095
MEDIAN_E2E_S = 0.948
# All measured calls together: 20 × 0.91 s + 0.004 s × (0 + … + 19); decoding takes 0.11 s less per call.
TOTAL_E2E_S = 18.96
TOTAL_DECODE_S = 16.76
COLD_START_S = 5.0
WARMUP_E2E_S = (1.348, 1.148, 1.048, 0.948, 0.938)
# Over the median: 4.052 s in the validation call, 0.4 + 0.2 + 0.1 s in the warm-up; the last call is below it.
COMPILE_EXCESS_S = 4.752
PEAK_MIB = 512


def make_iteration(
    index: int, phase: str, *, start_s: float = 0.0, ttft_s: float = TTFT_S, gap_s: float = 0.2, graphs: int = 0
) -> Iteration:
    """Build one call of NEW_TOKENS tokens that returns 0.01 s after its last token."""
    times = [ttft_s + gap_s * step for step in range(NEW_TOKENS)]
    return Iteration(
        index=index,
        phase=phase,
        start_s=start_s,
        e2e_s=times[-1] + 0.01,
        token_times_s=times,
        graphs=graphs,
        compile_s=3.0 if graphs else 0.0,
    )


def make_iterations(measured: int = MEASURED) -> list[Iteration]:
    """Build the calls of a whole job, one second apart, the first after two seconds of loading."""
    iterations: list[Iteration] = []

    def add(phase: str, **times: Any) -> None:
        start_s = iterations[-1].start_s + iterations[-1].e2e_s + 1.0 if iterations else 2.0
        iterations.append(make_iteration(len(iterations), phase, start_s=start_s, **times))

    add("validation", ttft_s=COLD_START_S - 0.81, graphs=1)
    for e2e_s in WARMUP_E2E_S:
        add("warmup", ttft_s=e2e_s - 0.81)
    for number in range(measured):
        add("measurement", gap_s=0.2 + number / 1000)
    return iterations


def make_config(**keywords: Any) -> BenchmarkConfig:
    """Build a compiled setting of a model that no test loads; keywords are those of BenchmarkConfig."""
    defaults: dict[str, Any] = {
        "model": ModelConfig(id="org/tiny"),
        "compile_kwargs": {"mode": "default"},
        "batch_size": BATCH_SIZE,
        "sequence_length": 8,
        "num_tokens_to_generate": NEW_TOKENS,
    }
    return BenchmarkConfig(**defaults | keywords)


def make_record(**changes: Any) -> Record:
    """Build the record of an ok job; keywords replace fields of Record."""
    config = make_config()
    iterations = changes.get("iterations", make_iterations())
    end_s = iterations[-1].start_s + iterations[-1].e2e_s if iterations else 2.0
    fields: dict[str, Any] = {
        "trial_id": config.trial_id(),
        "status": "ok",
        "stage": None,
        "started_at_s": STARTED_AT_S,
        "ended_at_s": STARTED_AT_S + end_s + 1.0,
        "requested": config.to_dict(),
        "observed": Observed(
            device="cpu",
            device_name="Test CPU",
            dtype="float32",
            model_class="LlamaForCausalLM",
            parameters=1000,
            parameter_bytes=4000,
            attention=AttentionObserved(implementation="sdpa", allowed_backends=["math"]),
            kv_cache="StaticCache",
            compile=CompileObserved(graphs=1, compile_s=3.0, cache_misses=2, arguments={"mode": "default"}),
            prompt_tokens=8,
            new_tokens=NEW_TOKENS,
        ),
        "iterations": iterations,
        "output": Output(
            shape=[BATCH_SIZE, 8 + NEW_TOKENS],
            token_ids=[list(range(NEW_TOKENS))] * BATCH_SIZE,
            text="known",
            same_in_all_calls=True,
        ),
        "memory": Memory(
            after_load=MemoryUse(host_rss_bytes=2**28), measurement_peak=MemoryUse(host_rss_bytes=PEAK_MIB * 2**20)
        ),
        "environment": {"python": "3.11"},
        "phases_s": {"load": 2.0},
    }
    return Record(**fields | changes)


def make_evidence() -> dict[str, Any]:
    """Return fields of a steady Record with full evidence: attention, fidelity, energy and roofline as on a GPU."""
    phase = PhaseEvidence(
        steps=2,
        duration_s=0.5,
        families=["flash_attention"],
        operators=[OperatorTime(name="aten::_scaled_dot_product_flash_attention", calls=4, total_s=0.1)],
        attention_share=0.2,
        compiled_regions=2,
    )
    seen = make_record().observed
    assert seen is not None
    attention = dataclasses.replace(
        seen.attention, prefill=dataclasses.replace(phase, compiled_regions=0), decode=phase
    )
    return {
        "observed": dataclasses.replace(seen, attention=attention),
        "fidelity": Fidelity(
            reference="eager",
            agrees=True,
            common_prefix_tokens=NEW_TOKENS,
            equal_tokens_share=1.0,
            positions=BATCH_SIZE * NEW_TOKENS,
            top1_share=1.0,
            logit_max_abs_diff=1e-5,
            logit_mean_abs_diff=1e-6,
            logit_mean_diff_sd=1e-6,
            kl_mean_nats=1e-9,
            bounds={"kl_mean_nats": 1e-5},
        ),
        "steadiness": Steadiness(steady=True, flags=[], shape="flat", power="enough", cv=0.005),
        "energy": Energy(source="nvml", joules=[3.0] * MEASURED),
        "roofline": Roofline(
            rates=DeviceRates(
                bandwidth_bytes_per_s=2e12,
                matmul_flops_per_s=5e14,
                dtype="bfloat16",
                fingerprint="f",
                measured_at_s=STARTED_AT_S,
            ),
            decode_bytes=2e9,
            decode_mbu=0.5,
            prefill_mfu=0.25,
        ),
    }
