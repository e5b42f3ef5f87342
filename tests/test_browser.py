"""Test MLflow's pages of a sweep and the report in a real browser with a real server.

One sweep of six settings is run, MLflow's UI is started as `scripts/ui` starts it, and the addresses that it prints are
opened. Pictures of all pages are kept in `.cache/test-output`, or the folder that BENCH_TEST_OUTPUT names.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import Browser, Page, chromium

import started
from bench.results.palette import colour
from bench.results.record import Record
from bench.results.sweep_file import SweepInfo
from bench.tracking.pages.view import FIRST, HEADLINE, LEAST
from bench.tracking.runs.standing import RANK, UNRANKED, is_unranked, ranking_of
from bench.tracking.runs.trial_run import run_name
from conftest import ROOT, run_bench

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine"),
]

OUTPUT = Path(os.environ.get("BENCH_TEST_OUTPUT", ROOT / ".cache" / "test-output"))
SIZES = ("1", "2", "4")
SWEEP = ["-m", "attention=eager,sdpa", f"workload.batch_size={','.join(SIZES)}", "sweep.name=six"]
SWEPT = {"attention": ["eager", "sdpa"], "workload.batch_size": list(SIZES)}
FEW = ["warmup.iterations=3", "measurement.iterations=8", "workload.sequence_length=16"]
FIGURES = (
    "warmup_curves", "e2e_distributions", "ttft_vs_itl", "throughput_vs_memory", "roofline", "token_timeline",
    "phases",
)  # fmt: skip
# Messages of MLflow's own pages on any visit.
OF_MLFLOW = ("users/current", "ResizeObserver loop")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A finished sweep and the addresses of its pages."""

    folder: Path  # the sweep's
    records: list[Record]
    pages: dict[str, str]  # "table", "charts", "compare" → address
    browser: Browser


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    start = tmp_path_factory.mktemp("browser")
    done = run_bench(*SWEEP, *FEW, folder=start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Report: {start}/multirun/six/report.html" in done.stdout
    command = [sys.executable, "-m", "bench.tracking.ui", str(start), "--port", str(free_port())]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=started.default_signals)
    try:
        pages = announced(ui)
        OUTPUT.mkdir(parents=True, exist_ok=True)
        with Browser() as browser:
            folder = start / "multirun/six"
            records = [Record.read(each) for each in folder.glob("*/record.json")]
            yield Seen(folder=folder, records=records, pages=pages, browser=browser)
    finally:
        ui.send_signal(signal.SIGINT)
        assert ui.wait(60) == 0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def announced(ui: subprocess.Popen[str]) -> dict[str, str]:
    """Return the addresses that the UI's command prints once the server answers."""
    assert ui.stdout is not None
    pages = {}
    for line in ui.stdout:
        if found := re.match(r"\s*(table|charts|compare): (http://\S+)", line):
            pages[found[1]] = found[2]
        if "Ctrl-C ends it" in line:
            return pages
    raise AssertionError(f"the UI ended: {ui.wait()}")


def open_page(seen: Seen, name: str, until: str) -> Page:
    return seen.browser.open(seen.pages[name], width=1700, height=1200).wait(until).settle()


def run_name_of(record: Record) -> str:
    """Return the name of a record's run among all runs of its sweep."""
    return run_name(record, SweepInfo(sweep_id="", name="", swept=SWEPT, started_at_s=0.0))


def own_errors(page: Page) -> list[str]:
    return [each for each in page.errors if not any(known in each for known in OF_MLFLOW)]


def texts(page: Page, selector: str) -> list[str]:
    return [each.strip() for each in page.page.locator(selector).all_inner_texts()]


# ---- MLflow ------------------------------------------------------------------------------------------------------


def test_the_saved_view_shows_each_job_with_headline_and_swept_values(seen: Seen) -> None:
    page = open_page(seen, "table", "text=6 matching runs")
    page.picture(OUTPUT / "mlflow-table.png")
    names = texts(page, ".ag-row [col-id='attributes.`Run Name`'] a")
    assert sorted(names) == sorted(run_name_of(each) for each in seen.records)
    assert all(len(each) <= 16 for each in names)
    columns = page.page.locator(".ag-header-cell[col-id]").evaluate_all(
        "cells => cells.map(c => c.getAttribute('col-id'))"
    )
    metrics = [each for each in HEADLINE if f"metrics.`{each}`" in columns]
    assert len(metrics) >= 6
    ranked = [each for each in seen.records if not is_unranked(each)]
    for metric, count in {"e2e_ms": len(ranked), UNRANKED: 6 - len(ranked)}.items():
        values = [each for each in texts(page, f".ag-row [col-id='metrics.`{metric}`']") if each.strip("-")]
        assert len(values) == count
        assert all(float(each) > 0 for each in values), metric
    swept = ["params.`attention.implementation`", "params.`workload.batch_size`"]
    window = page.page.locator(".ag-center-cols-viewport").first.bounding_box()
    first = [each for each in (RANK, *FIRST) if each not in LEAST]
    for column in [*(f"metrics.`{each}`" for each in first), *swept]:  # without scrolling
        box = page.page.locator(f'.ag-header-cell[col-id="{column}"]').bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= window["x"] + window["width"] + 1, column
    assert own_errors(page) == []
    assert page.foreign == []


def test_the_saved_view_has_the_order_of_the_report(seen: Seen) -> None:
    page = open_page(seen, "table", "text=6 matching runs")
    rows = page.page.locator(".ag-center-cols-container .ag-row")
    shown = {
        int(row.get_attribute("row-index") or -1): row.locator(f"[col-id='metrics.`{RANK}`']").inner_text()
        for row in rows.all()
    }
    places = [shown[index].strip().strip("-") for index in sorted(shown)]
    count = sum(each.standing.is_ranked for each in ranking_of(seen.records))
    assert places == [*map(str, range(1, count + 1)), *[""] * (6 - count)]


def test_each_setting_has_its_own_colour(seen: Seen) -> None:
    page = open_page(seen, "table", "text=6 matching runs")
    cells = [each.split() for each in texts(page, ".ag-row [col-id='attributes.`Run Name`']")]
    # MLflow writes the dot's colour beside it, for the picker; two words are the name, then come its marks.
    shown = {" ".join(name[:2]): dot for dot, *name in cells}
    typed = [f"{each} b{size}" for each in ("eager", "sdpa") for size in SIZES]
    assert shown == {name: colour(position) for position, name in enumerate(typed)}


def test_the_chart_page_shows_the_warm_up_curve_of_every_job(seen: Seen) -> None:
    open_page(seen, "charts", "h4[title='cold_s']").picture(OUTPUT / "mlflow-charts.png")
    page = seen.browser.open(seen.pages["charts"], width=1700, height=4000).wait("h4[title='per_iter/e2e_ms']").settle()
    cards = page.page.locator("[data-testid='experiment-view-compare-runs-card']")
    card = cards.filter(has=page.page.locator("h4[title='per_iter/e2e_ms']"))
    # MLflow draws each curve twice, once without its points.
    points = card.locator(".scatterlayer .trace").evaluate_all(
        "all => all.map(each => each.querySelectorAll('path.point').length)"
    )
    assert [each for each in points if each] == [3 + 8] * 6
    strokes = card.locator(".scatterlayer .trace path.js-line").evaluate_all(
        "all => all.map(each => getComputedStyle(each).stroke)"
    )
    assert len(set(strokes)) == 6
    assert own_errors(page) == []


def test_the_compare_page_shows_the_ranked_trials_and_the_swept_keys(seen: Seen) -> None:
    ranked = sum(not is_unranked(each) for each in seen.records)
    if ranked < 2:
        assert "compare" not in seen.pages
        return
    page = open_page(seen, "compare", f"text=Comparing {ranked} Runs")
    page.picture(OUTPUT / "mlflow-compare.png")
    shown = page.page.inner_text("body")
    assert "attention.implementation" in shown
    assert "workload.batch_size" in shown
    assert own_errors(page) == []


def test_the_answer_and_the_plots_open_in_mlflow(seen: Seen) -> None:
    plan = json.loads((seen.folder / "sweep.json").read_text())
    host, experiment = re.match(r"(http://[^/]+)/#/experiments/(\d+)/", seen.pages["table"]).groups()
    run = f"{host}/#/experiments/{experiment}/runs/{plan['parent_run_id']}"
    page = seen.browser.open(run, width=1600, height=1200).wait("text=Descriptive").settle()
    page.picture(OUTPUT / "mlflow-sweep.png")
    page = seen.browser.open(f"{run}/artifacts/trials.json", width=1600, height=1200).wait("text=eager batch_size=4")
    page.picture(OUTPUT / "mlflow-trials.png")
    page = seen.browser.open(f"{run}/artifacts/figures/warmup_curves.svg", width=1600, height=1200)
    page.wait("img[alt='figures/warmup_curves.svg']").settle().picture(OUTPUT / "mlflow-figure.png")
    box = page.page.locator("img[alt='figures/warmup_curves.svg']").bounding_box()
    assert box is not None
    assert box["width"] > 300


def test_the_calls_of_a_trial_open_in_mlflow_as_a_table(seen: Seen) -> None:
    run_id, *_ = (json.loads(each.read_text())["run_id"] for each in seen.folder.glob("*/tracking.json"))
    address = seen.pages["table"].partition("/#/")[0] + f"/#/experiments/1/runs/{run_id}/artifacts/calls.json"
    page = seen.browser.open(address, width=1600, height=1200).wait("text=View as table").wait("text=validation")
    page.picture(OUTPUT / "mlflow-calls.png")


# ---- the report --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(seen: Seen) -> Page:
    return seen.browser.open(seen.folder / "report.html", width=1280, height=1600).settle()


def test_the_report_fetches_nothing_and_reports_no_error(seen: Seen, report: Page) -> None:
    report.picture(OUTPUT / "report.png")
    report.picture(OUTPUT / "report-whole.png", whole=True)
    assert report.errors == []
    assert report.requests == [(seen.folder / "report.html").as_uri()]


def test_every_plot_of_the_report_is_drawn(report: Page) -> None:
    figures = report.page.locator("figure svg")
    assert figures.count() == len(FIGURES)
    for each in figures.all():
        box = each.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 150
        # What is pointed at has a title: marks of settings, never axes and ticks, whose number follows from the times.
        drawn = each.evaluate("""svg => [...svg.querySelectorAll("title")].filter(title => {
            const box = title.parentElement.getBoundingClientRect(); return box.width + box.height > 0; }).length""")
        assert drawn >= 2 * len(SIZES)
        assert each.locator("text").count() > 5


def test_the_settings_can_be_sorted(report: Page) -> None:
    table = report.page.locator("#settings table.sortable")
    header = table.locator("thead th", has_text="tok/s").first
    column = header.evaluate("cell => cell.cellIndex")
    cells = f"#settings tbody tr > :nth-child({column + 1})"

    def shown() -> list[float]:
        return [float(each) for each in texts(report, cells)]

    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert shown() == sorted(shown())
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert shown() == sorted(shown(), reverse=True)
    assert len(set(shown())) > 1


@pytest.mark.parametrize(("name", "width", "dark"), [("dark", 1280, True), ("phone", 390, False)])
def test_the_report_fits_its_window(seen: Seen, name: str, width: int, dark: bool) -> None:
    page = seen.browser.open(seen.folder / "report.html", width=width, height=1400, dark=dark).settle()
    page.picture(OUTPUT / f"report-{name}.png")
    assert page.page.evaluate("document.documentElement.scrollWidth") == width
    background, ink = page.page.evaluate(
        "[document.body, document.body].map((e, i) => getComputedStyle(e)[i ? 'color' : 'backgroundColor'])"
    )
    light = [sum(map(int, re.findall(r"\d+", each)[:3])) / 3 for each in (background, ink)]
    assert (light[0] < light[1]) == dark
    assert page.errors == []


def test_the_report_can_be_read_without_scripts(seen: Seen) -> None:
    context = seen.browser._browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((seen.folder / "report.html").as_uri())
    assert page.locator("#settings tbody tr").count() == 6
    assert page.locator("#settings thead button").count() == 0
    assert not page.locator("#settings .scripted").first.is_visible()
    context.close()
