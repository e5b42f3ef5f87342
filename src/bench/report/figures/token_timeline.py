"""Draw the latency of each token, by position in the output."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.analysis.trials.token_timeline import TokenTimeline, token_timeline
from bench.report.figures.drawing.sheet import GREY, Sheet, entries_of, grey_lines
from bench.report.figures.drawing.shown_settings import Choice, choose, looks_of, processes_words
from bench.report.figures.drawing.svg import INK
from bench.report.figures.drawing.ticks import Scale, count_ticks, scale_for
from bench.report.figures.figure import Figure
from bench.report.setting_view import SettingView
from bench.report.text.format import milliseconds

KEY = "token_timeline"
PLOT = 220.0


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no call has more than one timed token."""
    lines = {
        each.position: line for each in settings if each.is_ok and (line := token_timeline(each.counted)) is not None
    }
    longest = max((len(line.gaps_s) for line in lines.values()), default=0)
    if not longest:
        return None
    choice = choose([each for each in settings if each.position in lines])
    looks = looks_of(choice.named)
    sheet = Sheet(
        panels=[PLOT],
        entries=entries_of(
            choice.named, lambda each: _value(lines[each.position]), lambda position: looks[position].line
        ),
    )
    _scales(sheet, lines, longest)
    axes = sheet.axes[0]
    if choice.grey:
        greys = [lines[each.position] for each in choice.grey]
        gid = sheet.mark("others", f"{len(greys)} other settings")
        sheet.line(axes, [_curve(line) for line in greys if line.gaps_s], gid=gid, **grey_lines(len(greys)))
        sheet.dots(axes, [1.0] * len(greys), [line.ttft_s * 1e3 for line in greys], markersize=3.5, **GREY)
    for each in reversed(choice.named):
        line, words = lines[each.position], f"{each.full_name}: {_value(lines[each.position])}"
        look = looks[each.position]
        if line.gaps_s:
            gid = sheet.mark(each.key, words, tokens=len(line.gaps_s) + 1)
            style = {"color": look.colour, "linestyle": look.dash, "linewidth": 1.4}
            sheet.line(axes, [_curve(line)], gid=gid, **style)
            sheet.dots(axes, [len(line.gaps_s) + 1], [line.gaps_s[-1] * 1e3], **look.point, markersize=4.5)
        gid = sheet.mark(f"ttft-{each.position}", words, ttft=line.ttft_s)
        sheet.dots(axes, [1.0], [line.ttft_s * 1e3], **look.point, markersize=7.0, gid=gid)
    alt = _alt(choice, lines)
    return Figure(key=KEY, title="Token by token", caption=_caption(choice), alt=alt, svg=sheet.svg(KEY, alt))


def _curve(line: TokenTimeline) -> tuple[list[float], list[float]]:
    return [float(place) for place in range(2, len(line.gaps_s) + 2)], [gap * 1e3 for gap in line.gaps_s]


def _scales(sheet: Sheet, lines: dict[int, TokenTimeline], longest: int) -> None:
    y = scale_for([each * 1e3 for line in lines.values() for each in (line.ttft_s, *line.gaps_s)])
    reach = max(longest * 0.03, 0.5)
    ticks = [1.0, *(each for each in count_ticks(longest + 1) if each > 1 + longest * 0.08)]
    x = Scale(low=1.0 - reach, high=longest + 1 + reach, is_log=False, ticks=ticks)
    sheet.scales(
        sheet.axes[0], x, y, x_name="place of the token in the output", y_name=f"latency of a token, ms{y.words}"
    )
    span = sheet.axes[0].axvspan(x.low, 1.0 + min(reach, 0.5), color=INK, alpha=0.05, linewidth=0)
    span.set_gid(sheet.mark("first", "the first token: TTFT"))
    sheet.corner(sheet.axes[0], "shaded: first token (TTFT)")


def _value(line: TokenTimeline) -> str:
    if not line.gaps_s:
        return f"TTFT {milliseconds(line.ttft_s)} ms"
    return f"TTFT {milliseconds(line.ttft_s)}, then {milliseconds(statistics.median(line.gaps_s))} ms"


def _caption(choice: Choice) -> str:
    settings = [*choice.named, *choice.grey]
    return (
        "At the left the time to first token, which holds the prefill; then for each place in the output the gap to "
        f"the token before it, the median over the measured calls of {processes_words(settings)}. "
        "A line that rises shows what a longer context costs; single peaks are work that falls to that token in most "
        "calls." + choice.words()
    )


def _alt(choice: Choice, lines: dict[int, TokenTimeline]) -> str:
    named = "; ".join(f"{each.full_name}: {_value(lines[each.position])}" for each in choice.named)
    return f"Latency of each token by its place, in each setting the first and the median of the others: {named}."
