"""Prompts of exactly the requested length, whatever the tokenizer and the text.

The text repeats rather than running short, and each row of a batch starts at another place of it, so that rows
differ. What the prompt says does not matter to the timing of a dense model; it is English so that a reader can judge
the output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.config import WorkloadConfig
from bench.rules import ConfigError

TEXT = """\
The harbour lay quiet in the early morning. Two fishing boats were tied to the wooden pier, and a grey cat slept on a
coil of rope. An old man came down the steps with a basket of bread and sat on an empty crate. He had worked on these
boats for forty years, and he still liked to see them leave. The wind turned slowly to the west, and the first light
touched the roofs of the town. Soon the market would open, and the streets would fill with voices, bicycles and the
smell of coffee. A girl with a red umbrella stopped beside him and asked when the next ferry would sail to the island.
He looked at the sky, then at the water, and told her a story about the summer when the ferry did not come at all.
"""


def read_text(workload: WorkloadConfig) -> str:
    """The text that prompts are cut from. Raises ConfigError when the file cannot serve."""
    if workload.prompt_file is None:
        return TEXT
    path = Path(workload.prompt_file)
    try:
        if path.exists() and not path.is_file():  # to read a pipe or a device may take for ever
            what = "is a folder" if path.is_dir() else "is no regular file"
            raise ConfigError("workload.prompt_file", path, f"{what}; name a text file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("workload.prompt_file", path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError("workload.prompt_file", path, "is not UTF-8 text; convert it") from error
    if "\0" in text:  # UTF-16 of plain English passes for UTF-8
        raise ConfigError("workload.prompt_file", path, "is not UTF-8 text, for it holds NUL bytes; convert it")
    if not text.strip():
        raise ConfigError("workload.prompt_file", path, "is empty")
    return text


def token_ids(tokenizer: Any, workload: WorkloadConfig) -> tuple[list[int], list[int]]:
    """The whole text's tokens: the BOS where the tokenizer itself would put one, and the others.

    Raises:
        ConfigError: the text yields no token.
    """
    text = read_text(workload)
    encoded: list[int] = tokenizer(text)["input_ids"]
    start = encoded[:1] if encoded and encoded[0] == tokenizer.bos_token_id else []
    body: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not body:
        raise ConfigError(
            "workload.prompt_file", workload.prompt_file, "yields no token; use another text or tokenizer"
        )
    return start, body


def prompt_ids(tokenizer: Any, workload: WorkloadConfig) -> torch.Tensor:
    """Token ids of the prompts, int64, shape (batch_size, sequence_length).

    Rows start with the BOS token where the tokenizer itself would put one.

    Raises:
        ConfigError: the text yields no token.
    """
    start, body = token_ids(tokenizer, workload)
    length = workload.sequence_length - len(start)
    rows = []
    for row in range(workload.batch_size):
        offset = row * len(body) // workload.batch_size
        repeats = (offset + length) // len(body) + 1
        rows.append(start + (body * repeats)[offset : offset + length])
    return torch.tensor(rows, dtype=torch.int64)
