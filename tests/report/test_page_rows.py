"""Test the rows, one per trial and repeat: their columns, and the round trip through CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from bench.report.rows import COLUMNS, columns_of, rows_of, to_csv, to_json
from bench.results.record import Failure, Fidelity, Steadiness
from factories import COLD_START_S, COMPILE_EXCESS_S, MEDIAN_E2E_S, MEDIAN_GAP_S, PEAK_MIB, make_evidence, make_record
from sweeps import EAGER, SDPA, job, jobs


def test_the_columns_are_the_documented_ones_and_the_swept_keys() -> None:
    (row,) = rows_of([job("eager", 1.0, swept={"attention": "eager", "workload.batch_size": "4"})])
    names = list(COLUMNS)
    place = names.index("status")
    assert list(row) == [*names[:place], "attention", "workload.batch_size", *names[place:]]
    assert (row["attention"], row["workload.batch_size"]) == ("eager", "4")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [("'1_0'", "1_0"), ('"a b"', "a b"), (r"'it\'s'", "it's"), ("'", "'"), ("1.5", "1.5"), ("''", ""), ("'a", "'a")],
)
def test_a_swept_value_omits_quotes_that_only_the_grammar_needs(typed: str, shown: str) -> None:
    (row,) = rows_of([job("a", 1.0, swept={"sweep.label": typed})])
    assert row["sweep.label"] == shown


def test_figures_have_full_precision_and_the_names_of_the_metrics() -> None:
    (row,) = rows_of([make_record(**make_evidence())])
    expected = {
        "e2e_ms": MEDIAN_E2E_S * 1e3, "itl_ms": MEDIAN_GAP_S * 1e3, "cold_s": COLD_START_S, "mbu_pct": 50.0,
        "compile_excess_s": COMPILE_EXCESS_S, "peak_mib": float(PEAK_MIB), "j_per_tok": 0.3,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["e2e_low_ms"] < row["e2e_ms"] < row["e2e_high_ms"]
    assert (row["steady"], row["fidelity"], row["ranked"]) == (True, True, True)


def test_each_repeat_has_its_row() -> None:
    rows = rows_of(jobs({"eager": EAGER, "sdpa": SDPA}))
    assert [(row["name"], row["repeat"]) for row in rows[:3]] == [("eager", 1), ("sdpa", 1), ("eager", 2)]
    assert len(rows) == 10


def test_the_phases_of_a_trial_are_columns_and_empty_if_untimed() -> None:
    record = make_record(phases_s={"load": 2.25, "roofline": 0.5}, ended_at_s=None)
    (row,) = rows_of([record])
    assert (row["phase_load_s"], row["phase_evidence_s"], row["phase_import_s"]) == (2.25, 0.5, None)
    assert row["phase_other_s"] is None
    assert row["outside_generate_s"] is None  # those phases do not cover its calls


def test_a_failure_is_a_row_with_its_reason_and_without_a_rank() -> None:
    record = job("flex", 1.0, status="failed", error=Failure(type="RuntimeError", message="no\nsuch layer"))
    record.iterations = []
    (row,) = rows_of([record])
    assert (row["status"], row["ranked"], row["e2e_ms"]) == ("failed", False, None)
    assert row["error"] == "RuntimeError: no such layer"


def judged(*, steady: bool | None) -> Steadiness:
    return Steadiness(steady=steady, flags=[] if steady else ["trend"], shape="flat", power="enough")


@pytest.mark.parametrize(
    ("changes", "ranked"),
    [
        ({}, True),
        ({"steadiness": judged(steady=True)}, True),
        ({"steadiness": judged(steady=None)}, True),
        ({"steadiness": judged(steady=False)}, False),
        ({"warmup_status": "not_converged"}, False),
        ({"fidelity": Fidelity(reference="eager", agrees=False)}, False),
        ({"fidelity": Fidelity(reference="eager", agrees=None)}, True),
        ({"status": "failed"}, False),
        ({"status": "oom"}, False),
    ],
)
def test_incomparable_settings_are_not_ranked(changes, ranked) -> None:
    (row,) = rows_of([make_record(**changes)])
    assert row["ranked"] is ranked


@pytest.mark.parametrize("key", ["name", "status", "e2e_ms"])
def test_a_swept_key_replaces_no_other_column(key) -> None:
    (row,) = rows_of([job("eager", 1.0, swept={key: "x"})])
    assert row[f"swept.{key}"] == "x"
    assert row["name"] == "eager"


def test_all_rows_have_all_swept_keys() -> None:
    rows = rows_of([job("a", 1.0, swept={"x": "1"}), job("b", 1.0, swept={"y": "2"})])
    assert [(row["x"], row["y"]) for row in rows] == [("1", None), (None, "2")]


def test_csv_survives_a_round_trip() -> None:
    record = job('a,"b"\nc', 1.0, swept={"attention": "eager, or sdpa"})
    rows = rows_of([record, *jobs({"sdpa": SDPA[:1]})])
    back = list(csv.DictReader(io.StringIO(to_csv(rows))))
    for row, read in zip(rows, back, strict=True):
        assert read["name"] == row["name"]
        assert float(read["e2e_ms"]) == row["e2e_ms"]
        assert read["ranked"] == "true"
        assert read["error"] == ""


def test_json_survives_a_round_trip() -> None:
    rows = rows_of(jobs({"eager": EAGER, "sdpa": SDPA}))
    assert json.loads(to_json(rows)) == rows


def test_a_number_that_json_cannot_express_is_null() -> None:
    record = make_record(**make_evidence())
    (row,) = rows_of([record])
    row["e2e_ms"] = math.inf
    with pytest.raises(ValueError):
        to_json([row])
    record.started_at_s = math.nan
    assert rows_of([record])[0]["started_at_s"] is None


def test_an_empty_list_of_rows_still_has_the_columns() -> None:
    assert columns_of([]) == {name: [] for name in COLUMNS}
    assert to_csv([]).splitlines() == [",".join(COLUMNS)]


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_a_carriage_return_in_a_name_ends_no_row(end: str) -> None:
    records = jobs({f"a{end}b": EAGER[:1], "c": SDPA[:1]})
    names = [row["name"] for row in csv.DictReader(io.StringIO(to_csv(rows_of(records)), newline=""))]
    assert names == ["a\nb", "c"]
