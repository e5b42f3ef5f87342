"""Test the page's files: in a browser, as Markdown, and with hostile names."""

from __future__ import annotations

import html.parser
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.report.comparison import build_report_of_records
from bench.report.page.build import Sweep
from bench.report.page.html_page import to_html
from bench.report.page.markdown_page import to_markdown
from bench.report.page.write import Report, build, write
from bench.results.record import Failure, Record
from factories import make_evidence
from sweeps import EAGER, SDPA, job, jobs

CHROMIUM = next(
    (
        each
        for each in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"))
        if each.exists()
    ),
    None,
)
HOSTILE = [
    "<script>window.owned = 1</script>",
    "</style></script><img src=x onerror=window.owned=1>",
    "{{ 7 * 7 }} {% raw %}",
    '"><svg onload="window.owned=1">',
    "a | b `c` **d** [e](javascript:window.owned=1) $f$",
    "]]> --> <!-- &lt;b&gt;",
]


def report(records: Sequence[Record], **known: Any) -> Report:
    return build(records, Sweep(**known), build_report_of_records(records))


def hostile() -> list[Record]:
    """Build records whose external texts are all hostile."""
    records = []
    for number, text in enumerate(HOSTILE):
        error = Failure(type=text, message=text, detail=text)
        changes: dict[str, Any] = {
            "swept": {text: text},
            "trial_id": f"t{number}",
            "environment": {"cpu": {text: text}},
        }
        records.append(job(text, 1.0 + number / 10, **changes))
        records.append(
            job(text, 1.0, status="failed", stage="load", error=error, **changes | {"trial_id": f"f{number}"})
        )
    return records


@pytest.fixture(scope="module")
def evident() -> Report:
    """Write the report of two settings with evidence of what ran."""
    return report(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, **make_evidence()), source="multirun/night")


class Elements(html.parser.HTMLParser):
    """Collect the tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


# ---- files ---------------------------------------------------------------------------------------------------------


def test_the_folder_has_the_page_its_markdown_and_each_figure(evident, tmp_path) -> None:
    paths = write(evident, tmp_path)
    assert paths[0] == tmp_path / "report.html"
    written = {each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file()}
    assert written == {"report.html", "report.md", *(f"figures/{each.key}.svg" for each in evident.figures)}
    assert "warmup_curves" in {each.key for each in evident.figures}


def test_the_page_holds_each_figure_with_its_text(evident) -> None:
    page = to_html(evident.page, evident.figures)
    images = [found for tag, found in Elements(page).found if found.get("role") == "img"]
    assert [each["aria-label"] for each in images] == [each.alt for each in evident.figures]
    assert page.count("<figcaption>") == len(evident.figures)


def test_the_page_is_written_without_figures_that_cannot_be_drawn(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.report.figures.draw_all", _broken)
    found = report(jobs({"eager": EAGER[:1]}))
    write(found, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The figures could not be drawn: ZeroDivisionError: of a plot" in page
    assert "The figures could not be drawn" in (tmp_path / "report.md").read_text(encoding="utf-8")


def _broken(*_: object, **__: object) -> list[object]:
    raise ZeroDivisionError("of a plot")


def test_the_page_of_a_hundred_trials_is_under_two_megabytes(tmp_path) -> None:
    write(report([job(f"s{number}", 1.0 + number / 1000, **make_evidence()) for number in range(100)]), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_a_report_of_only_failures_is_complete(tmp_path) -> None:
    error = Failure(type="RuntimeError", message="no such layer", detail="the log's end")
    record = job("flex", 1.0, status="failed", stage="load", error=error)
    record.iterations = []
    write(report([record]), tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "No setting came through" in text
        assert "the log's end" in text.replace("&#39;", "'")


# ---- HTML without a browser ----------------------------------------------------------------------------------------


def test_the_page_fetches_nothing(evident) -> None:
    page = to_html(evident.page, evident.figures)
    for tag, found in Elements(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        for name in ("src", "href", "xlink:href", "action"):
            assert (found.get(name) or "#").startswith("#")
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_the_content_policy_allows_only_the_pages_own_script(evident) -> None:
    policy = next(found["content"] for tag, found in Elements(to_html(evident.page, [])).found if "http-equiv" in found)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_headings_go_down_one_step_at_a_time(evident) -> None:
    levels = [
        int(tag[1]) for tag, _ in Elements(to_html(evident.page, evident.figures)).found if re.fullmatch("h[1-6]", tag)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_hostile_names_add_no_elements() -> None:
    found = report(hostile())
    tags = [tag for tag, _ in Elements(to_html(found.page, found.figures)).found]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert all(
        not name.startswith("on") for _, each in Elements(to_html(found.page, found.figures)).found for name in each
    )


def test_a_template_in_a_name_is_not_evaluated() -> None:
    found = report(hostile())
    assert "{{ 7 * 7 }} {% raw %}" in to_html(found.page, [])


# ---- Markdown ------------------------------------------------------------------------------------------------------


def test_markdown_has_the_same_sections_in_the_same_order(evident) -> None:
    page = to_html(evident.page, evident.figures)
    markdown = to_markdown(evident.page, evident.figures)
    headings = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    in_html = [each for each in re.findall(r"<h2[^>]*>([^<]*)</h2>", page) if each != evident.page.answer.headline]
    assert headings == ["Answer", *in_html]


def test_markdown_links_each_figure(evident) -> None:
    links = re.findall(r"^!\[.*\]\((.*)\)$", to_markdown(evident.page, evident.figures), re.MULTILINE)
    assert links == [f"figures/{each.key}.svg" for each in evident.figures]


def test_every_row_of_a_markdown_table_has_as_many_cells() -> None:
    found = report(hostile())
    for table in _tables(to_markdown(found.page, found.figures)):
        counts = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table}
        assert len(counts) == 1, table


def _tables(text: str) -> Iterator[list[str]]:
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("| "):
            yield lines


def test_a_log_cannot_end_its_own_fence() -> None:
    error = Failure(type="E", message="m", detail="```\n# not a heading\n````")
    record = job("a", 1.0, status="failed", error=error)
    assert "\n  `````text\n  ```\n  # not a heading\n  ````\n  `````" in to_markdown(report([record]).page, [])


# ---- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        started = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a report and collect the browser's messages and requests."""
    pages = []

    def start(found: Report, **options: Any) -> Any:
        path = write(found, tmp_path)[0]
        page = browser.new_context(**options).new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield start
    for each in pages:
        each.context.close()


def names(page: Any) -> list[str]:
    return page.eval_on_selector_all(
        "#settings tbody th", "all => all.map(each => each.childNodes[1].textContent.trim())"
    )


def test_a_browser_reports_no_message_and_fetches_nothing(opened, evident) -> None:
    page = opened(evident)
    assert page.said == []
    assert page.asked == [page.url]


def test_hostile_names_do_nothing_in_a_browser(opened) -> None:
    page = opened(report(hostile()))
    assert page.evaluate("window.owned") is None
    assert page.said == []
    assert set(HOSTILE) <= {" ".join(each.split()) for each in names(page)}


def test_a_click_sorts_and_a_second_click_reverses(opened) -> None:
    page = opened(report(jobs({"slow": (9.5,), "fast": (0.5,), "middle": (2.5,)})))
    header = page.locator("#settings thead th", has_text="E2E")
    header.locator("button").click()
    assert (names(page), header.get_attribute("aria-sort")) == (["fast", "middle", "slow"], "ascending")
    header.locator("button").click()
    assert (names(page), header.get_attribute("aria-sort")) == (["slow", "middle", "fast"], "descending")
    assert page.locator("#settings .sorted").text_content() == "Sorted by E2E ms, descending."


def test_the_keyboard_sorts_too(opened) -> None:
    page = opened(report(jobs({"b": (1.0,), "a": (2.0,)})))
    page.locator("#settings thead button").first.focus()
    page.keyboard.press("Enter")
    assert names(page) == ["a", "b"]


def test_unknown_values_sort_last_in_both_directions(opened) -> None:
    failed = job("failed", 1.0, status="failed", error=Failure(type="E", message="m"))
    failed.iterations = []
    page = opened(report([failed, *jobs({"a": (1.0,), "b": (2.0,)})]))
    for expected in (["a", "b", "failed"], ["b", "a", "failed"]):
        page.locator("#settings thead th", has_text="E2E").locator("button").click()
        assert names(page) == expected


def test_a_phone_never_scrolls_sideways(opened) -> None:
    page = opened(report(hostile()), viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_its_script_the_table_is_complete(opened, evident) -> None:
    page = opened(evident, java_script_enabled=False)
    assert page.locator("#settings tbody tr").count() == 2
    assert page.locator("#settings thead button").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(opened, evident, scheme) -> None:
    page = opened(evident, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


# Texts of the page, except figures, with a contrast below 4.5 to 1 (WCAG 2.1, 1.4.3), as "contrast text".
CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const back = parts(getComputedStyle(each).backgroundColor);
      if (back.length === 3 || back[3] > 0) return back;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim());
    if (!own || element.closest("svg, script, .sorted")) continue;
    const [a, b] = [parts(getComputedStyle(element).color), behind(element)].map(light).sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) low.push(`${contrast.toFixed(2)} ${element.textContent.trim().slice(0, 40)}`);
  }
  return low;
}"""
