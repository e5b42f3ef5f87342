"""Profile the beginning of a call, with prefill and decoding steps marked.

It has two uses: the evidence of which kernels ran (`bench.trial.evidence.attention`), and the artifacts that a user
asked for. A stopping criterion ends the call, because with a smaller `max_new_tokens` a static cache would have another
shape, and everything would be compiled again.

Profiling slows the host down, so times taken under it cannot be compared with others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from bench.results.file_names import OPERATORS_NAME, SNAPSHOT_NAME, TRACE_NAME
from bench.trial.compat import torch_internals
from bench.trial.hardware import memory
from bench.trial.measure.continuous_batching import BatchingSession
from bench.trial.measure.request import Request, guards

PREFILL, DECODE = "bench: prefill", "bench: decoding step"
TABLE_ROWS = 50


class StopAfter(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends a call once its rows are `length` tokens long, prompt included."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Whether each row is done, shape (rows,)."""
        done = input_ids.shape[1] >= self._length
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)


class PhaseMarks(BaseStreamer):  # type: ignore[misc]
    """Marks prefill and each decoding step in the profile: generate puts the prompt first, then a token a step."""

    def __init__(self) -> None:
        self._puts = 0
        self._mark: Any = None

    def put(self, value: Any) -> None:  # noqa: ARG002
        """End one step and begin the next."""
        self.end()
        self._mark = torch.profiler.record_function(PREFILL if self._puts == 0 else DECODE)
        self._mark.__enter__()
        self._puts += 1

    def end(self) -> None:
        """Close the mark at the end of the call; the one that is open holds no step of the model."""
        if self._mark is not None:
            self._mark.__exit__(None, None, None)
            self._mark = None


def profile_call(request: Request, new_tokens: int, session: BatchingSession | None = None) -> torch.profiler.profile:
    """Profile the beginning of a call: decoding stops after `new_tokens`, the first of which the prefill gives.

    With a session of continuous batching, whose steps nothing announces, one call of a single token is marked as
    prefill, and one of `new_tokens` as decoding, though it begins with a prefill too.

    Raises:
        RuntimeError: the profiler cannot run here.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if request.loaded.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    length = request.config.workload.sequence_length + new_tokens
    request.announce(length=length)
    # Continuous batching works in a thread of its own.
    options = torch_internals.profiler_options(every_thread=session is not None)
    with (
        guards(request.config),
        torch.profiler.profile(activities=activities, experimental_config=options) as profiler,
    ):
        if session is None:
            request.generate(streamer=PhaseMarks(), stopping_criteria=[StopAfter(length)])
        else:
            for name, count in ((PREFILL, 1), (DECODE, new_tokens)):
                with torch.profiler.record_function(name):
                    session.call(request.prompts, count)
        memory.synchronize(request.loaded.device)
    return profiler


def free(path: Path) -> Path:
    """Return the path, or the next one with a free number: the folder may be the user's."""
    stem, _, suffixes = path.name.partition(".")
    found, number = path, 2
    while os.path.lexists(found):
        found, number = path.with_name(f"{stem}-{number}.{suffixes}"), number + 1
    return found


def write_artifacts(profiler: torch.profiler.profile, folder: Path, *, on_gpu: bool) -> None:
    """Write a Chrome trace and a table of the operators and kernels that took longest."""
    profiler.export_chrome_trace(str(free(folder / TRACE_NAME)))
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=TABLE_ROWS, max_name_column_width=80)
    free(folder / OPERATORS_NAME).write_text(table + "\n", encoding="utf-8")


@contextlib.contextmanager
def memory_history(device: torch.device, folder: Path) -> Iterator[None]:
    """Record every allocation on a GPU and write the allocator's snapshot; nothing on the CPU, which has none.

    Nothing as well where this torch keeps no such history: `bench.trial.evidence.unverifiable` marks the job.
    """
    if device.type != "cuda" or not torch_internals.keeps_memory_history():
        yield
        return
    with torch_internals.memory_history(lambda: str(free(folder / SNAPSHOT_NAME))):
        yield
