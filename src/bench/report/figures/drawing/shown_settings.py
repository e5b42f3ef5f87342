"""Choose the settings that a figure names, and the marker and line of each.

The ok processes of a setting count. If it has none, processes with calls replace them, and only the curves of all calls
show them. A figure names a dozen settings at most, because more colours and markers cannot be distinguished; the others
are grey marks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from bench.analysis.ranking import comparable_groups, work_values
from bench.report.setting_view import SettingView

MOST_NAMED = 12
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Hold the settings that a figure names, the best first, and those shown in grey."""

    named: list[SettingView]
    grey: list[SettingView]

    def words(self, best: str = "with the lowest median E2E, ranked ones first") -> str:
        """Return a sentence for the caption; empty if all are named."""
        if not self.grey:
            return ""
        return f" Named are the {len(self.named)} settings {best}; the {len(self.grey)} others are grey."


def with_calls(settings: Sequence[SettingView]) -> list[SettingView]:
    """Return the settings with calls to show, by position; without ok processes those with any calls."""
    found = []
    for each in sorted(settings, key=lambda each: each.position):
        kept = [bool(each.setting.records or record.iterations) for record in each.counted]
        if any(kept):
            counted, summaries = list(compress(each.counted, kept)), list(compress(each.summaries, kept))
            found.append(dataclasses.replace(each, counted=counted, summaries=summaries))
    return found


def choose(
    settings: Sequence[SettingView],
    value: Callable[[SettingView], float | None] = lambda each: each.e2e_s,
    *,
    first: Sequence[SettingView] = (),
) -> Choice:
    """Return those of `first`, then the settings with the lowest values; ranked ones before others, unknown last."""
    kept = {each.position for each in first}

    def order(each: SettingView) -> tuple[bool, bool, bool, float]:
        number = value(each)
        return each.position not in kept, not each.is_ranked, number is None, number or 0.0

    ordered = sorted(settings, key=order)
    return Choice(named=ordered[:MOST_NAMED], grey=ordered[MOST_NAMED:])


@dataclass(frozen=True, kw_only=True)
class Look:
    """Define the look that distinguishes a named setting in one figure, with or without colours."""

    colour: str
    marker: str
    dash: Any  # of matplotlib

    @property
    def line(self) -> dict[str, Any]:
        """Return the style of a legend's line with a marker."""
        return {"color": self.colour, "linestyle": self.dash, "marker": self.marker}

    @property
    def point(self) -> dict[str, Any]:
        """Return the style of a marker alone."""
        return {"color": self.colour, "linestyle": "none", "marker": self.marker}


def are_comparable(settings: Sequence[SettingView]) -> bool:
    """Tell whether all did the same work with the same model on the same device."""
    found = [each.setting for each in settings]
    is_one_work = all(len(values) == 1 for each in found for values in work_values(each).values())
    return is_one_work and len(comparable_groups(found)) <= 1


def looks_of(named: Sequence[SettingView]) -> dict[int, Look]:
    """Return position → look. No two share a marker: a position's own if it is free, otherwise the next free one."""
    taken: dict[int, str] = {}
    for each in sorted(named, key=lambda each: each.position):
        wanted = [MARKERS[(each.position + step) % len(MARKERS)] for step in range(len(MARKERS))]
        taken[each.position] = next(marker for marker in wanted if marker not in taken.values())
    return {
        each.position: Look(colour=each.colour, marker=taken[each.position], dash=DASHES[each.position % len(DASHES)])
        for each in named
    }


def processes_words(settings: Sequence[SettingView]) -> str:
    """Count the processes of each setting: "one process each", "3 processes each", "1 to 3 processes each"."""
    counts = [len(each.counted) for each in settings]
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one process each"
    return f"{most} processes each" if fewest == most else f"{fewest} to {most} processes each"
