"""Test records made with different copies of a library: never pooled, and named in every view and comparison."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from bench.analysis.code_sources import pool_ids, published_sources, unusual_sources
from bench.analysis.settings import differences, settings_of
from bench.report.comparison import build_report_of_records
from bench.report.page.build import Sweep, build_page
from bench.report.page.markdown_page import to_markdown
from bench.report.rows import rows_of
from bench.report.setting_view import setting_views
from bench.report.terminal.results_table import print_table
from bench.results.record import Record, RecordError
from bench.tracking.runs.description import describe
from bench.tracking.runs.trial_run import _tags
from factories import make_record
from sweeps import SDPA, job, jobs

PATCHED = "9.9 from /home/me/torch (PYTHONPATH, commit 0123456789ab, changes 4567), installed is 2.13.0"


def source(**changes: Any) -> dict[str, Any]:
    usual = {"version": "2.13.0+cpu", "installed_version": "2.13.0", "folder": "/site/torch", "came_from": "installed"}
    return {**usual, "commit": None, "dirty": None, "state": None} | changes


def patched(record: Record, state: str = "4567") -> Record:
    """Return the record as made with another copy of torch."""
    found = source(
        version="9.9",
        folder="/home/me/torch",
        came_from="PYTHONPATH",
        commit="0123456789abcdef0123",
        dirty=True,
        state=state,
    )
    record.environment = {**record.environment, "sources": {"torch": found, "bench": source(came_from="editable")}}
    record.fingerprint = record.fingerprint | {"torch source": f"/home/me/torch (PYTHONPATH, changes {state})"}
    return record


def installed(record: Record) -> Record:
    record.environment = {**record.environment, "sources": {"torch": source()}}
    return record


def test_records_from_different_copies_are_not_pooled() -> None:
    mixed = [job("sdpa", 1.0, 1), patched(job("sdpa", 2.0, 2)), job("sdpa", 1.0, 3), patched(job("sdpa", 2.0, 4), "8")]
    assert [[each.repeat for each in setting.records] for setting in settings_of(mixed)] == [[1, 3], [2], [4]]
    names = [each.name for each in settings_of(mixed)]
    assert names == ["sdpa [torch #1]", "sdpa [torch #2]", "sdpa [torch #3]"]
    assert len(set(pool_ids(mixed))) == 3


def test_an_attempt_with_another_copy_does_not_replace_a_repeat() -> None:
    both = settings_of([job("sdpa", 1.0, 1), patched(job("sdpa", 2.0, 1))])
    assert [len(each.records) for each in both] == [1, 1]


@pytest.mark.parametrize("made", [lambda record: record, installed, patched])
def test_records_from_the_same_copy_are_one_setting_with_its_own_name(made) -> None:
    (setting,) = settings_of([made(each) for each in jobs({"sdpa": SDPA})])
    assert (setting.name, setting.setting_id, len(setting.records)) == ("sdpa", "t-sdpa", 5)


def test_a_record_of_an_earlier_version_and_one_of_pips_install_are_pooled() -> None:
    assert len(settings_of([job("sdpa", 1.0, 1), installed(job("sdpa", 1.0, 2))])) == 1


def test_every_view_shows_copies_as_separate_settings() -> None:
    mixed = [job("sdpa", 1.0, 1), patched(job("sdpa", 2.0, 1)), job("eager", 3.0, 1)]
    names = ["sdpa [torch #1]", "sdpa [torch #2]", "eager"]
    report = build_report_of_records(mixed)
    assert [each.name for each in report.settings] == names
    assert [each.name for each in setting_views(mixed)] == names
    found = build_page(mixed, Sweep(), report)
    assert all(name in to_markdown(found, []) for name in ("sdpa \\[torch #2\\]", "sdpa \\[torch #1\\]"))
    lines = printed(mixed)
    assert sum(line.startswith("sdpa [torch #") for line in lines.splitlines()) == 2


def test_a_comparison_of_two_sweeps_names_the_copy() -> None:
    before, after = settings_of([job("sdpa", 1.0)]), settings_of([patched(job("sdpa", 1.0))])
    told = {each.key: (each.a, each.b) for each in differences(before[0], after[0])}
    assert told["torch source"] == ("–", "/home/me/torch (PYTHONPATH, changes 4567)")


def test_every_deviation_from_pips_install_is_described() -> None:
    assert unusual_sources(patched(make_record())) == {"torch": PATCHED}
    assert unusual_sources(installed(make_record())) == {}
    assert unusual_sources(make_record()) == {}


def test_a_version_that_contradicts_pips_metadata_is_reported() -> None:
    record = make_record()
    record.environment = {"sources": {"torch": source(version="2.12.0")}}
    said = "2.12.0 from /site/torch (installed), installed is 2.13.0"
    assert unusual_sources(record) == {"torch": said}


def test_benchs_own_checkout_is_published_without_a_warning() -> None:
    record = make_record()
    own = source(version="0.1.0", installed_version="0.1.0", folder="/c/src/bench", came_from="editable", commit="ab")
    record.environment = {"sources": {"bench": own}}
    assert unusual_sources(record) == {}
    assert published_sources(record) == {"bench": "0.1.0 from /c/src/bench (editable, commit ab)"}
    record.environment = {"sources": {"bench": own | {"came_from": "PYTHONPATH"}}}
    assert "bench" in unusual_sources(record)
    record.environment = {"sources": {"bench": own | {"came_from": "installed"}}}
    assert published_sources(record) == {}


def printed(records: list[Record]) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_table(console, records)
    return console.file.getvalue()  # type: ignore[attr-defined]


def notes(records: list[Record]) -> str:
    """Return the notes of the table, independent of the width."""
    return " ".join(printed(records).split())


def test_one_line_below_the_table_names_the_copy() -> None:
    records = [patched(job("sdpa", 1.0)), patched(job("eager", 2.0))]
    assert notes(records).count(f"imported: torch {PATCHED}") == 1
    assert f"imported: torch {PATCHED} in sdpa" in notes([records[0], job("eager", 2.0)])
    assert "imported:" not in notes([installed(job("sdpa", 1.0))])


def test_the_page_names_the_copy_and_all_imported_libraries() -> None:
    found = build_page([patched(job("sdpa", 1.0)), patched(job("eager", 2.0))], Sweep(), None)
    assert found.not_as_installed == [f"torch {PATCHED}: 2 jobs"]
    assert found.environment.facts["torch as imported"] == PATCHED
    assert "Libraries that are not as pip installed them" in to_markdown(found, [])
    usual = build_page([installed(job("sdpa", 1.0))], Sweep(), None)
    assert usual.not_as_installed == []
    assert usual.environment.facts["torch as imported"] == "2.13.0+cpu from /site/torch (installed)"


def test_mlflow_shows_the_copy_as_a_tag_and_in_the_note() -> None:
    from bench.analysis.trials.summary import summarize

    record = patched(make_record())
    assert _tags(record, summarize(record), None)["source.torch"] == PATCHED
    assert f"imported: torch {PATCHED}" in describe(record, summarize(record))
    usual = installed(make_record())
    assert not [name for name in _tags(usual, summarize(usual), None) if name.startswith("source.")]


def test_a_row_names_the_copy() -> None:
    assert [each["sources"] for each in rows_of([patched(make_record()), make_record()])] == [f"torch {PATCHED}", None]


def test_a_record_with_invalid_sources_is_refused_in_one_line(tmp_path) -> None:
    data = make_record().to_dict()
    for wrong in ([], {"torch": "2.13.0"}):
        data["environment"] = {"sources": wrong or ["torch"]}
        (tmp_path / "record.json").write_text(json.dumps(data))
        with pytest.raises(RecordError, match=r"environment\.sources.* is no mapping"):
            Record.read(tmp_path)
