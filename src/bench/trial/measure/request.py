"""Turn a setting into the call that it means: inputs, generation config and contexts.

Everything that generate reads is set here, so that no default of a checkpoint affects a measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.config.rules import kv_cache_kind
from bench.config.schema import BenchmarkConfig
from bench.trial.evidence import compilation
from bench.trial.model.loading import LoadedModel
from bench.trial.model.prompts import prompt_ids
from bench.trial.parallel.group import RankCommand, RankGroup

SDPA_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash_attention": SDPBackend.FLASH_ATTENTION,
    "efficient_attention": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn_attention": SDPBackend.CUDNN_ATTENTION,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A setting with its inputs: every call of a job, counted or not, is made from this."""

    config: BenchmarkConfig
    loaded: LoadedModel
    inputs: dict[str, torch.Tensor]
    generation: Any  # transformers.GenerationConfig
    group: RankGroup | None = None  # with tensor parallelism: this process is rank 0

    @classmethod
    def prepare(cls, config: BenchmarkConfig, loaded: LoadedModel, group: RankGroup | None = None) -> Request:
        """Make the inputs and the generation config. Raises ConfigError for a prompt file that cannot serve."""
        return cls(
            config=config,
            loaded=loaded,
            inputs=make_inputs(config, loaded),
            generation=make_generation_config(config, loaded, config.workload.num_tokens_to_generate),
            group=group,
        )

    @property
    def prompts(self) -> list[list[int]]:
        """Return the token ids of each row."""
        rows: list[list[int]] = self.inputs["input_ids"].tolist()
        return rows

    def with_prompts(self, token_ids: list[list[int]]) -> torch.Tensor:
        """Return new tokens after their prompts, as generate does. ValueError: rows of unequal length."""
        return torch.cat([self.inputs["input_ids"].cpu(), torch.tensor(token_ids, dtype=torch.int64)], dim=1)

    def announce(self, **what: Any) -> None:
        """Tell the other ranks that a `generate` comes (see `RankCommand`); to be called before any clock is read."""
        if self.group is not None:
            self.group.announce(RankCommand(kind="generate", **what))

    def generate(self, **more: Any) -> torch.Tensor:
        """Return token ids, prompts included, int64, shape (batch_size, sequence_length + new tokens).

        `more` is for observers: a streamer, logits processors, stopping criteria.
        """
        output: torch.Tensor = self.loaded.model.generate(**self.inputs, generation_config=self.generation, **more)
        return output


def make_inputs(config: BenchmarkConfig, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """Return token ids and attention mask on the device, int64, shape (batch_size, sequence_length) each."""
    ids = prompt_ids(loaded.tokenizer, config.workload).to(loaded.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def make_generation_config(config: BenchmarkConfig, loaded: LoadedModel, new_tokens: int) -> Any:
    """Return a greedy transformers.GenerationConfig of exactly `new_tokens` steps, compiled as requested."""
    compiled = config.compile.mode is not None
    tokenizer = loaded.tokenizer
    # Padding happens only in rows that ended early, and none does; but generate warns without the id.
    pad = next((each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id) if each is not None), 0)
    return transformers.GenerationConfig(
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        cache_implementation=kv_cache_kind(config.generation.kv_cache, compiled=compiled),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        compile_config=compilation.arguments(config.compile) if compiled else None,
        disable_compile=not compiled,
    )


def grad_mode(config: BenchmarkConfig) -> str:
    """Return the autograd guard that the config asks for, "auto" resolved."""
    if config.generation.grad_mode != "auto":
        return config.generation.grad_mode
    # Continuous batching runs in a thread of its own, and tensors made in inference mode fail there.
    return "no_grad" if config.generation.continuous_batching else "inference_mode"


@contextlib.contextmanager
def guards(config: BenchmarkConfig) -> Iterator[None]:
    """Enter the contexts of a call: no autograd, and only the requested SDPA backend."""
    guard = torch.inference_mode if grad_mode(config) == "inference_mode" else torch.no_grad
    backend = config.attention.sdpa_backend
    with guard(), sdpa_kernel(SDPA_BACKENDS[backend]) if backend else contextlib.nullcontext():
        yield
