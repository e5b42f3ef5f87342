"""Check that without a private name no job fails, and that the record marks what cannot be seen.

Each is taken away in turn, from bench's sight and, where torch can do without it, for real. `backend=eager` compiles in
a second what Inductor takes half a minute for.
"""

from __future__ import annotations

import contextlib
import importlib

import pytest
import torch

from bench.compat.private_name import MISSING, PrivateName, entries
from bench.config.schema import AttentionConfig, CompileConfig, GenerationConfig
from bench.trial.compat import probe, torch_internals, transformers_internals, workarounds
from bench.trial.evidence import compilation, observed, unverifiable
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import LoadedModel
from bench.trial.unsupported import NotHonouredError

QUICK = {"mode": "default", "backend": "eager"}
TORCH, TRANSFORMERS = entries(torch_internals), entries(transformers_internals)
# Names that a compiled job reads and without which it is marked, and the key that the mark names.
MARKS = {
    "COUNTERS": "compile.mode",
    "COMPILATIONS": "compile.mode",
    "GRAPH_BREAKS": "compile.mode",
    "CALLBACKS": "compile.mode",
    "COMPILE_ID": "compile.mode",
    "DYNAMO_OPTIONS": "compile.mode",
    "STANCE": "compile.mode",
    "MODE_OPTIONS": "compile.mode",
    "KEEP_COMPILATIONS": "compile.mode",
    "CLEAR_CODE": "compile.cache",
    "CLEAR_COMPILATIONS": "compile.cache",
    "HEADER_FOLDERS[0]": "compile.cache",
    "HEADER_FOLDERS[1]": "compile.cache",
    "ATTENTION": "attention.implementation",
}
# Those that torch itself does not look up while it compiles for the backend of these tests.
REALLY = ("COMPILATIONS", "GRAPH_BREAKS", "KEEP_COMPILATIONS", "CLEAR_CODE", "MODE_OPTIONS")


@pytest.fixture
def hide(monkeypatch):
    """Hide names from bench."""
    hidden: list[PrivateName] = []
    get, of = PrivateName.get, PrivateName.of
    monkeypatch.setattr(PrivateName, "get", lambda self: MISSING if self in hidden else get(self))
    monkeypatch.setattr(PrivateName, "of", lambda self, owner: MISSING if self in hidden else of(self, owner))
    return hidden.append


def run(config, plant=lambda runner: None):
    """Run a setting on the tiny model; returns its record, whatever the end."""
    with BenchmarkRunner(progress=lambda name, total: range(total)) as runner:
        runner.setup_benchmark("tiny", config)
        plant(runner)
        with contextlib.suppress(NotHonouredError):
            runner.run_benchmark(config)
        return runner.record


def keys_of(record) -> set[str]:
    return {each.key for each in record.unverified}


def test_an_ordinary_job_is_unmarked(tiny) -> None:
    for config in (tiny(), tiny(compile_kwargs=QUICK)):
        record = run(config)
        assert (record.status, record.unverified) == ("ok", [])


@pytest.mark.parametrize("name", MARKS)
def test_a_job_is_ok_without_a_name_that_is_evidence_and_marked(name, tiny, hide) -> None:
    entry = {**TORCH, **TRANSFORMERS}[name]
    hide(entry)
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, record.stage) == ("ok", None)
    assert keys_of(record) == {MARKS[name]}
    assert entry.unseen() in [each.reason for each in record.unverified]


def test_a_job_is_ok_and_unmarked_without_the_names_that_are_no_evidence_for_it(tiny, hide) -> None:
    for name, entry in {**TORCH, **TRANSFORMERS}.items():
        if name not in MARKS:
            hide(entry)
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, record.unverified) == ("ok", [])


@pytest.mark.parametrize("name", REALLY)
def test_a_job_is_ok_and_marked_where_torch_really_lacks_the_name(name, tiny, monkeypatch) -> None:
    module, _, attribute = TORCH[name].where.partition(":")
    monkeypatch.delattr(importlib.import_module(module), attribute)
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, keys_of(record)) == ("ok", {MARKS[name]})


@pytest.mark.parametrize("name", ["ATTENTION", "PROCESSOR", "RESOLVED", "WORKER_STATUS", "WORKLOAD_HINTS"])
def test_continuous_batching_works_without_the_name(name, tiny, hide) -> None:
    hide(TRANSFORMERS[name])
    record = run(tiny(generation=GenerationConfig(continuous_batching=True)))
    assert record.status == "ok"
    marked = {"PROCESSOR": "generation.continuous_batching", "RESOLVED": "generation.continuous_batching",
              "ATTENTION": "attention.implementation"}  # fmt: skip
    assert keys_of(record) == ({marked[name]} if name in marked else set())


@pytest.mark.parametrize("name", ["COUNTERS", "COMPILATIONS", "GRAPH_BREAKS"])
def test_what_torch_does_not_count_is_not_a_count_of_none(name, tiny, hide) -> None:
    hide(TORCH[name])
    hide(TORCH["COUNTERS"])
    record = run(tiny(compile_kwargs=QUICK))
    compiled = record.observed.compile
    known = name != "COMPILATIONS"  # the list of compilations counts graphs as well
    assert (compiled.graphs is not None, compiled.recompiles is not None) == (known, known)
    assert (record.iterations[0].graphs is not None) == known
    assert compiled.cudagraph_skips is None
    assert compiled.graph_breaks == (None if name == "GRAPH_BREAKS" else {})


# ---- a lie that is visible in another way ----------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["COUNTERS"], ["COMPILATIONS"], ["COUNTERS", "COMPILATIONS"]], ids="+".join)
def test_a_model_that_is_compiled_although_nobody_asked_is_seen_in_the_profile(names, tiny, hide) -> None:
    for name in names:
        hide(TORCH[name])

    def compile_layers(runner) -> None:
        for layer in runner._setup.request.loaded.model.model.layers:
            layer.mlp.forward = torch.compile(layer.mlp.forward, backend="eager")

    record = run(tiny(), compile_layers)
    assert record.status != "ok"


@pytest.mark.parametrize("names", [["STANCE"], ["COUNTERS", "COMPILATIONS", "STANCE"]], ids="+".join)
def test_a_compiler_that_is_switched_off_is_seen_although_its_switch_is_not(names, tiny, hide) -> None:
    for name in names:
        hide(TORCH[name])

    def switch_off(_) -> None:
        torch.compiler.set_stance("force_eager")

    try:
        record = run(tiny(compile_kwargs=QUICK), switch_off)
    finally:
        torch.compiler.set_stance("default")
    assert record.status != "ok"


def test_another_attention_than_asked_for_is_seen_in_the_profile(tiny, hide, monkeypatch) -> None:
    hide(TRANSFORMERS["ATTENTION"])
    honest = torch.nn.functional.scaled_dot_product_attention

    def math_only(*arguments, **keywords):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return honest(*arguments, **keywords)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", math_only)
    record = run(tiny(device="cpu", attention=AttentionConfig(sdpa_backend="flash_attention")))
    assert record.status != "ok"


# ---- formats that change ---------------------------------------------------------------------------------------------


def test_a_profile_that_names_no_compiled_region_marks_the_job(tiny, monkeypatch) -> None:
    monkeypatch.setattr(torch_internals, "REGION", torch_internals.re.compile("no such name"))
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, keys_of(record)) == ("ok", {"compile.mode"})


def test_operators_under_other_names_mark_the_job(tiny, monkeypatch) -> None:
    from bench.trial.evidence import attention

    monkeypatch.setattr(attention, "OPERATORS", {})
    attention._family_of_operator.cache_clear()
    try:
        record = run(tiny())
    finally:
        attention._family_of_operator.cache_clear()
    assert (record.status, keys_of(record)) == ("ok", {"attention.implementation"})


def test_counters_that_are_counted_under_other_names_mark_the_job(tiny, monkeypatch) -> None:
    """Neither the counter nor the list moves, although code is compiled and runs."""
    monkeypatch.setattr(compilation, "_listed", lambda compilations: compilation._Listed())
    counters = torch_internals.counters()
    monkeypatch.setattr(torch_internals, "counters", lambda: {**counters, "stats": {"unique_graphs": 0}})
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, keys_of(record)) == ("ok", {"compile.mode"})
    assert "counts no compilation" in record.unverified[0].reason


def test_arguments_of_torch_compile_that_are_not_seen_mark_the_job(tiny, monkeypatch) -> None:
    """As where generate asks for the compiled model in another way."""
    monkeypatch.setattr(compilation.CompileWatch, "watching", lambda self, model: contextlib.nullcontext())
    record = run(tiny(compile_kwargs=QUICK))
    assert (record.status, keys_of(record)) == ("ok", {"compile.mode"})
    assert "with which arguments" in record.unverified[0].reason


def test_the_probe_sees_what_this_torch_does_and_leaves_no_trace(tiny) -> None:
    assert compilation.counts_compilations()
    with compilation.CompileEventLog() as event_log:
        assert probe.compile_trivially().compiled
        assert event_log.events() == []


def test_a_profiler_that_fails_marks_the_job(tiny, monkeypatch) -> None:
    def refuse(*_, **__):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr("torch.profiler.profile", refuse)
    record = run(tiny())
    assert (record.status, keys_of(record)) == ("ok", {"attention.implementation"})
    assert "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES" in record.unverified[0].reason
    assert keys_of(run(tiny(compile_kwargs=QUICK))) == {"attention.implementation", "compile.mode"}
    assert keys_of(run(tiny(device="cpu", sdpa_backend="math"))) == {"attention.sdpa_backend"}


# ---- the KV cache ----------------------------------------------------------------------------------------------------


def test_a_model_that_shows_no_inputs_marks_a_cache_that_was_asked_for(tiny, monkeypatch) -> None:
    """Its class cannot be told."""

    class NoSuchCache:
        """What no cache is."""

    monkeypatch.setattr(observed.transformers, "Cache", NoSuchCache)
    for kind in ("static", "auto"):
        record = run(tiny(generation=GenerationConfig(kv_cache=kind)))
        assert (record.status, record.observed.kv_cache) == ("ok", None)
        assert keys_of(record) == {"generation.kv_cache"}


# ---- tokens that come late ---------------------------------------------------------------------------------------------


def test_tokens_that_are_handed_out_a_step_late_have_no_times(tiny, monkeypatch) -> None:
    """As transformers does where that spares the host a wait: the next step has begun by then."""
    from transformers.generation.streamers import BaseStreamer

    from bench.trial.measure.streamer import TokenClock

    class Late(BaseStreamer):
        def __init__(self, streamer) -> None:
            self.streamer, self.held, self.puts = streamer, None, 0

        def put(self, value) -> None:
            if self.puts == 0:
                self.streamer.put(value)
            elif self.held is not None:
                self.streamer.put(self.held)
            self.held = value if self.puts else None
            self.puts += 1

        def end(self) -> None:
            self.streamer.put(self.held)
            self.streamer.end()

    def deliver_late(runner) -> None:
        model = runner._setup.request.loaded.model
        original = model.generate

        def generate(**keywords):
            if isinstance(keywords.get("streamer"), TokenClock):
                keywords["streamer"] = Late(keywords["streamer"])
            return original(**keywords)

        model.generate = generate

    record = run(tiny(), deliver_late)
    assert (record.status, keys_of(record)) == ("ok", {"token times"})
    assert all(each.token_times_s == [] for each in record.iterations)
    assert record.observed.new_tokens is not None


# ---- flex_attention ----------------------------------------------------------------------------------------------------


def test_a_mask_without_a_workaround_marks_the_setting(tiny, hide, monkeypatch) -> None:
    config = tiny(
        attn_implementation="flex_attention", compile=CompileConfig(mode="default"),
        generation=GenerationConfig(kv_cache="static"),
    )  # fmt: skip
    with workarounds.applied_workarounds(config) as lines:
        assert any("flex_attention mask" in each for each in lines)
    hide(TRANSFORMERS["MASK_FUNCTIONS"])
    with workarounds.applied_workarounds(config) as lines:
        assert not any("flex_attention mask" in each for each in lines)
    loaded = LoadedModel(model=None, tokenizer=None, device=torch.device("cpu"))
    monkeypatch.setattr(unverifiable, "_is_readable", lambda name, _: name.is_here())
    assert "attention.implementation" in {each.key for each in unverifiable.missing_evidence(config, loaded)}
