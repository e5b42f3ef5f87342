"""Test the page's other contents: the table, failures, evidence, environment, formulas and the command to repeat it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.report.comparison import build_report_of_records
from bench.report.page.build import LINES_SHOWN, ROWS_SHOWN, Sweep, build_page
from bench.report.page.content import Page, SettingsTable
from bench.report.page.evidence import FAILURES_SHOWN
from bench.report.page.evidence import LINES_SHOWN as LOG_LINES
from bench.report.page.formulas import FORMULAS
from bench.report.page.reproduce import command_of
from bench.report.rows import rows_of
from bench.results.record import CompileObserved, Failure, Record, Steadiness
from factories import PEAK_MIB, make_evidence, make_record
from sweeps import EAGER, SDPA, job, jobs


def page(records: Sequence[Record], **known: Any) -> Page:
    report = build_report_of_records(records, typed=known.get("typed"))
    return build_page(records, Sweep(**known), report)


def table(records: Sequence[Record], **known: Any) -> SettingsTable:
    found = page(records, **known).settings
    assert found is not None
    return found


def cells(found: SettingsTable, name: str) -> dict[str, str]:
    """Map each header with its unit to the cell of one setting."""
    row = next(each for each in found.rows if each.name == name)
    headers = [f"{each.header} {each.unit}".strip() for each in found.columns]
    return dict(zip(headers, (each.text for each in row.cells), strict=True))


def failure(name: str, message: str = "no such layer", detail: str | None = None, **changes: Any) -> Record:
    error = Failure(type="RuntimeError", message=message, detail=detail)
    return job(name, 1.0, **{"status": "failed", "stage": "load", "error": error} | changes)


# ---- the table of settings -----------------------------------------------------------------------------------------


def test_every_headline_figure_is_in_the_table() -> None:
    found = cells(table([make_record(name="known", **make_evidence())]), "known")
    # Each call is slower than the one before, so the median's uncertainty is their range: 38 of 948 ms.
    assert found == {
        "Status": "ok", "E2E ms": "948.0", "± %": "4.0", "TTFT ms": "100.0", "ITL ms": "209.5", "TPOT ms": "209.5",
        "tok/s output": "10.55", "tok/s decode": "9.547", "Cold s": "5.000", "Peak MiB": f"{PEAK_MIB}.0", "MBU %": "50",
        "Energy J/token": "0.3000", "Steady": "yes", "Output": "same", "Graphs": "1",
    }  # fmt: skip


def test_swept_keys_are_columns() -> None:
    found = table(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert cells(found, "sdpa")["attention"] == "sdpa"


def test_the_fastest_setting_is_first_and_failed_ones_last() -> None:
    found = table([failure("flex"), *jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})])
    assert [row.name for row in found.rows] == ["sdpa", "eager", "flex"]


def test_untrusted_settings_are_marked_in_words() -> None:
    unsteady = Steadiness(steady=False, flags=["trend"], shape="slowdown", power="enough")
    records = [*jobs({"a": EAGER[:1], "b": SDPA[:1]}), job("c", 0.1, steadiness=unsteady)]
    records.append(job("d", 0.1, warmup_status="not_converged"))
    marks = {row.name: row.marks for row in table(records).rows}
    assert marks == {"a": [], "b": ["lowest median"], "c": ["! unsteady"], "d": ["~ not warm"]}


def test_a_column_without_known_values_is_omitted_with_the_reason() -> None:
    found = table(jobs({"eager": EAGER[:1]}))
    assert "Energy J/token" not in cells(found, "eager")
    assert "Energy is not known" in found.notes


def test_a_figure_of_several_processes_is_their_median() -> None:
    found = cells(table(jobs({"eager": EAGER, "sdpa": SDPA})), "eager")
    assert (found["E2E ms"], found["Runs"]) == ("1000", "5")


def test_a_setting_has_the_colour_of_its_typed_position() -> None:
    records = jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})
    forwards, backwards = table(records, typed=["eager", "sdpa"]), table(records, typed=["sdpa", "eager"])
    first, second = ({row.name: row.colour for row in found.rows} for found in (forwards, backwards))
    assert (first["eager"], first["sdpa"]) == (second["sdpa"], second["eager"])


def test_thousands_of_settings_are_cut_and_counted(monkeypatch) -> None:
    monkeypatch.setattr("bench.report.page.settings_table.ROWS_SHOWN", 3)
    found = table([job(f"s{number}", 1.0 + number) for number in range(5)])
    assert [row.name for row in found.rows] == ["s0", "s1", "s2"]
    assert "2 more settings are not shown; --format csv has them all" in found.notes


def test_hundreds_of_notes_are_cut_and_counted() -> None:
    unsteady = Steadiness(steady=False, flags=["trend"], shape="slowdown", power="enough")
    found = table([job(f"s{number}", 1.0, steadiness=unsteady) for number in range(40)])
    assert sum("not ranked" in note for note in found.notes) == 12
    assert "and 28 more notes of this kind" in found.notes


# ---- comparison, failures, evidence --------------------------------------------------------------------------------


def test_the_comparison_has_the_text_of_the_terminal() -> None:
    sections = page(jobs({"eager": EAGER, "sdpa": SDPA})).comparison
    assert sections[0].columns["verdict"] == ["baseline", "faster"]
    assert sections[-1].title.startswith("Noise floor of E2E (10 processes of 2 settings)")


def test_a_long_comparison_is_cut_and_says_so() -> None:
    sections = page([job(f"s{number}", 1.0) for number in range(ROWS_SHOWN + 50)]).comparison
    assert len(sections[0].columns["setting"]) == ROWS_SHOWN
    assert sections[0].lines == ["50 more rows are in comparison.json"]
    assert all(len(section.lines) <= LINES_SHOWN + 2 for section in sections)


def test_jobs_that_failed_the_same_way_are_grouped() -> None:
    found = page([failure("a"), failure("b"), failure("c", "another"), *jobs({"d": EAGER[:1]})]).failures
    assert [(each.jobs, each.reason) for each in found] == [
        ("a, b", "in load: RuntimeError: no such layer"),
        ("c", "in load: RuntimeError: another"),
    ]


def test_the_last_lines_of_a_log_are_kept() -> None:
    detail = "\n".join(f"line {number}" for number in range(1000))
    (found,) = page([failure("a", detail=detail)]).failures
    assert found.detail is not None
    assert found.detail.splitlines() == [f"line {number}" for number in range(1000 - LOG_LINES, 1000)]


def test_control_characters_of_a_log_have_no_effect() -> None:
    (found,) = page([failure("a", detail="\x1b[2Jgone\x00")]).failures
    assert found.detail is not None
    assert found.detail.isprintable()


def test_many_kinds_of_failures_are_cut_and_counted() -> None:
    found = page([failure(f"s{number}", f"reason {number}") for number in range(FAILURES_SHOWN + 3)])
    assert len(found.failures) == FAILURES_SHOWN
    assert found.failures_left_out == "3 more kinds of failures are not shown; the records hold them"


def test_settings_with_the_same_evidence_are_grouped() -> None:
    records = jobs({"a": EAGER[:1], "b": EAGER[:1], "c": EAGER[:1]})
    assert records[2].observed is not None
    records[2].observed = dataclasses.replace(records[2].observed, kv_cache="DynamicCache", compile=CompileObserved())
    found = page(records).observed
    assert [(each.of, each.facts["KV cache"], each.facts["compiled"]) for each in found] == [
        ("a, b", "StaticCache", "1 graph; torch.compile(mode=default)"),
        ("c", "DynamicCache", "no"),
    ]


def test_the_executed_kernels_are_named_by_phase() -> None:
    (found,) = page([make_record(name="known", **make_evidence())]).observed
    assert found.facts["ran in decoding"].startswith(
        "flash_attention (aten::_scaled_dot_product_flash_attention); 2 × compiled code"
    )


def test_fidelity_figures_are_listed_by_setting() -> None:
    evidence = page([make_record(name="known", **make_evidence())]).evidence
    assert evidence is not None
    assert evidence.columns["KL nats"] == ["1.0e-09"]
    assert evidence.columns["equal tokens %"] == ["100"]


def test_the_environment_is_shown_once_and_its_differences_are_named() -> None:
    records = jobs({"a": EAGER[:1], "b": SDPA[:1], "c": SDPA[:1]})
    for each, torch in zip(records, ("2.12", "2.12", "2.13"), strict=True):
        each.environment = {
            "versions": {"torch": torch, "numpy": "2.4", "triton": None},
            "cpu": {"torch_threads": 2},
            "memory": {"total_bytes": 2**34},
            "load_average": [len(each.name) * 0.1],
            "variables": {"OMP_NUM_THREADS": "2"},
        }
    found = page(records)
    assert found.environment.facts == {
        "numpy": "2.4", "CPU torch threads": "2", "memory total": "16.0 GiB", "OMP_NUM_THREADS": "2",
    }  # fmt: skip
    assert found.environment_differences == ["torch: 2.12 (2 jobs), 2.13 (1 job)"]


# ---- formulas, and the command to repeat ---------------------------------------------------------------------------


@pytest.mark.parametrize("source", sorted({each.source for each in FORMULAS}))
def test_the_module_that_a_formula_names_exists(source) -> None:
    assert (Path(bench.__file__).parent / f"{source}.py").is_file()


def test_each_figure_of_the_table_has_its_formula() -> None:
    names = {each.name for each in FORMULAS}
    assert {"E2E latency", "TTFT", "ITL", "TPOT", "Output throughput", "Decode throughput", "Cold start", "Peak memory",
            "MBU", "MFU", "Energy", "Compile excess", "Break-even", "Noise floor", "Steady", "Output"} <= names  # fmt: skip


def test_the_command_of_a_sweep_has_each_swept_key_with_its_values() -> None:
    overrides = [
        "attention=sdpa",
        "compile=off",
        "workload.batch_size=4",
        "sweep.name=night",
        "tracking.uri=sqlite:///x",
    ]
    swept = {"attention": ["eager", "sdpa"], "compile": ["off", "default"]}
    assert command_of(overrides, swept) == (
        "python -m bench -m attention=eager,sdpa compile=off,default workload.batch_size=4"
    )


def test_the_command_keeps_the_sign_of_a_swept_key() -> None:
    command = command_of(["+compile.options.x=1", "++model.seed=3"], {"compile.options.x": ["1", "2"]})
    assert command == "python -m bench -m +compile.options.x=1,2 ++model.seed=3"


def test_the_command_of_a_single_run_is_no_sweep() -> None:
    assert command_of(["attention=eager", "model.id=a b"], {}) == "python -m bench attention=eager 'model.id=a b'"


def test_config_values_common_to_all_jobs_are_listed_once() -> None:
    records = jobs({"a": EAGER[:1], "b": SDPA[:1]})
    records[1].requested = records[1].requested | {"device": "cuda"}
    config = page(records).again.config
    assert config["workload.batch_size"] == "2"
    assert "device" not in config


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_reference_runs_are_neither_settings_nor_rows() -> None:
    records = [*jobs({"a": EAGER[:1]}), job("reference", 0.1, kind="reference")]
    found = build_page(records, Sweep(), build_report_of_records(records))
    assert found.settings is not None
    assert [row.name for row in found.settings.rows] == ["a"]
    assert [row["name"] for row in rows_of(records)] == ["a"]
