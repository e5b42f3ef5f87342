"""Test `bench.load_settings` and its examples in the docs: one row per setting, as ranked."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import bench
from bench.analysis.ranking import rank, standing_of
from bench.analysis.settings import settings_of
from bench.report.setting_rows import COLUMNS, FIGURES
from bench.results.record import Failure, Fidelity, Record, Steadiness, Unverified
from conftest import ROOT
from factories import make_evidence
from sweeps import EAGER, SDPA, job, jobs, sweep

STEADY = Steadiness(steady=True, flags=[], shape="flat", power="enough")
UNSTEADY = Steadiness(steady=False, flags=["changepoint", "cv_high"], shape="slowdown", power="enough")
NOISY = Steadiness(steady=None, flags=["cv_high"], shape="flat", power="too noisy to tell")
WRONG = Fidelity(reference="eager", agrees=False, reason="KL divergence 0.3 above 0.001")


def failed(name: str, repeat: int = 1) -> Record:
    return job(name, 0.5, repeat, status="failed", stage="load", error=Failure(type="OSError", message="no weights"))


def unseen(record: Record) -> Record:
    assert record.observed is not None
    mark = [Unverified(key="generation.kv_cache", reason="no name for it")]
    return dataclasses.replace(record, observed=dataclasses.replace(record.observed, unverified=mark))


def one_of_each() -> list[Record]:
    """Build one setting of every standing; the unranked ones are faster than the ranked ones."""
    return [
        job("wrong", 0.2, fidelity=WRONG),
        job("cold", 0.3, warmup_status="not_converged"),
        job("unsteady", 0.4, steadiness=UNSTEADY),
        failed("failed"),
        unseen(job("slow", 1.5, steadiness=STEADY)),
        job("noisy", 1.2, steadiness=NOISY),
        job("skipped", 0.15, status="skipped", error=Failure(type="Skipped", message="no such kernel")),
    ]


@pytest.fixture
def one_lucky(tmp_path: Path) -> Path:
    """Five repeats each: `lucky` was unsteady in all but one, and that one is the fastest process of all."""
    lucky = [job("lucky", 0.7, 1, steadiness=STEADY)]
    lucky += [job("lucky", 0.8, repeat, steadiness=UNSTEADY) for repeat in (2, 3, 4, 5)]
    plain = [job("plain", 0.9, repeat, steadiness=STEADY) for repeat in (1, 2, 3, 4, 5)]
    slow = [job("slow", 1.1, repeat, steadiness=STEADY) for repeat in (1, 2, 3, 4, 5)]
    return sweep(tmp_path / "multirun" / "night", [*lucky, *slow, *plain])


def snippets() -> list[str]:
    """Return the Python blocks on the page that read a sweep."""
    page = (ROOT / "docs/from-python.md").read_text(encoding="utf-8")
    return [body for body in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "night" in body]


def test_the_page_names_no_winner_whose_other_repeats_were_unsteady(one_lucky, monkeypatch, capsys) -> None:
    monkeypatch.chdir(one_lucky.parents[1])
    for each in snippets():
        exec(compile(each, "from-python.md", "exec"), {})
    assert "lowest median: plain, 900.0 ms\n" in capsys.readouterr().out


def test_the_page_names_no_winner_if_none_is_ranked(tmp_path, monkeypatch, capsys) -> None:
    sweep(tmp_path / "multirun" / "night", [failed("a"), job("b", 1.0, steadiness=UNSTEADY)])
    monkeypatch.chdir(tmp_path)
    for each in snippets():
        exec(compile(each, "from-python.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "OSError: no weights" in printed
    assert "lowest median" not in printed


def test_settings_are_in_the_order_of_the_ranking(tmp_path) -> None:
    records = one_of_each()
    frame = bench.load_settings(sweep(tmp_path, records))
    assert list(frame["name"]) == [each.setting.name for each in rank(settings_of(records))]
    assert list(frame["name"])[:2] == ["noisy", "slow"]
    assert list(frame["ranked"]) == [True, True, *[False] * 5]


def test_marks_and_reasons_are_those_of_the_ranking(tmp_path) -> None:
    frame = bench.load_settings(sweep(tmp_path, one_of_each())).set_index("name")
    assert frame["marks"].to_dict() == {
        "noisy": "", "slow": "?", "wrong": "≠", "cold": "~", "unsteady": "!", "failed": "", "skipped": "",
    }  # fmt: skip
    for record in one_of_each():
        told = [each.text for each in standing_of([record]).reasons]
        found = frame.loc[record.name, "reason"]
        assert (found is pd.NA) if not told else found == "; ".join(told)
    assert "cv_high" not in frame.loc["unsteady", "reason"]
    assert frame["status"].to_dict() == {each.name: each.status for each in one_of_each()}


def test_figures_are_medians_over_the_ok_processes(tmp_path) -> None:
    times = (0.91, 0.93, 0.98)
    records = [job("a", e2e_s, repeat, **make_evidence()) for repeat, e2e_s in enumerate(times, 1)]
    (row,) = bench.load_settings(sweep(tmp_path, [*records, failed("a", 4), failed("a", 5)])).itertuples()
    assert (row.processes, row.processes_lost) == (3, 2)
    assert row.e2e_ms == pytest.approx(930.0)
    assert row.ttft_ms == pytest.approx(100.0)
    assert row.itl_ms == pytest.approx((930 - 10 - 100) / 4)
    assert row.tok_per_s == pytest.approx(2 * 5 / 0.93)
    assert row.decode_tps == pytest.approx(2 * 4 / 0.82)
    assert (row.cold_s, row.peak_mib, row.mbu_pct, row.j_per_tok) == pytest.approx((5.81, 512, 50, 0.3))
    assert row.steady == "yes"


def test_differing_steadiness_of_processes_is_counted(tmp_path) -> None:
    seen = [STEADY, STEADY, NOISY, UNSTEADY, STEADY]
    records = [job("a", 1.0, repeat, steadiness=each) for repeat, each in enumerate(seen, 1)]
    frame = bench.load_settings(sweep(tmp_path, [unseen(records[0]), *records[1:]]))
    assert frame["steady"].to_list() == ["1 no 3 yes 1 noisy"]
    assert frame["ranked"].to_list() == [True]
    assert frame["unverified"].to_list() == ["generation.kv_cache: no name for it"]


def test_the_columns_are_the_documented_ones_with_the_swept_keys_among_them(tmp_path) -> None:
    first = job("a", 1.0, swept={"attention": "'a'", "status": "ok"})
    second = job("b", 2.0, swept={"attention": "b", "workload.batch_size": "2"})
    frame = bench.load_settings(sweep(tmp_path, [first, second]))
    names = list(COLUMNS)
    at = names.index("ranked")
    assert list(frame) == [*names[:at], "attention", "swept.status", "workload.batch_size", *names[at:]]
    assert frame["attention"].to_list() == ["a", "b"]
    assert frame["workload.batch_size"].fillna("none").to_list() == ["none", "2"]


def test_the_column_types_do_not_depend_on_missing_values(tmp_path) -> None:
    known = sweep(tmp_path / "known", [job("a", 1.0, sweep_id="s", **make_evidence())])
    unknown = sweep(tmp_path / "unknown", [failed("b")])
    first, second = bench.load_settings(known), bench.load_settings(unknown)
    kinds = {name: str(kind) for name, kind in first.dtypes.items()}
    assert kinds == {name: str(kind) for name, kind in second.dtypes.items()}
    assert {kinds[name] for name in FIGURES} == {"float64"}
    assert [kinds[name] for name in ("ranked", "processes", "processes_lost", "steady", "marks", "attention")] == [
        "boolean", "Int64", "Int64", "string", "string", "string",
    ]  # fmt: skip
    assert second[list(FIGURES)].isna().all(axis=None)
    assert second["steady"].isna().all()


def test_a_setting_of_two_sweeps_has_a_row_for_each(tmp_path) -> None:
    for name, factor in (("before", 1.0), ("after", 1.2)):
        records = jobs({"eager": [factor * each for each in EAGER], "sdpa": SDPA}, sweep_id=name)
        sweep(tmp_path / name, records, settings=["eager", "sdpa"])
    frame = bench.load_settings(tmp_path)
    assert sorted(zip(frame["name"], frame["sweep_id"], strict=True)) == [
        ("eager", "after"), ("eager", "before"), ("sdpa", "after"), ("sdpa", "before"),
    ]  # fmt: skip
    assert frame["processes"].to_list() == [5] * 4
    assert frame["e2e_ms"].is_monotonic_increasing


def test_a_missing_or_unreadable_record_is_noted(tmp_path) -> None:
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER, "sdpa": SDPA}), settings=["eager", "sdpa"])
    (folder / "0_eager" / "record.json").unlink()
    (folder / "1_sdpa" / "record.json").write_text("{", encoding="utf-8")
    frame = bench.load_settings(folder)
    assert frame["processes"].to_list() == [4, 4]
    assert len(frame.attrs["notes"]) == 2


def test_nothing_to_load_is_a_value_error_in_one_line(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*holds no record.json[^\n]*$"):
        bench.load_settings(tmp_path)


def test_a_single_job_has_a_row_and_a_reference_run_none(tmp_path) -> None:
    folder = sweep(tmp_path, [job("a", 1.0), job("ref", 2.0, kind="reference")])
    assert len(bench.load_settings(folder / "0_a" / "record.json")) == 1
    assert bench.load_settings(folder)["name"].to_list() == ["a"]


def test_the_values_of_a_row_are_plain(tmp_path) -> None:
    frame = bench.load_settings(sweep(tmp_path, one_of_each()))
    rows: Any = json.loads(frame.to_json(orient="records"))
    assert rows[0]["ranked"] is True
    assert rows[0]["e2e_ms"] == pytest.approx(1200)


def test_pandas_is_imported_only_when_settings_are_loaded() -> None:
    code = "import bench, sys; bench.load_settings; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
