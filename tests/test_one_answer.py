"""Test that every view of a sweep names the same first setting, the same ranked ones and the same marks.

Hypothesis generates the sweeps, the same ones in every run. The expected results are computed here again, in a few
lines that share nothing with the code.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.analysis.ranking import rank
from bench.analysis.settings import settings_of
from bench.analysis.trials.summary import summarize
from bench.report.comparison import build_report_of_records
from bench.report.figures.drawing.shown_settings import choose, with_calls
from bench.report.page.build import Sweep, build_page
from bench.report.rows import rows_of
from bench.report.search import build_search_report
from bench.report.setting_rows import setting_rows
from bench.report.setting_view import setting_views
from bench.report.terminal.results_table import print_table
from bench.results.record import Failure, Fidelity, Record, Steadiness, Unverified
from bench.tracking.publish_mark import record_key
from bench.tracking.runs.standing import places_of, published_headline, ranking_of
from bench.tracking.runs.trial_run import run_name
from sweeps import job

NAMES = ("eager", "sdpa", "flex", "flash", "math")
STEADINESS = {
    "yes": Steadiness(steady=True, flags=[], shape="flat", power="enough"),
    "no": Steadiness(steady=False, flags=["changepoint", "cv_high"], shape="slowdown", power="enough"),
    "noisy": Steadiness(steady=None, flags=["cv_high", "autocorrelated"], shape="flat", power="too noisy to tell"),
    "few": Steadiness(steady=None, flags=[], shape=None, power="too few calls"),
}
STATUSES = ("ok", "ok", "ok", "ok", "skipped", "failed", "crashed")


@dataclass(frozen=True, kw_only=True)
class Process:
    """The generated values of one process."""

    status: str
    e2e_s: float
    steady: str
    agrees: bool | None
    is_warm: bool
    is_verified: bool


processes = st.builds(
    Process,
    status=st.sampled_from(STATUSES),
    e2e_s=st.floats(0.5, 2.0).map(lambda value: round(value, 3)),
    steady=st.sampled_from(["yes", "yes", "no", "noisy", "few"]),
    agrees=st.sampled_from([True, True, True, None, False]),
    is_warm=st.sampled_from([True, True, True, False]),
    is_verified=st.sampled_from([True, True, False]),
)
one_each = st.lists(processes.map(lambda each: [each]), min_size=1, max_size=len(NAMES))
repeated = st.integers(1, 4).flatmap(
    lambda repeats: st.lists(st.lists(processes, min_size=repeats, max_size=repeats), min_size=1, max_size=len(NAMES))
)


def examples(number: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def record_of(name: str, repeat: int, drawn: Process) -> Record:
    record = job(name, drawn.e2e_s, repeat, steadiness=STEADINESS[drawn.steady])
    record.status = drawn.status
    record.fidelity = Fidelity(reference="eager", agrees=drawn.agrees, reason=None if drawn.agrees else "reasons")
    record.warmup_status = "converged" if drawn.is_warm else "not_converged"
    if record.observed is not None and not drawn.is_verified:
        record.observed.unverified.append(Unverified(key="attention", reason="the profiler failed"))
    if drawn.status != "ok":
        record.error = Failure(type="RuntimeError", message="no such layer")
        record.iterations = []
    return record


def records_of(sweep: Sequence[Sequence[Process]]) -> list[Record]:
    repeats = max(map(len, sweep))
    return [
        record_of(name, repeat + 1, drawn[repeat])
        for repeat in range(repeats)
        for name, drawn in zip(NAMES, sweep, strict=False)
    ]


def marks_of(drawn: Sequence[Process]) -> str | None:
    """Return the marks of an ok setting, None for a failed one."""
    ok = [each for each in drawn if each.status == "ok"]
    if not ok:
        return None
    unsteady = [each.steady == "no" for each in ok]
    cold = [not each.is_warm for each in ok]
    bad = sum(a or b for a, b in zip(unsteady, cold, strict=True))
    rules = 2 * bad >= len(ok)
    found = "≠" * any(each.agrees is False for each in ok)
    found += "~" * (rules and any(cold)) + "!" * (rules and any(unsteady))
    return found + "?" * any(not each.is_verified for each in ok)


def ranked_of(sweep: Sequence[Sequence[Process]]) -> list[str]:
    """Return the names of the ranked settings, the fastest first."""
    medians = {}
    for name, drawn in zip(NAMES, sweep, strict=False):
        marks = marks_of(drawn)
        if marks is not None and not marks.strip("?"):
            medians[name] = statistics.median(each.e2e_s for each in drawn if each.status == "ok")
    return sorted(medians, key=lambda name: medians[name])


def printed(records: Sequence[Record]) -> tuple[list[str], dict[str, str]]:
    """Return the names in the order of the terminal's table and the marks of each."""
    file = io.StringIO()
    print_table(Console(file=file, width=200, _environ={}), records)
    lines = file.getvalue().splitlines()
    names, marks = [], {}
    header = next(at for at, line in enumerate(lines) if line.startswith("setting"))
    for line in lines[header + 1 : lines.index("") if "" in lines else len(lines)]:
        cells = line.split()
        statuses = [at for at, cell in enumerate(cells) if cell in STATUSES]
        names.append(cells[0])
        marks[cells[0]] = "".join(cells[1 : statuses[0]])
    return names, marks


def expect(sweep: Sequence[Sequence[Process]], names: Sequence[str], ranked: Sequence[str]) -> None:
    """Check that a view begins with the ranked settings, in order."""
    assert list(ranked) == ranked_of(sweep)
    assert list(names[: len(ranked)]) == list(ranked)


@given(sweep=repeated)
@examples(150)
def test_the_ranking_follows_its_definition(sweep) -> None:
    places = rank(settings_of(records_of(sweep)))
    ranked = [each.setting.name for each in places if each.standing.is_ranked]
    expect(sweep, [each.setting.name for each in places], ranked)
    drawn = dict(zip(NAMES, sweep, strict=False))
    for each in places:
        wanted = marks_of(drawn[each.setting.name])
        assert each.standing.marks == (wanted or "")
        assert each.standing.is_ranked == (not each.standing.reasons)


@given(sweep=repeated)
@examples(60)
def test_the_terminals_table_shows_the_ranking(sweep) -> None:
    names, marks = printed(records_of(sweep))
    ranked = ranked_of(sweep)
    assert names[: len(ranked)] == ranked
    for name, drawn in zip(NAMES, sweep, strict=False):
        assert marks[name].replace("*", "") == (marks_of(drawn) or "")
        lowest = len(ranked) > 1 and name == ranked[0]
        assert ("*" in marks[name]) >= lowest
    assert "*" not in "".join(marks.values()) or len(ranked) > 1


@given(sweep=repeated)
@examples(25)
def test_the_page_shows_the_ranking(sweep) -> None:
    records = records_of(sweep)
    page = build_page(records, Sweep(), build_report_of_records(records))
    assert page.settings is not None
    ranked = ranked_of(sweep)
    assert [row.name for row in page.settings.rows][: len(ranked)] == ranked
    for row in page.settings.rows:
        wanted = marks_of(dict(zip(NAMES, sweep, strict=False))[row.name]) or ""
        assert "".join(each[0] for each in row.marks if each != "lowest median") == wanted
    if page.answer.setting is not None:
        assert page.answer.setting in ranked
    if page.answer.kind == "no verdict" and ranked:
        assert page.answer.setting == ranked[0]


@given(sweep=repeated)
@examples(25)
def test_the_figures_name_ranked_settings_first(sweep) -> None:
    choice = choose(with_calls(setting_views(records_of(sweep))))
    names = [each.setting.name for each in choice.named]
    ranked = ranked_of(sweep)
    assert names[: len(ranked)] == ranked
    assert [each.setting.name for each in choice.named if each.is_ranked] == ranked


@given(sweep=one_each)
@examples(60)
def test_each_csv_row_has_the_rank_and_marks_of_its_trial(sweep) -> None:
    rows = rows_of(records_of(sweep))
    assert {row["name"] for row in rows if row["ranked"]} == set(ranked_of(sweep))
    for row in rows:
        wanted = marks_of(dict(zip(NAMES, sweep, strict=False))[row["name"]])
        assert (row["marks"] or "") == (wanted or "")
        assert (row["reason"] is None) == row["ranked"]


@given(sweep=repeated)
@examples(60)
def test_the_rows_of_load_settings_have_the_ranking(sweep) -> None:
    found = setting_rows([records_of(sweep)])
    ranked = [name for name, is_ranked in zip(found["name"], found["ranked"], strict=True) if is_ranked]
    expect(sweep, found["name"], ranked)
    for name, marks in zip(found["name"], found["marks"], strict=True):
        assert (marks or "") == (marks_of(dict(zip(NAMES, sweep, strict=False))[name]) or "")


@given(sweep=one_each)
@examples(60)
def test_the_best_of_a_search_is_the_first_ranked_setting(sweep) -> None:
    found = build_search_report(records_of(sweep), goals={"e2e_ms": "minimize"}, space={}, size=len(sweep))
    ranked = ranked_of(sweep)
    assert [row.name for row in found.front][:1] == ranked[:1]
    assert {row.name for row in found.rows if row.standing.is_ranked} == set(ranked)


def own_marks(sweep: Sequence[Sequence[Process]], record: Record) -> str | None:
    """Return the marks of one trial, None for a failed one."""
    return marks_of([dict(zip(NAMES, sweep, strict=False))[record.name][record.repeat - 1]])


def is_ranked_alone(marks: str | None) -> bool:
    return marks is not None and not marks.strip("?")


@given(sweep=repeated)
@examples(60)
def test_mlflow_sorts_the_trials_by_the_ranking(sweep) -> None:
    records = records_of(sweep)
    places = places_of(ranking_of(records))
    placed = sorted((each for each in records if record_key(each) in places), key=lambda each: places[record_key(each)])
    assert list(dict.fromkeys(each.name for each in placed)) == ranked_of(sweep)
    for setting in ranked_of(sweep):
        ranked = [is_ranked_alone(own_marks(sweep, each)) for each in placed if each.name == setting]
        assert ranked == sorted(ranked, reverse=True), "the first run's metrics are the first charts"


@given(sweep=repeated)
@examples(60)
def test_mlflow_names_the_trials_by_the_ranking(sweep) -> None:
    for record in records_of(sweep):
        marks = own_marks(sweep, record)
        assert ("e2e_ms" in published_headline(record, summarize(record))) == is_ranked_alone(marks)
        assert run_name(record).endswith(f" {marks}" if marks else tuple("0123456789" + record.name[-1]))


@given(sweep=repeated)
@examples(60)
def test_a_comparison_judges_only_ranked_settings(sweep) -> None:
    ranked = ranked_of(sweep)
    for each in build_report_of_records(records_of(sweep)).comparisons:
        if each.setting not in ranked or each.baseline not in ranked:
            assert each.verdict.word == "inconclusive"
            assert each.verdict.p is None


@given(sweep=repeated)
@examples(60)
def test_flags_that_do_not_decide_are_no_reasons(sweep) -> None:
    for each in rank(settings_of(records_of(sweep))):
        text = " ".join(reason.text for reason in each.standing.reasons)
        assert "cv_high" not in text
        assert "autocorrelated" not in text
