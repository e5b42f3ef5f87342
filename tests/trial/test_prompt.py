from __future__ import annotations

import pytest
import torch

from bench.config.rules import ConfigError
from bench.config.schema import WorkloadConfig
from bench.trial.model.prompts import TEXT, prompt_ids
from bench.trial.model.tokenizer import byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.mark.parametrize("length", [1, 2, 128, 777, 5000])
@pytest.mark.parametrize("batch", [1, 3])
def test_prompts_have_exactly_the_requested_shape(tokenizer, length: int, batch: int) -> None:
    ids = prompt_ids(tokenizer, WorkloadConfig(sequence_length=length, batch_size=batch))
    assert ids.shape == (batch, length)
    assert ids.dtype == torch.int64


def test_a_short_text_repeats(tokenizer, tmp_path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("abc", encoding="utf-8")
    ids = prompt_ids(tokenizer, WorkloadConfig(sequence_length=8, prompt_file=str(path)))
    assert tokenizer.decode(ids[0]) == "abcabcab"


def test_the_prompt_is_the_text(tokenizer) -> None:
    ids = prompt_ids(tokenizer, WorkloadConfig(sequence_length=40))
    assert tokenizer.decode(ids[0]) == TEXT[:40]


def test_rows_of_a_batch_differ(tokenizer) -> None:
    ids = prompt_ids(tokenizer, WorkloadConfig(sequence_length=16, batch_size=4))
    assert len({tuple(row) for row in ids.tolist()}) == 4


def test_a_tokenizer_that_starts_with_bos_keeps_it_once_a_row() -> None:
    class WithBos:
        bos_token_id = 1

        def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict:
            return {"input_ids": ([1] if add_special_tokens else []) + [ord(letter) for letter in text]}

    ids = prompt_ids(WithBos(), WorkloadConfig(sequence_length=1000, batch_size=2))
    assert ids.shape == (2, 1000)
    assert (ids == 1).sum(dim=1).tolist() == [1, 1]
    assert ids[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"  \n", "is empty"), (b"\xff\xfe\x00caf\xe9", "is not UTF-8")]
)
def test_a_file_that_cannot_serve_is_named(tokenizer, tmp_path, content: bytes, reason: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        prompt_ids(tokenizer, WorkloadConfig(prompt_file=str(path)))
