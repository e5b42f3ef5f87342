"""Draw the time of each trial by its parts: one bar per trial, in the order of the report's rows.

A few trials are shown below their names. Many are thin bars beside a count, with their names in tooltips. Above
`MOST_BARS`, neighbours share a bar that shows their mean, so a thousand need no more space than two hundred.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from bench.analysis.trials.phases import NAMES, outside_generate_s, phases_of
from bench.report.figures.drawing.sheet import LEFT, RIGHT, Entry, Sheet
from bench.report.figures.drawing.ticks import Scale, count_ticks, scale_for
from bench.report.figures.figure import Figure
from bench.report.text.format import UNDEFINED, run_title, significant
from bench.results.palette import colour
from bench.results.record import Record

KEY = "phases"
MOST_NAMED, MOST_BARS = 24, 200
NAME, BAR, SPACE = 16.0, 9.0, 5.0  # heights: a name, its bar, the space below it
DENSE = 400.0  # height of all bars without names
RECTANGLE = (Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY)
# Part → its word and its position in the palette: neighbours in a bar differ clearly in hue.
LOOKS = {
    "wait": ("wait", 4),
    "start": ("start", 8),
    "import": ("import", 5),
    "load": ("load", 6),
    "validation": ("validate", 1),
    "warmup": ("warm up", 3),
    "measurement": ("measure", 0),
    "evidence": ("evidence", 2),
    "publish": ("publish", 7),
    "other": ("other", 9),
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Hold the bar of one trial, or of the mean of successive trials."""

    name: str
    parts: dict[str, float]  # seconds, in order
    outside_s: float | None = None  # of generate; None for a mean, or if not known

    @property
    def whole_s(self) -> float:
        """Return the length of the bar."""
        return sum(self.parts.values())

    @property
    def words(self) -> str:
        """Return all parts in words, as a tooltip shows them."""
        parts = ", ".join(f"{LOOKS[part][0]} {_seconds(each)}" for part, each in self.parts.items() if each)
        return f"{self.name}: {_seconds(self.whole_s)} s ({parts})" if parts else f"{self.name}: not known"


def draw(trials: Sequence[Record]) -> Figure | None:
    """Return the figure, or None if no trial has times.

    Args:
        trials: with any status, in display order; without reference runs.
    """
    bars = [Bar(name=_name(each), parts=phases_of(each), outside_s=outside_generate_s(each)) for each in trials]
    known = [each for each in bars if each.whole_s]
    if not known:
        return None
    each_of = math.ceil(len(bars) / MOST_BARS)
    if each_of > 1:
        bars = [_mean(bars[start : start + each_of], start) for start in range(0, len(bars), each_of)]
    is_named = len(bars) <= MOST_NAMED
    row = NAME + BAR + SPACE if is_named else DENSE / len(bars)
    sheet = Sheet(panels=[row * len(bars)], entries=_legend(known), left=RIGHT if is_named else LEFT)
    _scales(sheet, bars, row, of=len(trials), is_named=is_named)
    tops = [index * row + (NAME if is_named else 0.0) for index in range(len(bars))]
    thickness = BAR if is_named else row * 0.8
    _draw_parts(sheet, bars, tops, thickness)
    for index, (bar, top) in enumerate(zip(bars, tops, strict=True)):
        if bar.whole_s:
            gid = sheet.mark(f"trial-{index}", bar.words, **(bar.parts if is_named else {}))
            # Target of the tooltip: invisible, and over all parts of the bar.
            _draw_outline(sheet, _corners(0.0, bar.whole_s, top, top + thickness), color="none", gid=gid)
        if is_named:
            _label(sheet, bar, top - NAME)
    alt = _alt(bars, known, is_named=is_named)
    return Figure(
        key=KEY, title="Where the time goes", caption=_caption(known, each_of), alt=alt, svg=sheet.svg(KEY, alt)
    )


def _name(record: Record) -> str:
    return run_title(record) if record.status == "ok" else f"{run_title(record)} ({record.status})"


def _mean(bars: Sequence[Bar], start: int) -> Bar:
    """Return the mean of bars: a part that a bar lacks, or did not time, counts as 0, so the parts add up."""
    parts = {part: sum(bar.parts.get(part, 0.0) for bar in bars) / len(bars) for part in NAMES}
    name = bars[0].name if len(bars) == 1 else f"mean of trials {start + 1} to {start + len(bars)}"
    return Bar(name=name, parts={part: each for part, each in parts.items() if each})


def _scales(sheet: Sheet, bars: Sequence[Bar], row: float, *, of: int, is_named: bool) -> None:
    axes, height = sheet.axes[0], row * len(bars)
    x = scale_for([0.0, max(bar.whole_s for bar in bars)], is_log=False, from_zero=True)
    if is_named:
        sheet.scales(axes, x, None, x_name="time of a trial, s")
        sheet.corner(axes, "in all, outside generate")
        axes.set_yticks([])
    else:
        counts = [each for each in count_ticks(of) if each]
        y = Scale(low=0.0, high=height, is_log=False, ticks=counts)
        sheet.scales(axes, x, y, x_name="time of a trial, s", y_name="trial, counted from the top")
        axes.set_yticks([(each - 0.5) * row * len(bars) / of for each in counts], y.labels)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(height, 0.0)


def _draw_parts(sheet: Sheet, bars: Sequence[Bar], tops: Sequence[float], thickness: float) -> None:
    """Draw each part of all bars as one path, for any number of bars."""
    starts = [0.0] * len(bars)
    for part in NAMES:
        corners = []
        for index, (bar, top) in enumerate(zip(bars, tops, strict=True)):
            if (seconds := bar.parts.get(part, 0.0)) > 0:
                corners += _corners(starts[index], starts[index] + seconds, top, top + thickness)
                starts[index] += seconds
        if corners:
            gid = sheet.mark(f"part-{part}", bars=len(corners) // len(RECTANGLE))
            _draw_outline(sheet, corners, color=colour(LOOKS[part][1]), gid=gid)


def _corners(left: float, right: float, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def _draw_outline(sheet: Sheet, corners: Sequence[tuple[float, float]], *, color: str, gid: str) -> None:
    outline = Outline(np.asarray(corners), np.tile(RECTANGLE, len(corners) // len(RECTANGLE)))
    patch = PathPatch(outline, linewidth=0.0, edgecolor="none", facecolor=color, gid=gid)
    sheet.axes[0].add_artist(patch)  # not add_patch: the ranges are set already, and need not include each patch


def _label(sheet: Sheet, bar: Bar, below: float) -> None:
    """Write a trial's name above its bar, and its figures on the right."""
    y = sheet.axes[0].get_position().y1 * sheet.height - below - 12.0
    outside = UNDEFINED if bar.outside_s is None else f"{_seconds(bar.outside_s)} s"
    value = f"{_seconds(bar.whole_s)} s, {outside}" if bar.whole_s else UNDEFINED
    sheet.name_and_value(RIGHT, y, bar.name, value)


def _legend(known: Sequence[Bar]) -> list[Entry]:
    """Return a line for each part that any trial has, with its median over those that have it."""
    entries = []
    for part in NAMES:
        found = [bar.parts[part] for bar in known if part in bar.parts]
        if any(found):
            word, place = LOOKS[part]
            style = {"color": colour(place), "linewidth": BAR, "solid_capstyle": "butt"}
            value = f"median {_seconds(statistics.median(found))} s"
            entries.append(Entry(name=word, value=value, gid=f"name-{part}", style=style))
    return entries


def _median_outside(known: Sequence[Bar]) -> str:
    found = [bar.outside_s for bar in known if bar.outside_s is not None]
    return f"{_seconds(statistics.median(found))} s" if found else UNDEFINED


def _caption(known: Sequence[Bar], each_of: int) -> str:
    whole = _seconds(statistics.median(bar.whole_s for bar in known))
    of = "its time" if len(known) == 1 else f"the median of {len(known)} trials"
    return (
        f"A trial's whole time, its parts in the order of the legend; {of} is {whole} s, and outside generate "
        f"{_median_outside(known)}: all but the wait for others and the calls of validation, warm-up and "
        "measurement. What no part covers is other: so is all that a process could not tell before it was ended. "
        "Colours are of parts here, not of settings."
        + (f" Each bar is the mean of {each_of} trials that follow each other." if each_of > 1 else "")
    )


def _alt(bars: Sequence[Bar], known: Sequence[Bar], *, is_named: bool) -> str:
    if is_named:
        return f"Seconds of each trial by part: {'; '.join(bar.words for bar in bars)}."
    longest = max(bars, key=lambda bar: bar.whole_s)
    outside = _median_outside(known)
    return f"Seconds of {len(known)} trials by part, median outside generate {outside}; longest: {longest.words}."


def _seconds(seconds: float | None) -> str:
    """Write seconds with three digits at most, and none below a millisecond."""
    return significant(None if seconds is None else round(seconds, 3), 2 if seconds and seconds < 0.1 else 3)
