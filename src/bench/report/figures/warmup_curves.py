"""Draw the time of every call of every process, and mark the call from which on it stays on its level."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.calls.steady_point import SteadyPoint, steady_point
from bench.report.figures.drawing.sheet import Sheet, entries_of, grey_lines
from bench.report.figures.drawing.shown_settings import Choice, Look, choose, looks_of, processes_words
from bench.report.figures.drawing.svg import INK
from bench.report.figures.drawing.ticks import Scale, count_ticks, scale_for
from bench.report.figures.figure import Figure
from bench.report.setting_view import SettingView
from bench.report.text.format import milliseconds
from bench.results.record import Record

KEY = "warmup_curves"
PLOT = 240.0
_Curve = tuple[list[float], list[float]]


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no call was made."""
    settings = [each for each in settings if any(record.iterations for record in each.counted)]
    if not settings:
        return None
    choice = choose(settings)
    points = {each.position: [steady_point(record) for record in each.counted] for each in choice.named}
    looks = looks_of(choice.named)
    sheet = Sheet(
        panels=[PLOT],
        entries=entries_of(
            choice.named, lambda each: _ending(each, points[each.position]), lambda position: looks[position].line
        ),
    )
    _scales(sheet, settings)
    axes = sheet.axes[0]
    if choice.grey:
        curves = [_curve(record, measured=None) for each in choice.grey for record in each.counted]
        sheet.line(
            axes, curves, gid=sheet.mark("others", f"{len(choice.grey)} other settings"), **grey_lines(len(curves))
        )
    for each in reversed(choice.named):
        _draw_setting(sheet, each, points[each.position], looks[each.position])
    alt = _alt(choice, points)
    return Figure(
        key=KEY, title="Every call, from cold to steady", caption=_caption(choice), alt=alt, svg=sheet.svg(KEY, alt)
    )


def _draw_setting(sheet: Sheet, each: SettingView, points: Sequence[SteadyPoint | None], look: Look) -> None:
    """Draw its lines, thin until the measurement begins, then thick; with several processes all are thinner."""
    axes, several = sheet.axes[0], len(each.counted) > 1
    style = {"color": look.colour, "linestyle": look.dash, "alpha": 0.75 if several else 1.0}
    before = [_curve(record, measured=False) for record in each.counted]
    measured = [curve for record in each.counted if (curve := _curve(record, measured=True))[0]]
    gid = sheet.mark(f"{each.key}-before", each.full_name)
    sheet.line(axes, before, linewidth=0.7, gid=gid, **style)
    gid = sheet.mark(each.key, each.full_name, processes=len(each.counted))
    sheet.line(axes, measured, linewidth=0.9 if several else 1.6, gid=gid, **style)
    ends = [record.iterations[-1] for record in each.counted if record.iterations]
    x, y = [call.index for call in ends], [call.e2e_s * 1e3 for call in ends]
    sheet.dots(axes, x, y, **look.point, markersize=4.0)
    for record, point in zip(each.counted, points, strict=True):
        if point is not None:
            time_s = next(call.e2e_s for call in record.iterations if call.index == point.call)
            words = f"{each.name}: on its level from call {point.call} on ({milliseconds(point.level_s)} ms)"
            gid = f"steady-{each.position}-{record.repeat}"
            sheet.mark(gid, words, call=point.call, certain=point.certain)
            sheet.ringed(axes, point.call, time_s * 1e3, look=look, is_filled=point.certain, gid=gid)


def _curve(record: Record, *, measured: bool | None) -> _Curve:
    """Return calls and times in ms; calls before the measurement include its first one, to leave no gap."""
    calls = record.iterations
    first = next((position for position, call in enumerate(calls) if call.phase == "measurement"), len(calls))
    if measured is not None:
        calls = calls[first:] if measured else calls[: first + 1]
    return [float(call.index) for call in calls], [call.e2e_s * 1e3 for call in calls]


def _scales(sheet: Sheet, settings: Sequence[SettingView]) -> None:
    records = [record for each in settings for record in each.counted]
    last = max(len(record.iterations) for record in records) - 1
    times = scale_for([call.e2e_s * 1e3 for record in records for call in record.iterations])
    last = max(last, 1)
    across = Scale(low=-0.08 * last, high=1.08 * last, is_log=False, ticks=count_ticks(last))
    sheet.scales(
        sheet.axes[0],
        across,
        times,
        x_name="call (0: the first one of the process)",
        y_name=f"E2E of a call, ms{times.words}",
    )
    starts = {call.index for record in records if (call := next(iter(record.calls("measurement")), None)) is not None}
    if len(starts) == 1:
        start = starts.pop() - 0.5
        span = sheet.axes[0].axvspan(start, across.high, color=INK, alpha=0.05, linewidth=0)
        span.set_gid(sheet.mark("measured", "measured calls", start=start + 0.5))
        sheet.corner(sheet.axes[0], "shaded: measured")


def _ending(each: SettingView, points: Sequence[SteadyPoint | None]) -> str:
    """Say from which call on it is steady; for a setting without measured calls, after how many calls it ended."""
    if any(record.calls("measurement") for record in each.counted):
        return _settled(points)
    most = max(len(record.iterations) for record in each.counted)
    return f"ended after {most} {'call' if most == 1 else 'calls'}"


def _settled(points: Sequence[SteadyPoint | None]) -> str:
    """Say from which call on, in a few words; a range over several processes."""
    calls = sorted(each.call for each in points if each is not None)
    if not calls:
        return "never settled" if len(points) == 1 else f"never settled ({len(points)} processes)"
    which = str(calls[0]) if calls[0] == calls[-1] else f"{calls[0]}–{calls[-1]}"
    of = f" in {len(calls)} of {len(points)}" if len(calls) < len(points) else ""
    doubt = "" if all(each.certain for each in points if each is not None) else "?"
    return f"steady from {which}{doubt}{of}"


def _caption(choice: Choice) -> str:
    settings = [*choice.named, *choice.grey]
    return (
        "Each line is a process, each point on it a generate call: the first one, the warm-up (thin), the measured "
        f"ones (thick); {processes_words(settings)}. The large marker is the steady point: the call from which on the "
        "process is on the level that it keeps to the end. It is hollow, with a question mark below, where the calls "
        "are too noisy or too few to be sure; without one the process never settled." + choice.words()
    )


def _alt(choice: Choice, points: dict[int, list[SteadyPoint | None]]) -> str:
    parts = []
    for each in choice.named:
        first_s = next(record.iterations[0].e2e_s for record in each.counted if record.iterations)
        level = f", median {milliseconds(each.e2e_s)} ms" if each.e2e_s is not None else ""
        parts.append(
            f"{each.full_name}: first call {milliseconds(first_s)} ms{level}, {_ending(each, points[each.position])}"
        )
    return "Time of every call. " + "; ".join(parts) + "."
