"""Draw the number of calls after which a compiled setting has recovered the cost of its start."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from bench.analysis.break_even import BreakEven, break_evens
from bench.analysis.settings import asked
from bench.report.figures.drawing.sheet import Entry, Sheet, shortened
from bench.report.figures.drawing.shown_settings import MOST_NAMED, Look, choose, looks_of, processes_words
from bench.report.figures.drawing.svg import INK
from bench.report.figures.drawing.ticks import scale_for
from bench.report.figures.figure import Figure
from bench.report.setting_view import SettingView
from bench.report.text.format import milliseconds, one_line, significant

KEY = "break_even"
PLOT = 180.0
MOST_PANELS = 4
LEAST_CALLS, MOST_CALLS = 100.0, 1e6  # of the horizontal axis
BESIDE = 3.0  # the axis ends at so many times the break-even point


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Hold a compiled setting with one state of its cache, and the uncompiled one."""

    compiled: SettingView
    found: BreakEven
    uncompiled_s: float  # of one call
    name: str

    @property
    def compiled_s(self) -> float:
        """Return the time of one call: the uncompiled one's minus the saving, so the lines cross at N*."""
        return self.uncompiled_s - self.found.saved_s

    @property
    def gid(self) -> str:
        return f"{self.compiled.position}-{self.found.cache}"


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no compiled setting has an uncompiled one that is otherwise equal."""
    panels, left_out = _panels([each for each in settings if each.is_ok])
    if not panels:
        return None
    pairs = [pair for _, group in panels for pair in group]
    shown = list({pair.compiled.position: pair.compiled for pair in pairs}.values())
    looks = looks_of(shown)
    sheet = Sheet(panels=[PLOT] * len(panels), entries=_entries(panels, looks))
    for axes, (uncompiled, group) in zip(sheet.axes, panels, strict=True):
        _draw_panel(sheet, axes, uncompiled, group, looks)
    alt = "Calls until compilation has paid. " + "; ".join(f"{each.name}: {_value(each.found)}" for each in pairs) + "."
    return Figure(
        key=KEY, title="When compilation has paid", caption=_caption(shown, left_out), alt=alt, svg=sheet.svg(KEY, alt)
    )


def _panels(settings: Sequence[SettingView]) -> tuple[list[tuple[SettingView, list[_Pair]]], int]:
    """Return each uncompiled setting with its compiled ones, and the number of those left out for lack of space."""
    by_id = {each.setting.setting_id: each for each in settings}
    compiled = [each for each in settings if asked(each.counted[0], "compile.mode") is not None]
    kept = {each.position for each in choose(compiled).named}
    known = [each for each in settings if each.position in kept or asked(each.counted[0], "compile.mode") is None]
    groups: dict[str, list[_Pair]] = {}
    for found in break_evens([each.setting for each in known]):
        one, other = by_id[found.setting_id], by_id[found.uncompiled_id]
        medians = [summary.e2e_s.median for summary in other.summaries if summary.e2e_s is not None]
        cache = " (warm cache)" if found.cache == "warm" else ""
        pair = _Pair(compiled=one, found=found, uncompiled_s=statistics.fmean(medians), name=f"{one.full_name}{cache}")
        groups.setdefault(found.uncompiled_id, []).append(pair)
    panels = [(by_id[uncompiled], group) for uncompiled, group in groups.items()]
    shown = {pair.compiled.position for _, group in panels[:MOST_PANELS] for pair in group}
    with_pair = {pair.compiled.position for _, group in panels for pair in group}
    return panels[:MOST_PANELS], len(compiled) - len(shown) - len(kept - with_pair)


def _entries(panels: Sequence[tuple[SettingView, list[_Pair]]], looks: dict[int, Look]) -> list[Entry]:
    entries = []
    for uncompiled, group in panels:
        entries.append(
            Entry(
                name=f"{uncompiled.full_name}, uncompiled",
                value=f"{milliseconds(group[0].uncompiled_s)} ms a call",
                style={"color": uncompiled.colour, "linewidth": 2.2},
            )
        )
        entries += [
            Entry(
                name=pair.name,
                value=_value(pair.found),
                gid=f"name-{pair.gid}",
                style=looks[pair.compiled.position].line,
            )
            for pair in group
        ]
    return entries


def _draw_panel(
    sheet: Sheet, axes: Axes, uncompiled: SettingView, group: Sequence[_Pair], looks: dict[int, Look]
) -> None:
    last = _last_call(group)
    calls = np.geomspace(1.0, last, 80)
    curves = [pair.found.excess_s + calls * pair.compiled_s for pair in group]
    base = calls * group[0].uncompiled_s
    floor = base[0] / 3  # a start cheaper than the uncompiled one's would extend the log axis without limit
    y = scale_for([*base, *(value for curve in curves for value in curve if value > floor)], is_log=True)
    x = scale_for([1.0, last], is_log=True)
    sheet.scales(axes, x, y, x_name=f"calls of this shape{x.words}", y_name=f"time of all calls, s{y.words}")
    sheet.corner(axes, shortened(uncompiled.name, 180.0))
    gid = sheet.mark(f"uncompiled-{uncompiled.position}", f"{uncompiled.name}, uncompiled")
    sheet.line(axes, [(calls, base)], color=uncompiled.colour, linewidth=2.2, gid=gid)
    for pair, curve in zip(group, curves, strict=True):
        look, positive = looks[pair.compiled.position], curve > 0
        gid = sheet.mark(f"line-{pair.gid}", f"{pair.name}: {_value(pair.found)}", status=pair.found.status)
        if positive.any():
            line = [(calls[positive], curve[positive])]
            sheet.line(axes, line, color=look.colour, linestyle=look.dash, linewidth=1.4, gid=gid)
        if pair.found.calls is not None and 1.0 <= pair.found.calls <= last:
            _draw_crossing(sheet, axes, pair, look, last)


def _draw_crossing(sheet: Sheet, axes: Axes, pair: _Pair, look: Look, last: float) -> None:
    """Mark where the two lines cross: filled and with its interval only if that is established."""
    found = pair.found
    assert found.calls is not None
    even_s = found.calls * pair.uncompiled_s
    is_sure = found.status == "established"
    if is_sure and found.calls_low is not None:
        high = min(found.calls_high or last, last)
        gid = sheet.mark(f"interval-{pair.gid}", low=found.calls_low, high=high)
        ends = ([max(found.calls_low, 1.0), high], [even_s, even_s])
        sheet.line(axes, [ends], color=INK, linewidth=2.0, alpha=0.7, gid=gid)
    gid = sheet.mark(f"even-{pair.gid}", f"{pair.name}: {_value(found)}", calls=found.calls)
    sheet.ringed(axes, found.calls, even_s, look=look, is_filled=is_sure, gid=gid)


def _last_call(group: Sequence[_Pair]) -> float:
    ends = [end for pair in group for end in (pair.found.calls, pair.found.calls_high) if end is not None]
    return min(max(LEAST_CALLS, *(BESIDE * each for each in ends), LEAST_CALLS), MOST_CALLS)


def _value(found: BreakEven) -> str:
    """Say when it breaks even, with the certainty in words."""
    if found.status == "never":
        return "never: its calls are slower"
    if found.status == "not established":
        return "not established"
    if found.status == "descriptive":
        each = "1 process" if found.processes == 1 else f"{found.processes} processes"
        return f"no saving seen, {each}" if found.calls is None else f"after {_calls(found.calls)}, {each}"
    high = "no end" if found.calls_high is None else _count(found.calls_high)
    return f"after {_calls(found.calls)} ({_count(found.calls_low or 0.0)} to {high})"


def _calls(calls: float | None) -> str:
    return "1 call" if calls is None or calls <= 1 else f"{_count(calls)} calls"


def _count(calls: float) -> str:
    """Write calls as an integer, large numbers with three digits."""
    return str(math.ceil(calls)) if calls < 1e4 else significant(calls, 3) if calls < 1e9 else f"{calls:.2g}"


def _caption(shown: Sequence[SettingView], left_out: int) -> str:
    others = (
        f" The {MOST_NAMED} fastest compiled settings at most are shown, {left_out} left out." if left_out > 0 else ""
    )
    return one_line(
        "Where a compiled setting's line meets the solid one of the same setting uncompiled, compilation has paid: "
        "the line is what its start took beyond the uncompiled one's, and so much a call from then on. Markers are the "
        "crossings; a filled one is established, with its 95 % interval as a bar, a hollow one comes from fewer than 3 "
        f"processes or is not established ({processes_words(shown)})." + others
    )
