"""Find calls with work that a steady call does not do: compiling, autotuning, graph capture, growing the reserve.

Such calls are recognised by the events that libraries report and not by their time, so a call that was slow by chance
is not among them. Not covered: unreported events, such as kernels that a library selects or loads at first use without
torch.compile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.results.record import COMPILATIONS, CompileEvent, Iteration

CAPTURE = "cudagraph_record"  # the kind of `CompileEvent` for recording a CUDA graph


def disturbed_calls(iterations: Sequence[Iteration], events: Sequence[CompileEvent]) -> set[int]:
    """Return indices of calls with compilation, autotuning, CUDA graph capture or growth of the allocator's reserve.

    Growth is relative to the previous call in `iterations`, which are in order; the first one has no previous call, and
    an unknown reserve (on the CPU) does not count as growth. An event counts only for a given call.
    """
    kinds = {*COMPILATIONS, CAPTURE}
    waited = {event.iteration for event in events if event.kind in kinds}
    grown = {
        after.index
        for before, after in itertools.pairwise(iterations)
        if before.device_reserved_bytes is not None
        and after.device_reserved_bytes is not None
        and after.device_reserved_bytes > before.device_reserved_bytes
    }
    return (waited & {call.index for call in iterations}) | grown
