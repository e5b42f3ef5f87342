"""Shared fixtures: the tiny model's config, and a command line to run."""

from __future__ import annotations

import atexit
import collections
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bench.config.schema import BenchmarkConfig, ModelConfig

# Set before the first process that imports transformers: no test waits for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run in parallel must not wait for each other's jobs, nor for other jobs on this machine.
os.environ["BENCH_HOST_FOLDER"] = tempfile.mkdtemp(prefix="bench-test-host-")
atexit.register(shutil.rmtree, os.environ["BENCH_HOST_FOLDER"], ignore_errors=True)
# g++ compiles the kernels of the tiny model once instead of in each test that compiles the model.
COMPILER = Path(__file__).parent / "compiler"
if str(COMPILER) not in os.environ["PATH"].split(os.pathsep):
    os.environ["PATH"] = f"{COMPILER}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("BENCH_TEST_COMPILED", str(Path(__file__).parents[1] / ".cache/compiled"))
# With parallel test processes on few cores, threads that synchronise at every operator while another process holds
# a core make calls ten times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]


# Approximate seconds of a test by its markers: enough to distinguish long files from short ones.
SECONDS = {"real_model": 60.0, "compiled": 30.0, "slow": 8.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so no worker still runs one of them when the others are done.

    With xdist's `--dist loadfile --no-loadscope-reorder` files are distributed in this order.
    """
    seconds: collections.Counter[Path] = collections.Counter()
    for item in items:
        seconds[item.path] += max((SECONDS.get(each.name, 0.5) for each in item.iter_markers()), default=0.5)
    items.sort(key=lambda item: -seconds[item.path])  # stable: the order within a file stays


@pytest.fixture(scope="session")
def tiny_model() -> dict:
    """Return the model group `tiny` as plain values."""
    return yaml.safe_load((ROOT / "conf/model/tiny.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def tiny(tiny_model: dict) -> Callable[..., BenchmarkConfig]:
    """Make a config of the tiny model with few and short calls; keywords are those of BenchmarkConfig."""

    def make(**keywords: object) -> BenchmarkConfig:
        few = {"warmup_iterations": 1, "measurement_iterations": 2, "sequence_length": 16, "num_tokens_to_generate": 4}
        return BenchmarkConfig(model=ModelConfig(**tiny_model), **{**few, **keywords})

    return make


def user_environment(**variables: str) -> dict[str, str]:
    """Return this test's environment for a command without variables that affect it, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "MLFLOW_"))}
    if os.environ.get("BENCH_TEST_DESK") == "no-home":
        kept.pop("HOME", None)  # the value in this process is bench's own workaround
    return kept | {"COLUMNS": "100"} | variables


def run_bench(
    *arguments: str, folder: Path, timeout_s: float = 500, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m bench` as a user does, in `folder`, without variables of this test's environment that affect it.

    `variables` are set in its environment.
    """
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env=user_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
