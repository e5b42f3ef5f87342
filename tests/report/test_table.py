from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bench.config.schema import ModelConfig, WarmupConfig
from bench.report.terminal.results_table import print_table
from bench.report.text.format import clock, mebibytes, milliseconds, one_line, percent, significant
from bench.results.record import (
    CompileEvent,
    CompileObserved,
    Failure,
    Fidelity,
    Iteration,
    Memory,
    Neighbours,
    Record,
    Steadiness,
)
from factories import make_config, make_evidence, make_iteration, make_iterations, make_record

LONG = "flash_attention_2 max-autotune-no-cudagraphs"
DESCRIPTIVE = "* lowest median of one process each: descriptive, not a verdict"


def calls(gap_s: float) -> list[Iteration]:
    """Build twenty equal calls whose E2E is 0.11 s plus four gaps."""
    return [make_iteration(index, "measurement", gap_s=gap_s) for index in range(20)]


def setting(name: str, gap_s: float | None = 0.2, **changes: Any) -> Record:
    """Build an ok record of a separate setting; `changes` also holds keywords of Observed and BenchmarkConfig."""
    base = make_record()
    assert base.observed is not None
    observed = dataclasses.replace(base.observed, **changes.pop("observed", {}))
    requested = make_config(**changes.pop("config", {})).to_dict()
    iterations = calls(gap_s) if gap_s is not None else make_iterations()
    fields = {"name": name, "trial_id": name, "observed": observed, "requested": requested, "iterations": iterations}
    return make_record(**fields | changes)


def broken(name: str, status: str = "failed", message: str = "no such layer", **changes: Any) -> Record:
    error = Failure(type="RuntimeError", message=message)
    return make_record(
        **{"name": name, "trial_id": name, "status": status, "stage": "load", "error": error, "iterations": []}
        | {"observed": None, "memory": Memory()}
        | changes
    )


def table(*records: Record, width: int | None = None) -> list[str]:
    """Return the printed lines; a width makes the output a terminal without colours."""
    file = io.StringIO()
    if width is None:
        console = Console(file=file, _environ={})
    else:
        console = Console(file=file, width=width, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    print_table(console, records)
    return file.getvalue().splitlines()


def names(lines: list[str]) -> list[str]:
    """Return the first word of each row below the header, up to the first empty line."""
    rows = lines[1 : lines.index("")] if "" in lines else lines[1:]
    return [row.split()[0] for row in rows]


# ---- figures -----------------------------------------------------------------------------------------------------


def test_figures_have_four_significant_digits_and_no_exponent() -> None:
    values = (0.000012345, 0.5, 9.99996, 98.1, 999.96, 1234.5678, 12345.678, 0.0)
    assert [significant(value) for value in values] == [
        "0.00001234",
        "0.5000",
        "10.00",
        "98.10",
        "1000",
        "1235",
        "12350",
        "0",
    ]


def test_undefined_figures_are_dashes() -> None:
    assert [milliseconds(None), mebibytes(None), percent(None), significant(float("nan"))] == ["–"] * 4


def test_figures_are_shown_with_their_units() -> None:
    assert milliseconds(0.11832) == "118.3"
    assert percent(0.00457) == "0.46"
    assert [mebibytes(2**19), mebibytes(512 * 2**20), mebibytes(81_234.4 * 2**20)] == ["0.5000", "512.0", "81234"]
    assert [clock(0.9), clock(31), clock(725), clock(3723)] == ["0:00", "0:31", "12:05", "1:02:03"]


def test_external_text_becomes_one_harmless_line() -> None:
    assert one_line("a\n\tb\x1b[31mc\x1b[0m\x07 \x1b]0;title\x07d") == "a bc d"


# ---- the table ---------------------------------------------------------------------------------------------------


def test_a_single_run_is_named_by_its_model() -> None:
    assert table(make_record()) == [
        "setting         status  E2E ms   ±%  TTFT ms  ITL ms  tok/s  cold s  peak MiB  graphs",
        "org/tiny        ok       948.0  4.0    100.0   209.5  10.55   5.000     512.0       1",
    ]


def test_a_sweep_is_ordered_by_latency_and_failures_come_last_with_their_reasons() -> None:
    slow, fast = setting("off", 0.2), setting("default", 0.1)
    lost, skipped = broken("flash off", "timeout"), broken("flex off", "skipped", "attention.implementation=flex: no")
    assert table(lost, slow, skipped, fast) == [
        "setting         status   E2E ms  ±%  TTFT ms  ITL ms  tok/s  cold s  peak MiB  graphs",
        "default *       ok        510.0   0    100.0   100.0  19.61       –     512.0       1",
        "off             ok        910.0   0    100.0   200.0  10.99       –     512.0       1",
        "flex off        skipped       –   –        –       –      –       –         –       –",
        "flash off       timeout       –   –        –       –      –       –         –       –",
        "",
        "flash off: in load: RuntimeError: no such layer",
        "flex off: attention.implementation=flex: no",
        "",
        DESCRIPTIVE,
    ]


def test_measurements_of_a_failed_job_are_shown_and_never_ranked() -> None:
    lines = table(setting("off"), broken("default", iterations=calls(0.1)[:3]))
    assert names(lines) == ["off", "default"]
    assert lines[2].split()[:6] == ["default", "failed", "510.0", "–", "100.0", "100.0"]
    assert "*" not in "".join(lines)


def test_one_ok_setting_is_not_marked() -> None:
    assert "*" not in "".join(table(setting("off"), broken("default")))


def test_equally_low_medians_are_all_marked() -> None:
    assert table(setting("a"), setting("b"))[1:3] == [
        "a *             ok       910.0   0    100.0   200.0  10.99       –     512.0       1",
        "b *             ok       910.0   0    100.0   200.0  10.99       –     512.0       1",
    ]


def test_uncompiled_settings_show_that_no_graph_was_made() -> None:
    assert table(setting("off", observed={"compile": CompileObserved(graphs=0)}))[1].endswith(" 0")


def test_no_records_print_nothing() -> None:
    assert table() == []


# ---- repeats -----------------------------------------------------------------------------------------------------


def test_repeats_of_a_setting_share_a_row_with_the_median_over_processes() -> None:
    repeats = [setting("off", gap_s, repeat=number) for number, gap_s in enumerate((0.2, 0.1, 0.15), 1)]
    other = [setting("default", 0.12, repeat=number) for number in (1, 2, 3)]
    lines = table(*repeats, *other)
    assert lines == [
        "setting         status  runs  E2E ms  ±%  TTFT ms  ITL ms  tok/s  cold s  peak MiB  graphs",
        "default *       ok         3   590.0   0    100.0   120.0  16.95       –     512.0       1",
        "off             ok         3   710.0   0    100.0   150.0  14.08       –     512.0       1",
        "",
        "* lowest median over 3 processes; no verdict on the difference",
    ]


def test_a_failed_repeat_is_not_counted_and_named() -> None:
    lines = table(setting("off", 0.2), setting("off", 0.2, repeat=2), broken("off", repeat=3), setting("default", 0.1))
    assert lines[0].split()[:3] == ["setting", "status", "runs"]
    assert lines[2].split()[:6] == ["off", "ok", "2", "of", "3", "910.0"]
    assert "off #3: in load: RuntimeError: no such layer" in lines
    assert "* lowest median over 1 to 2 processes; no verdict on the difference" in lines


def test_graphs_that_differ_between_repeats_are_a_range() -> None:
    repeats = [setting("off", repeat=n, observed={"compile": CompileObserved(graphs=n)}) for n in (2, 3)]
    assert table(*repeats)[1].endswith(" 2..3")


# ---- doubts about a figure --------------------------------------------------------------------------------------


def same() -> Fidelity:
    return Fidelity(reference="eager", agrees=True)


def different() -> Fidelity:
    return Fidelity(reference="eager", agrees=False, reason="kl_mean_nats 0.5 exceeds 1e-05 (float32)")


def test_a_fast_setting_with_a_different_output_is_marked_and_never_lowest() -> None:
    lines = table(setting("off", 0.2, fidelity=same()), setting("wrong", 0.1, fidelity=different()),
                  setting("slow", 0.3, fidelity=same()))  # fmt: skip
    assert names(lines) == ["off", "slow", "wrong"]
    assert lines[0].split()[-2:] == ["output", "graphs"]
    assert [line.split()[-2] for line in lines[1:4]] == ["same", "same", "DIFFERS"]
    assert [line.split()[1] == "*" for line in lines[1:4]] == [True, False, False]
    assert lines[3].startswith("wrong ≠  ")
    told = "its output differs from the reference's (kl_mean_nats 0.5 exceeds 1e-05 (float32))"
    assert any(line.startswith("≠ wrong is not ranked: its output differs") for line in lines)
    assert told in " ".join(" ".join(lines).split())


def test_one_differing_process_marks_the_setting() -> None:
    lines = table(setting("a", fidelity=same()), setting("a", repeat=2, fidelity=different()))
    assert lines[1].split()[-2] == "DIFFERS"


def test_an_uncompared_output_says_why() -> None:
    unknown = Fidelity(reference="eager", reason="the reference run ended oom: no room")
    lines = table(setting("a", fidelity=unknown))
    assert lines[1].split()[-2] == "–"
    assert "a: output not compared: the reference run ended oom: no room" in lines


def test_without_any_comparison_there_is_no_output_column() -> None:
    assert "output" not in table(setting("a"))[0]


@pytest.mark.parametrize(("hits", "misses", "cell"), [(0, 2, "5.000"), (2, 0, "w"), (1, 1, "w")])
def test_a_warm_compile_cache_is_not_taken_for_a_cold_start(hits: int, misses: int, cell: str) -> None:
    compiled = CompileObserved(graphs=1, cache_hits=hits, cache_misses=misses)
    lines = table(setting("a", None, observed={"compile": compiled}))
    assert lines[1].split()[-3] == cell
    assert ("w: compiled code came from a cache, so the first call was no cold start" in lines) == (cell == "w")


def test_graphs_compiled_by_flex_attention_itself_are_distinguished() -> None:
    own = CompileObserved(graphs=4, attention_graphs=4)
    lines = table(setting("flex", config={"compile_kwargs": None}, observed={"compile": own}))
    assert lines[1].endswith(" 4 own")
    assert "own: flex_attention compiles itself, compile.mode or not" in lines


def test_compilations_in_measured_calls_are_reported() -> None:
    events = [CompileEvent(iteration=7, kind="recompile"), CompileEvent(iteration=0, kind="graph")]
    record = setting("a", None, observed={"compile": CompileObserved(graphs=2, events=events)})
    assert "a: compiled anew in 1 of 20 measured calls" in table(record)


def test_calls_with_different_tokens_are_reported() -> None:
    record = setting("a")
    assert record.output is not None
    record.output = dataclasses.replace(record.output, same_in_all_calls=False)
    assert "a: its calls put out different tokens" in table(record)


def test_the_share_of_the_bandwidth_is_shown_if_known() -> None:
    lines = table(setting("a", roofline=make_evidence()["roofline"]))
    assert lines[0].split()[-3:] == ["MBU", "%", "graphs"]
    assert lines[1].split()[-2] == "50"


# ---- what makes rows incomparable --------------------------------------------------------------------------------


def test_settings_of_different_batch_size_are_compared_by_token_rate_only() -> None:
    lines = table(setting("1", config={"batch_size": 1}), setting("8", config={"batch_size": 8}))
    assert lines[-1] == "settings differ in workload.batch_size: compare tok/s, not E2E"
    assert "*" not in "".join(lines)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"config": {"sequence_length": 99}}, "workload.sequence_length"),
        ({"config": {"model": ModelConfig(id="org/other")}}, "model.id"),
        ({"observed": {"device_name": "Other GPU"}}, "device"),
    ],
)
def test_settings_of_different_prompts_models_or_devices_are_not_compared(changes: dict[str, Any], what: str) -> None:
    lines = table(setting("a"), setting("b", **changes))
    assert lines[-1] == f"settings differ in {what}: not comparable on E2E"
    assert "*" not in "".join(lines)


def test_settings_of_different_dtypes_are_compared() -> None:
    assert table(setting("a"), setting("b", config={"dtype": "bfloat16"}))[-1] == DESCRIPTIVE


def test_rows_without_figures_do_not_make_the_others_incomparable() -> None:
    requested = make_config(batch_size=64).to_dict()
    assert table(setting("a"), setting("b"), broken("c", requested=requested))[-1] == DESCRIPTIVE


def test_cache_types_chosen_by_compilation_are_named() -> None:
    lines = table(setting("default", 0.1), setting("off", observed={"kv_cache": "DynamicCache"}))
    assert lines[-2:] == [
        "note: KV caches differ: static in default; dynamic in off. generation.kv_cache=static compares",
        "  like with like",
    ]


def test_a_single_cache_type_needs_no_note() -> None:
    assert not [line for line in table(setting("a"), setting("b")) if line.startswith("note")]


# ---- width and text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_the_table_never_exceeds_the_width_and_never_cuts_a_figure(width: int) -> None:
    records = [setting(LONG, 0.1), setting("x" * 70, 0.2), broken("flex [red]off", message="long " * 60)]
    records += [setting("off", 0.3, repeat=number) for number in (1, 2)]
    lines = table(*records, width=width)
    assert max(cell_len(line) for line in lines) <= width
    assert "…" not in "".join(lines)
    assert {"510.0", "910.0", "1310"} <= set(" ".join(lines).split())


@pytest.mark.parametrize("width", [100, 80])
def test_every_column_is_shown_from_a_width_of_80(width: int) -> None:
    lines = table(setting(LONG, None), setting("off"), width=width)
    headers = " ".join(" ".join(lines[:2]).split())
    assert headers == "E2E TTFT ITL cold peak setting status ms ±% ms ms tok/s s MiB graphs"


def test_without_a_terminal_the_table_is_100_columns_wide_and_plain() -> None:
    records = [setting(LONG), broken("off", message="\x1b[31mword " * 40)]
    lines = table(*records)
    assert 80 < max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)


def test_markup_in_names_and_reasons_is_literal() -> None:
    lines = table(setting("[red]off"), broken("[/x]", message="[bold]no[/bold] :smile:"))
    assert names(lines) == ["[red]off", "[/x]"]
    assert "[/x]: in load: RuntimeError: [bold]no[/bold] :smile:" in lines


def doubtful(name: str, gap_s: float, repeat: int = 1) -> Record:
    """Build a process with every possible caveat of an ok setting, and with every column."""
    changes = {"steadiness": judged(False, "trend"), "fidelity": different(), "roofline": make_evidence()["roofline"]}
    cold = {"warmup_status": "not_converged", "warmup_stop": "after 50 calls not level"}
    policy = {"warmup": WarmupConfig(policy="auto")}
    return setting(name, gap_s, repeat=repeat, config=policy, **changes, **cold)


@pytest.mark.parametrize("width", [100, 80, 60, 40])
@pytest.mark.parametrize("settings", [1, 6, 40])
@pytest.mark.parametrize("name", ["off", LONG, "模型" * 9], ids=["short", "long", "wide"])
def test_each_mark_is_at_the_name_whatever_columns_are_omitted(width: int, settings: int, name: str) -> None:
    every = [doubtful(f"{name} {n}", 0.1 + n / 100, repeat) for n in range(settings) for repeat in (1, 2)]
    lines = table(*every, width=width)
    assert max(cell_len(line) for line in lines) <= width
    rows = lines[: lines.index("")]
    for mark in "!≠~":
        assert sum(line.split().count(mark) for line in rows) >= settings
        assert any(line.startswith(f"{mark} ") for line in lines[lines.index("") :])


def test_marks_are_shown_without_colour_and_at_any_width() -> None:
    lines = table(doubtful("a", 0.1), setting("b", 0.2), width=40)
    assert "DIFFERS" not in "".join(lines[: lines.index("")])
    assert any(line.startswith("a ≠ ~ !") for line in lines)


def test_an_unsteady_setting_that_did_not_warm_up_has_both_marks_explained() -> None:
    lines = table(doubtful("a", 0.1), setting("b", 0.2))
    assert "! a is not ranked: it was unsteady during measurement (trend)" in lines
    assert "~ a is not ranked: its warm-up did not converge (after 50 calls not level)" in lines


def test_a_failed_setting_has_no_marks() -> None:
    lines = table(broken("a", fidelity=different(), warmup_status="not_converged"), setting("b"))
    assert lines[2].startswith("a   ")


# ---- steadiness and warm-up --------------------------------------------------------------------------------------


def judged(steady: bool | None, *flags: str, power: str = "enough") -> Steadiness:
    return Steadiness(steady=steady, flags=list(flags), shape="flat", power=power)


def cells(lines: list[str], header: str) -> list[str]:
    """Return the cells of one column, located by the right end of its header."""
    end = lines[0].index(header) + len(header)
    return [row[:end].split()[-1] for row in lines[1 : lines.index("")]]


def test_each_setting_says_whether_it_was_steady() -> None:
    lines = table(
        setting("a", 0.1, steadiness=judged(True)),
        setting("b", 0.2, steadiness=judged(False, "trend")),
        setting("c", 0.3, steadiness=judged(None, power="too noisy to tell")),
        setting("d", 0.4, steadiness=judged(None, power="too few calls")),
        setting("e", 0.5),
    )
    assert names(lines) == ["a", "c", "d", "e", "b"]
    assert cells(lines, "steady") == ["yes", "noisy", "few", "–", "no"]


def test_an_unsteady_setting_is_below_the_ranked_ones_with_its_mark() -> None:
    lines = table(
        setting("fast", 0.1, steadiness=judged(False, "changepoint", "trend")),
        setting("slow", 0.2, steadiness=judged(True)),
        setting("slower", 0.3, steadiness=judged(True)),
    )
    assert lines[1].startswith("slow *  ")
    assert lines[2].startswith("slower  ")
    assert lines[3].startswith("fast !  ")
    assert "! fast is not ranked: it was unsteady during measurement (changepoint, trend)" in lines


def test_of_several_processes_half_must_be_unsteady_for_the_mark() -> None:
    states = [judged(False, "bimodal"), judged(False, "trend"), judged(True), judged(True), judged(True)]
    five = [setting("x", 0.1, repeat=number, steadiness=each) for number, each in enumerate(states, 1)]
    four = [setting("y", 0.2, repeat=number, steadiness=each) for number, each in enumerate(states[:4], 1)]
    lines = table(*five, *four, setting("z", 0.3))
    rows = {line.split()[0]: line for line in lines[: lines.index("")]}
    assert rows["x"].startswith("x *  ")
    assert rows["y"].startswith("y !  ")
    told = "! y is not ranked: it was unsteady during measurement (2 of 4 processes unsteady, 2 steady; bimodal, trend)"
    assert told in " ".join(" ".join(lines).split())
    assert "2 no 3 yes" in rows["x"]
    assert "2 no 2 yes" in rows["y"]


def test_a_setting_that_did_not_warm_up_is_ranked_below_and_never_lowest() -> None:
    stop = "after 50 calls the last 8 calls are not level (second half -5.0%, along the line -9.0%)"
    cold = setting("cold", 0.1, warmup_status="not_converged", warmup_stop=stop)
    lines = table(cold, setting("warm", 0.3), setting("warmer", 0.2))
    assert names(lines) == ["warmer", "warm", "cold"]
    assert lines[1].startswith("warmer * ")
    assert lines[3].startswith("cold ~  ")
    assert any(line.startswith("~ cold is not ranked: its warm-up did not converge (after 50 calls") for line in lines)


def test_warm_up_calls_are_shown_if_their_number_is_a_result() -> None:
    auto = {"config": {"warmup": WarmupConfig(policy="auto")}, "iterations": make_iterations()}
    lines = table(setting("auto", **auto), setting("fixed", 0.3))
    assert cells(lines, "warm-up") == ["5", "0"]
    assert "warm-up" not in table(setting("a", 0.1), setting("b", 0.2))[0]


# ---- neighbours --------------------------------------------------------------------------------------------------


def beside(at_start: int, came: int, unknown: str | None = None) -> dict[str, Any]:
    return {"neighbours": Neighbours(at_start=at_start, came=came, waited_s=0.0, unknown=unknown)}


def test_jobs_that_shared_their_host_are_named() -> None:
    lines = table(setting("a", **beside(1, 0)), setting("b", **beside(0, 0)), setting("c", **beside(1, 2)))
    assert "2 jobs had neighbours on the same host (how many): a (1), c (3)" in lines
    assert "1 job had neighbours on the same host (how many): a (1)" in table(setting("a", **beside(1, 0)))


def test_jobs_alone_on_their_host_get_no_note() -> None:
    assert table(setting("a", **beside(0, 0)), setting("b")) == table(setting("a"), setting("b"))


def test_a_host_that_could_not_be_queried_is_reported_once() -> None:
    lines = table(*(setting(each, **beside(0, 0, "/x: Permission denied")) for each in "ab"))
    told = "jobs of this host were neither counted nor kept apart: /x: Permission denied"
    assert lines.count(told) == 1
