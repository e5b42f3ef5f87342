"""Draw the throughput of settings against their peak memory."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.objectives import pareto_front
from bench.report.figures.drawing.sheet import GREY, Entry, Sheet
from bench.report.figures.drawing.shown_settings import (
    MOST_NAMED,
    Choice,
    are_comparable,
    choose,
    looks_of,
    processes_words,
)
from bench.report.figures.drawing.svg import INK
from bench.report.figures.drawing.ticks import scale_for
from bench.report.figures.figure import Figure
from bench.report.quantities import OUTPUT_THROUGHPUT, PEAK_MEMORY
from bench.report.setting_view import SettingView
from bench.report.text.format import mebibytes, significant

KEY = "throughput_vs_memory"
PLOT = 240.0
_Places = dict[int, tuple[float, float]]  # position → tokens/s and bytes


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no setting has both values."""
    places: _Places = {}
    for each in settings:
        rate = each.figure(OUTPUT_THROUGHPUT)
        peak_bytes = each.figure(PEAK_MEMORY)
        if each.is_ok and rate is not None and peak_bytes is not None:
            places[each.position] = (rate, peak_bytes)
    if not places:
        return None
    settings = [each for each in settings if each.position in places]
    front = front_of(settings, places) if are_comparable(settings) else []
    choice = choose(settings, lambda each: -places[each.position][0], first=front)
    looks = looks_of(choice.named)
    on_front = {each.position for each in front}
    sheet = Sheet(
        panels=[PLOT],
        entries=[
            Entry(
                name=f"{each.full_name}, on the front" if each.position in on_front else each.full_name,
                value=_value(*places[each.position]),
                gid=f"name-{each.position}",
                style=looks[each.position].point,
            )
            for each in choice.named
        ],
    )
    axes = sheet.axes[0]
    x, y = scale_for([_mib(peak) for _, peak in places.values()]), scale_for([rate for rate, _ in places.values()])
    sheet.scales(axes, x, y, x_name=f"peak memory, MiB{x.words}", y_name=f"output tokens/s{y.words}")
    if choice.grey:
        greys = [places[each.position] for each in choice.grey]
        gid = sheet.mark("others", f"{len(greys)} other settings")
        sheet.dots(
            axes, [_mib(peak) for _, peak in greys], [rate for rate, _ in greys], markersize=4.0, gid=gid, **GREY
        )
    _draw_front(sheet, front, places)
    for each in reversed(choice.named):
        rate, peak = places[each.position]
        gid = sheet.mark(
            each.key, f"{each.full_name}: {_value(rate, peak)}", rate=rate, bytes=peak, front=each.position in on_front
        )
        sheet.dots(axes, [_mib(peak)], [rate], **looks[each.position].point, markersize=7.5, gid=gid)
    alt = _alt(choice, places, on_front)
    return Figure(
        key=KEY, title="Throughput against memory", caption=_caption(choice, front), alt=alt, svg=sheet.svg(KEY, alt)
    )


def front_of(settings: Sequence[SettingView], places: _Places) -> list[SettingView]:
    """Return the settings that no other one beats in both, by memory; only those that may be called best."""
    ranked = [each for each in settings if each.is_ranked]
    found = pareto_front([places[each.position] for each in ranked], ["maximize", "minimize"])
    return sorted((ranked[each] for each in found), key=lambda each: places[each.position][1])


def _draw_front(sheet: Sheet, front: Sequence[SettingView], places: _Places) -> None:
    """Draw a step line through its members, each in a ring: between two of them no better setting is known."""
    corners: list[tuple[float, float]] = []
    for each in front:
        rate, peak = places[each.position]
        if corners:
            corners.append((_mib(peak), corners[-1][1]))
        corners.append((_mib(peak), rate))
    axes = sheet.axes[0]
    if len(front) > 1:
        gid = sheet.mark("front", "Pareto front", members=" ".join(str(each.position) for each in front))
        sheet.line(
            axes, [([x for x, _ in corners], [y for _, y in corners])], color=INK, alpha=0.6, linewidth=1.0, gid=gid
        )
    for each in front:
        rate, peak = places[each.position]
        ring = {
            "marker": "o",
            "markersize": 13.0,
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markeredgewidth": 1.0,
        }
        sheet.dots(
            axes, [_mib(peak)], [rate], alpha=0.7, gid=sheet.mark(f"front-{each.position}", each.full_name), **ring
        )


def _mib(size: float) -> float:
    return size / 2**20


def _value(rate: float, peak_bytes: float) -> str:
    return f"{significant(rate)} tok/s, {mebibytes(peak_bytes)} MiB"


def _caption(choice: Choice, front: Sequence[SettingView]) -> str:
    settings = [*choice.named, *choice.grey]
    best = "on the front" if len(front) >= MOST_NAMED else "on the front and those with the highest throughput"
    if not are_comparable(settings):
        return (
            "Further up is faster, further left takes less: one point a setting, the median over its processes "
            f"({processes_words(settings)}). The settings differ in model, work or device, so there is no Pareto front "
            "over them." + choice.words("with the highest throughput, ranked ones first")
        )
    return (
        "Further up is faster, further left takes less: one point a setting, the median over its processes "
        f"({processes_words(settings)}). Rings and the line mark the Pareto front, the settings that no other one "
        "beats in both; it is read from the medians and is no verdict. Settings that are not "
        "ranked cannot be on it." + choice.words(best)
    )


def _alt(choice: Choice, places: _Places, on_front: set[int]) -> str:
    named = "; ".join(
        f"{each.full_name} {_value(*places[each.position])}" for each in choice.named if each.position in on_front
    )
    return f"Output throughput against peak memory of {len(places)} settings. On the Pareto front: {named or 'none'}."
