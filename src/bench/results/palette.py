"""The colour of a setting: the same one in every plot of the report and on every page of MLflow.

A setting has the colour of its position among the sweep's settings as typed, so it keeps it when jobs are repeated,
resumed or fail. Each of the first twelve stands out from a white page and from a nearly black one (contrast of 3 to 1
or more, WCAG 2.1, 1.4.11). Colour is never the only difference: plots have markers, line styles and names beside it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#c75b9b", "#a67c00", "#7b61d1",
    "#2a93a8", "#b0413e", "#6a8f00", "#7a7a7a", "#8a6d3b", "#9c5fb5",
)  # fmt: skip
GOLDEN_ANGLE = 0.381966  # of a turn: successive hues are far apart, however many there are


def colour(position: int) -> str:
    """The colour of the setting at this position, from 0, as #rrggbb; no two of the first hundreds are equal."""
    if position < len(COLOURS):
        return COLOURS[position]
    further = position - len(COLOURS)
    red, green, blue = colorsys.hls_to_rgb(further * GOLDEN_ANGLE % 1.0, (0.36, 0.42, 0.48)[further % 3], 0.55)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def positions_of(names: Sequence[str], typed: Sequence[str]) -> list[int]:
    """Each name's place among those typed; a second setting of the same name, and an unknown one, comes after all."""
    places: dict[str, int] = {}
    for place, name in enumerate(typed):
        places.setdefault(name, place)
    found, after = [], len(typed)
    for name in names:
        place = places.pop(name, -1)
        if place < 0:
            place, after = after, after + 1
        found.append(place)
    return found
