"""Log what torch.compile does during which call: compilations, graph breaks, missing CUDA graphs, and why.

All of it is read from what torch keeps itself; nothing is wrapped, no log level changes, and a call without compilation
costs nothing.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from bench.results.record import CompileEvent
from bench.trial.compat import torch_internals
from bench.trial.compat.probe import is_of_probe
from bench.trial.compat.torch_internals import field


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Mark:
    """The lengths of torch's lists when a call began."""

    iteration: int
    compilations: int
    cudagraph_skips: int


class CompileEventLog:
    """Logs what torch.compile does while this is open, and during which call.

    Set `iteration` before each call; a call without compilation costs nothing more. Open it after `reset`, which
    forgets what is read here; opened again, it starts empty. Compilations come from torch's own metrics; graph breaks
    from its list of them, read as each compilation ends; the reasons for missing CUDA graphs from its log, whose level
    stays as it is. If torch does not report one of these, there are no such events.
    """

    def __init__(self) -> None:
        self._iteration = 0
        self._callbacks = contextlib.ExitStack()
        self._begin()

    def _begin(self) -> None:
        self._marks: list[_Mark] = []
        self._noted: list[tuple[float, CompileEvent]] = []  # with the Unix time
        self._breaks = 0  # of torch's list, how many were read
        self._recording_start_s = 0.0
        self._closed: list[CompileEvent] | None = None

    @property
    def iteration(self) -> int:
        """Return the index of the call that runs or ran last."""
        return self._iteration

    @iteration.setter
    def iteration(self, index: int) -> None:
        self._iteration = index
        compilations = len(torch_internals.compilations() or ())
        self._marks.append(_Mark(iteration=index, compilations=compilations, cudagraph_skips=_cudagraph_skips()))

    def __enter__(self) -> Self:
        self._begin()
        self.iteration = self._iteration
        self._breaks = len(torch_internals.graph_breaks() or ())
        callbacks = torch_internals.compilation_callbacks(self._compilation_starts, self._compilation_ends)
        self._callbacks.enter_context(callbacks)
        torch_internals.CUDAGRAPH_LOG.addFilter(self._note_skip)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = self.events()
        torch_internals.CUDAGRAPH_LOG.removeFilter(self._note_skip)
        self._callbacks.close()

    def events(self) -> list[CompileEvent]:
        """Return the events so far in order; once closed, those until then."""
        if self._closed is not None:
            return list(self._closed)
        self._note_breaks(None)
        dated = [*self._noted, *self._compilations()]
        dated += self._unexplained_skips([event for _, event in dated])
        return [event for _, event in sorted(dated, key=lambda each: (each[1].iteration, each[0]))]

    # ---- while torch compiles ----------------------------------------------------------------------------------

    def _compilation_starts(self, _: Any) -> None:
        self._recording_start_s = time.perf_counter()

    def _compilation_ends(self, ended: Any) -> None:
        compile_id = field(ended, "compile_id")
        if field(field(ended, "callback_trigger"), "name") == torch_internals.CUDAGRAPH_RECORDING:
            duration_s = time.perf_counter() - self._recording_start_s
            self._note("cudagraph_record", compile_id=compile_id, duration_s=duration_s)
        else:
            self._note_breaks(compile_id)

    def _note(self, kind: str, **known: Any) -> None:
        self._noted.append((time.time(), CompileEvent(iteration=self._iteration, kind=kind, **known)))

    def _note_breaks(self, compile_id: str | None) -> None:
        reasons = list(torch_internals.graph_breaks() or ())
        for each in reasons[self._breaks :]:
            stack = field(each, "user_stack")
            place = stack[-1] if stack else None
            self._note(
                "graph_break",
                reason=_break_reason(field(each, "reason")),
                compile_id=compile_id,
                function=place and place.name,
                file=place and place.filename,
                line=place and place.lineno,
            )
        self._breaks = len(reasons)

    def _note_skip(self, entry: logging.LogRecord) -> bool:
        """Note a skipped CUDA graph: a filter of torch's log that lets everything through."""
        if entry.funcName == torch_internals.CUDAGRAPH_SKIP:
            compile_id = torch_internals.current_compile_id()
            self._note("cudagraph_skip", reason=first_line(entry.getMessage()), compile_id=compile_id)
        return True

    # ---- afterwards --------------------------------------------------------------------------------------------

    def _compilations(self) -> Iterator[tuple[float, CompileEvent]]:
        every = torch_internals.compilations() or ()
        ends = [each.compilations for each in self._marks]
        logged = {(event.compile_id, event.reason) for _, event in self._noted if event.kind == "cudagraph_skip"}
        for position in range(ends[0], len(every)):
            iteration = self._marks[bisect.bisect_right(ends, position) - 1].iteration
            if is_of_probe(field(every[position], "co_filename")):
                continue
            start_s = (field(every[position], "start_time_us") or 0) / 1e6
            for event in _events_of(every[position], iteration, every):
                if event.kind != "cudagraph_skip" or (event.compile_id, event.reason) not in logged:
                    yield start_s, event

    def _unexplained_skips(self, known: Sequence[CompileEvent]) -> Iterator[tuple[float, CompileEvent]]:
        """Yield one event per CUDA graph that torch counts as skipped without a reason: on a CPU, all of them."""
        missing: collections.Counter[int] = collections.Counter()
        counts = [each.cudagraph_skips for each in self._marks] + [_cudagraph_skips()]
        for mark, after in zip(self._marks, counts[1:], strict=True):
            missing[mark.iteration] += after - mark.cudagraph_skips
        missing -= collections.Counter(each.iteration for each in known if each.kind == "cudagraph_skip")
        for iteration in missing.elements():
            reason = "torch gives no reason"
            yield float("inf"), CompileEvent(iteration=iteration, kind="cudagraph_skip", reason=reason)


def _cudagraph_skips() -> int:
    """Return how many CUDA graphs torch has skipped so far; 0: it does not count them."""
    counters = torch_internals.counters()
    return 0 if counters is None else counters["inductor"]["cudagraph_skips"]


def _events_of(compilation: Any, iteration: int, every: Iterable[Any]) -> Iterator[CompileEvent]:
    """Yield the events of one entry of torch's compilation metrics; none if a function needed no graph."""

    def told(name: str) -> Any:
        return field(compilation, name)

    known: dict[str, Any] = {"iteration": iteration, "compile_id": told("compile_id"), **_place(compilation, every)}
    duration_s = told("entire_frame_compile_time_s")
    if told("fail_type"):
        reason = f"{told('fail_type')}: {first_line(told('fail_reason'))}"
        if told("fail_user_frame_filename"):
            known |= {"file": told("fail_user_frame_filename"), "line": told("fail_user_frame_lineno")}
        yield CompileEvent(kind="failure", reason=reason, duration_s=duration_s, **known)
    elif told("recompile_reason"):
        yield CompileEvent(
            kind="recompile", reason=first_line(told("recompile_reason")), duration_s=duration_s, **known
        )
    elif told("graph_op_count"):
        yield CompileEvent(kind="graph", duration_s=duration_s, **known)
    if told("is_runtime") and (autotune_us := told("runtime_triton_autotune_time_us")):
        yield CompileEvent(kind="autotune", duration_s=autotune_us / 1e6, **known)
    if reason := told("cudagraph_skip_reason"):
        yield CompileEvent(kind="cudagraph_skip", reason=first_line(reason), **known)


def _place(compilation: Any, every: Iterable[Any]) -> dict[str, Any]:
    """Return the function of a compilation; if the entry does not name it, from another one of the same region."""
    region = field(compilation, "compile_id")
    if field(compilation, "co_name") is None and region is not None:
        frame = f"{region.partition('/')[0]}/"
        named = (
            each for each in every if field(each, "co_name") and (field(each, "compile_id") or "").startswith(frame)
        )
        compilation = next(named, compilation)
    return {
        "function": field(compilation, "co_name"),
        "file": field(compilation, "co_filename"),
        "line": field(compilation, "co_firstlineno"),
    }


def _break_reason(reason: Any) -> str:
    """Return torch's reason, or one in words if torch only names a place in its source."""
    line = first_line(reason)
    return f"Data-dependent branching ({line})" if line.startswith("generic_jump") else line


def first_line(text: Any) -> str:
    """Return the first line of a text, with single spaces."""
    return " ".join(str(text).strip().partition("\n")[0].split())
