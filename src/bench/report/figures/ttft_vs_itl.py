"""Draw the time to the first token against the latency from token to token."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.calls.series import median_interval
from bench.analysis.settings import call_times
from bench.report.figures.drawing.sheet import GREY, Sheet, entries_of
from bench.report.figures.drawing.shown_settings import Choice, choose, looks_of, processes_words
from bench.report.figures.drawing.ticks import scale_for
from bench.report.figures.figure import Figure
from bench.report.quantities import ITL, TTFT
from bench.report.setting_view import SettingView
from bench.report.text.format import milliseconds

KEY = "ttft_vs_itl"
PLOT = 240.0


@dataclass(frozen=True, kw_only=True)
class _Point:
    """Hold median and error bar of one axis, in ms."""

    median: float
    low: float
    high: float


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no setting has both times."""
    choice = choose([each for each in settings if each.is_ok and _medians(each, "ttft") and _medians(each, "itl")])
    if not choice.named:
        return None
    places = {each.position: (_point(each, "ttft"), _point(each, "itl")) for each in choice.named}
    looks = looks_of(choice.named)
    sheet = Sheet(
        panels=[PLOT],
        entries=entries_of(
            choice.named, lambda each: _value(*places[each.position]), lambda position: looks[position].point
        ),
    )
    axes = sheet.axes[0]
    shown = [places[each.position] for each in choice.named]
    grey_x, grey_y = ([statistics.median(_medians(each, metric)) for each in choice.grey] for metric in ("ttft", "itl"))
    x = scale_for([*(edge for ttft, _ in shown for edge in (ttft.low, ttft.high)), *grey_x])
    y = scale_for([*(edge for _, itl in shown for edge in (itl.low, itl.high)), *grey_y])
    sheet.scales(axes, x, y, x_name=f"TTFT, ms{x.words}", y_name=f"ITL, ms{y.words}")
    if choice.grey:
        gid = sheet.mark("others", f"{len(choice.grey)} other settings")
        sheet.dots(axes, grey_x, grey_y, markersize=4.0, gid=gid, **GREY)
    for each in reversed(choice.named):
        ttft, itl = places[each.position]
        bars = [([ttft.low, ttft.high], [itl.median] * 2), ([ttft.median] * 2, [itl.low, itl.high])]
        sheet.line(axes, bars, color=each.colour, linewidth=1.0)
        gid = sheet.mark(
            each.key, f"{each.full_name}: {_value(ttft, itl)}", ttft=ttft.median / 1e3, itl=itl.median / 1e3
        )
        sheet.dots(axes, [ttft.median], [itl.median], **looks[each.position].point, markersize=7.5, gid=gid)
    alt = _alt(choice, places)
    return Figure(
        key=KEY,
        title="First token against the tokens after it",
        caption=_caption(choice),
        alt=alt,
        svg=sheet.svg(KEY, alt),
    )


def _medians(each: SettingView, metric: str) -> list[float]:
    """Return the median of each process, in ms."""
    quantity = TTFT if metric == "ttft" else ITL
    return [median_s * 1e3 for median_s in map(quantity.read, each.summaries) if median_s is not None]


def _point(each: SettingView, metric: str) -> _Point:
    """Return the median over processes; its bar is their range, or for one process the 95 % interval of its median."""
    medians = _medians(each, metric)
    median = statistics.median(medians)
    low, high = min(medians), max(medians)
    if len(each.counted) == 1 and (interval := median_interval(call_times(each.counted[0], metric))) is not None:
        low, high = min(median, interval[0] * 1e3), max(median, interval[1] * 1e3)
    return _Point(median=median, low=low, high=high)


def _value(ttft: _Point, itl: _Point) -> str:
    return f"{milliseconds(ttft.median / 1e3)} / {milliseconds(itl.median / 1e3)} ms"


def _caption(choice: Choice) -> str:
    settings = [*choice.named, *choice.grey]
    return (
        "Further left starts sooner, further down streams faster. One point a setting, the median over its processes "
        f"({processes_words(settings)}); the bars reach from the lowest process to the highest, or for a single "
        "process over the 95 % interval of its calls' median. The names stand with TTFT / ITL." + choice.words()
    )


def _alt(choice: Choice, places: dict[int, tuple[_Point, _Point]]) -> str:
    named = "; ".join(f"{each.full_name} {_value(*places[each.position])}" for each in choice.named)
    return f"Time to first token / inter-token latency: {named}."
