"""Test the mark *unverified*, and counts that torch does not report, in all views."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

import bench
from bench.analysis.settings import settings_of, unverified_in
from bench.report.comparison import build_report_of_records, build_report_of_two, to_json
from bench.report.page.build import Sweep, build_page
from bench.report.page.html_page import to_html
from bench.report.page.markdown_page import to_markdown as page_to_markdown
from bench.report.rows import rows_of, to_csv
from bench.report.rows import to_json as rows_to_json
from bench.report.search import build_search_report, print_search, search_section, search_to_json, search_to_markdown
from bench.report.setting_view import setting_views
from bench.report.terminal.comparison_text import print_comparison, to_markdown
from bench.report.terminal.progress import print_job_line
from bench.report.terminal.results_table import print_table
from bench.report.text.format import UNDEFINED
from bench.report.text.unverified import count_line
from bench.results.record import CompileEvent, CompileObserved, Failure, Record, Unverified
from factories import make_iterations, make_record
from sweeps import EAGER, SDPA, job, jobs, sweep

ATTENTION, CACHE, COMPILE = "attention.implementation", "generation.kv_cache", "compile.mode"
NO_PROFILER = "the profiler cannot run: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"
NO_CACHE = "transformers 5.24.0 hands no cache to the model under a name that is known"


def unseen(record: Record, *keys: str, reason: str = NO_PROFILER) -> Record:
    """Return the same record without evidence that these keys were honoured."""
    assert record.observed is not None
    more = [*record.observed.unverified, *(Unverified(key=key, reason=reason) for key in keys)]
    return dataclasses.replace(record, observed=dataclasses.replace(record.observed, unverified=more))


def text_of(print_it: Any, *things: Any, width: int = 300, is_terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal, _environ={"TERM": "xterm"})
    print_it(console, *things)
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())


def whole(print_it: Any, thing: Any) -> str:
    """Return the printed text with the lines of each paragraph joined."""
    return text_of(print_it, thing).replace("\n  ", " ")


def table(*records: Record) -> list[str]:
    """Return the closing table and its notes."""
    return whole(print_table, records).splitlines()


def marked_lines(lines: Sequence[str]) -> list[str]:
    return [each for each in lines if each.startswith("? ")]


EAGER_UNSEEN = unseen(job("eager", 1.0), ATTENTION)
SDPA_SEEN = job("sdpa", 0.9)


# ---- marked settings ------------------------------------------------------------------------------------------------


def test_a_setting_is_unverified_when_any_of_its_processes_is() -> None:
    first, second, third = jobs({"sdpa": SDPA[:3]})
    (setting,) = settings_of([first, unseen(second, ATTENTION), unseen(third, ATTENTION)])
    assert setting.unverified == [Unverified(key=ATTENTION, reason=NO_PROFILER)]


def test_a_failed_process_marks_no_setting() -> None:
    first, second = jobs({"sdpa": SDPA[:2]})
    error = Failure(type="RuntimeError", message="no such layer")
    lost = dataclasses.replace(unseen(second, ATTENTION), status="failed", stage="evidence", error=error)
    (setting,) = settings_of([first, lost])
    assert setting.unverified == []
    assert unverified_in([lost]) == []
    assert not marked_lines(table(first, lost))


def test_a_reference_run_marks_no_setting() -> None:
    reference = unseen(dataclasses.replace(job("eager", 1.0), kind="reference"), ATTENTION)
    assert unverified_in([reference]) == []
    assert count_line([reference, SDPA_SEEN]) is None


# ---- the table on a terminal -----------------------------------------------------------------------------------------


def test_the_mark_follows_the_name_of_a_setting_that_is_still_ranked() -> None:
    lines = table(unseen(job("sdpa", 0.9), ATTENTION), job("eager", 1.0))
    assert lines[1].startswith("sdpa * ? ")
    assert lines[2].startswith("eager  ")
    assert marked_lines(lines) == [f"? unverified: {ATTENTION} in sdpa: {NO_PROFILER}"]


def test_equal_reasons_are_printed_once_with_their_keys_and_settings() -> None:
    records = [unseen(job("eager", 1.0), ATTENTION), unseen(job("sdpa", 0.9), ATTENTION, COMPILE), job("flex", 0.8)]
    assert marked_lines(table(*records)) == [
        f"? unverified: {ATTENTION} in sdpa, eager; {COMPILE} in sdpa: {NO_PROFILER}"
    ]


def test_each_reason_has_its_own_line() -> None:
    both = unseen(unseen(job("sdpa", 0.9), ATTENTION), CACHE, reason=NO_CACHE)
    assert marked_lines(table(both, job("eager", 1.0))) == [
        f"? unverified: {ATTENTION} in sdpa: {NO_PROFILER}",
        f"? unverified: {CACHE} in sdpa: {NO_CACHE}",
    ]


def test_some_of_many_settings_are_named_and_the_others_counted() -> None:
    many = [unseen(job(f"s{number}", 1.0 + number / 10), ATTENTION) for number in range(9)]
    assert marked_lines(table(*many)) == [f"? unverified: {ATTENTION} in all settings: {NO_PROFILER}"]
    (line,) = marked_lines(table(*many, job("seen", 9.0)))
    assert line == f"? unverified: {ATTENTION} in s0, s1, s2, s3 and 5 more: {NO_PROFILER}"


def test_a_single_run_needs_no_name_in_its_reason() -> None:
    assert marked_lines(table(unseen(make_record(), ATTENTION))) == [f"? unverified: {ATTENTION}: {NO_PROFILER}"]


def test_a_long_reason_is_wrapped_to_the_width() -> None:
    long = unseen(job("eager", 1.0), ATTENTION, reason="because " * 60)
    for line in text_of(print_table, [long, SDPA_SEEN], width=100).splitlines():
        assert len(line) <= 100


def test_a_reason_cannot_control_a_terminal() -> None:
    evil = unseen(job("eager", 1.0), ATTENTION, reason="gone\x1b[2J\nfar [red]away")
    assert marked_lines(table(evil, SDPA_SEEN)) == [f"? unverified: {ATTENTION} in eager: gone far [red]away"]


def test_a_verified_setting_has_no_mark() -> None:
    assert "?" not in "\n".join(table(job("eager", 1.0), SDPA_SEEN))


# ---- the lines of a sweep --------------------------------------------------------------------------------------------


def test_the_line_of_an_unverified_job_says_so_and_why() -> None:
    line = text_of(print_job_line, EAGER_UNSEEN, 1, 2)
    assert re.match(r"1/2  ok       eager {19}  unverified  E2E ", line)
    assert line.rstrip().endswith(f"cold 5.810 s  {ATTENTION}: {NO_PROFILER}")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_the_line_of_a_job_on_a_terminal_keeps_the_mark_and_the_width(width: int) -> None:
    line = text_of(print_job_line, EAGER_UNSEEN, 1, 2, width=width, is_terminal=True)
    assert "  unverified" in line
    assert len(line.rstrip("\n")) <= width


def test_the_line_of_a_failed_or_verified_job_has_no_mark() -> None:
    error = Failure(type="RuntimeError", message="no such layer")
    failed = dataclasses.replace(EAGER_UNSEEN, status="failed", stage="evidence", error=error)
    for record in (failed, SDPA_SEEN):
        assert "unverified" not in text_of(print_job_line, record, 1, 2)


def test_the_last_lines_count_settings_not_processes() -> None:
    records = [unseen(each, ATTENTION) for each in jobs({"eager": EAGER, "sdpa": SDPA})] + jobs({"flex": SDPA})
    assert count_line(records) == f"2 settings unverified: {ATTENTION}: {NO_PROFILER}"
    assert count_line(records[:1]) == f"1 setting unverified: {ATTENTION}: {NO_PROFILER}"
    assert count_line(jobs({"flex": SDPA})) is None


def test_the_last_lines_point_to_the_table_for_several_reasons() -> None:
    both = unseen(unseen(job("sdpa", 0.9), ATTENTION), CACHE, reason=NO_CACHE)
    assert count_line([both]) == f"1 setting unverified: {ATTENTION}, {CACHE}: 2 reasons, below the table"


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_holds_the_reasons_or_null() -> None:
    both = unseen(unseen(job("eager", 1.0), ATTENTION, COMPILE), CACHE, reason=NO_CACHE)
    rows = rows_of([both, SDPA_SEEN])
    assert [each["unverified"] for each in rows] == [
        f"{ATTENTION}, {COMPILE}: {NO_PROFILER}; {CACHE}: {NO_CACHE}", None,
    ]  # fmt: skip
    assert [each["ranked"] for each in rows] == [True, True]
    assert json.loads(rows_to_json(rows))[1]["unverified"] is None


# ---- the page --------------------------------------------------------------------------------------------------------


def page_of(*records: Record) -> Any:
    return build_page(records, Sweep(), build_report_of_records(records))


def test_the_page_marks_the_setting_and_explains_the_mark() -> None:
    page = page_of(unseen(job("sdpa", 0.9), ATTENTION), job("eager", 1.0))
    assert page.settings is not None
    assert {row.name: row.marks for row in page.settings.rows} == {
        "sdpa": ["lowest median", "? unverified"], "eager": [],
    }  # fmt: skip
    line = f"? unverified: {ATTENTION} in sdpa: {NO_PROFILER}"
    assert line in page.settings.notes
    assert line in to_html(page, [])
    assert "sdpa (lowest median) (? unverified)" in page_to_markdown(page, [])


def test_the_answer_that_names_an_unverified_setting_says_so() -> None:
    named = page_of(unseen(job("sdpa", 0.9), ATTENTION), job("eager", 1.0)).answer
    assert f"sdpa is unverified: {ATTENTION}: {NO_PROFILER}" in named.cautions
    other = page_of(job("sdpa", 0.9), EAGER_UNSEEN).answer
    assert not [each for each in other.cautions if "unverified" in each]


def test_settings_with_equal_evidence_are_separated_by_unverified_keys() -> None:
    page = page_of(EAGER_UNSEEN, SDPA_SEEN)
    assert [(each.of, each.facts.get("unverified")) for each in page.observed] == [
        ("eager", f"{ATTENTION}: {NO_PROFILER}"), ("sdpa", None),
    ]  # fmt: skip


def test_figures_show_the_mark_after_the_setting() -> None:
    assert [each.full_name for each in setting_views([EAGER_UNSEEN, SDPA_SEEN])] == [
        "eager (unverified)", "sdpa",
    ]  # fmt: skip


# ---- comparisons -----------------------------------------------------------------------------------------------------


def test_a_comparison_names_the_side_that_is_unverified() -> None:
    both = jobs({"eager": EAGER, "sdpa": SDPA})
    records = [unseen(each, ATTENTION) if each.name == "eager" else each for each in both]
    report = build_report_of_records(records)
    text = whole(print_comparison, report)
    assert re.search(r"^eager \?  .* baseline", text, re.MULTILINE)
    assert re.search(r"^sdpa  .* faster", text, re.MULTILINE)
    assert f"? unverified: {ATTENTION} in eager: {NO_PROFILER}\n" in text
    assert f"- ? unverified: {ATTENTION} in eager: {NO_PROFILER}" in to_markdown(report)
    settings = json.loads(json.dumps(to_json(report)))["settings"]
    assert [each["unverified"] for each in settings] == [[{"key": ATTENTION, "reason": NO_PROFILER}], []]


def test_a_comparison_of_two_sweeps_names_the_unverified_sweep() -> None:
    before, after = jobs({"sdpa": EAGER}), [unseen(each, ATTENTION) for each in jobs({"sdpa": SDPA})]
    text = whole(print_comparison, build_report_of_two(settings_of(before), settings_of(after)))
    assert f"? unverified: {ATTENTION} in sdpa (after): {NO_PROFILER}" in text
    rows = [line for line in text.splitlines() if line.startswith("sdpa")]
    assert [line.split()[1] == "?" for line in rows[:2]] == [False, True]


# ---- a search --------------------------------------------------------------------------------------------------------


def searched(*records: Record) -> Any:
    goals = {"e2e_ms": "minimize"}
    return build_search_report(records, goals=goals, space={"attention": ["eager", "sdpa"]}, size=2)


def test_a_search_says_that_its_best_setting_is_unverified() -> None:
    report = searched(unseen(job("sdpa", 0.9), ATTENTION), job("eager", 1.0))
    assert report.front[0].name == "sdpa"
    line = f"? unverified: {ATTENTION}: {NO_PROFILER}"
    text = text_of(print_search, report)
    assert re.search(r"^sdpa \?  ", text, re.MULTILINE)
    assert "? unverified, see above: sdpa" in text.splitlines()
    assert line in search_section(report).lines
    assert line in search_to_markdown(report)
    assert [each["unverified"] for each in search_to_json(report)["trials"]] == [
        [{"key": ATTENTION, "reason": NO_PROFILER}], [],
    ]  # fmt: skip


def test_a_search_marks_only_its_best_setting() -> None:
    report = searched(job("sdpa", 0.9), EAGER_UNSEEN)
    assert "unverified" not in text_of(print_search, report) + search_to_markdown(report)


# ---- counts torch does not report -----------------------------------------------------------------------------------

NOT_TOLD = CompileObserved(
    graphs=None,
    attention_graphs=None,
    graph_breaks=None,
    recompiles=None,
    cudagraph_skips=None,
    compile_s=None,
    autotune_s=None,
    cache_hits=None,
    cache_misses=None,
    arguments={"mode": "default"},
)


def not_told(name: str, e2e_s: float, repeat: int = 1) -> Record:
    """Build a record of a torch that reports nothing about compilation."""
    record = job(name, e2e_s, repeat)
    assert record.observed is not None
    calls = [dataclasses.replace(each, graphs=None, compile_s=None) for each in record.iterations]
    observed = dataclasses.replace(record.observed, compile=NOT_TOLD)
    return dataclasses.replace(record, iterations=calls, observed=observed)


SILENT = [not_told("eager", 1.0), not_told("sdpa", 0.9)]


def test_unknown_counts_survive_the_record_file(tmp_path) -> None:
    SILENT[0].write(tmp_path)
    read = Record.read(tmp_path)
    assert read.observed is not None
    assert read.observed.compile == NOT_TOLD
    assert {each.graphs for each in read.iterations} == {None}


def test_the_table_shows_a_dash_for_unknown_graphs() -> None:
    lines = table(*SILENT)
    assert lines[0].split()[-1] == "graphs"
    assert [line.split()[-1] for line in lines[1:3]] == [UNDEFINED, UNDEFINED]
    assert not [line for line in lines if line.startswith(("w:", "own:"))]


def test_rows_hold_null_for_unknown_counts() -> None:
    rows = rows_of(SILENT)
    assert [(each["graphs"], each["compile_cache"]) for each in rows] == [(None, None)] * 2
    assert all(each["graphs"] is None for each in json.loads(rows_to_json(rows)))
    header, first, _ = to_csv(rows).splitlines()
    assert first.split(",")[header.split(",").index("graphs")] == ""


def test_a_data_frame_has_na_for_unknown_counts_and_the_reasons_as_text(tmp_path) -> None:
    frame = bench.load_records(sweep(tmp_path, [*SILENT, EAGER_UNSEEN]))
    assert frame["graphs"].dtype == "Int64"
    assert list(frame["graphs"].isna()) == [True, True, False]
    assert frame["unverified"].dtype == "string"
    assert frame["unverified"].fillna("").to_list() == ["", "", f"{ATTENTION}: {NO_PROFILER}"]


def test_the_page_shows_dashes_for_unknown_counts_not_zero() -> None:
    page = page_of(*SILENT)
    (ran,) = page.observed
    assert ran.facts["compiled"] == "– (torch does not tell); torch.compile(mode=default)"
    about = ("graph breaks", "recompiles", "without CUDA graph", "compile cache")
    assert {key: ran.facts[key] for key in about} == dict.fromkeys(about, UNDEFINED)
    assert page.evidence is not None
    assert not {"compiling s", "autotuning s", "breaks", "recompiles"} & set(page.evidence.columns)
    assert page.settings is not None
    place = [each.header for each in page.settings.columns].index("Graphs")
    assert [row.cells[place].text for row in page.settings.rows] == [UNDEFINED, UNDEFINED]
    assert "not told" not in to_html(page, []) + page_to_markdown(page, [])


def test_known_graph_breaks_are_shown_though_graphs_are_unknown() -> None:
    record = SILENT[0]
    assert record.observed is not None
    event = CompileEvent(iteration=0, kind="graph_break", reason="a call")
    compiled = dataclasses.replace(NOT_TOLD, graph_breaks={"a call": 2}, recompiles=["size"], events=[event])
    seen = dataclasses.replace(record, observed=dataclasses.replace(record.observed, compile=compiled))
    page = page_of(seen)
    assert page.observed[0].facts["graph breaks"] == "a call (×2)"
    assert page.evidence is not None
    assert page.evidence.columns["breaks"] == ["2"]


def test_a_comparison_and_a_search_need_no_counts() -> None:
    times = {"eager": EAGER, "sdpa": SDPA}
    repeats = [not_told(name, e2e_s, at) for name, each in times.items() for at, e2e_s in enumerate(each, 1)]
    report = build_report_of_records(repeats)
    assert [each.verdict.word for each in report.comparisons] == ["faster"]
    assert json.dumps(to_json(report), allow_nan=False)
    assert text_of(print_comparison, report)
    assert text_of(print_search, searched(*SILENT)).count("sdpa")
    assert text_of(print_job_line, SILENT[0], 1, 2).startswith("1/2  ok ")


@pytest.mark.parametrize(
    ("hits", "misses", "graphs", "state"),
    [
        (None, None, None, None),
        (None, None, 3, None),
        (None, 2, 3, None),
        (3, None, 3, "mixed"),
        (3, 0, None, "warm"),
        (0, 2, None, "cold"),
        (0, None, 3, "cold"),
        (0, None, None, None),
        (0, 0, 0, None),
    ],
)
def test_a_cache_with_unknown_counts_is_neither_cold_nor_warm(
    hits: int | None, misses: int | None, graphs: int | None, state: str | None
) -> None:
    assert CompileObserved(graphs=graphs, cache_hits=hits, cache_misses=misses).cache_state == state


def test_calls_with_unknown_counts_are_still_calls() -> None:
    calls = [dataclasses.replace(each, graphs=None, compile_s=None) for each in make_iterations()]
    (row,) = rows_of([make_record(iterations=calls)])
    assert row["e2e_ms"] == pytest.approx(948.0)
