"""Load the model's tokenizer, or make one of bytes for random models, and refuse one that does not fit.

Whether the embedding has all of the prompt's tokens depends on the workload: see `bench.trial.model.loading`.
"""

from __future__ import annotations

from typing import Any

import transformers

from bench.config.rules import ConfigError
from bench.config.schema import ModelConfig
from bench.trial.model.source import reason, refusing, source


def read_tokenizer(model_config: ModelConfig) -> Any:
    if model_config.architecture:
        return byte_tokenizer()
    try:
        with refusing(model_config):
            return transformers.AutoTokenizer.from_pretrained(**source(model_config))
    except ConfigError:
        raise
    except Exception as error:
        # As for the architecture, whatever a broken file makes of the reader: JSONDecodeError, KeyError, …
        if "instantiate the backend tokenizer" in str(error):
            remedy = "it comes with no tokenizer that can be read; put its tokenizer.json beside config.json"
        else:
            whence = model_config.gguf_file or "tokenizer.json"
            remedy = f"its tokenizer cannot be read ({reason(error)}); copy or download {whence} again"
        raise ConfigError("model.id", model_config.id, remedy) from error


def byte_tokenizer() -> Any:
    """Return a tokenizer of 258 tokens: one per byte, a padding and an end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - only random models need it

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def check_tokenizer(model_config: ModelConfig, tokenizer: Any, rows: int | None) -> None:
    """Refuse a tokenizer without an end token, or of another model: its ids must be rows of the embedding."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        remedy = "its tokenizer has neither a padding nor an end token; set eos_token in its tokenizer_config.json"
        raise ConfigError("model.id", model_config.id, remedy)
    if rows is None:
        return
    if model_config.architecture:
        if len(tokenizer) > rows:
            remedy = f"is smaller than the tokenizer's {len(tokenizer)} tokens"
            raise ConfigError("model.architecture.vocab_size", rows, remedy)
        return
    # A token that was added for another purpose (an image's place, padding) may lie beyond the embedding and never be
    # used, as in Gemma 3 of a billion parameters; so only the tokenizer's own vocabulary counts, and the end.
    largest = max(tokenizer.vocab_size - 1, tokenizer.eos_token_id or 0)
    if largest >= rows:
        remedy = f"its tokenizer has token {largest}, its embedding only {rows} rows; use the tokenizer of this model"
        raise ConfigError("model.id", model_config.id, remedy)
