"""Where the time of each trial went: a bar a trial, in the order of the report's rows, made of its parts.

Few trials stand below their names. Many are thin bars beside a count, and name themselves when one points at them. Of
more than `MOST_BARS`, neighbours share a bar that shows their mean, so that a thousand take no more room than two
hundred.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from bench.analysis.phases import NAMES, outside_generate_s, phases_of
from bench.palette import colour
from bench.record import Record
from bench.report.figures.figure import Figure
from bench.report.figures.sheet import GAP, LEFT, RIGHT, WIDTH, Entry, Sheet, shortened, width_of
from bench.report.figures.ticks import Scale, count_ticks, scale_for
from bench.report.format import run_title, significant

KEY = "phases"
MOST_NAMED, MOST_BARS = 24, 200
NAME, BAR, SPACE = 16.0, 9.0, 5.0  # heights: a name, its bar, what is below it
DENSE = 400.0  # height of all bars where they have no names
# Part → its word and its place in the palette: neighbours in a bar are far apart in hue.
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
    """One trial, or the mean of several that follow each other."""

    name: str
    parts: dict[str, float]  # seconds, in order

    @property
    def whole_s(self) -> float:
        """Its length."""
        return sum(self.parts.values())

    @property
    def words(self) -> str:
        """All parts, for whoever points at it."""
        parts = ", ".join(f"{LOOKS[part][0]} {significant(each, 3)}" for part, each in self.parts.items() if each)
        return f"{self.name}: {significant(self.whole_s, 3)} s ({parts})"


def draw(trials: Sequence[Record]) -> Figure | None:
    """The figure, or None where no trial tells of its time.

    Args:
        trials: with any status, in the order in which they are to stand; without reference runs.
    """
    known = [(each, parts) for each in trials if any((parts := phases_of(each)).values())]
    if not known:
        return None
    records = [each for each, _ in known]
    all_parts = [parts for _, parts in known]
    bars = [Bar(name=_name(record), parts=parts) for record, parts in known]
    each_of = math.ceil(len(bars) / MOST_BARS)
    if each_of > 1:
        bars = [_mean(bars[start : start + each_of], start) for start in range(0, len(bars), each_of)]
    is_named = len(bars) <= MOST_NAMED
    height = len(bars) * (NAME + BAR + SPACE) if is_named else DENSE
    sheet = Sheet(panels=[height], entries=_legend(all_parts), left=RIGHT if is_named else LEFT)
    _scales(sheet, bars, height, of=len(records), is_named=is_named)
    row = height / len(bars)
    tops = [index * row + (NAME if is_named else 0.0) for index in range(len(bars))]
    thickness = BAR if is_named else row * 0.8
    _draw_bars(sheet, bars, tops, thickness)
    for index, (bar, top) in enumerate(zip(bars, tops, strict=True)):
        _draw_target(sheet, bar, top, thickness, gid=f"trial-{index}")
        if is_named:
            _label(sheet, bar, records[index], top - NAME)
    alt = _alt(bars, records, is_named=is_named)
    caption = _caption(records, all_parts, each_of)
    return Figure(key=KEY, title="Where the time goes", caption=caption, alt=alt, svg=sheet.svg(KEY, alt))


def _name(record: Record) -> str:
    return run_title(record) if record.status == "ok" else f"{run_title(record)} ({record.status})"


def _mean(bars: Sequence[Bar], start: int) -> Bar:
    """Their mean: what one of them did not do, or did not time, counts as 0, so that the parts add up."""
    parts = {part: sum(bar.parts.get(part, 0.0) for bar in bars) / len(bars) for part in NAMES}
    name = bars[0].name if len(bars) == 1 else f"mean of trials {start + 1} to {start + len(bars)}"
    return Bar(name=name, parts={part: each for part, each in parts.items() if each})


def _scales(sheet: Sheet, bars: Sequence[Bar], height: float, *, of: int, is_named: bool) -> None:
    axes = sheet.axes[0]
    x = scale_for([0.0, max(bar.whole_s for bar in bars)], is_log=False, from_zero=True)
    if is_named:
        sheet.scales(axes, x, None, x_name="time of a trial, s", y_name="all of it, and what was outside generate")
        axes.set_yticks([])
    else:
        counts = [each for each in count_ticks(of) if each]
        y = Scale(low=0.0, high=float(of), is_log=False, ticks=counts)
        sheet.scales(axes, x, y, x_name="time of a trial, s", y_name="trial, counted from the top")
        axes.set_yticks([(each - 0.5) * height / of for each in counts], y.labels)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(height, 0.0)


def _draw_bars(sheet: Sheet, bars: Sequence[Bar], tops: Sequence[float], thickness: float) -> None:
    """Each part of all bars as one path, however many they are."""
    starts = [0.0] * len(bars)
    for part in NAMES:
        corners = []
        for index, (bar, top) in enumerate(zip(bars, tops, strict=True)):
            if (seconds := bar.parts.get(part, 0.0)) > 0:
                corners += _corners(starts[index], starts[index] + seconds, top, top + thickness)
                starts[index] += seconds
        if corners:
            gid = sheet.mark(f"part-{part}", bars=len(corners) // 5)
            _draw_outline(sheet, corners, color=colour(LOOKS[part][1]), gid=gid)


def _draw_target(sheet: Sheet, bar: Bar, top: float, thickness: float, *, gid: str) -> None:
    """What one points at: it cannot be seen, and lies on all parts of one bar."""
    sheet.mark(gid, bar.words, whole=bar.whole_s, **bar.parts)
    _draw_outline(sheet, _corners(0.0, bar.whole_s, top, top + thickness), color="none", gid=gid)


def _corners(left: float, right: float, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def _draw_outline(sheet: Sheet, corners: Sequence[tuple[float, float]], *, color: str, gid: str) -> None:
    codes = np.tile([Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY], len(corners) // 5)
    patch = PathPatch(Outline(np.asarray(corners), codes), linewidth=0.0, edgecolor="none", facecolor=color, gid=gid)
    sheet.axes[0].add_patch(patch)


def _label(sheet: Sheet, bar: Bar, record: Record, below: float) -> None:
    """A trial's name above its bar, and its figures at the right."""
    y = sheet.axes[0].get_position().y1 * sheet.height - below - 12.0
    value = _value(bar, record)
    sheet.text(RIGHT, y, shortened(bar.name, WIDTH - 2 * RIGHT - width_of(value) - GAP))
    sheet.text(WIDTH - RIGHT, y, value, ha="right")


def _value(bar: Bar, record: Record) -> str:
    outside = outside_generate_s(record)
    return f"{significant(bar.whole_s, 3)} s" + (f", {significant(outside, 3)}" if outside is not None else "")


def _legend(all_parts: Sequence[dict[str, float]]) -> list[Entry]:
    """A line for each part that any trial has, with its median over those that have it."""
    entries = []
    for part in NAMES:
        known = [parts[part] for parts in all_parts if part in parts]
        if any(known):
            word, place = LOOKS[part]
            style = {"color": colour(place), "linewidth": BAR, "solid_capstyle": "butt"}
            value = f"median {significant(statistics.median(known), 3)} s"
            entries.append(Entry(name=word, value=value, gid=f"name-{part}", style=style))
    return entries


def _outside(records: Sequence[Record]) -> float | None:
    known = [each for each in map(outside_generate_s, records) if each is not None]
    return statistics.median(known) if known else None


def _caption(records: Sequence[Record], all_parts: Sequence[dict[str, float]], each_of: int) -> str:
    whole = statistics.median(sum(parts.values()) for parts in all_parts)
    outside = _outside(records)
    told = f", of which {significant(outside, 3)} s outside generate" if outside is not None else ""
    trials = "1 trial" if len(records) == 1 else f"the median of {len(records)} trials"
    return (
        f"A trial's whole time, its parts in the order of the legend ({trials}: {significant(whole, 3)} s{told}). "
        "Outside generate is all but the calls of validation, warm-up and measurement, and but the wait for others. "
        "Failed trials have what they came to; other is what no part covers. Colours are those of parts, not of "
        "settings." + (f" Each bar is the mean of {each_of} trials that follow each other." if each_of > 1 else "")
    )


def _alt(bars: Sequence[Bar], records: Sequence[Record], *, is_named: bool) -> str:
    if is_named:
        return f"Seconds of each trial by part: {'; '.join(bar.words for bar in bars)}."
    longest = max(bars, key=lambda bar: bar.whole_s)
    outside = significant(_outside(records), 3)
    return f"Seconds of {len(records)} trials by part, the median outside generate {outside} s; longest: {longest.words}."
