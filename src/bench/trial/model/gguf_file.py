"""Check that a GGUF file exists and is complete, and ask transformers for dense weights.

The gguf package takes seconds to parse a vocabulary, and transformers makes it do so for the sizes, for the
tokenizer and for the weights: such a model is slow to examine and to load. A checkpoint in safetensors is not.

Not covered: files that are still to be fetched from the hub, and the tensors' names, which the load checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from bench.config.rules import ConfigError
from bench.trial.unsupported import one_line


def check_gguf(name: str, path: Path) -> None:
    """Refuse a file that does not exist, is no GGUF, or ends before its tensors do."""
    if not path.is_file():
        there = sorted(each.name for each in path.parent.glob("*.gguf"))[:5] if path.parent.is_dir() else []
        raise ConfigError("model.gguf_file", name, f"is not in {path.parent}; there: {', '.join(there) or 'none'}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ConfigError("model.gguf_file", name, "is no GGUF file; copy or download it again")
    import gguf  # noqa: PLC0415 - only such a file needs it

    try:
        gguf.GGUFReader(path)  # makes an array of each tensor's bytes, without reading them
    except Exception as error:
        # Misread bytes may raise anything: IndexError, ValueError, struct.error, MemoryError, …
        raise unreadable(name, one_line(error, 200)) from error


def unreadable(name: str, reason: str) -> ConfigError:
    """Return the refusal of a file that exists and cannot be used."""
    remedy = f"cannot be read, for it is truncated, damaged or of an unknown kind: {reason}"
    return ConfigError("model.gguf_file", name, remedy)


def dense_gguf(gguf_file: str) -> dict[str, Any]:
    """Return the argument for dense weights if transformers can keep GGUF blocks; older ones never do."""
    if not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(gguf_file=gguf_file, dequantize=True)}
