"""Read the private names of torch that bench uses, and do without those that are missing.

torch.compile has no public report of what it did, so its private state is read: counters, the metrics of each
compilation, graph breaks, the reasons for missing CUDA graphs, the names of regions in a profile. If a release has no
such name, the function here returns None (or does nothing), the entry's key is marked as unverified in the record
(`bench.trial.evidence.observed`), and the job goes on.

Read with torch 2.11.0 to 2.15.0.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.compat.private_name import PrivateName

OLDEST, NEWEST = "2.11.0", "2.15.0"


def _name(where: str, lost: str) -> PrivateName:
    return PrivateName(where=where, since=OLDEST, until=NEWEST, lost=lost)


# ---- what torch.compile did ---------------------------------------------------------------------------------------

COUNTERS = _name("torch._dynamo.utils:counters", "graphs, CUDA graphs that were skipped and cache hits are not counted")
COMPILATIONS = _name(
    "torch._dynamo.utils:get_compilation_metrics", "which call compiled what, for how long and why is not known"
)
CLEAR_COMPILATIONS = _name(
    "torch._dynamo.utils:clear_compilation_metrics", "compilations of an earlier setting in this process stay listed"
)
KEEP_COMPILATIONS = _name(
    "torch._dynamo.utils:set_compilation_metrics_limit", "of many compilations in one process only the last are known"
)
GRAPH_BREAKS = _name("torch._dynamo.utils:graph_break_reasons", "graph breaks and their reasons are not known")
CALLBACKS = _name(
    "torch._dynamo.callback:callback_handler",
    "graph breaks are given to the call in which they were noticed, and the recording of CUDA graphs is not seen",
)
COMPILE_ID = _name(
    "torch._guards:CompileContext.current_compile_id", "of a missing CUDA graph the compiled region is not known"
)


def counters() -> Mapping[str, Mapping[str, int]] | None:
    """Return TorchDynamo's and Inductor's counters of this process, by group and name; None: not available."""
    found = COUNTERS.get()
    return found if isinstance(found, Mapping) else None


def compilations() -> Sequence[Any] | None:
    """Return one entry per compilation of this process, the oldest first; None: not available.

    The entries are torch's own CompilationMetrics: fields differ between releases, so read them with `field`.
    """
    read = COMPILATIONS.get()
    return read() if callable(read) else None


def field(entry: Any, name: str) -> Any:
    """Return a field of one of torch's entries; None where this release has no such field."""
    return getattr(entry, name, None)


def graph_breaks() -> Sequence[Any] | None:
    """Return what interrupted a graph, the oldest first, each with `reason` and `user_stack`; None: not available."""
    found = GRAPH_BREAKS.get()
    return found if isinstance(found, Sequence) else None


@contextlib.contextmanager
def compilation_callbacks(start: Callable[[Any], None], end: Callable[[Any], None]) -> Iterator[None]:
    """Call `start` and `end` around each compilation and each recording of a CUDA graph, where torch offers it."""
    handler = CALLBACKS.get()
    if not handler:
        yield
        return
    handler.register_start_callback(start)
    handler.register_end_callback(end)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # torch.compiler.reset() has removed them
            handler.remove_start_callback(start)
            handler.remove_end_callback(end)


def current_compile_id() -> str | None:
    """Return the region that is being compiled now, such as 0/0; None: none is, or torch does not report it."""
    read = COMPILE_ID.get()
    found = read() if callable(read) else None
    return None if found is None else str(found)


# Formats. torch says at a level that is always on, through this logger and in this function, why there is no CUDA graph
# (torch/_inductor/cudagraph_utils.py); where another one says it, skips are counted without a reason. The recording of
# one ends with this trigger (torch/_dynamo/callback.py). A profile names each entry into compiled code so
# (torch/_dynamo/convert_frame.py); `bench.trial.evidence.observed` tries out whether it does before it counts on it.
CUDAGRAPH_LOG = logging.getLogger("torch._inductor.cudagraph_utils.__cudagraphs")
CUDAGRAPH_SKIP = "log_cudagraph_skip_and_bump_counter"
CUDAGRAPH_RECORDING = "CUDAGRAPH_RECORDING"
REGION = re.compile(r"Torch-Compiled Region: (\d+/\d+)")


# ---- how it compiles ----------------------------------------------------------------------------------------------

DYNAMO_OPTIONS = _name(
    "torch._dynamo:config", "torch.compile may go on uncompiled after an error, or at its recompile limit, silently"
)
OPTION_TABLE = _name(
    "torch._dynamo.config:_config", "in threads of their own, options of torch.compile keep their defaults"
)
STANCE = _name("torch._dynamo.eval_frame:_stance", "torch.compiler.set_stance is not noticed")
MODE_OPTIONS = _name(
    "torch._inductor:list_mode_options",
    "compile.options cannot be added to a mode, and whether it asks for CUDA graphs is not known",
)
CLEAR_CODE = _name(
    "torch._inductor.utils:clear_caches", "compiled code of an earlier setting in this process may be used again"
)
HEADER_FOLDERS = (
    _name("torch._inductor.codecache:_HEADER_DIR", "the first job of a machine precompiles C++ headers for the others"),
    _name("torch._inductor.codecache:_HEADER_LOCK_DIR", "the first job of a machine precompiles C++ headers, likewise"),
)
HEADERS = _name(
    "torch._inductor.codecache:_precompile_header",
    "of several jobs in one process only the first can compile for the CPU",
)


def set_option(name: str, value: bool) -> None:
    """Set TorchDynamo's option in every thread; nothing happens where this torch has no such option.

    In torch 2.13, unlike 2.11, an assignment holds in no other thread than the one that makes it, and continuous
    batching generates in a thread of its own. What other threads see is the default.
    """
    options = DYNAMO_OPTIONS.get()
    if not options or not hasattr(options, name):
        return
    setattr(options, name, value)
    table = OPTION_TABLE.get()
    entry: Any = table.get(name) if isinstance(table, Mapping) else None
    if hasattr(entry, "default"):
        entry.default = value


def option(name: str) -> Any:
    """Return TorchDynamo's option in this thread; None where this torch has no such option."""
    return getattr(DYNAMO_OPTIONS.get(), name, None)


def stance() -> str | None:
    """Return the stance of torch.compile in this process ("default" compiles); None: torch does not report it."""
    found = getattr(STANCE.get(), "stance", None)
    return found if isinstance(found, str) else None


def mode_options(mode: str | None, dynamic: bool | None = None) -> dict[str, Any] | None:
    """Return the options of Inductor that a mode stands for; None: torch does not say."""
    read = MODE_OPTIONS.get()
    return dict(read(mode, dynamic)) if callable(read) else None


def forget_compiled_code() -> None:
    """Drop the compiled code that Inductor keeps in memory, and torch's list of compilations."""
    for each in (CLEAR_CODE.get(), CLEAR_COMPILATIONS.get()):
        if callable(each):
            each()
    found = counters()
    if found is not None and hasattr(found, "clear"):
        found.clear()


def keep_compilations(count: int) -> None:
    """Let torch keep the last `count` compilations instead of 64."""
    if callable(keep := KEEP_COMPILATIONS.get()):
        keep(count)


def keep_headers_in(folder: str) -> None:
    """Let Inductor keep the C++ headers that it precompiles below `folder`.

    It remembers for the life of the process where they are (torch 2.13), be that the folder of an earlier job, which is
    gone.
    """
    if hasattr(known := HEADERS.get(), "cache_clear"):
        known.cache_clear()
    for each, name in zip(HEADER_FOLDERS, ("header_dir", "header_lock_dir"), strict=True):
        each.put(f"{folder}/{name}")


# Imported before a job's first call, so that its cold start is that of the compiler and not of the disk.
PRELOADED = (
    _name("torch._dynamo", "the first call of a job imports the compiler"),
    _name("torch._inductor", "the first call of a job imports the compiler"),
)
CUDAGRAPH_TREES = _name("torch._inductor.cudagraph_trees", "the first call of a compiled job imports Inductor")


# ---- CUDA and the profiler ----------------------------------------------------------------------------------------

BAD_FORK = _name(
    "torch.cuda:_is_in_bad_fork", "that a fork server has initialised CUDA shows as torch's own error in each job"
)
RECORD_MEMORY = _name("torch.cuda.memory:_record_memory_history", "profile.memory_snapshot cannot record allocations")
DUMP_MEMORY = _name("torch.cuda.memory:_dump_snapshot", "profile.memory_snapshot cannot write its file")
PROFILER_OPTIONS = _name(
    "torch._C._profiler:_ExperimentalConfig", "the threads of continuous batching are not in the profile"
)


def is_in_bad_fork() -> bool:
    """Check whether CUDA was initialised before this process was forked, so that it cannot be used here."""
    ask = BAD_FORK.get()
    return bool(ask()) if callable(ask) else False


def profiler_options(*, every_thread: bool) -> Any:
    """Return what `torch.profiler.profile` needs as `experimental_config`; None: its usual one."""
    make = PROFILER_OPTIONS.get()
    if not every_thread or not callable(make):
        return None
    try:
        return make(profile_all_threads=True)
    except TypeError:  # a release whose profiler has no such option
        return None


def keeps_memory_history() -> bool:
    """Check whether torch can record the allocations on a GPU and write them down."""
    return callable(RECORD_MEMORY.get()) and callable(DUMP_MEMORY.get())


@contextlib.contextmanager
def memory_history(path: Callable[[], str]) -> Iterator[None]:
    """Record every allocation on the GPU, and write torch's snapshot to `path()` when the context ends."""
    record, dump = RECORD_MEMORY.get(), DUMP_MEMORY.get()
    record(max_entries=1_000_000)
    try:
        yield
        dump(path())
    finally:
        record(enabled=None)
