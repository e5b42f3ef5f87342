"""torch.compile: how a request reaches generate, and what the library says that it did.

`generate` compiles only its decoding step, only over a static cache, and on a CPU only when a private flag says so;
elsewhere it goes on uncompiled after one log line. So the request is made in the one form that works, and what
happened is read from TorchDynamo's and Inductor's own counters, before and after each call.

The compile cache on disk is a folder of its own for each job (`fresh`), or one for each setting (`shared`): Inductor's
own key leaves out the SDPA backend, so that jobs which share one folder get each other's kernels.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from torch._dynamo import config as dynamo_config
from torch._dynamo import utils as dynamo
from torch._inductor import codecache
from torch._inductor import utils as inductor_utils

from bench.config import BenchmarkConfig, CompileConfig, flatten
from bench.record import CompileObserved

# torch keeps the last 64 compilations unless told otherwise; then times and reasons would be lost, and sums shrink.
KEPT_COMPILATIONS = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counters:
    """The library's counters at one moment; they only grow."""

    graphs: int
    graph_breaks: dict[str, int]
    recompiles: list[str]
    cudagraph_skips: int
    compile_s: float
    cache_hits: int
    cache_misses: int


def read_counters() -> Counters:
    """Read TorchDynamo's and Inductor's counters of this process."""
    counters = dynamo.counters
    inductor, autograd = counters["inductor"], counters["aot_autograd"]
    compilations = dynamo.get_compilation_metrics()
    breaks: collections.Counter[str] = collections.Counter()
    for reason, count in counters["graph_break"].items():
        breaks[_first_line(reason)] += count  # breaks of one kind differ only below it
    return Counters(
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=dict(breaks),
        recompiles=[_first_line(each.recompile_reason) for each in compilations if each.recompile_reason],
        cudagraph_skips=inductor["cudagraph_skips"],
        compile_s=sum((each.entire_frame_compile_time_s or 0.0 for each in compilations), 0.0),
        # A hit of the outer cache (AOTAutograd's) never asks the inner one.
        cache_hits=autograd["autograd_cache_hit"] + inductor["fxgraph_cache_hit"],
        cache_misses=inductor["fxgraph_cache_miss"],
    )


def _first_line(text: Any) -> str:
    return str(text).strip().partition("\n")[0]


def reset() -> None:
    """Forget what this process compiled, so that a job in a used process counts from zero; and let nothing that fails
    to compile go on uncompiled in silence.
    """
    dynamo_config.suppress_errors = False
    dynamo_config.fail_on_recompile_limit_hit = True
    torch.compiler.reset()
    inductor_utils.clear_caches()  # code that it keeps in memory
    dynamo.counters.clear()
    dynamo.clear_compilation_metrics()
    dynamo.set_compilation_metrics_limit(KEPT_COMPILATIONS)


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


def observe(model: Any, before: Counters) -> CompileObserved:
    """What was compiled since `before`, and the arguments with which generate called torch.compile."""
    now = read_counters()
    used = getattr(model, "_last_compile_config", None)
    return CompileObserved(
        graphs=now.graphs - before.graphs,
        graph_breaks=now.graph_breaks,
        recompiles=now.recompiles[len(before.recompiles) :],
        cudagraph_skips=now.cudagraph_skips - before.cudagraph_skips,
        compile_s=now.compile_s - before.compile_s,
        cache_hits=now.cache_hits - before.cache_hits,
        cache_misses=now.cache_misses - before.cache_misses,
        arguments={} if used is None else used.to_dict(),
    )


def wants_cudagraphs(config: CompileConfig) -> bool:
    """Whether the request is one for CUDA graphs, by its mode or by an option."""
    if config.mode is None or config.backend != "inductor":
        return False
    options = {**torch._inductor.list_mode_options(config.mode), **flatten(config.options)}  # noqa: SLF001 - documented
    return bool(options.get("triton.cudagraphs"))


def broken_promise(config: BenchmarkConfig, observed: CompileObserved) -> str | None:
    """Why what was compiled is not what was asked for, in one line; None when it is."""
    requested = config.compile
    if requested.mode is None:
        # flex_attention compiles its own kernel whatever the setting; the count in the record shows it.
        if observed.graphs and config.attention.implementation != "flex_attention":
            return f"compile.mode=null: {observed.graphs} graph(s) were compiled all the same"
        return None
    if observed.graphs == 0:
        return f"compile.mode={requested.mode}: generate compiled nothing"
    expected = arguments(requested).to_dict()
    for name, value in expected.items():
        if observed.arguments.get(name) != value:
            return f"compile.{name}={value}: torch.compile was called with {observed.arguments.get(name)}"
    return None


def shared_cache(config: BenchmarkConfig, device: torch.device) -> Path:
    """The folder of compiled code for this setting: keyed by all that changes the code."""
    defining = config.to_dict()
    for section in ("sweep", "tracking", "isolation", "profile", "warmup", "measurement", "monitor", "fidelity"):
        del defining[section]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = [torch.__version__, torch.version.git_version, transformers.__version__, name]
    key = hashlib.sha256(json.dumps([defining, versions], sort_keys=True).encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bench" / "compile" / key


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
