"""Draw the measured calls of each process as a strip of points, with the interval of their median."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.trials.summary import Stats
from bench.report.figures.drawing.sheet import GREY, RIGHT, Sheet
from bench.report.figures.drawing.shown_settings import Choice, Look, choose, looks_of, processes_words
from bench.report.figures.drawing.svg import INK
from bench.report.figures.drawing.ticks import scale_for
from bench.report.figures.figure import Figure
from bench.report.setting_view import SettingView
from bench.report.text.format import milliseconds
from bench.results.record import Record

KEY = "e2e_distributions"
NAME, STRIP, LEAST_STRIP, MOST_STRIPS = 19.0, 13.0, 5.0, 44.0  # heights: a name, a process, all of a setting


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no setting is ok."""
    settings = [each for each in settings if each.is_ok and each.e2e_s is not None]
    if not settings:
        return None
    choice = choose(settings)
    heights = [NAME + _strip(each) * len(each.counted) for each in choice.named]
    whole = sum(heights) + (NAME + STRIP if choice.grey else 0.0) + 6.0
    sheet = Sheet(panels=[whole], entries=[], left=RIGHT)
    axes = sheet.axes[0]
    times = [
        call.e2e_s * 1e3 for each in choice.named for record in each.counted for call in record.calls("measurement")
    ]
    greys = [each.e2e_s * 1e3 for each in choice.grey if each.e2e_s is not None]
    scale = scale_for([*times, *greys])
    sheet.scales(
        axes, scale, None, x_name=f"E2E of a measured call, ms{scale.words}", y_name="median and its 95 % interval"
    )
    axes.set_ylim(whole, 0.0)
    axes.set_yticks([])
    looks = looks_of(choice.named)
    below = 0.0
    for each, height in zip(choice.named, heights, strict=True):
        _draw_setting(sheet, each, below, looks[each.position])
        below += height
    if greys:
        span = f"{milliseconds(min(greys) / 1e3)} to {milliseconds(max(greys) / 1e3)} ms"
        _label(sheet, below, f"{len(greys)} others: their medians", span)
        gid = sheet.mark("others", f"medians of {len(greys)} other settings")
        style = GREY | {"marker": "|", "markersize": 9.0, "markeredgewidth": 0.8}
        sheet.dots(axes, greys, [below + NAME + STRIP / 2] * len(greys), gid=gid, **style)
    alt = _alt(choice)
    return Figure(
        key=KEY, title="How long the measured calls took", caption=_caption(choice), alt=alt, svg=sheet.svg(KEY, alt)
    )


def _draw_setting(sheet: Sheet, each: SettingView, below: float, look: Look) -> None:
    swatch = {"color": look.colour, "marker": look.marker}
    _label(sheet, below, each.full_name, _value(each), swatch=swatch, gid=f"name-{each.position}")
    height = _strip(each)
    for row, (record, summary) in enumerate(zip(each.counted, each.summaries, strict=True)):
        if summary.e2e_s is not None:
            gid = f"{each.key}-{record.repeat}"
            sheet.mark(gid, _words(each, record, summary.e2e_s), median=summary.e2e_s.median)
            middle = below + NAME + height * (row + 0.5)
            times_ms = [call.e2e_s * 1e3 for call in record.calls("measurement")]
            size = min(5.0, height - 1.0)
            style = {"color": look.colour, "marker": look.marker, "markersize": size, "alpha": 0.5}
            sheet.dots(sheet.axes[0], times_ms, [middle - height * 0.12] * len(times_ms), gid=gid, **style)
            gid = f"interval-{each.position}-{record.repeat}"
            _draw_median(sheet, summary.e2e_s, middle=middle, height=height, gid=gid)


def _draw_median(sheet: Sheet, stats: Stats, *, middle: float, height: float, gid: str) -> None:
    """Draw a tick across the strip, and the interval along its lower edge, where it covers no point."""
    axes, median = sheet.axes[0], stats.median * 1e3
    sheet.line(axes, [([median, median], [middle - height * 0.45, middle + height * 0.42])], color=INK, linewidth=1.4)
    if stats.median_low is not None and stats.median_high is not None:
        edge = middle + height * 0.34
        sheet.mark(gid, low=stats.median_low, high=stats.median_high)
        bar = ([stats.median_low * 1e3, stats.median_high * 1e3], [edge, edge])
        sheet.line(axes, [bar], color=INK, linewidth=1.6, alpha=0.85, gid=gid)


def _label(
    sheet: Sheet, below: float, name: str, value: str, *, swatch: dict[str, Any] | None = None, gid: str = ""
) -> None:
    """Write a setting's name above its strips, and its figures on the right."""
    y = sheet.axes[0].get_position().y1 * sheet.height - below - 13.0
    start = RIGHT
    if swatch is not None:
        sheet.swatch(start + 4.0, y + 3.8, **swatch)
        start += 12.0
    sheet.name_and_value(start, y, name, value, gid=gid)


def _strip(each: SettingView) -> float:
    """Return the height of one process's strip: many processes share the height of a few."""
    return max(LEAST_STRIP, min(STRIP, MOST_STRIPS / len(each.counted)))


def _value(each: SettingView) -> str:
    """Return the median, with its interval for one process or the spread of several."""
    median = f"{milliseconds(each.e2e_s)} ms"
    if len(each.summaries) > 1:
        return f"{median}, {len(each.summaries)} processes"
    stats = each.summaries[0].e2e_s
    if stats is None or stats.median_low is None or stats.median_high is None:
        return median
    return f"{median} ({milliseconds(stats.median_low)} to {milliseconds(stats.median_high)})"


def _words(each: SettingView, record: Record, stats: Stats) -> str:
    which = f" #{record.repeat}" if len(each.counted) > 1 else ""
    interval = ""
    if stats.median_low is not None:
        interval = f", 95 % interval {milliseconds(stats.median_low)} to {milliseconds(stats.median_high)} ms"
    return f"{each.name}{which}: median {milliseconds(stats.median)} ms of {stats.n} calls{interval}"


def _caption(choice: Choice) -> str:
    settings = [*choice.named, *choice.grey]
    descriptive = all(len(each.counted) == 1 for each in settings) and len(settings) > 1
    return (
        "Each point is a measured call; the tick is the median of a process and the bar its 95 % interval, which "
        f"knows of no differences between processes ({processes_words(settings)}, a strip each). Sorted by "
        "median, ranked settings first."
        + (" With one process a setting the order is descriptive, not a verdict." if descriptive else "")
        + choice.words()
    )


def _alt(choice: Choice) -> str:
    named = "; ".join(f"{each.full_name} {_value(each)}" for each in choice.named)
    return f"E2E of the measured calls, lowest median first and ranked settings before others: {named}."
