"""Generate by continuous batching: one request per prompt, over transformers' paged cache, in a thread.

`generate_batch` starts its worker, restores the attention implementation and collects garbage inside each call: most
of a short call is set-up. A session therefore keeps the manager that `generate_batch` itself uses: its worker starts
once, before the first call, a call submits prompts and waits for their tokens, and the worker ends with the session.

The times are the library's own: it reads `time.perf_counter` for each token of each request, right after the step's
tokens have reached the host (the device is synchronised there), and before it hands anything out. It takes no time at
the end of a request; the last token's time and the end of the call stand for it.

Blocks of equal prompts are never shared, neither between rows nor with an earlier call: each call prefills in full.
The switch from sdpa or eager to flash attention, which transformers makes by itself if it can, is off, because what
runs must be what the label says. Transformers does choose CUDA graphs and a second set of buffers with flash attention
on a GPU; `observe` shows it.

Not covered: `torch.compile` (`bench.config.schema` refuses it, and says why) and more than one device.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from typing import Any, Self

import torch
import transformers

from bench.config.schema import BenchmarkConfig
from bench.trial.compat import transformers_internals
from bench.trial.unsupported import CannotRunHereError, NotHonouredError

# transformers' own bound of one step, whose attention mask has this × (all tokens of the cache + this) entries.
MAX_BATCH_TOKENS = 8192
PAGE_TOKENS = 256  # transformers' default, and the page size that flash attention needs
# How often a call checks that the worker is alive while no tokens arrive; tokens wake it at once.
POLL_S = 0.5
STOP_TIMEOUT_S = 30.0

# transformers 5.17 has no option to keep sdpa, and names sdpa and eager with "paged|" in front.
_OPTIONS = {each.name for each in dataclasses.fields(transformers.ContinuousBatchingConfig)}
_SWITCHES_OFF = "auto_switch_to_flash" in _OPTIONS
_PAGE_KEY = "page_size" if "page_size" in _OPTIONS else "block_size"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchResult:
    """The output and the times of one call."""

    token_ids: list[list[int]]  # new tokens of each request, in the order of the prompts
    request_times_s: list[list[float]]  # reading of time.perf_counter for each of these tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchingObserved:
    """What transformers runs for the request."""

    attention_implementation: str | None  # while the session lasts; "paged|sdpa" is how some versions call sdpa
    kv_cache: str | None  # class
    cache_bytes: int | None  # reserved for keys and values
    max_batch_tokens: int | None  # of one step; longer prefills come in pieces
    cuda_graphs: bool | None
    async_batching: bool | None  # prepares a step while another runs
    unseen: list[str]  # why a value is None, where transformers does not show it: one line each


def step_times(request_times_s: list[list[float]]) -> list[float]:
    """Return the time of each step: when the last request had its token. ValueError: unequal lengths."""
    return [max(times) for times in zip(*request_times_s, strict=True)]


class BatchingSession:
    """Generates for prompts of one shape with one worker, from `start` until `close`.

    Args:
        model: a transformers model on its device.
        config: the setting; its workload sizes the cache so that all requests fit at once, and its autograd guard is
            that of the worker, if transformers allows it.
        generation_config: as `make_generation_config` makes it: greedy, with an EOS token that must not end a request.
    """

    def __init__(self, model: Any, config: BenchmarkConfig, generation_config: Any) -> None:
        self._model = model
        self._config = config
        self._generation = _greedy(generation_config)
        self._manager: Any = None
        self._workers: list[threading.Thread] = []
        self._requested = transformers_internals.attention_implementation(model)

    def start(self) -> None:
        """Reserve the cache and start the worker. Called once, before the first call.

        Raises:
            ValueError: transformers has no continuous batching for this attention implementation or model.
            CannotRunHereError: its worker cannot run in inference mode, which was asked for.
            NotHonouredError: it set another attention implementation.
        """
        inference = self._config.generation.grad_mode == "inference_mode"
        if inference and not worker_follows_caller():
            cause = f"the worker of continuous batching runs under no_grad in transformers {transformers.__version__}"
            remedy = "use auto or no_grad, or transformers 5.24 or newer"
            raise CannotRunHereError("generation.grad_mode", "inference_mode", cause, remedy)
        # Tensors that are made in inference mode cannot be written to by a worker that runs outside of it.
        with torch.inference_mode(mode=inference), torch.no_grad():
            try:
                self._manager = self._make_manager()
                self._manager.warmup()  # makes the cache; runs the model only to record CUDA graphs
                before = set(threading.enumerate())
                self._manager.start()
                self._workers = [each for each in threading.enumerate() if each not in before]
            except BaseException:
                self.close()
                raise

    def call(self, prompts: list[list[int]], new_tokens: int | None = None) -> BatchResult:
        """Generate for all prompts at once, greedily, and return when the last token is there.

        Requests enter one by one; the first step takes those that have arrived when the worker wakes. Nothing here
        ends a worker that hangs: a job's time limit does.

        Args:
            prompts: token ids, one list a request, of the workload's shape.
            new_tokens: of each request; None: as many as the workload generates.

        Raises:
            RuntimeError: the worker failed (the cause is its exception), or a request came back with other than
                `new_tokens` tokens and times.
        """
        manager = self._manager
        if manager is None:
            raise RuntimeError("call start first")
        wanted = self._generation.max_new_tokens if new_tokens is None else new_tokens
        names = manager.add_requests(prompts, max_new_tokens=wanted, record_timestamps=True)
        outputs: dict[str, Any] = {}
        while len(outputs) < len(names):
            output = manager.get_result(timeout=POLL_S)
            if output is None:
                # A worker that has ended drops requests with only a warning, and no result would ever come.
                if not manager.is_running():
                    raise self._failure("it ended before the requests did")
            elif output.error is not None:
                raise self._failure(output.error)
            elif output.is_finished():
                outputs[output.request_id] = output
        ordered = [outputs[name] for name in names]
        result = BatchResult(
            token_ids=[each.generated_tokens for each in ordered],
            request_times_s=[each.timestamps or [] for each in ordered],
        )
        _check_counts(result, wanted)
        return result

    def observe(self) -> BatchingObserved:
        """Return what runs, read from the manager after `start`."""
        manager = self._manager
        if manager is None:
            raise RuntimeError("call start first")
        setup = transformers_internals.batching_setup(manager)
        cache = transformers_internals.batching_cache(manager)
        uses_async = getattr(setup, "use_async_batching", None)
        seen = ((cache, transformers_internals.PROCESSOR), (setup, transformers_internals.RESOLVED))
        return BatchingObserved(
            attention_implementation=transformers_internals.attention_implementation(self._model),
            kv_cache=None if cache is None else type(cache).__name__,
            cache_bytes=_bytes_of(cache),
            max_batch_tokens=getattr(cache, "max_batch_tokens", None),
            cuda_graphs=transformers_internals.uses_cuda_graphs(setup),
            async_batching=None if uses_async is None else bool(uses_async),
            unseen=[name.unseen() for found, name in seen if found is None],
        )

    def close(self) -> None:
        """End the worker, release the cache and restore the attention implementation. Called again: does nothing.

        Raises:
            RuntimeError: the worker goes on after `STOP_TIMEOUT_S`.
        """
        manager, self._manager = self._manager, None
        workers, self._workers = self._workers, []
        if manager is not None:
            manager.stop(block=True, timeout=STOP_TIMEOUT_S, hard_stop=True)
            manager.destroy()
        # It restores only what a started manager had set itself.
        if self._requested not in (None, transformers_internals.attention_implementation(self._model)):
            self._model.set_attn_implementation(self._requested)
        if any(each.is_alive() for each in workers):
            raise RuntimeError(f"the worker of continuous batching did not stop within {STOP_TIMEOUT_S:g} s")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_manager(self) -> Any:
        requested = self._requested or self._config.attention.implementation
        if not _SWITCHES_OFF and "flash" not in requested:
            # By its own name, sdpa would become flash attention wherever that is installed.
            self._model.set_attn_implementation(f"paged|{requested}")
        workload = self._config.workload
        manager = self._model.init_continuous_batching(
            generation_config=self._generation,
            continuous_batching_config=_batching_config(self._config, self._model),
            **transformers_internals.workload_hints(
                max_prompt_length=workload.sequence_length,
                max_generated_length=workload.num_tokens_to_generate,
                num_requests=workload.batch_size,
            ),
        )
        used = transformers_internals.attention_implementation(self._model)
        if used not in (None, requested, f"paged|{requested}"):
            raise NotHonouredError(f"attention.implementation={requested}: continuous batching set {used}")
        return manager

    def _failure(self, reason: str) -> RuntimeError:
        """Return the error of a worker that failed without raising; its own exception is the cause."""
        deadline = time.monotonic() + POLL_S
        # It fails the requests first and notes why afterwards.
        error = transformers_internals.worker_error(self._manager)
        while error is None and self._manager.is_running() and time.monotonic() < deadline:
            time.sleep(0.01)
            error = transformers_internals.worker_error(self._manager)
        text = reason if error is None else f"{type(error).__name__}: {error}"
        failure = RuntimeError(f"the worker of continuous batching failed: {text}")
        failure.__cause__ = error
        return failure


def worker_follows_caller() -> bool:
    """Check whether the worker uses inference mode if its caller does; not before transformers 5.24."""
    return transformers_internals.release() >= (5, 24)


def _greedy(generation_config: Any) -> Any:
    """Return the same decoding in the form that continuous batching knows.

    It drops `min_new_tokens`, which keeps generate from choosing EOS at all. Suppressing the token does the same to the
    logits, and an EOS of -1 is "none".
    """
    eos = generation_config.eos_token_id
    suppressed = [eos] if isinstance(eos, int) else eos
    return transformers.GenerationConfig(
        max_new_tokens=generation_config.max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=-1,
        pad_token_id=generation_config.pad_token_id,
        suppress_tokens=suppressed or None,
    )


def _batching_config(config: BenchmarkConfig, model: Any) -> Any:
    """All requests at once, their prompts in one step if they are short enough, and nothing shared."""
    workload = config.workload
    tokens = workload.sequence_length + workload.num_tokens_to_generate
    blocks = math.ceil(tokens / PAGE_TOKENS) + 1  # a spare one, for models whose layers round up differently
    return transformers.ContinuousBatchingConfig(
        num_blocks=workload.batch_size * blocks * _groups(model),
        max_batch_tokens=min(workload.batch_size * workload.sequence_length, MAX_BATCH_TOKENS),
        max_requests_per_batch=workload.batch_size,
        allow_block_sharing=False,
        safety_margin=0.0,  # of free blocks, below which no request would be let in
        seed=config.model.seed,
        **{_PAGE_KEY: PAGE_TOKENS},
        **({"auto_switch_to_flash": False} if _SWITCHES_OFF else {}),
    )


def _groups(model: Any) -> int:
    """Return how many blocks a page of tokens takes.

    Where pages are sized per block, layers come in groups of one kind, all as large as the kinds' greatest common
    divisor, and each group has blocks of its own; later a block is one for the whole model.
    """
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    if _PAGE_KEY == "page_size" or not kinds:
        return 1
    counts = collections.Counter(kinds).values()
    return sum(counts) // math.gcd(*counts)


def _bytes_of(cache: Any) -> int | None:
    whole = getattr(cache, "cache_tensor", None)
    tensors = [whole] if whole is not None else [*getattr(cache, "key_cache", ()), *getattr(cache, "value_cache", ())]
    return sum(each.nbytes for each in tensors) or None


def _check_counts(result: BatchResult, wanted: int) -> None:
    for row, (tokens, times) in enumerate(zip(result.token_ids, result.request_times_s, strict=True)):
        if len(tokens) != wanted:
            raise RuntimeError(f"request {row} came back with {len(tokens)} tokens, not {wanted}")
        # A request that had to leave the cache and begin again keeps its tokens and loses their times.
        if len(times) != wanted:
            raise RuntimeError(f"request {row} came back with {len(times)} times for {wanted} tokens")
