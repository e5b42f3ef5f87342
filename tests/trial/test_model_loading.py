"""Check that a model that cannot work is refused in one line, if possible before its weights are read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, ModelConfig, WorkloadConfig
from bench.trial.model import architecture as architecture_module
from bench.trial.model import loading as model_module
from bench.trial.model.loading import check_workload, draft, load, resolve_device
from bench.trial.model.tokenizer import byte_tokenizer

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def save_model(folder: Path, **sizes: object) -> Path:
    torch.manual_seed(0)
    architecture = transformers.AutoConfig.for_model("llama", **{**SIZES, **sizes})
    transformers.AutoModelForCausalLM.from_config(architecture).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    """A small Llama's folder, to be broken."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def refusal(config: BenchmarkConfig | ModelConfig) -> str:
    """The line that a job's load ends in, which must be the draft's as well."""
    if isinstance(config, ModelConfig):
        config = BenchmarkConfig(device="cpu", model=config)
    with pytest.raises(ConfigError) as drafted:
        check_workload(config, draft(config.model, resolve_device(config.device)))
    with pytest.raises(ConfigError) as loaded:
        load(config)
    assert str(drafted.value) == str(loaded.value)
    assert "\n" not in str(loaded.value)
    return str(loaded.value)


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def rewrite_tensors(folder: Path, change: Callable[[dict], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> list[Path]:
    """Write the weights anew, in several files."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    return shards


# ---- what works --------------------------------------------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.parametrize("sizes", [{}, {"tie_word_embeddings": True}], ids=["plain", "tied"])
def test_a_saved_model_loads_with_its_own_weights(tmp_path, sizes: dict) -> None:
    folder = save_model(tmp_path, **sizes)
    loaded = load(BenchmarkConfig(device="cpu", model=ModelConfig(id=str(folder))))
    stored = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not sizes)
    assert torch.equal(
        loaded.model.get_output_embeddings().weight,
        stored["lm_head.weight" if not sizes else "model.embed_tokens.weight"],
    )


@pytest.mark.contract
def test_a_sharded_model_loads(checkpoint) -> None:
    shard(checkpoint)
    assert load(BenchmarkConfig(device="cpu", model=ModelConfig(id=str(checkpoint)))).model.config.vocab_size == 258


@pytest.mark.contract
def test_experts_that_are_stored_one_by_one_and_held_as_one_tensor_pass(tmp_path) -> None:
    sizes = SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}
    architecture = transformers.AutoConfig.for_model("mixtral", **sizes)
    transformers.AutoModelForCausalLM.from_config(architecture).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    stored = set(load_file(tmp_path / "model.safetensors"))
    held = set(transformers.AutoModelForCausalLM.from_config(architecture).state_dict())
    assert not stored >= held  # else this shows nothing
    draft(ModelConfig(id=str(tmp_path)), CPU)
    rewrite_tensors(tmp_path, lambda tensors: tensors.pop("model.layers.1.input_layernorm.weight"))
    assert "lacks 1 of the model's tensors (model.layers.1.input_layernorm.weight)" in refusal(
        ModelConfig(id=str(tmp_path))
    )


@pytest.mark.contract
@pytest.mark.parametrize("missing", ["pad_token", "eos_token"])
def test_a_tokenizer_with_one_of_padding_and_end_passes(checkpoint, missing: str) -> None:
    rewrite(checkpoint / "tokenizer_config.json", lambda content: content.pop(missing))
    tokenizer = draft(ModelConfig(id=str(checkpoint)), CPU).tokenizer
    assert [tokenizer.pad_token is None, tokenizer.eos_token is None].count(True) == 1


@pytest.mark.contract
def test_the_draft_reads_no_weights(checkpoint, monkeypatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.torch.load_file", read)
    weights = checkpoint / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    size = weights.stat().st_size
    with weights.open("r+b") as file:  # zeros that take no space: a read would still find the right size
        file.truncate(header)
        file.truncate(size)
    found = draft(ModelConfig(id=str(checkpoint)), CPU)
    assert found.rows == 258


@pytest.mark.contract
def test_code_that_comes_with_a_model_that_transformers_knows_is_left_alone(checkpoint) -> None:
    spy = checkpoint.parent / "was-run"
    (checkpoint / "modeling_own.py").write_text(f"open({str(spy)!r}, 'w')", encoding="utf-8")
    classes = {"AutoModelForCausalLM": "modeling_own.Own"}
    rewrite(checkpoint / "config.json", lambda content: content.update(auto_map=classes))
    load(BenchmarkConfig(device="cpu", model=ModelConfig(id=str(checkpoint))))
    assert not spy.exists()


# ---- where a model comes from ------------------------------------------------------------------------------------


@pytest.mark.contract
def test_a_path_that_does_not_exist_is_told_from_a_hub_id(tmp_path) -> None:
    path = tmp_path / "none"
    assert refusal(ModelConfig(id=str(path))) == f"model.id={path}: there is no such folder"
    assert refusal(ModelConfig(id="./none")) == "model.id=./none: there is no such folder"
    told = f"model.id=~/none: there is no such folder: {Path.home() / 'none'}"
    assert refusal(ModelConfig(id="~/none")) == told
    assert refusal(ModelConfig(id="no-one/none")) == (
        "model.id=no-one/none: is no folder, and not in the hub's cache, and HF_HUB_OFFLINE=1 keeps from asking the hub; "
        "unset it"
    )
    assert "neither a folder here nor a hub id" in refusal(ModelConfig(id="no one"))


@pytest.mark.contract
def test_a_file_in_place_of_its_folder_is_named(checkpoint) -> None:
    path = checkpoint / "model.Q8_0.gguf"
    path.write_bytes(b"GGUF")
    assert refusal(ModelConfig(id=str(path))) == (
        f"model.id={path}: is a file; name its folder: model.id={checkpoint} model.gguf_file=model.Q8_0.gguf"
    )


@pytest.mark.contract
def test_a_folder_has_no_revision(checkpoint) -> None:
    line = refusal(ModelConfig(id=str(checkpoint), revision="main"))
    assert line == f"model.revision=main: {checkpoint} is a folder and has none; set it to null"


@pytest.mark.contract
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "its config.json cannot be read (Expecting property name"),
        (b"\xff\xfe{\0}\0", "its config.json cannot be read ('utf-8' codec"),
        (b"[]", "its config.json holds no keys and values"),
        (b"{}", "its config.json cannot serve: Unrecognized model"),
        (b'{"model_type": "lama"}', f"transformers {transformers.__version__} does not know this model_type"),
        (b'{"model_type": "t5"}', "is no language model that generates"),
        (b'{"model_type": "llama", "hidden_size": "x"}', "Field 'hidden_size' expected int, got str"),
        (b'{"model_type": "llama", "num_hidden_layers": 10000000}', "asks for 10000000 layers; bench builds at most 1000"),
        (b'{"model_type": "llama", "hidden_size": 1073741824}', "makes weights of"),
        (None, "the folder holds no config.json"),
    ],
)  # fmt: skip
def test_a_config_json_that_cannot_serve_is_refused(checkpoint, content: bytes | None, reason: str) -> None:
    (checkpoint / "config.json").unlink()
    if content is not None:
        (checkpoint / "config.json").write_bytes(content)
    line = refusal(ModelConfig(id=str(checkpoint)))
    assert line.startswith(f"model.id={checkpoint}: ")
    assert reason in line


# ---- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_pickles_are_never_read(checkpoint) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert refusal(ModelConfig(id=str(checkpoint))) == (
        f"model.id={checkpoint}: its weights are pickles (pytorch_model.bin), which are never read; "
        "convert them to safetensors"
    )


@pytest.mark.contract
def test_a_folder_without_weights_is_refused(checkpoint) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "the folder holds no weights (model.safetensors)" in refusal(ModelConfig(id=str(checkpoint)))


@pytest.mark.contract
def test_missing_shards_are_counted_and_named(checkpoint) -> None:
    shards = shard(checkpoint)
    shards[1].unlink()
    line = refusal(ModelConfig(id=str(checkpoint)))
    assert line == (
        f"model.id={checkpoint}: lacks 1 of {len(shards)} files of weights ({shards[1].name}); copy them there"
    )


@pytest.mark.contract
@pytest.mark.parametrize("content", [b"[]", b"{", b'{"weight_map": 3}', b"\xff"])
def test_a_broken_index_is_refused(checkpoint, content: bytes) -> None:
    shard(checkpoint)
    (checkpoint / "model.safetensors.index.json").write_bytes(content)
    assert "model.safetensors.index.json cannot be read" in refusal(ModelConfig(id=str(checkpoint)))


@pytest.mark.contract
@pytest.mark.parametrize("size", [0, 5, 3000, -1])
def test_a_truncated_file_is_refused_by_its_header(checkpoint, size: int) -> None:
    weights = checkpoint / "model.safetensors"
    os.truncate(weights, size if size >= 0 else weights.stat().st_size - 1)
    assert "model.safetensors is truncated or damaged" in refusal(ModelConfig(id=str(checkpoint)))


@pytest.mark.contract
def test_a_pointer_in_place_of_the_weights_is_refused(checkpoint) -> None:
    (checkpoint / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\nsize 9\n", encoding="utf-8"
    )
    assert "model.safetensors is truncated or damaged" in refusal(ModelConfig(id=str(checkpoint)))


def lose_one(folder: Path) -> str:
    rewrite_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))
    return "lacks 1 of the model's tensors (model.norm.weight), which would be random"


def lose_many(folder: Path) -> str:
    rewrite(folder / "config.json", lambda content: content.update(num_hidden_layers=3, layer_types=None))
    return "lacks 9 of the model's tensors (model.layers.2.input_layernorm.weight, "


def bend(folder: Path) -> str:
    rewrite_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(5)}))
    return "model.norm.weight has the shape [5] where config.json makes it [32]; use the weights and the config.json of"


@pytest.mark.contract
@pytest.mark.parametrize("break_it", [lose_one, lose_many, bend])
def test_weights_that_would_be_random_are_refused_before_and_at_the_load(checkpoint, monkeypatch, break_it) -> None:
    reason = break_it(checkpoint)
    config = ModelConfig(id=str(checkpoint))
    assert reason in refusal(config)
    monkeypatch.setattr(model_module, "check_checkpoint", lambda *_: None)  # as where the headers could not be read
    draft(config, CPU)
    with pytest.raises(ConfigError) as error:
        load(BenchmarkConfig(device="cpu", model=config))
    assert reason in str(error.value)


# ---- GGUF --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gguf_saved(saved: Path, tmp_path_factory) -> Path:
    """The same small Llama as a GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(SIZES["vocab_size"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    writer.add_tokenizer_model("gpt2")
    tokens = tokenizer.convert_ids_to_tokens(range(258))
    writer.add_token_list([*tokens[:254], "ab", "cd", *tokens[256:]])
    writer.add_token_types([1] * 256 + [3, 3])
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(257)  # transformers 5.17 reads no GGUF tokenizer without one
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(256)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, SIZES["num_hidden_layers"])
    for name, tensor in load_file(saved / "model.safetensors").items():
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.contract
def test_a_gguf_file_loads(gguf_saved) -> None:
    config = ModelConfig(id=str(gguf_saved.parent), gguf_file=gguf_saved.name)
    loaded = load(BenchmarkConfig(device="cpu", model=config))
    assert loaded.tokenizer.eos_token_id == 257
    assert loaded.model.config.max_position_embeddings == 256


@pytest.mark.contract
def test_a_gguf_file_that_is_not_there_is_named_with_those_that_are(gguf_saved) -> None:
    folder = gguf_saved.parent
    line = refusal(ModelConfig(id=str(folder), gguf_file="none.gguf"))
    assert line == f"model.gguf_file=none.gguf: is not in {folder}; there: small.gguf"


@pytest.mark.contract
@pytest.mark.parametrize("lost", ["a byte", "half", "nearly all"])
def test_a_truncated_gguf_file_is_refused(gguf_saved, tmp_path, lost: str) -> None:
    size = gguf_saved.stat().st_size
    shutil.copy(gguf_saved, tmp_path)
    os.truncate(tmp_path / "small.gguf", {"a byte": size - 1, "half": size // 2, "nearly all": 30}[lost])
    line = refusal(ModelConfig(id=str(tmp_path), gguf_file="small.gguf"))
    assert line.startswith(
        "model.gguf_file=small.gguf: cannot be read, for it is truncated, damaged or of an unknown kind"
    )


@pytest.mark.contract
@pytest.mark.parametrize("content", [b"", b"PK\3\4 something else"])
def test_what_is_no_gguf_file_is_refused(tmp_path, content: bytes) -> None:
    (tmp_path / "other.gguf").write_bytes(content)
    assert refusal(ModelConfig(id=str(tmp_path), gguf_file="other.gguf")) == (
        "model.gguf_file=other.gguf: is no GGUF file; copy or download it again"
    )


# ---- tokenizers and workloads --------------------------------------------------------------------------------------


@pytest.mark.contract
def test_a_tokenizer_with_neither_padding_nor_end_is_refused(checkpoint) -> None:
    def bare(content: dict) -> None:
        del content["pad_token"], content["eos_token"]

    rewrite(checkpoint / "tokenizer_config.json", bare)
    assert refusal(ModelConfig(id=str(checkpoint))) == (
        f"model.id={checkpoint}: its tokenizer has neither a padding nor an end token; "
        "set eos_token in its tokenizer_config.json"
    )


@pytest.mark.contract
def test_a_folder_without_a_tokenizer_is_refused(checkpoint) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    assert refusal(ModelConfig(id=str(checkpoint))) == (
        f"model.id={checkpoint}: it comes with no tokenizer that can be read; put its tokenizer.json beside config.json"
    )


@pytest.mark.contract
@pytest.mark.parametrize("content", ["{", '{"model": {"type": "X"}}', "[]", ""])
def test_a_broken_tokenizer_is_refused(checkpoint, content: str) -> None:
    (checkpoint / "tokenizer.json").write_text(content, encoding="utf-8")
    line = refusal(ModelConfig(id=str(checkpoint)))
    assert line.startswith(f"model.id={checkpoint}: its tokenizer cannot be read (")


@pytest.mark.contract
@pytest.mark.parametrize("rows", [100, 256])
def test_a_tokenizer_of_another_model_is_refused(tmp_path, rows: int) -> None:
    folder = save_model(tmp_path, vocab_size=rows)
    line = refusal(ModelConfig(id=str(folder)))
    assert f"its tokenizer has token 256, its embedding only {rows} rows" in line


@pytest.mark.contract
def test_a_padding_token_may_lie_beyond_the_embedding(tmp_path) -> None:
    """No prompt is padded, for all have the same length; many tuned models have such a token."""
    folder = save_model(tmp_path, vocab_size=257)
    loaded = load(BenchmarkConfig(device="cpu", model=ModelConfig(id=str(folder))))
    assert loaded.tokenizer.pad_token_id == 257 == loaded.model.config.vocab_size


@pytest.mark.contract
def test_an_added_token_that_no_call_uses_may_lie_beyond_the_embedding(checkpoint) -> None:
    """As the place of an image in text models that share their tokenizer with one that sees."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(checkpoint)
    found = draft(ModelConfig(id=str(checkpoint)), CPU)
    assert len(found.tokenizer) == 259 > found.rows


@pytest.mark.contract
def test_a_prompt_with_such_a_token_is_refused(checkpoint, tmp_path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(checkpoint)
    path = tmp_path / "prompt.txt"
    path.write_text("Look: <image>", encoding="utf-8")
    workload = WorkloadConfig(prompt_file=str(path))
    config = BenchmarkConfig(device="cpu", model=ModelConfig(id=str(checkpoint)), workload=workload)
    assert "its tokenizer makes token 258 of the prompt, its embedding has only 258 rows" in refusal(config)


@pytest.mark.contract
def test_a_workload_beyond_the_models_positions_is_refused(checkpoint) -> None:
    workload = WorkloadConfig(sequence_length=250, num_tokens_to_generate=7)
    config = BenchmarkConfig(device="cpu", model=ModelConfig(id=str(checkpoint)), workload=workload)
    assert refusal(config) == "workload.sequence_length=250: with 7 new tokens makes 257 positions; the model has 256"


# ---- sizes of random models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ({"model_type": "lama"}, "model.architecture.model_type=lama: transformers knows no such architecture; see"),
        ({"model_type": "t5"}, "model.architecture.model_type=t5: is no language model that generates"),
        ({"hidden_size": 250}, "model.architecture=llama: makes no model: The hidden size (250) is not a multiple of"),
        ({"num_attention_heads": 0}, "model.architecture.num_attention_heads=0: must be a whole number from 1 to"),
        ({"hidden_size": -8}, "model.architecture.hidden_size=-8: must be a whole number from 1 to 2147483647"),
        ({"hidden_size": 64.5}, "model.architecture.hidden_size=64.5: must be a whole number from 1 to 2147483647, not a float"),
        ({"hidden_size": "64"}, "model.architecture.hidden_size=64: must be a whole number from 1 to 2147483647, not a str"),
        ({"hidden_size": [64, 64]}, "model.architecture.hidden_size=[64, 64]: must be a whole number"),
        ({"hidden_size": None}, "model.architecture.hidden_size=null: must be a whole number"),
        ({"vocab_size": 100}, "model.architecture.vocab_size=100: is smaller than the tokenizer's 258 tokens"),
        ({"model_type": "phi3"}, "model.architecture.pad_token_id=null: the usual one of phi3 lies beyond its vocab_size; set it"),
        ({"hidden_act": "nonsense"}, "model.architecture.hidden_act=nonsense: transformers knows no such value"),
        ({"rope_parameters": {"rope_type": "none"}}, "model.architecture.rope_parameters.rope_type=none: transformers knows no"),
        ({"rms_norm_eps": "x"}, "model.architecture.rms_norm_eps=x: Field 'rms_norm_eps' expected float, got str"),
        ({"num_hidden_layers": 10**7}, "model.architecture.num_hidden_layers=10000000: bench builds at most 1000 layers"),
        ({"hidden_size": 10**9}, "model.architecture.hidden_size=1000000000: makes weights of 2.235e+10 GiB, and cpu has"),
        ({"hidden_size": 2**31 - 8, "intermediate_size": 2**31 - 1, "vocab_size": 2**31 - 1}, "model.architecture"),
    ],
)  # fmt: skip
def test_sizes_that_make_no_model_are_refused(tiny, sizes: dict, line: str) -> None:
    config = tiny(device="cpu")
    config.model.architecture = {**config.model.architecture, **sizes}
    assert refusal(config).startswith(line)


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ({"num_key_value_heads": 3}, "model.architecture.num_key_value_heads=3: must divide model.architecture.num_attention_heads=8"),
        ({"head_dim": 7}, "model.architecture=llama: makes no model: "),
    ],
)  # fmt: skip
def test_sizes_that_only_a_call_tells_apart_are_refused_before_any_job(tiny, sizes: dict, line: str) -> None:
    config = tiny(device="cpu", attn_implementation="eager")
    config.model.architecture = {**config.model.architecture, **sizes}
    with pytest.raises(ConfigError) as error:
        draft(config.model, CPU)
    assert str(error.value).startswith(line)


@pytest.mark.contract
def test_the_job_does_not_try_the_sizes_out_again(tiny, monkeypatch) -> None:
    """It would take 10 ms a layer, and the job's own first call tells the same."""
    tried = []
    monkeypatch.setattr(model_module, "check_fit", lambda *_: tried.append(1))
    config = tiny(device="cpu")
    draft(config.model, CPU)
    load(config)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("opt", {"ffn_dim": 512, "word_embed_proj_dim": 256}),
        ("bloom", {}),
        ("falcon", {}),
        ("phi", {}),
        ("gemma", {}),
        ("gemma3_text", {}),
        ("gemma4_text", {"head_dim": 32}),  # whose config refuses to name one size of all layers
        ("qwen2", {}),
        ("qwen3", {}),
        ("qwen2_moe", {"num_experts": 4, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}),
        ("mixtral", {"num_local_experts": 4}),
        ("mamba", {}),
    ],
)
def test_sizes_that_make_one_pass(tiny, model_type: str, more: dict) -> None:
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know it")
    config = tiny(device="cpu", attn_implementation="eager")
    config.model.architecture = {**config.model.architecture, "model_type": model_type, **more}
    check_workload(config, draft(config.model, CPU))
    assert load(config).model.config.model_type == model_type


@pytest.mark.contract
def test_eight_billion_parameters_are_looked_at_without_memory(monkeypatch) -> None:
    import psutil
    import yaml

    from conftest import ROOT

    large = ModelConfig(**yaml.safe_load((ROOT / "conf/model/random-llama-3.1-8b.yaml").read_text(encoding="utf-8")))
    before = psutil.Process().memory_info().rss
    monkeypatch.setattr(architecture_module, "memory_limit_bytes", lambda: None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 64 << 30}))
    assert draft(large, CPU).rows == 128256
    assert psutil.Process().memory_info().rss - before < 300 << 20
    monkeypatch.setattr(architecture_module, "memory_limit_bytes", lambda: 8 << 30)
    monkeypatch.setattr(psutil, "swap_memory", lambda: type("Memory", (), {"total": 0}))
    with pytest.raises(ConfigError, match=r"makes weights of 14\.96 GiB, and cpu has 8 GiB; use less"):
        draft(large, CPU)


# ---- code that comes with a model --------------------------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_not_run_and_the_remedy_named(checkpoint, part: str) -> None:
    spy = checkpoint.parent / "was-run"
    (checkpoint / "own.py").write_text(f"open({str(spy)!r}, 'w')", encoding="utf-8")
    own = {
        "config.json": {
            "model_type": "own",
            "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Own"},
        },
        "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
    }
    rewrite(checkpoint / part, lambda content: content.update(own[part]))
    assert refusal(ModelConfig(id=str(checkpoint))) == (
        f"model.trust_remote_code=false: {checkpoint} needs Python code that comes with it, which is run only with true; "
        "read it first"
    )
    assert not spy.exists()


# ---- devices -----------------------------------------------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_there_is_refused(tiny, device: str) -> None:
    assert refusal(tiny(device=device)) == f"device={device}: torch finds no CUDA GPU here; use device=cpu"


@pytest.mark.contract
@pytest.mark.parametrize("index", [2, 7, 258, 10**30])
def test_a_gpu_beyond_the_last_is_refused(monkeypatch, index: int) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"this machine has 2 CUDA GPU\(s\), counted from cuda:0"):
        resolve_device(f"cuda:{index}")


# ---- prompt files ------------------------------------------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "is a folder; name a text file"),
        (os.mkfifo, "is no regular file; name a text file"),
        (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read (Input/output error)"),
        (lambda path: None, "cannot be read (No such file or directory)"),
        (lambda path: path.write_text("caf\u00e9", encoding="latin-1"), "is not UTF-8 text; convert it"),
        (lambda path: path.write_text("plain", encoding="utf-16-le"), "is not UTF-8 text, for it holds NUL bytes; convert it"),
        (lambda path: path.write_text(" \n", encoding="utf-8"), "is empty"),
    ],
    ids=["folder", "pipe", "unreadable", "missing", "Latin-1", "UTF-16", "blank"],
)  # fmt: skip
def test_a_prompt_file_that_cannot_serve_is_refused(
    tiny, tmp_path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "prompt"
    make(path)
    config = tiny(device="cpu")
    config.workload.prompt_file = str(path)
    assert refusal(config) == f"workload.prompt_file={path}: {reason}"
