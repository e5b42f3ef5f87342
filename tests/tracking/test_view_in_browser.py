"""The saved view of a sweep as MLflow's own UI shows it, of whichever release is installed; records are made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from browser import Browser, Page, chromium, tracking_server
from packaging.version import Version

from bench.record import Unverified
from bench.tracking.links import sweep_links
from bench.tracking.mlflow_internals import NAMED_VIEWS, installed
from bench.tracking.publisher import Publisher
from bench.tracking.store import open_store
from bench.tracking.view import FIRST, view_key
from factories import make_evidence, make_iterations, make_record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine"),
]

# Before, the UI knows no widths and only some of the order.
ordered = pytest.mark.skipif(
    Version(installed()) < Version(NAMED_VIEWS), reason=f"MLflow {installed()} reads no widths of columns"
)
REASON = Unverified(key="generation.kv_cache", reason="nothing tells which cache was used")
SWEPT = {"compile.mode": ["default"], "workload.batch_size": ["2"]}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The table of a sweep of three trials, the first two of which are slower, and the last one unverified."""
    start = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bench.tracking.publisher.OPEN_S", 120.0)
        patched.setattr("bench.tracking.publisher.JOB_S", 120.0)
        publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
        run_id = publisher.begin_sweep(sweep_id="s", name="s", swept=SWEPT, settings=[], baseline=None)
        records = []
        for number, slower_s in enumerate((0.3, 0.2, 0.0)):
            calls = [dataclasses.replace(each, e2e_s=each.e2e_s + slower_s) for each in make_iterations()]
            fields = make_evidence()
            unverified = [REASON] if slower_s == 0 else []
            fields["observed"] = dataclasses.replace(fields["observed"], unverified=unverified)
            record = make_record(sweep_id="s", repeat=number + 1, started_at_s=9.0 + number, iterations=calls, **fields)
            folder = start / "multirun" / str(number)
            folder.mkdir(parents=True)
            record.write(folder)
            assert publisher.publish(record, folder, run_id)
            records.append(record)
        publisher.end_sweep(run_id, records, interrupted=False)
    store = open_store(None, "bench", start)
    with tracking_server(store.uri, log=start / "server.log") as address, Browser() as browser:
        table, *_ = sweep_links(store, sweep_id="s", view=view_key("s"), base=address)
        opened = browser.open(table.partition(": ")[2], width=1700, height=1000)
        yield opened.wait("text=3 matching runs").settle()


def columns(page: Page) -> dict[str, float]:
    """The columns that can be seen without scrolling, each with its left edge."""
    window = page.page.locator(".ag-center-cols-viewport").first.bounding_box()
    assert window is not None
    found = {}
    for cell in page.page.locator(".ag-header-cell[col-id]").all():
        box = cell.bounding_box()
        if box is not None and box["x"] + box["width"] <= window["x"] + window["width"] + 1:
            found[cell.get_attribute("col-id") or ""] = box["x"]
    return found


def cells(page: Page, column: str) -> list[str]:
    """The texts of a column from the first row on."""
    rows = page.page.locator(".ag-center-cols-container .ag-row").all()
    texts = {
        int(row.get_attribute("row-index") or -1): row.locator(f"[col-id='{column}']").inner_text() for row in rows
    }
    return [texts[index].strip() for index in sorted(texts)]


@ordered
def test_the_link_opens_the_table_with_the_columns_of_the_view(page: Page) -> None:
    shown = columns(page)
    wanted = [f"metrics.`{each}`" for each in FIRST if each != "tok_per_s"]
    assert set(wanted) <= set(shown)
    assert {f"params.`{each}`" for each in SWEPT} <= set(shown)


def test_the_fastest_trial_is_in_the_first_row(page: Page) -> None:
    values = [float(each) for each in cells(page, "metrics.`e2e_ms`")]
    assert len(set(values)) == 3
    assert values == sorted(values)


@ordered
def test_what_is_unverified_stands_beside_fidelity(page: Page) -> None:
    shown = columns(page)
    after = [each for each in sorted(shown, key=lambda each: shown[each]) if shown[each] > shown["metrics.`fidelity`"]]
    assert after[0] == "tags.`unverified`"
    first, *others = cells(page, "tags.`unverified`")
    assert first.startswith(REASON.key)
    assert [each.strip("-") for each in others] == ["", ""]


def test_the_page_reports_no_error_of_its_own(page: Page) -> None:
    # What MLflow's own pages say on any visit, whatever they show.
    known = ("users/current", "ResizeObserver loop")
    assert [each for each in page.errors if not any(word in each for word in known)] == []
