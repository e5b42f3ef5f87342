"""torch.compile: how a request reaches generate, and what the library says that it did.

`generate` compiles only its decoding step, only over a static cache, and on a CPU only when a private flag says so;
elsewhere it goes on uncompiled after one log line. So the request is made in the one form that works, what happened is
read from TorchDynamo's and Inductor's own counters before and after each call, and `bench.trial.journal` keeps which
call each compilation, graph break and missing CUDA graph fell into, and why it happened.

The compile cache on disk is a folder of its own for each job (`fresh`), or one for each setting (`shared`): Inductor's
own key leaves out the SDPA backend, so that jobs which share one folder get each other's kernels.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch._dynamo import config as dynamo_config
from torch._dynamo import eval_frame
from torch._dynamo import utils as dynamo
from torch._inductor import codecache
from torch._inductor import utils as inductor_utils

from bench import cache_folder
from bench.config import BenchmarkConfig, CompileConfig, flatten
from bench.home import cache_home
from bench.libraries import imported, unusual
from bench.record import COMPILATIONS, CompileEvent, CompileObserved
from bench.trial.journal import Journal, first_line

# torch keeps the last 64 compilations unless told otherwise; then times and reasons would be lost, and sums shrink.
SHARED_CACHES = 32  # settings whose compiled code is kept; each takes some hundred megabytes
KEPT_COMPILATIONS = 100_000
# Sections of the config that change no compiled code.
BESIDE_THE_CODE = (
    "sweep", "search", "tracking", "isolation", "profile", "warmup", "measurement", "monitor", "fidelity",
)  # fmt: skip
# Functions that flex_attention compiles of itself: the kernel, and the making of its block mask.
FLEX_FILES = ("torch/nn/attention/flex_attention.py", "transformers/integrations/flex_attention.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counters:
    """The library's counters at one moment; they only grow."""

    graphs: int
    attention_graphs: int  # those that flex_attention made of itself
    recompiles: list[str]
    cudagraph_skips: int
    compile_s: float
    autotune_s: float
    cache_hits: int
    cache_misses: int


def read_counters() -> Counters:
    """Read TorchDynamo's and Inductor's counters of this process. Takes 25 µs after 100 compilations."""
    counters = dynamo.counters
    inductor, autograd = counters["inductor"], counters["aot_autograd"]
    attention_graphs, compile_s, autotune_us = 0, 0.0, 0
    recompiles = []
    for each in dynamo.get_compilation_metrics():
        compile_s += each.entire_frame_compile_time_s or 0.0
        autotune_us += (each.compile_time_autotune_time_us or 0) + (each.runtime_triton_autotune_time_us or 0)
        if each.recompile_reason:
            recompiles.append(first_line(each.recompile_reason))
        if each.graph_op_count and _is_of_flex(each.co_filename):
            attention_graphs += 1
    return Counters(
        graphs=counters["stats"]["unique_graphs"],
        attention_graphs=attention_graphs,
        recompiles=recompiles,
        cudagraph_skips=inductor["cudagraph_skips"],
        compile_s=compile_s,
        autotune_s=autotune_us / 1e6,
        # A hit of the outer cache (AOTAutograd's) counts in the inner one as well, unless the two are bundled.
        cache_hits=max(autograd["autograd_cache_hit"], inductor["fxgraph_cache_hit"]),
        # Code that cannot be cached was not taken from the cache either.
        cache_misses=inductor["fxgraph_cache_miss"] + inductor["fxgraph_cache_bypass"],
    )


def _is_of_flex(file: str | None) -> bool:
    return file is not None and file.endswith(FLEX_FILES)


def reset() -> None:
    """Forget what this process compiled, so that a job in a used process counts from zero; and let nothing that fails
    to compile, or that needs another compilation, go on uncompiled in silence.
    """
    _configure("suppress_errors", False)
    _configure("fail_on_recompile_limit_hit", True)
    torch.compiler.set_stance("default")  # others run uncompiled code, or that of another backend
    torch.compiler.reset()
    inductor_utils.clear_caches()  # code that it keeps in memory
    dynamo.counters.clear()
    dynamo.clear_compilation_metrics()
    dynamo.set_compilation_metrics_limit(KEPT_COMPILATIONS)


def _configure(name: str, value: bool) -> None:
    """Set TorchDynamo's option in every thread.

    In torch 2.13, unlike 2.11, an assignment holds in no other thread than the one that makes it, and continuous
    batching generates in a thread of its own. What other threads see is the default.
    """
    setattr(dynamo_config, name, value)
    entry: Any = getattr(dynamo_config, "_config", {}).get(name)
    if hasattr(entry, "default"):
        entry.default = value


def arguments(config: CompileConfig) -> Any:
    """The request as transformers' CompileConfig.

    torch.compile takes a mode or options, not both; where both are asked for, the mode is spelt out as the options
    that it stands for, and the user's come on top.
    """
    options, mode = flatten(config.options), config.mode
    if options:
        options = {**torch._inductor.list_mode_options(mode, config.dynamic), **options}  # noqa: SLF001 - documented
        mode = None
    request = transformers.CompileConfig(
        fullgraph=config.fullgraph,
        dynamic=config.dynamic,
        backend=config.backend,
        mode=mode,
        options=options or None,
    )
    request._compile_all_devices = True  # noqa: SLF001 - without it a CPU goes on uncompiled
    return request


def observe(model: Any, before: Counters, journal: Journal) -> CompileObserved:
    """What was compiled since `before`, what the journal holds, and the arguments with which generate compiled."""
    now, events = read_counters(), journal.events()
    # Not from torch's counter: it misses branches on data, and functions that were given up as a whole.
    breaks = collections.Counter(each.reason for each in events if each.kind in {"graph_break", "failure"})
    used = getattr(model, "_last_compile_config", None)
    return CompileObserved(
        graphs=now.graphs - before.graphs,
        attention_graphs=now.attention_graphs - before.attention_graphs,
        graph_breaks=dict(breaks),
        recompiles=now.recompiles[len(before.recompiles) :],
        cudagraph_skips=now.cudagraph_skips - before.cudagraph_skips,
        compile_s=now.compile_s - before.compile_s,
        autotune_s=now.autotune_s - before.autotune_s,
        cache_hits=now.cache_hits - before.cache_hits,
        cache_misses=now.cache_misses - before.cache_misses,
        events=events,
        arguments={} if used is None else used.to_dict(),
    )


def wants_cudagraphs(config: CompileConfig) -> bool:
    """Whether the request is one for CUDA graphs, by its mode or by an option."""
    if config.mode is None or config.backend != "inductor":
        return False
    options = {**torch._inductor.list_mode_options(config.mode), **flatten(config.options)}  # noqa: SLF001 - documented
    return bool(options.get("triton.cudagraphs"))


def broken_promise(config: BenchmarkConfig, observed: CompileObserved, measured: Sequence[int] = ()) -> str | None:
    """Why what was compiled is not what was asked for, in one line; None when it is.

    `measured` are the indices of the measured calls so far.
    """
    judge = _compiled_unasked if config.compile.mode is None else _not_compiled_as_asked
    return (
        judge(config.compile, observed)
        or _left_uncompiled(config.compile, observed)
        or _compiled_while_measured(observed, measured)
    )


def _compiled_unasked(_: CompileConfig, observed: CompileObserved) -> str | None:
    # flex_attention compiles its own kernel whatever the setting; the count in the record shows it.
    unasked = observed.graphs - observed.attention_graphs
    if unasked <= 0:
        return None
    compiled = [each for each in observed.events if each.kind in {"graph", "recompile"} and not _is_of_flex(each.file)]
    names = ", ".join(dict.fromkeys(_named(each) for each in compiled))
    return f"compile.mode=null: {unasked} graph(s) were compiled all the same" + (f": {names}" if names else "")


def _named(event: CompileEvent) -> str:
    """The function and its place: what is compiled of a model is often a decorator's `wrapper`."""
    if event.function is None:
        return "a function"
    return event.function if event.file is None else f"{event.function} ({Path(event.file).name}:{event.line})"


def _not_compiled_as_asked(requested: CompileConfig, observed: CompileObserved) -> str | None:
    switch = _switched_off()
    if observed.graphs <= observed.attention_graphs:
        return f"compile.mode={requested.mode}: generate compiled nothing" + (f"; {switch}" if switch else "")
    if switch:
        return f"compile.mode={requested.mode}: {switch}, and what needs compiling anew runs uncompiled"
    for name, value in arguments(requested).to_dict().items():
        if observed.arguments.get(name) != value:
            return f"compile.{name}={value}: torch.compile was called with {observed.arguments.get(name)}"
    return None


def _switched_off() -> str | None:
    """What keeps torch.compile from compiling in this process; None when nothing does."""
    # The places where torch looks: `_optimize` and `_callback_from_stance` of torch/_dynamo/eval_frame.py.
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return "TORCHDYNAMO_DISABLE=1 is set"
    if dynamo_config.disable:
        return "torch._dynamo.config.disable is set (TORCH_COMPILE_DISABLE=1 sets it)"
    stance = getattr(getattr(eval_frame, "_stance", None), "stance", "default")
    return None if stance == "default" else f"torch.compiler.set_stance({stance!r}) is in force"


def _left_uncompiled(requested: CompileConfig, observed: CompileObserved) -> str | None:
    """`reset` makes torch raise at the limit; should it go on uncompiled all the same, its metrics still tell."""
    given_up = (each for each in observed.events if each.kind == "failure" and "recompile limit" in each.reason)
    first = next(given_up, None)
    if first is None:
        return None
    mode = requested.mode or "null"
    return f"compile.mode={mode}: torch met its recompile limit and left {_named(first)} uncompiled"


def _compiled_while_measured(observed: CompileObserved, measured: Sequence[int]) -> str | None:
    """With a compilation in half of the calls or more, the median call has one."""
    calls = observed.compiling_calls() & set(measured)
    busy = len(calls)
    if not busy or 2 * busy < len(measured):
        return None
    first = next(each for each in observed.events if each.kind in COMPILATIONS and each.iteration in calls)
    why = first.reason or f"{_named(first)} was not compiled before"
    return (
        f"torch compiled during {busy} of {len(measured)} measured calls, so that their median is no steady one; "
        f"the first, in call {first.iteration}: {why}; raise warmup.iterations"
    )


def shared_cache(config: BenchmarkConfig, device: torch.device) -> Path:
    """The folder of compiled code for this setting: keyed by all that changes the code."""
    defining = config.to_dict()
    for section in BESIDE_THE_CODE:
        del defining[section]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = [torch.__version__, torch.version.git_version, transformers.__version__, name]
    versions += sorted(unusual(imported()).values())  # another copy of a library may make other code
    key = hashlib.sha256(json.dumps([defining, versions], sort_keys=True).encode()).hexdigest()[:16]
    return cache_home() / "compile" / key


def keep_recent(folder: Path, most: int = SHARED_CACHES) -> None:
    """Mark a shared cache as used now, and remove those of other settings that were not used for longest.

    One that a process holds stays, and so does what is no cache of bench.
    """
    with cache_folder.shared(folder):
        os.utime(folder)
        used: list[tuple[float, Path]] = []
        for each in filter(cache_folder.is_own, folder.parent.iterdir()):
            with contextlib.suppress(OSError):  # another job has just removed it
                used.append((each.stat().st_mtime, each))
        for _, each in sorted(used, reverse=True)[most:]:
            cache_folder.remove_unused(each)


def use_cache(folder: Path) -> None:
    """Make Inductor (and Triton below it) keep compiled code in `folder` from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    # Inductor keeps the C++ headers that it precompiles in one place for all, wherever the cache is: the first job on a
    # machine would pay for them, and no other.
    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        if hasattr(codecache, name):
            setattr(codecache, name, str(folder / name.strip("_").lower()))
