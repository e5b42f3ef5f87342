"""Check the compile cache of flex_attention, which compiles whatever `compile.mode` is."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
import torch
from torch._inductor import codecache

from bench.config.schema import BenchmarkConfig, CompileConfig
from bench.trial.evidence import compilation, compile_cache
from bench.trial.measure import setup
from bench.trial.measure.runner import BenchmarkRunner

CPU = torch.device("cpu")


@pytest.fixture
def cache_place(monkeypatch, tmp_path: Path) -> Path:
    """A home for the shared caches; the place of the compile cache is left as it is found."""
    monkeypatch.setattr(compile_cache, "cache_home", lambda: tmp_path / "home")
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "elsewhere")
    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        monkeypatch.setattr(codecache, name, getattr(codecache, name))
    return tmp_path / "home"


def flex(tiny, cache: str) -> BenchmarkConfig:
    config: BenchmarkConfig = tiny(attn_implementation="flex_attention", gpu_monitoring=False, sequence_length=8)
    config.compile = CompileConfig(cache=cache)
    config.warmup.iterations, config.measurement.iterations = 0, 1
    config.workload.num_tokens_to_generate = 2
    return config


@pytest.mark.contract
def test_uncompiled_flex_has_the_cache_that_is_asked_for(tiny, cache_place: Path, tmp_path: Path) -> None:
    fresh, shared = flex(tiny, "fresh"), flex(tiny, "shared")
    with setup.use_compile_cache(fresh, CPU, tmp_path / "fresh"):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "fresh")
    assert not cache_place.exists()
    with setup.use_compile_cache(shared, CPU, tmp_path / "fresh"):
        assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == cache_place / "compile"
    assert compile_cache.shared_cache(shared, CPU) != compile_cache.shared_cache(flex(tiny, "fresh"), CPU)


@pytest.mark.contract
def test_a_later_job_in_a_process_looks_for_headers_in_its_own_cache(
    cache_place: Path, tmp_path: Path, monkeypatch
) -> None:
    """torch remembers where they are, and the folder of an earlier job is gone."""
    monkeypatch.setattr(codecache, "_precompile_header", functools.cache(lambda header: codecache._HEADER_DIR))
    found = []
    for name in ("one", "two"):
        compile_cache.use_cache(tmp_path / name)
        found.append(codecache._precompile_header("x"))
    assert found == [str(tmp_path / name / "header_dir") for name in ("one", "two")]


@pytest.mark.slow
@pytest.mark.compiled
def test_uncompiled_flex_compiles_into_its_cache_and_finds_it_warm(tiny, cache_place: Path, tmp_path: Path) -> None:
    """Cold in a fresh folder whatever ran before, and with a shared one only the first time."""
    states = []
    for number, cache in enumerate(("shared", "fresh", "shared")):
        config = flex(tiny, cache)
        with BenchmarkRunner(progress=lambda _, total: range(total or 0), compile_cache=tmp_path / str(number)) as one:
            one.setup_benchmark("tiny", config)
            record = one.run_benchmark(config)
        assert record is not None
        assert record.observed.compile.attention_graphs > 0
        states.append((cache, record.observed.compile.cache_state))
    assert states == [("shared", "cold"), ("fresh", "cold"), ("shared", "warm")]
    assert any((tmp_path / "1").rglob("*.so"))
    assert any(cache_place.rglob("*.so"))
    compilation.reset()
