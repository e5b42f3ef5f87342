from __future__ import annotations

import json
import pickle
import re

import pytest

from bench.config.rules import ConfigError
from bench.config.schema import (
    BenchmarkConfig,
    CompileConfig,
    GenerationConfig,
    MeasurementConfig,
    ModelConfig,
    MonitorConfig,
    SweepConfig,
    WarmupConfig,
    WorkloadConfig,
    flatten,
    nearest_key,
    walk,
)


def test_a_refusal_survives_the_transfer_from_another_process() -> None:
    error = ConfigError("workload.prompt_file", "none.txt", "no such file")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.key, again.remedy) == (ConfigError, str(error), error.key, error.remedy)


def test_defaults_are_five_and_twenty() -> None:
    config = BenchmarkConfig()
    assert (config.warmup_iterations, config.measurement_iterations) == (5, 20)


def test_flat_and_nested_keywords_are_the_same_keys() -> None:
    flat = BenchmarkConfig(attn_implementation="eager", batch_size=3, dtype="bfloat16", gpu_monitoring=False)
    assert flat.attention.implementation == "eager"
    assert flat.workload.batch_size == 3
    assert flat.model.dtype == "bfloat16"
    assert flat.monitor == MonitorConfig(enabled=False)
    assert flat == BenchmarkConfig.from_dict(flat.to_dict())


def test_a_torch_dtype_is_accepted_and_stored_by_name() -> None:
    class Dtype:
        def __str__(self) -> str:
            return "torch.float16"

    assert BenchmarkConfig(dtype=Dtype()).model.dtype == "float16"


def test_compile_kwargs_name_the_keys_of_compile() -> None:
    config = BenchmarkConfig(compile_kwargs={"mode": "max-autotune", "fullgraph": True})
    assert config.compile == CompileConfig(mode="max-autotune", fullgraph=True)
    assert BenchmarkConfig(compile_kwargs=None).compile.mode is None


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"warmup_iterations": -1}, "warmup.iterations=-1: must be at least 0"),
        ({"measurement_iterations": 0}, "measurement.iterations=0: must be at least 1"),
        ({"num_tokens_to_generate": 1}, "workload.num_tokens_to_generate=1: must be at least 2"),
        ({"batch_size": 0}, "workload.batch_size=0: must be at least 1"),
        ({"batch_size": "8"}, "workload.batch_size=8: must be int"),
        ({"batch_size": True}, "workload.batch_size=true: must be int"),
        ({"monitor": MonitorConfig(interval_s=float("nan"))}, "monitor.interval_s=nan: must be a finite number"),
        ({"device": "cuda:x"}, "device=cuda:x: must be auto, cpu, cuda or cuda:N, such as cuda:0"),
        ({"sdpa_backend": "flash"}, "attention.sdpa_backend=flash: allowed: null, math, flash_attention, "
         "efficient_attention, cudnn_attention; did you mean flash_attention?"),
        ({"sdpa_backend": "math", "attn_implementation": "eager"}, "attention.sdpa_backend=math: needs "
         "attention.implementation=sdpa (it is eager); or leave it null"),
        ({"compile_kwargs": {}}, "compile_kwargs={}: must name a mode: default, reduce-overhead, max-autotune, "
         "max-autotune-no-cudagraphs"),
        ({"compile_kwargs": {"mode": "default", "speed": 1}}, "compile_kwargs=speed: allowed: backend, cache, dynamic, "
         "fullgraph, mode, options"),
        ({"compile": CompileConfig(mode="default"), "generation": GenerationConfig(kv_cache="dynamic")},
         "generation.kv_cache=dynamic: generate compiles only over a static cache; set it to static or auto, or "
         "compile.mode=null (it is default)"),
        ({"model": ModelConfig(id="x", architecture={"model_type": "llama"})},
         "model.architecture={'model_type': 'llama'}: needs model.weights=random"),
        ({"model": ModelConfig(id="x", weights="random", architecture={})},
         "model.architecture={}: needs a model_type, such as llama"),
        ({"sweep": SweepConfig(name="../up")}, "sweep.name=../up: must be 100 letters, digits and _ . - at most, the first a letter or a digit"),
        ({"compile": CompileConfig(mode="max-autotune", backend="eager")}, "compile.backend=eager: takes neither "
         "compile.mode=max-autotune nor options; use compile.mode=default, or inductor"),
        ({"compile": CompileConfig(mode="default", options={"a": {"b": float("inf")}})},
         "compile.options.a.b=inf: must be a finite number"),
        ({"continuous_batching": True, "compile_kwargs": {"mode": "default"}}, "compile.mode=default: with "
         "generation.continuous_batching transformers compiles fragments only; set it to null"),
        ({"generation": GenerationConfig(continuous_batching=True, kv_cache="static")}, "generation.kv_cache=static: "
         "generation.continuous_batching has a paged cache of its own; set it to auto"),
    ],
)  # fmt: skip
def test_a_refused_value_names_key_value_and_remedy(keywords: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BenchmarkConfig(**keywords)
    assert str(caught.value) == message


def test_a_flat_name_can_be_assigned_and_a_misspelt_one_cannot() -> None:
    config = BenchmarkConfig()
    config.batch_size = 7
    assert config.workload.batch_size == 7
    with pytest.raises(AttributeError, match="warmup_iteration"):
        config.warmup_iteration = 3


def test_a_misspelt_keyword_suggests_the_nearest() -> None:
    with pytest.raises(TypeError, match="no keyword warmup_iteration; did you mean warmup_iterations"):
        BenchmarkConfig(warmup_iteration=3)


def test_a_misspelt_key_never_becomes_a_default() -> None:
    data = BenchmarkConfig().to_dict()
    data["warmup"]["itertions"] = 3
    with pytest.raises(ConfigError, match=r"warmup.itertions=3: no such key; did you mean warmup.iterations\?"):
        BenchmarkConfig.from_dict(data)


def test_every_key_is_documented() -> None:
    assert [path for path, _, rule, _ in walk(BenchmarkConfig) if len(rule.doc) < 10] == []


def test_every_default_satisfies_its_own_rule() -> None:
    for path, value, rule, _ in walk(BenchmarkConfig):
        rule.check(path, value)


def test_plain_values_survive_json() -> None:
    config = BenchmarkConfig(compile_kwargs={"mode": "default", "options": {"triton": {"cudagraphs": True}}})
    assert BenchmarkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_two_configs_share_no_mutable_default() -> None:
    one, other = BenchmarkConfig(), BenchmarkConfig()
    one.compile.options["a"] = 1
    assert other.compile.options == {}


def test_the_trial_id_is_that_of_the_setting() -> None:
    plain = BenchmarkConfig()
    assert plain.trial_id() == BenchmarkConfig(sweep=SweepConfig(name="other", repeats=3)).trial_id()
    assert plain.trial_id() != BenchmarkConfig(warmup_iterations=6).trial_id()
    assert len(plain.trial_id()) == 16


def test_the_trial_id_counts_a_prompt_file_by_its_content(tmp_path) -> None:
    one, same, other = tmp_path / "one.txt", tmp_path / "same.txt", tmp_path / "other.txt"
    for path, text in ((one, "sea"), (same, "sea"), (other, "sky")):
        path.write_text(text, encoding="utf-8")
    ids = [BenchmarkConfig(workload=WorkloadConfig(prompt_file=str(path))).trial_id() for path in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]


def test_nested_options_become_dotted_keys() -> None:
    assert flatten({"triton": {"cudagraphs": True}, "max_autotune": False}) == {
        "triton.cudagraphs": True,
        "max_autotune": False,
    }


def test_the_nearest_key_of_a_typo_is_found() -> None:
    assert nearest_key("compile.mod") == "compile.mode"
    assert nearest_key("xyz") is None


# ---- stopping rules ----------------------------------------------------------------------------------------------


def test_bounds_of_an_inactive_rule_do_not_define_the_measurement() -> None:
    plain = BenchmarkConfig()
    other = BenchmarkConfig(warmup=WarmupConfig(window=12, max_s=1.0), measurement=MeasurementConfig(half_width=0.5))
    assert other.trial_id() == plain.trial_id()
    assert BenchmarkConfig(warmup_iterations=6).trial_id() != plain.trial_id()


def test_under_a_rule_its_bounds_define_the_measurement_not_the_call_count() -> None:
    def trial_id(**bounds: object) -> str:
        return BenchmarkConfig(warmup=WarmupConfig(policy="auto", **bounds)).trial_id()

    assert trial_id() != BenchmarkConfig().trial_id()
    assert trial_id(window=12) != trial_id()
    assert trial_id(iterations=9) == trial_id()


@pytest.mark.parametrize(
    ("keywords", "complaint"),
    [
        ({"warmup": WarmupConfig(policy="auto", max_iterations=7)}, "warmup.max_iterations=7: must be at least 8"),
        ({"warmup": WarmupConfig(policy="auto", window=3)}, "warmup.window=3: must be at least 4"),
        ({"warmup": WarmupConfig(policy="manual")}, "warmup.policy=manual: allowed: fixed, auto"),
        ({"measurement": MeasurementConfig(policy="adaptive", max_iterations=19)}, "min_iterations=20"),
        ({"measurement": MeasurementConfig(policy="adaptive", half_width=0.0)}, "must be more than 0"),
        ({"sweep": SweepConfig(label="a b")}, "sweep.label=a b: must be 100 letters"),
    ],
)
def test_bounds_that_cannot_be_met_are_refused(keywords: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        BenchmarkConfig(**keywords)


def test_bounds_of_an_inactive_rule_are_not_checked() -> None:
    BenchmarkConfig(warmup=WarmupConfig(max_iterations=1), measurement=MeasurementConfig(max_iterations=6))


def test_a_label_is_not_part_of_the_measurement() -> None:
    assert BenchmarkConfig(sweep=SweepConfig(label="a")).trial_id() == BenchmarkConfig().trial_id()
