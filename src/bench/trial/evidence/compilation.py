"""Request torch.compile from generate, read what it did, and check that against the request.

`generate` compiles only its decoding step, only over a static cache, and on a CPU only with a private flag; otherwise
it runs uncompiled after one log line. The request is therefore made in the one form that works. What happened is read
from TorchDynamo's and Inductor's own counters before and after each call, and `bench.trial.evidence.compile_events`
logs in which call each compilation, graph break and missing CUDA graph happened, and why.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from bench.config.schema import BenchmarkConfig, CompileConfig, flatten
from bench.results.record import COMPILATIONS, CompileEvent, CompileObserved
from bench.trial.compat import torch_internals, transformers_internals
from bench.trial.compat.probe import compile_trivially, is_of_probe
from bench.trial.evidence.compile_events import CompileEventLog, first_line
from bench.trial.unsupported import CannotRunHereError

# torch keeps the last 64 compilations unless told otherwise; then times and reasons would be lost, and sums shrink.
KEPT_COMPILATIONS = 100_000
# Functions that flex_attention compiles of itself: the kernel, and the making of its block mask.
FLEX_FILES = ("torch/nn/attention/flex_attention.py", "transformers/integrations/flex_attention.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counters:
    """The library's counters at one moment; they only grow. None: this version of torch has no such counter."""

    graphs: int | None
    attention_graphs: int | None  # those that flex_attention made of itself
    recompiles: list[str] | None
    cudagraph_skips: int | None
    compile_s: float | None
    autotune_s: float | None
    cache_hits: int | None
    cache_misses: int | None


def read_counters() -> Counters:
    """Read TorchDynamo's and Inductor's counters of this process. Takes 25 µs after 100 compilations."""
    counters, compilations = torch_internals.counters(), torch_internals.compilations()
    listed = _listed([each for each in compilations or () if not is_of_probe(_field(each, "co_filename"))])
    known = compilations is not None
    skips = hits = misses = None
    graphs = listed.graphs if known else None
    if counters is not None:
        inductor, autograd = counters["inductor"], counters["aot_autograd"]
        graphs = max(counters["stats"]["unique_graphs"], listed.graphs)  # two ways to see one thing
        skips = inductor["cudagraph_skips"]
        # A hit of the outer cache (AOTAutograd's) counts in the inner one as well, unless the two are bundled.
        hits = max(autograd["autograd_cache_hit"], inductor["fxgraph_cache_hit"])
        # Code that cannot be cached was not taken from the cache either.
        misses = inductor["fxgraph_cache_miss"] + inductor["fxgraph_cache_bypass"]
    return Counters(
        graphs=graphs,
        attention_graphs=listed.attention_graphs if known else None,
        recompiles=listed.recompiles if known else None,
        cudagraph_skips=skips,
        compile_s=listed.compile_s if known else None,
        autotune_s=listed.autotune_us / 1e6 if known else None,
        cache_hits=hits,
        cache_misses=misses,
    )


@dataclasses.dataclass(kw_only=True)
class _Listed:
    """The sums over torch's list of compilations."""

    graphs: int = 0
    attention_graphs: int = 0
    compile_s: float = 0.0
    autotune_us: int = 0
    recompiles: list[str] = dataclasses.field(default_factory=list)


def _listed(compilations: Sequence[Any]) -> _Listed:
    found = _Listed()
    for each in compilations:
        found.compile_s += _field(each, "entire_frame_compile_time_s") or 0.0
        found.autotune_us += _field(each, "compile_time_autotune_time_us") or 0
        found.autotune_us += _field(each, "runtime_triton_autotune_time_us") or 0
        if reason := _field(each, "recompile_reason"):
            found.recompiles.append(first_line(reason))
        if _field(each, "graph_op_count"):
            found.graphs += 1
            found.attention_graphs += _is_of_flex(_field(each, "co_filename"))
    return found


_field = torch_internals.field


def _is_of_flex(file: str | None) -> bool:
    return file is not None and file.endswith(FLEX_FILES)


def reset() -> None:
    """Forget what this process compiled, and make torch raise instead of running uncompiled.

    A job in a used process then counts from zero. torch raises when compilation fails, and at its recompile limit.
    """
    torch_internals.set_option("suppress_errors", False)
    torch_internals.set_option("fail_on_recompile_limit_hit", True)
    torch.compiler.set_stance("default")  # others run uncompiled code, or that of another backend
    torch.compiler.reset()
    torch_internals.forget_compiled_code()
    torch_internals.keep_compilations(KEPT_COMPILATIONS)


def arguments(config: CompileConfig) -> Any:
    """Return the request as transformers' CompileConfig.

    torch.compile takes a mode or options, not both; where both are asked for, the mode is spelt out as the options
    that it stands for, and the user's come on top.
    """
    options, mode = flatten(config.options), config.mode
    if options:
        of_mode = {} if mode == "default" else torch_internals.mode_options(mode, config.dynamic)
        if of_mode is None:
            cause, remedy = torch_internals.MODE_OPTIONS.unseen(), "set compile.mode=default, or no options"
            raise CannotRunHereError("compile.mode", mode, cause, remedy)
        options = {**of_mode, **options}
        mode = None
    request = transformers.CompileConfig(
        fullgraph=config.fullgraph,
        dynamic=config.dynamic,
        backend=config.backend,
        mode=mode,
        options=options or None,
    )
    return transformers_internals.compile_on_all_devices(request)


class CompileWatch:
    """Notes the arguments with which generate compiles a model that it is `watching`."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}  # of the last call; {} while none was seen

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Note the arguments as generate asks for the model's compiled form, until the context ends."""
        original = getattr(model, "get_compiled_call", None)
        if original is None:
            yield
            return

        @functools.wraps(original)
        def watched(*positional: Any, **keywords: Any) -> Any:
            for each in (*positional, *keywords.values()):
                if isinstance(each, transformers.CompileConfig):
                    self.arguments = each.to_dict()
            return original(*positional, **keywords)

        model.get_compiled_call = watched
        try:
            yield
        finally:
            del model.get_compiled_call


def observe(arguments: dict[str, Any] | None, before: Counters, event_log: CompileEventLog) -> CompileObserved:
    """Return what was compiled since `before`, what the event log holds, and the arguments of torch.compile."""
    now, events = read_counters(), event_log.events()
    # Not from torch's counter: it misses branches on data, and functions that were given up as a whole.
    breaks = collections.Counter(each.reason for each in events if each.kind in {"graph_break", "failure"})
    return CompileObserved(
        graphs=_growth(before.graphs, now.graphs),
        attention_graphs=_growth(before.attention_graphs, now.attention_graphs),
        graph_breaks=dict(breaks) if breaks or torch_internals.graph_breaks() is not None else None,
        recompiles=None if now.recompiles is None else now.recompiles[len(before.recompiles or ()) :],
        cudagraph_skips=_growth(before.cudagraph_skips, now.cudagraph_skips),
        compile_s=_growth(before.compile_s, now.compile_s),
        autotune_s=_growth(before.autotune_s, now.autotune_s),
        cache_hits=_growth(before.cache_hits, now.cache_hits),
        cache_misses=_growth(before.cache_misses, now.cache_misses),
        events=events,
        arguments=arguments or {},
    )


_Number = TypeVar("_Number", int, float)


def _growth(before: _Number | None, now: _Number | None) -> _Number | None:
    return None if before is None or now is None else now - before


def growth(before: Counters, now: Counters) -> tuple[int | None, float | None]:
    """Return the graphs made between two moments, and the seconds of all compilations; None: unknown."""
    return _growth(before.graphs, now.graphs), _growth(before.compile_s, now.compile_s)


def wants_cudagraphs(config: CompileConfig) -> bool:
    """Check whether the request is one for CUDA graphs, by its mode or by an option."""
    if config.mode is None or config.backend != "inductor":
        return False
    options = {**(torch_internals.mode_options(config.mode) or {}), **flatten(config.options)}
    return bool(options.get("triton.cudagraphs"))


def contradiction(config: BenchmarkConfig, observed: CompileObserved, measured: Sequence[int] = ()) -> str | None:
    """Return why what was compiled is not what was asked for, in one line; None when it is.

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
    unasked = _graphs_of_the_model(observed)
    if unasked is None or unasked <= 0:
        return None
    compiled = [each for each in observed.events if each.kind in {"graph", "recompile"} and not _is_of_flex(each.file)]
    names = ", ".join(dict.fromkeys(_named(each) for each in compiled))
    return f"compile.mode=null: {unasked} graph(s) were compiled all the same" + (f": {names}" if names else "")


def _named(event: CompileEvent) -> str:
    """Return the function with its file and line, because the function compiled is often a decorator's `wrapper`."""
    if event.function is None:
        return "a function"
    return event.function if event.file is None else f"{event.function} ({Path(event.file).name}:{event.line})"


def _graphs_of_the_model(observed: CompileObserved) -> int | None:
    """Return graphs less those that flex_attention made of itself; None: torch does not count them."""
    return _growth(observed.attention_graphs, observed.graphs)


def _not_compiled_as_asked(requested: CompileConfig, observed: CompileObserved) -> str | None:
    switch, graphs = _switched_off(), _graphs_of_the_model(observed)
    if graphs is not None and graphs <= 0 and (switch or counts_compilations()):
        return f"compile.mode={requested.mode}: generate compiled nothing" + (f"; {switch}" if switch else "")
    if switch:
        return f"compile.mode={requested.mode}: {switch}, and what needs compiling anew runs uncompiled"
    if not observed.arguments:
        return None  # not seen
    for name, value in arguments(requested).to_dict().items():
        if observed.arguments.get(name) != value:
            return f"compile.{name}={value}: torch.compile was called with {observed.arguments.get(name)}"
    return None


def unseen(config: BenchmarkConfig, observed: CompileObserved) -> str | None:
    """Return what of the request to compile can be neither confirmed nor contradicted; None: all can."""
    graphs = _graphs_of_the_model(observed)
    if graphs is None:
        return "whether, and how often, the model was compiled is not known"
    if config.compile.mode is None:
        return None
    if graphs <= 0:
        return f"torch {torch.__version__} counts no compilation, not even of a function compiled to try that out"
    if not observed.arguments:
        return f"with which arguments transformers {transformers.__version__} called torch.compile cannot be seen"
    return None


def counts_compilations() -> bool:
    """Check whether a compilation would have been counted, by making a trivial one.

    True as well where torch.compile compiles nothing in this process: then nothing was compiled before either.
    """
    before = _raw_count()
    compiled = compile_trivially().compiled
    return not compiled or _raw_count() > before


def _raw_count() -> int:
    counters = torch_internals.counters()
    counted = counters["stats"]["unique_graphs"] if counters is not None else 0
    return max(counted, _listed(torch_internals.compilations() or ()).graphs)


def _switched_off() -> str | None:
    """Return what keeps torch.compile from compiling in this process; None when nothing does, or none is known."""
    # The places where torch looks: `_optimize` and `_callback_from_stance` of torch/_dynamo/eval_frame.py.
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return "TORCHDYNAMO_DISABLE=1 is set"
    if torch_internals.option("disable"):
        return "torch._dynamo.config.disable is set (TORCH_COMPILE_DISABLE=1 sets it)"
    stance = torch_internals.stance()
    return None if stance in (None, "default") else f"torch.compiler.set_stance({stance!r}) is in force"


def _left_uncompiled(requested: CompileConfig, observed: CompileObserved) -> str | None:
    """Return the failure at the recompile limit, which torch's metrics show even if torch did not raise."""
    given_up = (each for each in observed.events if each.kind == "failure" and "recompile limit" in each.reason)
    first = next(given_up, None)
    if first is None:
        return None
    mode = requested.mode or "null"
    return f"compile.mode={mode}: torch met its recompile limit and left {_named(first)} uncompiled"


def _compiled_while_measured(observed: CompileObserved, measured: Sequence[int]) -> str | None:
    """Return why the median has a compilation in it: at least half of the measured calls have one."""
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
