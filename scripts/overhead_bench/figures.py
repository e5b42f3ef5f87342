"""Define a figure with its repeats and its target, and make the table of all figures.

The target is for the median over the repeats; the table shows the smallest and the largest value beside it. A part
whose verdict needs more than that supplies the verdict: the observer effect says if a change is smaller than the noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIDTH = 100  # columns of the table
MET, MISSED, NOISE = "met", "MISSED", "noise"  # the last: neither is shown
PLACES = {"s": 3, "ms": 2, "MB": 0, "%": 1, "×": 3, "": 0}  # unit → maximum number of decimals


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hold the options that every part receives."""

    repeats: int
    quick: bool  # the tiny model and few repeats
    device: str  # value of the key `device`
    folder: Path  # an empty folder for this part


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Hold one row of the table. Without values it could not be measured."""

    name: str
    unit: str  # one of PLACES
    values: Sequence[float]  # one per repeat
    at_most: float | None = None  # the target, in the same unit; None: there is none
    judged: str | None = None  # the part's own verdict; None: the median against `at_most`
    interval: tuple[float, float] | None = None  # shown as the spread; None: the smallest and the largest value

    @property
    def median(self) -> float | None:
        """Return the median; None if nothing was measured."""
        return statistics.median(self.values) if self.values else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Return the smallest and the largest value; None for a single value."""
        if self.interval is not None or len(self.values) < 2:
            return self.interval
        return min(self.values), max(self.values)

    @property
    def verdict(self) -> str:
        """Tell whether the target is met; "" if there is none. A figure that was not measured has not met it."""
        if self.judged is not None:
            return self.judged
        if self.at_most is None:
            return ""
        return MET if self.median is not None and self.median <= self.at_most else MISSED

    def to_dict(self) -> dict[str, Any]:
        """Return its content for the JSON file."""
        found = {"name": self.name, "unit": self.unit, "median": self.median, "spread": self.spread}
        return found | {"values": list(self.values)} | {"at_most": self.at_most, "verdict": self.verdict or None}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hold the results of one part."""

    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()  # lines below its rows: omissions, and the scope of a figure
    raw: Mapping[str, Any] = field(default_factory=dict)  # for the JSON file
    error: str | None = None  # why it could not be run

    def to_dict(self) -> dict[str, Any]:
        """Return its content for the JSON file."""
        figures = [each.to_dict() for each in self.figures]
        return {"figures": figures, "notes": list(self.notes), "raw": dict(self.raw), "error": self.error}


class NotMeasuredError(Exception):
    """Report that a part cannot be run here; the text is one line."""


# ---- statistics -----------------------------------------------------------------------------------------------------


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Return the ratio of each pair of values that were measured in succession."""
    return [one / other for one, other in zip(these, those, strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile by nearest rank: the smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def interleaved(arms: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Time all arms in every round; every second round is reversed, so that no arm is always the first."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(repeats):
        for name in list(arms)[:: -1 if number % 2 else 1]:
            found[name].append(arms[name]())
    return found


# ---- the table ------------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Result], titles: Mapping[str, str]) -> list[str]:
    """Return the lines to print, below WIDTH columns."""
    lines = [row("", count="n", median="median", spread="min – max", target="target", verdict="")]
    for part, result in results.items():
        lines.append(f"{part}: {titles[part]}"[:WIDTH])
        if result.error is not None:
            lines += wrapped(f"not measured: {result.error}")
        for each in result.figures:
            spread = " – ".join(shown(value) for value in each.spread or ()) or "–"
            median = "–" if each.median is None else with_unit(each.median, each.unit)
            target = "" if each.at_most is None else f"≤ {with_unit(each.at_most, each.unit, is_target=True)}"
            count = str(len(each.values))
            name, verdict = f"  {each.name}", each.verdict
            lines.append(row(name, count=count, median=median, spread=spread, target=target, verdict=verdict))
        for note in result.notes:
            lines += wrapped(note)
    return lines


def row(name: str, *, count: str, median: str, spread: str, target: str, verdict: str) -> str:
    """Return one line of the table."""
    name = name if len(name) <= 46 else f"{name[:45]}…"
    return f"{name:<46} {count:>4} {median:>10}  {spread:<17}  {target:<9} {verdict}".rstrip()


def shown(value: float) -> str:
    """Write at most four significant digits, without exponent: for the spread beside a figure that names the unit."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = min(4, max(0, 3 - math.floor(math.log10(abs(value)))))
    return f"{value:.{places}f}"


def with_unit(value: float, unit: str, *, is_target: bool = False) -> str:
    """Write the value and its unit; a target as it was set."""
    text = f"{value:g}" if is_target else f"{value:.{PLACES[unit]}f}"
    return f"{text}{'' if unit in ('×', '') else ' '}{unit}"


def wrapped(text: str) -> list[str]:
    """Return the lines of a note, indented; a note that fits in one line keeps its own spaces."""
    if len(text) <= WIDTH - 2:
        return [f"  {text}"]
    lines, line = [], " "
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH and line.strip():
            lines.append(line)
            line = " "
        line += f" {word}"
    return [*lines, line]


def status(results: Mapping[str, Result]) -> int:
    """Return the exit status: 2 if a part could not run, else 1 if a target was missed, else 0."""
    if any(each.error is not None for each in results.values()):
        return 2
    return int(any(figure.verdict == MISSED for each in results.values() for figure in each.figures))
