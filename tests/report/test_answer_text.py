"""Test the last lines of a sweep: the report's answer in three lines of 100 columns, with the next step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bench.report.comparison import build_report_of_records
from bench.report.page.answer import build_answer
from bench.report.setting_view import setting_views
from bench.report.terminal.answer_text import answer_of_run, answer_of_sweep, lines_of, print_answer, shortened
from bench.results.record import Failure, Fidelity, Record, Steadiness
from sweeps import EAGER, NEAR, SDPA, job, jobs

UNSTEADY = Steadiness(steady=False, flags=["trend"], shape="slowdown", power="enough")
DIFFERS = Fidelity(reference="eager", agrees=False, reason="kl_mean_nats 2")


def said(records: Sequence[Record], jobs_planned: int | None = None) -> str:
    comparison = build_report_of_records(records)
    answer = build_answer(setting_views(records), comparison, jobs=jobs_planned)
    text = answer_of_sweep(answer, records, comparison)
    assert len(lines_of(text)) <= 3
    return text


def failed(name: str) -> Record:
    record = job(name, 1.0, status="failed", stage="load", error=Failure(type="E", message="no such layer"))
    record.iterations = []
    return record


def aa(repeats: int, second: Sequence[float] = EAGER, **changes: Any) -> list[Record]:
    labels = {"a": EAGER[:repeats], "b": second[:repeats]}
    return [
        each for name, times in labels.items() for each in jobs({name: times}, swept={"sweep.label": name}, **changes)
    ]


def test_a_verdict_is_the_answer() -> None:
    text = said(jobs({"eager": EAGER, "sdpa": SDPA}))
    assert text.startswith("sdpa is faster than eager. A call takes ")
    assert "95 % interval" in text


def test_one_process_each_ends_with_the_command_that_gives_a_verdict() -> None:
    text = said(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert text.startswith("Lowest median, no verdict: sdpa.")
    assert "sweep.repeats=5" in text.splitlines()[-1]


def test_without_ranked_settings_the_answer_says_why_and_what_to_type() -> None:
    text = said(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, steadiness=UNSTEADY))
    assert text.startswith("No setting can be called ")
    assert "Not ranked (it was unsteady during measurement): 2 of 2 settings." in text
    assert text.endswith("Run again with warmup=auto measurement=adaptive; a quieter machine helps more.")


def test_wrong_outputs_are_not_remedied_by_more_calls() -> None:
    text = said(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, fidelity=DIFFERS))
    assert "measurement=adaptive" not in text
    assert "The report says how far the outputs differ" in text


def test_jobs_without_a_record_are_counted() -> None:
    assert "2 of 4 jobs left no record." in said(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}), jobs_planned=4)


def test_a_sweep_of_failures_says_how_the_jobs_failed() -> None:
    text = said([failed("a"), failed("b")])
    assert text.startswith("No setting came through. 2 jobs: 2 failed.")
    assert "no such layer" in text


def test_a_sweep_without_records_says_so() -> None:
    answer = build_answer([], None, jobs=6)
    text = answer_of_sweep(answer, [], None)
    assert text == "Nothing was measured: no job left a record. 6 of 6 jobs left no record."


def test_an_aa_sweep_ends_with_the_difference_that_this_machine_can_detect() -> None:
    records = aa(5, NEAR)
    floor = build_report_of_records(records).noise_floor
    assert floor is not None
    text = said(records)
    assert text.startswith(f"On this machine, {floor.advice()[0].replace('With', 'with', 1)}.")
    assert "b against a, the same setting: " in text


def test_an_aa_sweep_with_a_verdict_says_that_something_else_differed() -> None:
    assert "b against a, the same setting: faster, so something beside the setting differed." in said(aa(5, SDPA))


def test_an_aa_sweep_of_too_few_processes_says_how_many_it_needs() -> None:
    text = said(aa(2))
    assert text.startswith("What difference this machine can tell is not known")
    assert text.endswith("Run again with sweep.repeats=5.")


def test_labels_beside_other_swept_keys_are_settings_like_any_other() -> None:
    records = [
        job(f"{name} {arm}", 1.0, swept={"sweep.label": arm, "attention": name}) for name in ("x", "y") for arm in "ab"
    ]
    assert "On this machine" not in said(records)


@pytest.mark.parametrize("width", [20, 95, 400])
@pytest.mark.parametrize("letter", ["n", "名"])
@pytest.mark.parametrize("changes", [{}, {"steadiness": UNSTEADY}], ids=["ranked", "unsteady"])
def test_names_of_any_length_keep_the_three_lines_and_the_instruction(width: int, letter: str, changes) -> None:
    names = [letter * width + str(number) for number in range(6)]
    text = said(jobs(dict.fromkeys(names, EAGER[:1]), **changes))
    assert max(map(cell_len, lines_of(text))) <= 100
    assert ("sweep.repeats=5" if not changes else "measurement=adaptive") in text


def test_a_sentence_that_does_not_fit_is_omitted_and_the_instruction_is_kept() -> None:
    text = shortened(["First.", "x" * 290 + ".", "Third."], "Do this.")
    assert text == "First. Third. Do this."
    cut = shortened(["word " * 100], "Do this.")
    assert cut.endswith(" … Do this.")
    assert len(lines_of(cut)) == 3


def test_a_narrow_terminal_gets_narrower_lines(monkeypatch) -> None:
    out = io.StringIO()
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    print_answer(Console(file=out, width=40, force_terminal=True, color_system=None), "word " * 20)
    assert max(map(len, out.getvalue().splitlines())) <= 40
    assert out.getvalue().startswith("\n")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (job("eager", 1.0), "eager: 1000 ms a call, "),
        (job("eager", 1.0, steadiness=UNSTEADY), "not to be compared: it was unsteady during measurement. Run again "),
        (job("eager", 1.0, fidelity=DIFFERS), "not to be compared: its output differs from the reference's. The rep"),
        (failed("eager"), "eager: failed: in load: E: no such layer"),
    ],
)
def test_a_single_run_ends_with_one_line(record: Record, line: str) -> None:
    assert line in answer_of_run(record)
    assert "\n" not in answer_of_run(record)
