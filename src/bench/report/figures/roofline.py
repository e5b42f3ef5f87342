"""Draw prefill and decoding relative to the measured limits of the device."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench.analysis.trials.operating_points import STAGES, operating_points
from bench.report.figures.drawing.sheet import GREY, Entry, Sheet, entries_of
from bench.report.figures.drawing.shown_settings import Choice, choose, looks_of
from bench.report.figures.drawing.svg import INK
from bench.report.figures.drawing.ticks import scale_for
from bench.report.figures.figure import Figure
from bench.report.setting_view import SettingView
from bench.report.text.format import significant
from bench.results.record import DeviceRates

KEY = "roofline"
PLOT = 240.0
CEILING_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 2)))  # of up to three number formats
_Places = dict[int, dict[str, tuple[float, float]]]  # position → stage → FLOP/byte and FLOP/s


def draw(settings: Sequence[SettingView]) -> Figure | None:
    """Return the figure, or None if no setting's work or no ceiling is known."""
    devices = [record.observed.device_name for each in settings for record in each.counted if record.observed]
    if len(set(devices)) > 1:  # each has its own ceilings: points of one are meaningless under those of another
        return None
    places = {each.position: found for each in settings if each.is_ok and (found := _places(each))}
    ceilings = _ceilings(settings)
    if not places or not ceilings:
        return None
    choice = choose([each for each in settings if each.position in places])
    looks = looks_of(choice.named)
    unit, size = ("TFLOP/s", 1e12) if max(each.matmul_flops_per_s for each in ceilings) >= 1e13 else ("GFLOP/s", 1e9)
    sheet = Sheet(
        panels=[PLOT],
        entries=[
            *_ceiling_entries(ceilings, unit, size),
            *entries_of(
                choice.named,
                lambda each: _value(places[each.position], unit, size),
                lambda position: looks[position].point,
            ),
        ],
    )
    _draw_ceilings(sheet, ceilings, places, unit, size)
    axes = sheet.axes[0]
    greys = [place for each in choice.grey for place in places[each.position].values()]
    if greys:
        gid = sheet.mark("others", f"{len(choice.grey)} other settings")
        sheet.dots(axes, [x for x, _ in greys], [y / size for _, y in greys], markersize=4.0, gid=gid, **GREY)
    for each in reversed(choice.named):
        for stage, (x, flops) in places[each.position].items():
            words = f"{each.name}, {stage}: {significant(flops / size)} {unit} at {significant(x)} FLOP/byte"
            gid = sheet.mark(f"{stage}-{each.position}", words, intensity=x, flops=flops)
            style: dict[str, Any] = {"markerfacecolor": each.colour if stage == "decode" else "none"}
            style |= {"markeredgecolor": each.colour, "markeredgewidth": 1.3, "marker": looks[each.position].marker}
            sheet.dots(axes, [x], [flops / size], markersize=7.5, gid=gid, **style)
    alt = _alt(choice, places, ceilings, unit, size)
    return Figure(
        key=KEY,
        title="Against what the device reaches",
        caption=_caption(choice, ceilings),
        alt=alt,
        svg=sheet.svg(KEY, alt),
    )


def _places(each: SettingView) -> dict[str, tuple[float, float]]:
    """Return stage → medians over the processes."""
    points = [point for record in each.counted for point in operating_points(record)]
    found = {}
    for stage in STAGES:
        own = [point for point in points if point.stage == stage]
        if own:
            found[stage] = (
                statistics.median(point.flops_per_byte for point in own),
                statistics.median(point.flops_per_s for point in own),
            )
    return found


def _ceilings(settings: Sequence[SettingView]) -> list[DeviceRates]:
    """Return the rates of each number format, those measured last."""
    latest: dict[str, DeviceRates] = {}
    for each in settings:
        for record in each.counted:
            rates = record.roofline.rates if record.roofline is not None else None
            if rates is None or rates.bandwidth_bytes_per_s <= 0 or rates.matmul_flops_per_s <= 0:
                continue
            known = latest.get(rates.dtype)
            if known is None or rates.measured_at_s > known.measured_at_s:
                latest[rates.dtype] = rates
    return [latest[dtype] for dtype in sorted(latest)][: len(CEILING_DASHES)]


def _slopes(rates: DeviceRates) -> list[tuple[str, float]]:
    found = [("memory", rates.bandwidth_bytes_per_s)]
    if rates.cache_bandwidth_bytes_per_s:
        found.append(("cache", rates.cache_bandwidth_bytes_per_s))
    return found


def _draw_ceilings(sheet: Sheet, ceilings: Sequence[DeviceRates], places: _Places, unit: str, size: float) -> None:
    points = [place for own in places.values() for place in own.values()]
    ridges = [rates.matmul_flops_per_s / speed for rates in ceilings for _, speed in _slopes(rates)]
    x = scale_for(
        [*(each for each, _ in points), *ridges, min(each for each, _ in points) / 2, max(ridges) * 3], is_log=True
    )
    tops = [rates.matmul_flops_per_s / size for rates in ceilings]
    y = scale_for([*(flops / size for _, flops in points), *tops, max(tops) * 1.5], is_log=True)
    axes = sheet.axes[0]
    sheet.scales(axes, x, y, x_name=f"FLOP per byte moved{x.words}", y_name=f"{unit}{y.words}")
    for dash, rates in zip(CEILING_DASHES, ceilings, strict=False):
        top = rates.matmul_flops_per_s
        for name, speed in _slopes(rates):
            gid = sheet.mark(
                f"ceiling-{name}-{_id(rates.dtype)}", f"{name}: {significant(speed / 1e9)} GB/s", rate=speed
            )
            ends = ([x.low, top / speed], [x.low * speed / size, top / size])
            width = 1.6 if name == "memory" else 0.8
            sheet.line(axes, [ends], color=INK, alpha=0.7, linewidth=width, linestyle=dash, gid=gid)
        gid = sheet.mark(
            f"ceiling-matmul-{_id(rates.dtype)}", f"matmul, {rates.dtype}: {significant(top / size)} {unit}", rate=top
        )
        start = min(top / speed for _, speed in _slopes(rates))
        sheet.line(
            axes, [([start, x.high], [top / size] * 2)], color=INK, alpha=0.7, linewidth=1.6, linestyle=dash, gid=gid
        )


def _ceiling_entries(ceilings: Sequence[DeviceRates], unit: str, size: float) -> list[Entry]:
    entries = []
    for dash, rates in zip(CEILING_DASHES, ceilings, strict=False):
        style = {"color": INK, "alpha": 0.7, "linestyle": dash}
        top = f"{significant(rates.matmul_flops_per_s / size)} {unit}"
        entries.append(Entry(name=f"level: matmul in {rates.dtype}", value=top, style=style | {"linewidth": 1.6}))
        for name, speed in _slopes(rates):
            width = {"linewidth": 1.6 if name == "memory" else 0.8}
            entries.append(Entry(name=f"slope: {name}", value=f"{significant(speed / 1e9)} GB/s", style=style | width))
    return entries


def _id(text: str) -> str:
    return "".join(each if each.isalnum() and each.isascii() else "-" for each in text)


def _value(own: dict[str, tuple[float, float]], unit: str, size: float) -> str:
    return ", ".join(f"{stage} {significant(flops / size, 3)}" for stage, (_, flops) in own.items()) + f" {unit}"


def _caption(choice: Choice, ceilings: Sequence[DeviceRates]) -> str:
    cached = (
        " The thin line is the bandwidth of what stays in the processor's caches."
        if any(each.cache_bandwidth_bytes_per_s for each in ceilings)
        else ""
    )
    return (
        "The lines are what this device reached in measurements of its own: below the slope memory bounds, below the "
        "level the arithmetic does." + cached + " Hollow markers are the prefill, filled ones a decoding step: what "
        "the model asks for, over the median time of it. A stage that came out above what the device can do is left "
        "out, for then the rates were measured while it was busy." + choice.words()
    )


def _alt(choice: Choice, places: _Places, ceilings: Sequence[DeviceRates], unit: str, size: float) -> str:
    tops = "; ".join(
        f"{rates.dtype}: matmul {significant(rates.matmul_flops_per_s / size)} {unit}, "
        f"memory {significant(rates.bandwidth_bytes_per_s / 1e9)} GB/s"
        for rates in ceilings
    )
    named = "; ".join(f"{each.full_name} {_value(places[each.position], unit, size)}" for each in choice.named)
    return f"Ceilings: {tops}. Reached: {named}."
