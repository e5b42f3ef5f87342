"""Which calls did work that a steady call does not do: compiling, autotuning, capturing a graph, growing the reserve.

Such calls are recognised by what the libraries say they did and not by how long they took, so a call that happened to
be slow is not among them. Not covered: events that nothing reports, such as kernels that a library selects or loads
on first use without torch.compile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.results.record import COMPILATIONS, CompileEvent, Iteration

CAPTURE = "cudagraph_record"  # the kind of the `CompileEvent` of recording a CUDA graph


def disturbed_calls(iterations: Sequence[Iteration], events: Sequence[CompileEvent]) -> set[int]:
    """Indices of the calls with a compilation, autotuning, a CUDA graph capture, or growth of the allocator's reserve.

    Growth is against the call just before in `iterations`, which are in order; the first one has none before it, and a
    reserve that is unknown (on the CPU) neither grew nor did not. An event counts only for a call that is given.
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
