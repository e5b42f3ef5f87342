"""Provide the sheet for a figure: panels above each other, and below them one line per setting.

All lengths are in points of a sheet 400 wide; a phone shows it at nearly that size, and a page half again as large.
Text and axes are drawn in one colour, which `bench.report.figures.drawing.svg` replaces with the page's own. A legend
is below the panels, because there it covers no data with any number of lines.

matplotlib is used without pyplot, because pyplot keeps state between figures.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Paper
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from bench.report.figures.drawing.shown_settings import Look
from bench.report.figures.drawing.svg import INK, Mark, tidy
from bench.report.figures.drawing.ticks import Scale
from bench.report.setting_view import SettingView

WIDTH = 400.0
LEFT, RIGHT = 48.0, 12.0
TOP, BELOW = 22.0, 36.0  # of a panel: what its vertical axis shows; tick labels and what the horizontal one shows
ROW = 17.0  # of a legend
TEXT = 11.0
GAP = 10.0  # between a name and the figures at the right
# Widths of characters in a wide font at that size: the page's own font is not much wider.
_NARROW, _USUAL, _BROAD, _WIDE = 4.2, 6.9, 8.8, 11.0
_THIN = frozenset(" !'()*,-./:;I[]`fijlrt|")
GREY: dict[str, Any] = {"color": INK, "alpha": 0.3}
POINTS_PER_INCH = 72.0
Numbers = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Hold one line of a legend: the look of the setting, its name, and on the right its figures."""

    name: str
    value: str = ""
    gid: str = ""
    style: dict[str, Any] = field(default_factory=dict)  # of a matplotlib line


def entries_of(
    named: Sequence[SettingView], value: Callable[[SettingView], str], style: Callable[[int], dict[str, Any]]
) -> list[Entry]:
    """Return a line of the legend for each setting.

    Args:
        named: the settings.
        value: the text on the right for a setting.
        style: by position.
    """
    return [
        Entry(name=each.full_name, value=value(each), gid=f"name-{each.position}", style=style(each.position))
        for each in named
    ]


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Set up drawing: text stays text, equal figures give equal bytes, and missing glyphs cause no warning."""
    # From matplotlib's own defaults: a user's matplotlibrc is for other figures, and may request TeX.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "bench", "path.simplify_threshold": 0.05}
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        warnings.simplefilter("ignore")  # about glyphs that matplotlib's own font lacks: the page's font is used
        yield


class Sheet:
    """Hold panels and a legend, which the caller fills, and convert them to SVG."""

    def __init__(self, *, panels: Sequence[float], entries: Sequence[Entry], left: float = LEFT) -> None:
        """Lay out the sheet.

        Args:
            panels: height of each panel's plot, from the top.
            entries: of the legend.
            left: space for the labels of the vertical axes.
        """
        self.height = sum(TOP + each + BELOW for each in panels) + ROW * len(entries) + (6.0 if entries else 0.0)
        self.paper = Paper(figsize=(WIDTH / POINTS_PER_INCH, self.height / POINTS_PER_INCH), dpi=POINTS_PER_INCH)
        self.paper.patch.set_visible(False)
        self.points = Affine2D().scale(1 / POINTS_PER_INCH) + self.paper.dpi_scale_trans
        self.marks: dict[str, Mark] = {}
        self.axes: list[Axes] = []
        below = self.height
        for each in panels:
            below -= TOP + each
            self.axes.append(self._panel(left, below, each))
            below -= BELOW
        for row, entry in enumerate(entries):
            self._entry(entry, ROW * (len(entries) - row) - ROW / 2)

    def mark(self, gid: str, title: str = "", **data: Any) -> str:
        """Name a mark, with its tooltip and its figures as data. Return the name."""
        self.marks[gid] = Mark(title=title, data={name: _number(value) for name, value in data.items()})
        return gid

    def line(self, axes: Axes, lines: Sequence[tuple[Numbers, Numbers]], **style: Any) -> None:
        """Draw any number of curves of one kind as a single path with gaps."""
        if lines:
            axes.add_line(Line2D(_joined([x for x, _ in lines]), _joined([y for _, y in lines]), **style))

    def dots(self, axes: Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
        """Draw points of one kind."""
        defaults: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgewidth": 0.0}
        axes.add_line(Line2D(x, y, **defaults | style))

    def ringed(self, axes: Axes, x: float, y: float, *, look: Look, is_filled: bool, gid: str) -> None:
        """Draw a large marker that is distinct from its line: ringed, or hollow if it is not certain."""
        face, edge = (look.colour, INK) if is_filled else ("none", look.colour)
        style: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": 1.2}
        self.dots(axes, [x], [y], marker=look.marker, markersize=8.5, gid=gid, **style)

    def swatch(self, x: float, y: float, **style: Any) -> None:
        """Draw a marker beside a name, at a position on the sheet."""
        self.paper.add_artist(Line2D([x], [y], markersize=6.5, linestyle="none", transform=self.points, **style))

    def scales(self, axes: Axes, x: Scale, y: Scale | None, *, x_name: str, y_name: str = "") -> None:
        """Set ranges and ticks, and label the axes: the vertical one above, where the text is horizontal."""
        axes.set_xlim(x.low, x.high)
        if x.is_log:
            axes.set_xscale("log")
        axes.set_xticks(x.ticks, x.labels)
        axes.set_xticks([], minor=True)
        if y is not None:
            if y.is_log:
                axes.set_yscale("log")
            axes.set_ylim(y.low, y.high)
            axes.set_yticks(y.ticks, y.labels)
            axes.set_yticks([], minor=True)
        box = axes.get_position()
        self.text(box.x0 * WIDTH - 40.0 if y is not None else 8.0, box.y1 * self.height + 9.0, y_name)
        self.text(WIDTH - RIGHT, box.y0 * self.height - 31.0, x_name, ha="right")

    def corner(self, axes: Axes, words: str) -> None:
        """Write a note on a panel, above its right end."""
        box = axes.get_position()
        self.text(WIDTH - RIGHT, box.y1 * self.height + 9.0, words, ha="right", alpha=0.75)

    def text(self, x: float, y: float, words: str, **style: Any) -> Text:
        """Write plain text at a position on the sheet: dollar signs do not start a formula."""
        defaults: dict[str, Any] = {"color": INK, "va": "baseline", "transform": self.points, "parse_math": False}
        made = Text(x, y, words, fontsize=TEXT, **defaults | style)
        self.paper.add_artist(made)
        return made

    def name_and_value(self, x: float, y: float, name: str, value: str, *, gid: str = "") -> None:
        """Write a name, shortened to the space left by its figures on the right."""
        text = self.text(x, y, shortened(name, WIDTH - RIGHT - x - width_of(value) - GAP))
        if gid:
            text.set_gid(self.mark(gid, name))
        if value:
            self.text(WIDTH - RIGHT, y, value, ha="right")

    def svg(self, key: str, alt: str) -> str:
        """Return the whole sheet as one element."""
        canvas, buffer = FigureCanvasSVG(self.paper), io.StringIO()
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[no-untyped-call]
        return tidy(buffer.getvalue(), key=key, alt=alt, marks=self.marks)

    def _panel(self, left: float, bottom: float, height: float) -> Axes:
        rectangle = (left / WIDTH, bottom / self.height, (WIDTH - left - RIGHT) / WIDTH, height / self.height)
        axes = self.paper.add_axes(rectangle)
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(color=INK, alpha=0.13, linewidth=0.6)
        axes.tick_params(colors=INK, length=0, pad=4, labelsize=TEXT)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set(color=INK, alpha=0.5, linewidth=0.8)
        return axes

    def _entry(self, entry: Entry, y: float) -> None:
        style: dict[str, Any] = {"color": INK, "linewidth": 1.4, "markersize": 6.0} | entry.style
        self.paper.add_artist(Line2D([8.0, 20.0, 32.0], [y, y, y], markevery=[1], transform=self.points, **style))
        self.name_and_value(40.0, y - 3.8, entry.name, entry.value, gid=entry.gid)


def grey_lines(number: int) -> dict[str, Any]:
    """Return the style of so many lines without names: more lines are fainter, or they would hide the others."""
    return {"color": INK, "linewidth": 0.5, "alpha": 0.3 if number <= 30 else 0.16 if number <= 200 else 0.04}


def shortened(text: str, room: float) -> str:
    """Return the text, without its middle if it is wider than so many points: settings differ at their ends."""
    if width_of(text) <= room:
        return text
    kept = min(len(text) - 1, int(room / _NARROW))
    while kept > 8:
        short = f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"
        if width_of(short) <= room:
            return short
        kept -= 1
    return f"{text[:4]}…{text[-4:]}"


def width_of(text: str) -> float:
    """Return the approximate maximum width of a text in points: the font used for display is not known here."""
    return sum(_width(each) for each in text)


def _width(character: str) -> float:
    if character in _THIN:
        return _NARROW
    if ord(character) > 0x1100 and character != "…":
        return _WIDE
    return _BROAD if character.isupper() or character in "mw@%=+<>" else _USUAL


def _joined(rows: Sequence[Numbers]) -> NDArray[np.float64]:
    parts: list[Numbers] = []
    for row in rows:
        parts += [row, [math.nan]]
    return np.concatenate(parts[:-1]).astype(np.float64)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
