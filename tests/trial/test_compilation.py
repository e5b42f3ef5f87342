"""Check the request to torch.compile and what it did, on small functions that are really compiled."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._dynamo import utils as dynamo
from torch._dynamo.callback import CallbackTrigger, callback_handler
from torch._inductor import codecache, cudagraph_utils
from torch.nn.attention.flex_attention import flex_attention

from bench.config.schema import BenchmarkConfig, CompileConfig
from bench.results.record import CompileEvent, CompileObserved
from bench.trial.evidence import compilation
from bench.trial.evidence.compilation import (
    arguments,
    contradiction,
    observe,
    read_counters,
    reset,
)
from bench.trial.evidence.compile_cache import keep_recent, shared_cache, use_cache
from bench.trial.evidence.compile_events import CompileEventLog

DYNAMO = torch._dynamo.config


@pytest.fixture
def event_log():
    """A event_log over a torch that has compiled nothing yet."""
    reset()
    with CompileEventLog() as one:
        yield one
    reset()


def compiles(function, *sizes: int, **keywords: object) -> None:
    """Compile without Inductor and call once for each size."""
    ready = torch.compile(function, **{"backend": "eager", **keywords})
    for size in sizes:
        ready(torch.ones(size))


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def breaks_at_a_print(x: torch.Tensor) -> torch.Tensor:
    x = x + 1
    print("a graph cannot hold this")
    return x * 2


def branches_on_data(x: torch.Tensor) -> torch.Tensor:
    x = x + 1
    return x * 2 if x.sum() > 0 else x


def breaks_in_a_loop(x: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        x = x + 1
        torch._dynamo.graph_break()
    return x


def line_of(function, text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    first = function.__code__.co_firstlineno
    return next(number for number, line in enumerate(lines[first:], first + 1) if text in line)


def compiled(**changes: object) -> CompileObserved:
    plain = {"fullgraph": False, "dynamic": None, "backend": "inductor", "mode": "default", "options": None}
    return CompileObserved(graphs=1, arguments={**plain, **changes})


def test_options_stand_on_top_of_what_the_mode_means() -> None:
    made = arguments(CompileConfig(mode="max-autotune", options={"triton": {"cudagraphs": False}}))
    assert made.mode is None
    assert made.options["triton.cudagraphs"] is False
    assert made.options["max_autotune"] is True


def test_without_options_the_mode_is_handed_on() -> None:
    made = arguments(CompileConfig(mode="reduce-overhead", dynamic=False, fullgraph=True))
    assert (made.mode, made.dynamic, made.fullgraph, made.options) == ("reduce-overhead", False, True, None)


def test_nothing_contradicts_an_honoured_request() -> None:
    assert contradiction(BenchmarkConfig(compile_kwargs={"mode": "default"}), compiled()) is None
    assert contradiction(BenchmarkConfig(), CompileObserved()) is None


@pytest.mark.parametrize(
    ("config", "observed", "reason"),
    [
        (BenchmarkConfig(), compiled(), "compile.mode=null: 1 graph(s) were compiled all the same"),
        (
            BenchmarkConfig(compile_kwargs={"mode": "default"}),
            CompileObserved(),
            "compile.mode=default: generate compiled nothing",
        ),
        (
            BenchmarkConfig(compile_kwargs={"mode": "default", "fullgraph": True}),
            compiled(fullgraph=False),
            "compile.fullgraph=True: torch.compile was called with False",
        ),
        (
            BenchmarkConfig(compile_kwargs={"mode": "max-autotune"}),
            compiled(mode="default"),
            "compile.mode=max-autotune: torch.compile was called with default",
        ),
    ],
)
def test_what_ran_must_be_what_was_asked_for(config, observed, reason: str) -> None:
    assert contradiction(config, observed) == reason


def test_flex_attention_may_compile_its_own_kernel_and_nothing_else() -> None:
    config = BenchmarkConfig(attn_implementation="flex_attention")
    assert contradiction(config, CompileObserved(graphs=2, attention_graphs=2)) is None
    unasked = CompileEvent(iteration=0, kind="graph", function="forward", file="modeling_llama.py", line=3)
    own = CompileEvent(iteration=0, kind="graph", function="flex_attention", file=compilation.FLEX_FILES[0], line=1)
    reason = contradiction(config, CompileObserved(graphs=2, attention_graphs=1, events=[own, unasked]))
    assert reason == "compile.mode=null: 1 graph(s) were compiled all the same: forward (modeling_llama.py:3)"


def test_a_kernel_that_flex_attention_compiles_is_no_compiled_model() -> None:
    config = BenchmarkConfig(attn_implementation="flex_attention", compile_kwargs={"mode": "default"})
    observed = dataclasses.replace(compiled(), graphs=2, attention_graphs=2)
    assert contradiction(config, observed) == "compile.mode=default: generate compiled nothing"


@pytest.mark.parametrize(("busy", "broken"), [(1, False), (2, True), (3, True)])
def test_compilations_in_half_of_the_measured_calls_contradict_the_request(busy: int, broken: bool) -> None:
    config = BenchmarkConfig(compile_kwargs={"mode": "default"})
    events = [CompileEvent(iteration=2 + i, kind="recompile", reason=f"guard {i}", function="f") for i in range(busy)]
    warm_up = CompileEvent(iteration=1, kind="graph", function="f")
    reason = contradiction(config, dataclasses.replace(compiled(), events=[warm_up, *events]), measured=[2, 3, 4, 5])
    assert reason == (
        f"torch compiled during {busy} of 4 measured calls, so that their median is no steady one; "
        "the first, in call 2: guard 0; raise warmup.iterations"
        if broken
        else None
    )


def test_two_compilations_in_one_measured_call_are_one_call() -> None:
    config = BenchmarkConfig(compile_kwargs={"mode": "default"})
    events = [CompileEvent(iteration=2, kind="graph", function="f"), CompileEvent(iteration=2, kind="recompile")]
    assert contradiction(config, dataclasses.replace(compiled(), events=events), measured=[2, 3, 4]) is None


def test_a_graph_break_is_noted_with_file_line_and_call(event_log) -> None:
    event_log.iteration = 3
    compiles(breaks_at_a_print, 4)
    found = [each for each in event_log.events() if each.kind == "graph_break"]
    assert found == [
        CompileEvent(
            iteration=3,
            kind="graph_break",
            reason="Failed to trace builtin operator",
            compile_id="0/0",
            function="breaks_at_a_print",
            file=__file__,
            line=line_of(breaks_at_a_print, "print("),
        )
    ]


def test_a_branch_on_data_is_a_graph_break_though_the_counter_misses_it(event_log) -> None:
    compiles(branches_on_data, 4)
    assert not dynamo.counters["graph_break"]
    (found,) = [each for each in event_log.events() if each.kind == "graph_break"]
    assert found.reason.startswith("Data-dependent branching")
    assert found.line == line_of(branches_on_data, "x.sum()")


def test_a_function_that_was_given_up_is_a_failure_and_counts_as_a_graph_break(event_log) -> None:
    before = read_counters()
    compiles(breaks_in_a_loop, 4)
    (found,) = event_log.events()
    assert (found.kind, found.function, found.file) == ("failure", "breaks_in_a_loop", __file__)
    assert found.line == line_of(breaks_in_a_loop, "graph_break()")
    assert found.reason == "Unsupported: Call to `torch._dynamo.graph_break()`"
    observed = observe(None, before, event_log)
    assert (observed.graphs, observed.graph_breaks) == (0, {found.reason: 1})


def test_each_compilation_is_noted_in_the_call_that_it_fell_into(event_log) -> None:
    ready = torch.compile(double, backend="eager", dynamic=False)
    for iteration, size in enumerate((2, 2, 3)):
        event_log.iteration = iteration
        ready(torch.ones(size))
    first, again = event_log.events()
    assert (first.iteration, first.kind, first.compile_id, first.reason) == (0, "graph", "0/0", "")
    assert (again.iteration, again.kind, again.compile_id) == (2, "recompile", "0/1")
    assert again.reason == "0/0: tensor 'x' size mismatch at index 0. expected 2, actual 3"
    assert {(each.function, each.file, each.line) for each in (first, again)} == {
        ("double", __file__, double.__code__.co_firstlineno)
    }
    assert all(each.duration_s > 0 for each in (first, again))


def test_events_of_a_call_come_in_the_order_in_which_they_happened(event_log) -> None:
    compiles(breaks_at_a_print, 4)
    assert [(each.kind, each.compile_id) for each in event_log.events()] == [
        ("graph", "0/0"),
        ("graph_break", "0/0"),
        ("graph", "1/0"),
    ]


def test_an_event_log_covers_the_time_from_opening_to_closing() -> None:
    reset()
    compiles(double, 2)
    with CompileEventLog() as event_log:
        compiles(breaks_in_a_loop, 2)
    compiles(branches_on_data, 2)
    assert [each.function for each in event_log.events()] == ["breaks_in_a_loop"]
    reset()


def test_an_event_log_that_is_opened_again_starts_empty() -> None:
    reset()
    with CompileEventLog() as event_log:
        event_log.iteration = 1
        compiles(double, 2)
    reset()
    with event_log:
        event_log.iteration = 0
        compiles(breaks_in_a_loop, 2)
    assert [(each.iteration, each.function) for each in event_log.events()] == [(0, "breaks_in_a_loop")]
    reset()


def test_an_event_log_survives_a_reset_of_torch(event_log) -> None:
    torch.compiler.reset()
    compiles(breaks_at_a_print, 2)
    assert [each.kind for each in event_log.events()].count("graph_break") == 1


def test_what_was_observed_is_what_was_compiled_since(event_log) -> None:
    compiles(double, 2)
    before = read_counters()
    compiles(breaks_at_a_print, 2)
    observed = observe(None, before, event_log)
    assert (observed.graphs, observed.attention_graphs) == (2, 0)
    assert observed.compile_s > 0
    assert observed.graph_breaks == {"Failed to trace builtin operator": 1}
    assert observed.arguments == {}


def test_graphs_of_flex_attention_are_told_from_others(event_log) -> None:
    before = read_counters()
    ready = torch.compile(flex_attention, backend="eager")
    ready(*(torch.ones(1, 1, 16, 16) for _ in range(3)))
    compiles(double, 2)
    observed = observe(None, before, event_log)
    assert (observed.graphs, observed.attention_graphs) == (2, 1)
    line = double.__code__.co_firstlineno
    reason = contradiction(BenchmarkConfig(attn_implementation="flex_attention"), observed)
    assert reason.endswith(f"1 graph(s) were compiled all the same: double (test_compilation.py:{line})")


def test_the_reason_for_a_missing_cuda_graph_is_noted(event_log) -> None:
    event_log.iteration = 4
    cudagraph_utils.log_cudagraph_skip_and_bump_counter("skipping cudagraphs due to mutated inputs\nFound from: ...")
    (found,) = event_log.events()
    assert (found.iteration, found.kind) == (4, "cudagraph_skip")
    assert found.reason == "skipping cudagraphs due to mutated inputs"


def test_a_cuda_graph_skipped_without_a_reason_is_an_event(event_log) -> None:
    event_log.iteration = 1
    cudagraph_utils.log_cudagraph_skip_and_bump_counter("a reason")
    event_log.iteration = 2
    dynamo.counters["inductor"]["cudagraph_skips"] += 1  # as Inductor does for graphs that are not on a CUDA device
    assert [(each.iteration, each.reason) for each in event_log.events()] == [
        (1, "a reason"),
        (2, "torch gives no reason"),
    ]


def test_the_recording_of_a_cuda_graph_is_noted(event_log) -> None:
    event_log.iteration = 5
    with callback_handler.install_callbacks(CallbackTrigger.CUDAGRAPH_RECORDING, "0/0"):
        pass  # what torch does here needs a GPU
    (found,) = event_log.events()
    assert (found.iteration, found.kind, found.compile_id) == (5, "cudagraph_record", "0/0")
    assert found.duration_s >= 0


def test_autotuning_is_summed_and_noted_where_it_falls_outside_of_compilations(event_log, monkeypatch) -> None:
    compiles(double, 2)
    (made,) = dynamo.get_compilation_metrics()
    tuned = [
        dataclasses.replace(made, compile_time_autotune_time_us=2_000_000),
        dynamo.CompilationMetrics(compile_id="0/0", is_runtime=True, runtime_triton_autotune_time_us=500_000),
    ]
    monkeypatch.setattr(dynamo, "get_compilation_metrics", lambda: tuned)
    assert read_counters().autotune_s == 2.5
    found = event_log.events()
    assert [(each.kind, each.function) for each in found] == [("autotune", "double"), ("graph", "double")]
    assert found[0].duration_s == 0.5


def logging_state() -> list[tuple[object, ...]]:
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch")]
    loggers = [logging.getLogger(name) for name in names]
    return [(each.name, each.level, each.propagate, tuple(each.handlers), tuple(each.filters)) for each in loggers]


def test_an_event_log_restores_torchs_logging_and_callbacks() -> None:
    compiles(breaks_at_a_print, 2)  # the first compilation of a process sets up loggers and handlers of torch's own
    reset()
    before = logging_state()
    with CompileEventLog():
        compiles(breaks_at_a_print, 2)
    assert logging_state() == before
    assert (callback_handler.start_callbacks, callback_handler.end_callbacks) == ([], [])
    reset()


@pytest.mark.parametrize("asked", [True, False])
def test_an_event_log_changes_nothing_that_torch_logs(asked: bool) -> None:
    """What a user gets who asks for graph breaks (TORCH_LOGS=graph_breaks), or who does not."""
    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor")]
    texts = []
    for opens_log in (False, True):
        reset()
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
        for each in loggers:
            each.addHandler(handler)
        torch._logging.set_logs(graph_breaks=asked)
        try:
            event_log = CompileEventLog()
            with event_log if opens_log else io.StringIO():
                compiles(breaks_at_a_print, 2)
                cudagraph_utils.log_cudagraph_skip_and_bump_counter("a reason")
        finally:
            torch._logging.set_logs()
            for each in loggers:
                each.removeHandler(handler)
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]
    assert texts[0].count("Graph break in user code") == int(asked)
    assert texts[0].count("a reason") == 1
    reset()


def recompiles_too_often() -> None:
    with DYNAMO.patch(recompile_limit=2):  # here, because in torch 2.13 it holds in this thread alone
        compiles(double, 2, 3, 4, dynamic=False)


def test_the_recompile_limit_raises(event_log) -> None:
    with pytest.raises(Exception, match="fail_on_recompile_limit_hit"):
        recompiles_too_often()
    last = event_log.events()[-1]
    assert (last.kind, last.function) == ("failure", "double")


def test_the_recompile_limit_raises_in_another_thread_as_well(event_log) -> None:
    with ThreadPoolExecutor() as threads:
        failed = threads.submit(recompiles_too_often).exception()
    assert str(failed) == "Hard failure due to fail_on_recompile_limit_hit"


def test_code_left_uncompiled_at_the_recompile_limit_contradicts_the_request(event_log) -> None:
    before = read_counters()
    with DYNAMO.patch(fail_on_recompile_limit_hit=False):
        recompiles_too_often()
    observed = dataclasses.replace(observe(None, before, event_log), arguments=compiled().arguments)
    line = double.__code__.co_firstlineno
    assert contradiction(BenchmarkConfig(compile_kwargs={"mode": "default"}), observed) == (
        f"compile.mode=default: torch met its recompile limit and left double (test_compilation.py:{line}) uncompiled"
    )


def test_a_compiler_that_fails_is_not_passed_over() -> None:
    def broken_compiler(*_: object) -> None:
        raise RuntimeError("no such instruction")

    with DYNAMO.patch(suppress_errors=True):  # as TORCHDYNAMO_SUPPRESS_ERRORS=1 has it
        reset()
        with pytest.raises(Exception, match="no such instruction"):
            compiles(double, 2, backend=broken_compiler)
    reset()


def test_fullgraph_raises_at_a_graph_break(event_log) -> None:
    with pytest.raises(Exception, match="graph_break"):
        compiles(breaks_in_a_loop, 2, fullgraph=True)
    assert [each.kind for each in event_log.events()] == ["failure"]


@pytest.mark.parametrize("stance", ["force_eager", "eager_on_recompile"])
def test_a_stance_that_runs_uncompiled_code_does_not_outlive_a_reset(stance: str) -> None:
    torch.compiler.set_stance(stance)
    reset()
    before = read_counters()
    compiles(double, 2)
    assert read_counters().graphs - before.graphs == 1
    reset()


def test_a_stance_that_runs_uncompiled_code_contradicts_the_request(event_log) -> None:
    config = BenchmarkConfig(compile_kwargs={"mode": "default"})
    with torch.compiler.set_stance("eager_on_recompile"):
        reason = contradiction(config, compiled())
        nothing = contradiction(config, CompileObserved())
        uncompiled = contradiction(BenchmarkConfig(), CompileObserved())
    assert reason == (
        "compile.mode=default: torch.compiler.set_stance('eager_on_recompile') is in force, "
        "and what needs compiling anew runs uncompiled"
    )
    assert nothing == (
        "compile.mode=default: generate compiled nothing; torch.compiler.set_stance('eager_on_recompile') is in force"
    )
    assert uncompiled is None


def test_a_torch_that_is_told_not_to_compile_is_named(monkeypatch) -> None:
    config = BenchmarkConfig(compile_kwargs={"mode": "default"})
    with DYNAMO.patch(disable=True):
        assert "TORCH_COMPILE_DISABLE=1" in contradiction(config, CompileObserved())
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert contradiction(config, CompileObserved()) == (
        "compile.mode=default: generate compiled nothing; TORCHDYNAMO_DISABLE=1 is set"
    )


def test_torch_compiles_nothing_when_it_is_told_not_to(event_log, monkeypatch) -> None:
    """The two switches that `contradiction` names do what it says."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    compiles(double, 2)
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    with DYNAMO.patch(disable=True):
        compiles(double, 3)
    assert event_log.events() == []


@pytest.fixture
def cache_place(monkeypatch):
    """Leave the place of the compile cache as it is found."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "elsewhere")
    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        monkeypatch.setattr(codecache, name, getattr(codecache, name))


def test_all_compiled_code_goes_to_the_job_s_folder(cache_place, tmp_path) -> None:
    use_cache(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine")
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "mine" / "triton")
    assert Path(codecache._HEADER_DIR) == tmp_path / "mine" / "header_dir"
    assert Path(codecache._HEADER_LOCK_DIR) == tmp_path / "mine" / "header_lock_dir"


@pytest.mark.compiled
@pytest.mark.slow
def test_a_warm_cache_is_never_taken_for_a_cold_one(cache_place, tmp_path) -> None:
    use_cache(tmp_path)
    seen = []
    for _ in range(2):
        reset()
        before = read_counters()
        with CompileEventLog() as event_log, torch.inference_mode():
            torch.compile(double)(torch.ones(4))
        seen.append(observe(None, before, event_log))
    assert [(each.graphs, each.cache_hits, each.cache_misses) for each in seen] == [(1, 0, 1), (1, 1, 0)]
    assert [each.cache_state for each in seen] == ["cold", "warm"]
    assert any(tmp_path.rglob("*.so"))
    reset()


def test_the_shared_cache_is_keyed_by_all_that_changes_the_code() -> None:
    device = torch.device("cpu")
    config = BenchmarkConfig(compile_kwargs={"mode": "default", "cache": "shared"})
    folders = {shared_cache(config, device)}
    for section, change in (
        ("attention", {"sdpa_backend": "math"}),
        ("attention", {"implementation": "eager"}),
        ("compile", {"mode": "max-autotune"}),
        ("workload", {"batch_size": 2}),
        ("model", {"dtype": "bfloat16"}),
    ):
        data = config.to_dict()
        data[section].update(change)
        folders.add(shared_cache(BenchmarkConfig.from_dict(data), device))
    assert len(folders) == 6
    same = dataclasses.replace(config.warmup, iterations=9)
    assert shared_cache(BenchmarkConfig.from_dict(config.to_dict() | {"warmup": vars(same)}), device) in folders
    search = dataclasses.replace(config.search, trials=9, seed=3)
    assert shared_cache(BenchmarkConfig.from_dict(config.to_dict() | {"search": vars(search)}), device) in folders


def test_shared_caches_are_bounded_and_the_longest_unused_goes(tmp_path) -> None:
    for number in range(5):
        folder = tmp_path / "compile" / str(number)
        keep_recent(folder, most=3)
        (folder / "code").write_text("x")
        os.utime(folder, (number, number))  # long ago
    keep_recent(tmp_path / "compile/2", most=3)  # used again
    keep_recent(tmp_path / "compile/new", most=3)
    assert sorted(each.name for each in (tmp_path / "compile").iterdir()) == ["2", "4", "new"]
    assert (tmp_path / "compile/2/code").read_text() == "x"
    assert (tmp_path / "compile/new").stat().st_mode & 0o077 == 0


USER = """
import sys
from pathlib import Path
from bench.host import cache_folder
with cache_folder.shared(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_shared_cache_that_a_process_uses_stays(tmp_path) -> None:
    command = [sys.executable, "-c", USER, str(tmp_path / "compile/used")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout.readline() == b"held\n"
        os.utime(tmp_path / "compile/used", (1, 1))
        keep_recent(tmp_path / "compile/new", most=1)
        assert (tmp_path / "compile/used").is_dir()
        user.stdin.close()
        user.wait()
        os.utime(tmp_path / "compile/used", (1, 1))
        keep_recent(tmp_path / "compile/new", most=1)
    assert not (tmp_path / "compile/used").exists()


def test_what_is_no_cache_of_bench_stays_among_the_shared_ones(tmp_path) -> None:
    (tmp_path / "compile/mine").mkdir(parents=True)
    (tmp_path / "compile/mine/thesis.tex").touch()
    (tmp_path / "compile/notes").touch()
    (tmp_path / "compile/link").symlink_to(tmp_path)
    keep_recent(tmp_path / "compile/a", most=1)
    keep_recent(tmp_path / "compile/b", most=1)
    names = sorted(each.name for each in (tmp_path / "compile").iterdir())
    assert names == ["b", "link", "mine", "notes"]
    assert (tmp_path / "compile/mine/thesis.tex").exists()


def test_cache_hits_count_per_job_and_uncacheable_code_is_a_miss() -> None:
    reset()
    inductor = dynamo.counters["inductor"]
    inductor["fxgraph_cache_hit"] = inductor["fxgraph_cache_miss"] = inductor["fxgraph_cache_bypass"] = 3
    before = read_counters()
    inductor["fxgraph_cache_hit"] += 2
    inductor["fxgraph_cache_miss"] += 4
    inductor["fxgraph_cache_bypass"] += 1
    with CompileEventLog() as opened:
        found = observe(None, before, opened)
    assert (found.cache_hits, found.cache_misses, found.cache_state) == (2, 5, "mixed")
    reset()
    assert (read_counters().cache_hits, read_counters().cache_misses) == (0, 0)


@pytest.mark.parametrize("place", ["torch.__version__", "torch.version.git_version", "transformers.__version__"])
def test_another_version_has_another_shared_cache(monkeypatch, place: str) -> None:
    config, device = BenchmarkConfig(compile_kwargs={"mode": "default", "cache": "shared"}), torch.device("cpu")
    before = shared_cache(config, device)
    monkeypatch.setattr(f"bench.trial.evidence.compile_cache.{place}", "0.0.0")
    assert shared_cache(config, device) != before
