"""The saved view of a sweep as MLflow's own UI shows it, of whichever release is installed; records are made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from browser import Browser, Page, chromium, tracking_server
from packaging.version import Version

from bench.results.record import Fidelity, Unverified
from bench.tracking.mlflow_internals import NAMED_VIEWS, installed
from bench.tracking.pages.links import sweep_links
from bench.tracking.pages.view import FIRST, HEADLINE, LEAST, view_key
from bench.tracking.publisher import Publisher
from bench.tracking.runs.standing import RANK, UNRANKED
from bench.tracking.store.opening import open_store
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
SWEPT = {"compile.mode": ["a", "b", "c", "wrong"], "workload.batch_size": ["2"]}
WRONG = Fidelity(reference="eager", agrees=False, reason="other tokens")


@dataclasses.dataclass(frozen=True)
class Shown:
    """The pages of one sweep."""

    table: Page
    charts: Page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A sweep of four settings: the fastest has a wrong output, and the next one is unverified."""
    start = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bench.tracking.publisher.OPEN_S", 120.0)
        patched.setattr("bench.tracking.publisher.JOB_S", 120.0)
        publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
        run_id = publisher.begin_sweep(sweep_id="s", name="s", swept=SWEPT, settings=[], baseline=None)
        records = []
        for number, (name, slower_s) in enumerate([("wrong", 0.0), ("b", 0.2), ("c", 0.1), ("a", 0.3)]):
            calls = [dataclasses.replace(each, e2e_s=each.e2e_s + slower_s) for each in make_iterations()]
            fields = make_evidence() | ({"fidelity": WRONG} if name == "wrong" else {})
            unverified = [REASON] if name == "c" else []
            fields["observed"] = dataclasses.replace(fields["observed"], unverified=unverified)
            own = {"name": name, "trial_id": name, "started_at_s": 9.0 + number, "iterations": calls}
            record = make_record(sweep_id="s", **own | fields)
            folder = start / "multirun" / str(number)
            folder.mkdir(parents=True)
            record.write(folder)
            assert publisher.publish(record, folder, run_id)
            records.append(record)
        assert publisher.end_sweep(run_id, records, interrupted=False)
    store = open_store(None, "bench", start)
    with tracking_server(store.uri, log=start / "server.log") as address, Browser() as browser:
        table, charts, *_ = (
            line.partition(": ")[2] for line in sweep_links(store, sweep_id="s", view=view_key("s"), base=address)
        )
        yield Shown(
            table=browser.open(table, width=1700, height=1000).wait("text=4 matching runs").settle(),
            charts=browser.open(charts, width=1700, height=4000).wait("h4[title='per_iter/e2e_ms']").settle(),
        )


@pytest.fixture
def page(shown: Shown) -> Page:
    """The table."""
    return shown.table


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
    seen = columns(page)
    wanted = [f"metrics.`{each}`" for each in (RANK, UNRANKED, *FIRST) if each not in LEAST]
    assert set(wanted) <= set(seen)
    assert {f"params.`{each}`" for each in SWEPT} <= set(seen)


def test_the_rows_have_the_order_of_the_report_and_what_is_not_ranked_comes_last(page: Page) -> None:
    assert [each.strip("-") for each in cells(page, f"metrics.`{RANK}`")] == ["1", "2", "3", ""]
    *ranked, wrong = [each.strip("-") for each in cells(page, "metrics.`e2e_ms`")]
    values = [float(each) for each in ranked]
    assert values == sorted(values)
    assert wrong == ""
    *others, shown_by_itself = [each.strip("-") for each in cells(page, f"metrics.`{UNRANKED}`")]
    assert others == ["", "", ""]
    assert float(shown_by_itself) < min(values)


def test_the_marks_are_behind_the_names(page: Page) -> None:
    names = page.page.locator(".ag-row [col-id='attributes.`Run Name`'] a").all_inner_texts()
    assert sorted(each.strip() for each in names) == ["a", "b", "c ?", "wrong ≠"]


def test_the_description_of_the_experiment_leads_to_the_pages_of_the_latest_sweep(page: Page, shown: Shown) -> None:
    said = page.page.inner_text("body")
    assert "one process that measured generate under one setting" in " ".join(said.split())
    assert "<!--" not in said
    link = page.page.locator("a", has_text="charts").first
    page_of = (link.get_attribute("href") or "").partition("#")[2]
    assert "viewStateShareKey=" in page_of
    assert shown.charts.page.url.partition("#")[2].startswith(page_of)  # MLflow adds what the view says


def test_the_charts_begin_with_the_bars_and_the_curves_have_no_cold_call(shown: Shown) -> None:
    chart = shown.charts
    titles = chart.page.locator("h4[title]").evaluate_all(
        "all => all.map(each => [each.title, each.getBoundingClientRect().top])"
    )
    tops = dict(titles)
    curves = [name for name in tops if name.startswith("per_iter/")]
    assert set(curves) == {f"per_iter/{each}" for each in ("e2e_ms", "ttft_ms", "tpot_ms", "itl_ms", "decode_tps")}
    assert tops["e2e_ms"] < min(tops[each] for each in curves)
    assert min(tops, key=lambda name: tops[name]) in HEADLINE
    cards = chart.page.locator("[data-testid='experiment-view-compare-runs-card']")
    card = cards.filter(has=chart.page.locator("h4[title='per_iter/e2e_ms']"))
    points = card.locator(".scatterlayer .trace").evaluate_all(
        "all => all.map(each => each.querySelectorAll('path.point').length)"
    )
    assert [each for each in points if each] == [5 + 20] * 4  # MLflow draws each curve twice, once without its points


@ordered
def test_what_is_unverified_stands_beside_fidelity(page: Page) -> None:
    seen = columns(page)
    after = [each for each in sorted(seen, key=lambda each: seen[each]) if seen[each] > seen["metrics.`fidelity`"]]
    assert after[0] == "tags.`unverified`"
    first, *others = cells(page, "tags.`unverified`")
    assert first.startswith(REASON.key)
    assert [each.strip("-") for each in others] == ["", "", ""]


def test_the_page_reports_no_error_of_its_own(page: Page) -> None:
    # What MLflow's own pages say on any visit, whatever they show.
    known = ("users/current", "ResizeObserver loop")
    assert [each for each in page.errors if not any(word in each for word in known)] == []
