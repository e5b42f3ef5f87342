"""Write a sweep's report into a folder: `report.html`, `report.md` and the figures beside it.

If a plot cannot be drawn, the page has a line instead of the figures; if the disk is not writable, the caller gets the
error. All libraries that only a page needs are loaded here, when it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.trials.summary import summarize
from bench.host.atomic_files import write_whole
from bench.report.comparison import ComparisonReport
from bench.report.page import answer
from bench.report.page.build import Sweep, build_page
from bench.report.page.content import Page
from bench.report.rows import columns_of, rows_of
from bench.report.setting_view import SettingView, setting_views
from bench.report.text.format import one_line
from bench.results.file_names import FIGURES, REPORT_HTML, REPORT_MARKDOWN
from bench.results.record import Record

if TYPE_CHECKING:
    from bench.report.figures import Figure

# Text that identifies such files of bench.
OWN = {REPORT_HTML: ("<title>bench: ",), REPORT_MARKDOWN: ("## Every formula", "## How to get it again")}
OWN_FIGURE = ('class="bench-figure"',)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Hold a report in memory."""

    page: Page
    figures: list[Figure]
    figures_note: str  # why there are none; "" without a note
    trials: dict[str, list[Any]]  # column → values, one per trial and repeat

    @property
    def answer(self) -> str:
        """Return the answer alone, as Markdown."""
        return answer.to_markdown(self.page.answer)


def build(
    records: Sequence[Record],
    sweep: Sweep,
    comparison: ComparisonReport | None,
    *,
    baseline: str | None = None,
    is_drawn: bool = True,
) -> Report:
    """Return a report with its figures.

    Args:
        records: with any status; reference runs are left out.
        sweep: other information about the sweep.
        comparison: of the settings, on E2E; None if they were not compared.
        baseline: as the sweep declares it, for the figures.
        is_drawn: False: without figures.
    """
    trials = [each for each in records if each.kind != "reference"]
    summaries = [summarize(each) for each in trials]
    settings = setting_views(trials, summaries, typed=sweep.typed, baseline=baseline)
    figures, note = _figures(trials, settings) if is_drawn else ([], "")
    return Report(
        page=build_page(trials, sweep, comparison, settings),
        figures=figures,
        figures_note=note,
        trials=columns_of(rows_of(trials, summaries)),
    )


def write(report: Report, folder: Path) -> list[Path]:
    """Write the files, the page first; return their paths. Raises OSError if the folder is not writable."""
    from bench.report.page.html_page import to_html  # noqa: PLC0415
    from bench.report.page.markdown_page import to_markdown  # noqa: PLC0415

    content = {
        REPORT_HTML: to_html(report.page, report.figures, report.figures_note),
        REPORT_MARKDOWN: to_markdown(report.page, report.figures, report.figures_note),
    }
    if report.figures:
        from bench.report.figures import standalone  # noqa: PLC0415

        (folder / FIGURES).mkdir(exist_ok=True)
        content |= {f"{FIGURES}/{each.key}.svg": standalone(each) for each in report.figures}
    for name, text in content.items():
        write_whole(folder / name, text.encode(errors="replace"))  # a folder's name may be invalid text
    return [folder / name for name in content]


def names(report: Report) -> list[str]:
    """Return the files that `write` writes, as paths below its folder."""
    return [REPORT_HTML, REPORT_MARKDOWN, *(f"{FIGURES}/{each.key}.svg" for each in report.figures)]


def is_own(path: Path) -> bool:
    """Tell whether `write` has written a file, in this or an earlier version."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return all(each in text for each in OWN.get(path.name, OWN_FIGURE))


def _figures(trials: Sequence[Record], settings: Sequence[SettingView]) -> tuple[list[Figure], str]:
    if not trials:
        return [], ""
    try:
        from bench.report.figures import draw_all  # noqa: PLC0415

        faults: list[str] = []
        figures = draw_all(trials, settings, faults=faults)
        return figures, one_line(f"Not drawn: {'; '.join(faults)}") if faults else ""
    except Exception as error:  # noqa: BLE001 - after any error of a plotting library, the page has the rest
        return [], one_line(f"The figures could not be drawn: {type(error).__name__}: {error}")
