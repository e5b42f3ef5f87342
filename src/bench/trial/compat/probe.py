"""Try out whether what torch reports of its own work can be read with this version.

Something unseen is evidence only if it would have been seen. Before a job fails because nothing was compiled, because
no compiled code ran or because no known kernel did, the same is done here on purpose and looked for in the same way.
What is not found then cannot be seen with this version of torch.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional


def _added(values: torch.Tensor) -> torch.Tensor:
    return values + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """The result of compiling a function of one addition."""

    compiled: bool  # whether torch.compile handed it to its backend
    events: Sequence[Any]  # of torch.profiler, of a call of the compiled function


def compile_trivially() -> Compiled:
    """Compile a function that was never compiled before, with a backend that runs it as it is, and profile a call."""
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    values = torch.ones(2)
    # torch keeps what it compiled with the code of a function; that of a new one was never compiled.
    new = types.FunctionType(_added.__code__.replace(), globals(), "added")
    with torch.compiler.set_stance("default"), torch.no_grad():
        function = torch.compile(new, backend=backend)
        function(values)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            function(values)
    return Compiled(compiled=bool(graphs), events=list(profiler.events() or []))


def is_of_probe(file: str | None) -> bool:
    """Check whether a compiled function is the one that was compiled here."""
    return file == __file__


def profile_sdpa(device: torch.device, dtype: torch.dtype) -> Sequence[Any]:
    """Return the events of one call of torch's scaled_dot_product_attention, with the backend that torch chooses."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    query = torch.zeros(1, 1, 8, 16, device=device, dtype=dtype)  # batch, heads, tokens, head size
    with torch.no_grad(), torch.profiler.profile(activities=activities) as profiler:
        functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    return list(profiler.events() or [])
