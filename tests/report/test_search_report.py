"""Test a search's report: only a ranked trial is best, in the terminal, in Markdown, in JSON and on the page."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from bench.analysis.objectives import objectives_of, pareto_front
from bench.analysis.ranking import rank, standing_of
from bench.analysis.settings import settings_of
from bench.report.search import (
    SearchReport,
    build_search_report,
    print_search,
    search_answer,
    search_section,
    search_to_json,
    search_to_markdown,
)
from bench.results.record import Failure, Fidelity, Record, Steadiness, Unverified
from sweeps import job

UNSTEADY: dict[str, Any] = {"steadiness": Steadiness(steady=False, flags=["trend"], shape="slowdown", power="enough")}
WRONG: dict[str, Any] = {"fidelity": Fidelity(reference="eager", agrees=False, reason="kl_mean_nats 2")}
COLD: dict[str, Any] = {"warmup_status": "not_converged", "warmup_stop": "50 calls"}
NOISY: dict[str, Any] = {"steadiness": Steadiness(steady=None, flags=[], shape="flat", power="too noisy to tell")}
FAILED: dict[str, Any] = {"status": "failed", "stage": "load", "error": Failure(type="E", message="no such layer")}
KINDS = ({}, UNSTEADY, WRONG, COLD, NOISY, FAILED)


def report(records: Sequence[Record], goals: dict[str, str] | None = None, **options: Any) -> SearchReport:
    space = options.pop("space", {"attention": ["eager", "sdpa"]})
    return build_search_report(records, goals=goals or {"e2e_ms": "minimize"}, space=space, size=8, **options)


def printed(found: SearchReport) -> str:
    out = io.StringIO()
    print_search(Console(file=out, width=200), found)
    return out.getvalue()


def front(found: SearchReport) -> list[str]:
    return [row.name for row in found.front]


@pytest.mark.parametrize("changes", [UNSTEADY, WRONG, COLD, FAILED], ids=["unsteady", "wrong", "cold", "failed"])
def test_an_unranked_trial_is_never_best_however_fast(changes: dict[str, Any]) -> None:
    found = report([job("slow", 1.0), job("fast", 0.5, **changes), job("mid", 0.9)])
    assert front(found) == ["mid"]
    assert [each["name"] for each in search_to_json(found)["front"]] == ["mid"]
    assert "mid (e2e_ms 900.0)" in search_answer(found)
    assert "fast" not in search_answer(found)


def test_an_unsteady_trial_gives_its_value_and_a_cold_or_wrong_one_its_reason() -> None:
    assert objectives_of(job("a", 0.5, **UNSTEADY), ["e2e_ms"]) == {"e2e_ms": pytest.approx(500)}
    assert objectives_of(job("a", 0.5, **COLD), ["e2e_ms"]) == "not warm: 50 calls"
    assert objectives_of(job("a", 0.5, **WRONG), ["e2e_ms"]) == "output differs: kl_mean_nats 2"


def test_an_unranked_trial_that_is_as_good_is_shown_with_its_mark_everywhere() -> None:
    found = report([job("slow", 1.0), job("fast", 0.5, **UNSTEADY), job("slower", 2.0, **UNSTEADY)])
    rows = [line.split()[:2] for line in printed(found).splitlines()]
    assert ["slow", "1000"] in rows
    assert ["fast", "!"] in rows
    assert ["slower", "!"] not in rows
    for text in (printed(found), search_to_markdown(found), "\n".join(search_section(found).lines)):
        assert "Best of 1 ranked trial, e2e_ms minimized" in (text if "Best" in text else search_section(found).title)
        assert "fast !" in text
        assert "slower !" in text
    assert search_section(found).columns["setting"] == ["slow", "fast !"]
    told = {each["name"]: (each["ranked"], each["marks"]) for each in search_to_json(found)["trials"]}
    assert told == {"slow": (True, ""), "fast": (False, "!"), "slower": (False, "!")}
    assert [each["name"] for each in search_to_json(found)["not_ranked"]] == ["fast", "slower"]


def test_without_ranked_trials_the_report_says_so_with_the_remedy() -> None:
    found = report([job("a", 1.0, **UNSTEADY), job("b", 0.5, **UNSTEADY)])
    assert front(found) == []
    remedy = "Search again with warmup=auto measurement=adaptive; a quieter machine helps more."
    heading = "No setting can be called best, e2e_ms minimized: none of 2 trials is ranked"
    for text in (printed(found), search_to_markdown(found), search_answer(found)):
        assert heading in text
        assert remedy in text
        assert "Best of" not in text
    assert (search_section(found).title, search_section(found).lines[-1]) == (heading, remedy)
    assert search_to_json(found)["remedy"] == remedy


def test_with_only_cold_trials_the_remedy_is_shown_too() -> None:
    found = report([job("a", 1.0, **COLD)])
    assert "Nothing found: no trial has values of e2e_ms. Pruned 1: 1 not warm. Search again with " in search_answer(
        found
    )


def test_a_setting_already_in_use_is_no_remedy() -> None:
    records = [job("a", 1.0, **UNSTEADY)]
    records[0].requested["warmup"]["policy"] = "auto"
    assert report(records).remedy.startswith("Search again with measurement=adaptive;")
    records[0].requested["measurement"]["policy"] = "adaptive"
    assert report(records).remedy.startswith("Search again on a quieter machine, or with higher warmup.max_iterations")


def test_a_wrong_output_is_not_remedied_by_more_calls() -> None:
    assert "measurement=adaptive" not in report([job("a", 1.0, **WRONG)]).remedy


def test_equal_trials_are_in_the_order_of_the_ranking() -> None:
    # All have the same rate; the ranking orders them by E2E.
    records = [job(name, e2e_s) for name, e2e_s in (("b", 1.2), ("a", 1.0), ("c", 1.1))]
    found = report(records, goals={"peak_mib": "minimize"})
    assert front(found) == ["a", "c", "b"] == [each.setting.name for each in rank(settings_of(records))]


@pytest.mark.parametrize("seed", range(20))
def test_the_front_contains_only_ranked_trials(seed: int) -> None:
    draw = random.Random(seed)
    records = [
        job(f"s{number}", draw.choice((0.5, 0.6, 0.7, 0.8)), ttft_s=draw.choice((0.1, 0.2, 0.3)), **draw.choice(KINDS))
        for number in range(draw.randrange(1, 12))
    ]
    for goals in ({"e2e_ms": "minimize"}, {"ttft_ms": "maximize", "e2e_ms": "minimize"}):
        found = report(records, goals=goals)
        ranked = [each for each in records if standing_of([each]).is_ranked]
        values = [list(objectives_of(each, list(goals)).values()) for each in ranked]
        expected = {ranked[each].name for each in pareto_front(values, list(goals.values()))}
        assert set(front(found)) == expected
        shown = search_section(found).columns.get("setting", [])
        marks = {each.name: standing_of([each]).marks for each in records}
        assert all(label == f"{label.split()[0]} {marks[label.split()[0]]}".rstrip() for label in shown)


def test_a_best_trial_keeps_its_mark_unverified() -> None:
    record = job("a", 1.0)
    assert record.observed is not None
    unseen = [Unverified(key="compile.mode", reason="no CUPTI")]
    record.observed = dataclasses.replace(record.observed, unverified=unseen)
    found = report([record, job("b", 2.0)])
    assert search_section(found).columns["setting"] == ["a ?"]
    assert "a ? (e2e_ms 1000)" in search_answer(found)


@pytest.mark.parametrize(
    ("space", "goal", "line"),
    [
        ({"workload.batch_size": ["1", "2"]}, "e2e_ms", "e2e_ms favours less work; tok_per_s is fair"),
        ({"workload.batch_size": ["1", "2"]}, "tok_per_s", None),
        ({"workload.sequence_length": ["1", "2"]}, "e2e_ms", "e2e_ms favours less work"),
        ({"workload.sequence_length": ["1", "2"]}, "tok_per_s", "tok_per_s favours less work"),
        ({"attention": ["eager", "sdpa"]}, "e2e_ms", None),
    ],
)  # fmt: skip
def test_an_objective_that_favours_less_work_is_named(space, goal: str, line: str | None) -> None:
    found = report([job("a", 1.0)], goals={goal: "minimize"}, space=space)
    lines = [each.partition(": ")[2] for each in search_section(found).lines if each.startswith("settings differ in ")]
    assert lines == ([line] if line else [])
