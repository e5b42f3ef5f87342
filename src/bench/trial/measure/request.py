"""From a setting to the call that it means: inputs, generation config and the contexts around it.

Everything that generate reads is spelt out here, so that no default of a checkpoint gets into a measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    """A setting made ready: every call of a job, counted or not, is this one."""

    config: BenchmarkConfig
    loaded: LoadedModel
    inputs: dict[str, torch.Tensor]
    generation: Any  # transformers.GenerationConfig
    group: RankGroup | None = None  # with tensor parallelism: rank 0, which leads the others

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
        """Token ids of each row."""
        rows: list[list[int]] = self.inputs["input_ids"].tolist()
        return rows

    def with_prompts(self, token_ids: list[list[int]]) -> torch.Tensor:
        """New tokens behind their prompts, in the form of generate's result. ValueError for rows of unequal length."""
        return torch.cat([self.inputs["input_ids"].cpu(), torch.tensor(token_ids, dtype=torch.int64)], dim=1)

    def announce(self, **what: Any) -> None:
        """Tell the other ranks that a `generate` comes (see `RankCommand`); to be called before any clock is read."""
        if self.group is not None:
            self.group.announce(RankCommand(kind="generate", **what))

    def generate(self, **more: Any) -> torch.Tensor:
        """Token ids, prompts included, int64, shape (batch_size, sequence_length + new tokens).

        `more` is for what looks on: a streamer, logits processors, stopping criteria.
        """
        output: torch.Tensor = self.loaded.model.generate(**self.inputs, generation_config=self.generation, **more)
        return output


def make_inputs(config: BenchmarkConfig, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """Token ids and attention mask on the device, int64, shape (batch_size, sequence_length) each."""
    ids = prompt_ids(loaded.tokenizer, config.workload).to(loaded.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def make_generation_config(config: BenchmarkConfig, loaded: LoadedModel, new_tokens: int) -> Any:
    """A greedy transformers.GenerationConfig of exactly `new_tokens` steps, compiled or not as requested."""
    compiled = config.compile.mode is not None
    kind = config.generation.kv_cache
    if kind == "auto":
        kind = "static" if compiled else "dynamic"
    tokenizer = loaded.tokenizer
    # Padding happens only in rows that ended early, and none does; but generate warns without the id.
    pad = next((each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id) if each is not None), 0)
    return transformers.GenerationConfig(
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        cache_implementation=kind,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        compile_config=compilation.arguments(config.compile) if compiled else None,
        disable_compile=not compiled,
    )


def grad_mode(config: BenchmarkConfig) -> str:
    """The autograd guard that the config asks for, "auto" resolved."""
    if config.generation.grad_mode != "auto":
        return config.generation.grad_mode
    # Continuous batching works in a thread of its own, and tensors made in inference mode fail there.
    return "no_grad" if config.generation.continuous_batching else "inference_mode"


@contextlib.contextmanager
def guards(config: BenchmarkConfig) -> Iterator[None]:
    """The contexts of a call: no autograd, and only the requested SDPA backend."""
    guard = torch.inference_mode if grad_mode(config) == "inference_mode" else torch.no_grad
    backend = config.attention.sdpa_backend
    with guard(), sdpa_kernel(SDPA_BACKENDS[backend]) if backend else contextlib.nullcontext():
        yield
