"""Make prompts of exactly the requested length, whatever the tokenizer and the text.

A short text is repeated, and each row of a batch starts at another place of it, so that rows differ. The content does
not affect the timing of a dense model; it is English so that a reader can judge the output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bench.config.rules import ConfigError
from bench.config.schema import WorkloadConfig
from bench.host.home_folder import expanded

TEXT = """\
The harbour lay quiet in the early morning. Two fishing boats were tied to the wooden pier, and a grey cat slept on a
coil of rope. An old man came down the steps with a basket of bread and sat on an empty crate. He had worked on these
boats for forty years, and he still liked to see them leave. The wind turned slowly to the west, and the first light
touched the roofs of the town. Soon the market would open, and the streets would fill with voices, bicycles and the
smell of coffee. A girl with a red umbrella stopped beside him and asked when the next ferry would sail to the island.
He looked at the sky, then at the water, and told her a story about the summer when the ferry did not come at all.
"""

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", ".jsonlines")
LINES_LOOKED_AT = 5  # that must all be objects for a text to count as JSON lines


def read_text(workload: WorkloadConfig) -> str:
    """Return the text that prompts are cut from. Raises ConfigError when the file cannot serve."""
    if workload.prompt_file is None:
        return TEXT
    typed = workload.prompt_file
    path = Path(expanded(typed))
    try:
        if path.exists() and not path.is_file():  # to read a pipe or a device may take for ever
            what = "is a folder" if path.is_dir() else "is no regular file"
            raise ConfigError("workload.prompt_file", typed, f"{what}; name a text file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("workload.prompt_file", typed, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError("workload.prompt_file", typed, "is not UTF-8 text; convert it") from error
    if "\0" in text:  # UTF-16 of plain English passes for UTF-8
        raise ConfigError("workload.prompt_file", typed, "is not UTF-8 text, for it holds NUL bytes; convert it")
    if not text.strip():
        raise ConfigError("workload.prompt_file", typed, "is empty")
    if kind := _data_format(path, text):
        remedy = f"holds {kind}, which would be read as one long text; prompts are cut from plain text: write the text "
        raise ConfigError("workload.prompt_file", typed, f"{remedy}alone into a file")
    return text


def _data_format(path: Path, text: str) -> str | None:
    """Return what a prompt file of another format holds; None for text, even with braces and JSON in it."""
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if all(isinstance(_parsed(line), dict) for line in lines[:LINES_LOOKED_AT]):
        return "JSON lines"
    if path.suffix.lower() in JSON_SUFFIXES:
        # A file's first line, or all of it: whoever calls a file so means it.
        if isinstance(_parsed(lines[0]), dict | list | str) and path.suffix.lower() != ".json":
            return "JSON lines"
        if isinstance(_parsed(text), dict | list | str):
            return "JSON"
    elif isinstance(found := _parsed(text), dict) or (isinstance(found, list) and found and isinstance(found[0], dict)):
        return "JSON"
    return None


def _parsed(text: str) -> object:
    """Return the value of a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def token_ids(tokenizer: Any, workload: WorkloadConfig) -> tuple[list[int], list[int]]:
    """Return the tokens of the whole text, with BOS if the tokenizer itself would add one.

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
    """Return token ids of the prompts, int64, shape (batch_size, sequence_length).

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
