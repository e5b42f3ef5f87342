"""The settings of a sweep as figures show them: name, colour and marker, and the processes that count.

The ok processes of a setting count. Where it has none, those that made calls stand in, and only the curves of all
calls show them. A dozen settings at most are named in a figure, because more colours and markers cannot be told
apart; the others stay in it as grey marks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.baselines import baseline_ids
from bench.analysis.code_sources import pool_ids
from bench.analysis.ranking import Standing, comparable_groups, standing_of_setting, work_values
from bench.analysis.settings import Setting, settings_of
from bench.analysis.trials.summary import Stats, Summary, summarize
from bench.report.text import unverified
from bench.report.text.format import one_line
from bench.results.palette import colour, positions_of
from bench.results.record import Record

MOST_NAMED = 12
REMARKS = {"output": "output differs", "warm-up": "not warm", "unsteady": "unsteady", "no calls": "no calls"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One setting, its processes that count, and what is known of each."""

    name: str  # in one line; may be long
    position: int  # among the settings as typed: its colour, and its name in the SVG
    setting: Setting
    standing: Standing
    records: list[Record]
    summaries: list[Summary]  # of those records
    remark: str  # what speaks against its figures, or that it is the baseline; "" for nothing

    @property
    def colour(self) -> str:
        """The same in all figures and pages."""
        return colour(self.position)

    @property
    def key(self) -> str:
        """Its name in the SVG."""
        return f"setting-{self.position}"

    @property
    def full_name(self) -> str:
        """With what must be known beside it."""
        return f"{self.name} ({self.remark})" if self.remark else self.name

    @property
    def is_ok(self) -> bool:
        """Whether the records are ok processes."""
        return self.standing.status == "ok"

    @property
    def is_ranked(self) -> bool:
        """Whether it may be called best at something."""
        return self.standing.is_ranked

    @property
    def e2e_s(self) -> float | None:
        """The headline, which orders the settings."""
        return self.figure(lambda summary: median_of(summary.e2e_s))

    def figure(self, read: Callable[[Summary], float | None]) -> float | None:
        """The median over its processes of one figure; None where no process has it."""
        values = [value for value in map(read, self.summaries) if value is not None]
        return statistics.median(values) if values else None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings that a figure names, the best first, and those that it leaves grey."""

    named: list[Shown]
    grey: list[Shown]

    def words(self, best: str = "with the lowest median E2E, ranked ones first") -> str:
        """A sentence for the caption; empty where all are named."""
        if not self.grey:
            return ""
        return f" Named are the {len(self.named)} settings {best}; the {len(self.grey)} others are grey."


def settings_shown(
    records: Sequence[Record], *, typed: Sequence[str] | None = None, baseline: str | None = None
) -> list[Shown]:
    """All settings with calls to show, in order of position.

    Args:
        records: of one sweep, whatever their status; reference runs are left out.
        typed: names in the order in which they were typed; settings that are not among them come after those.
        baseline: as for `bench.analysis.baselines.baseline_ids`.
    """
    settings = settings_of(records)
    positions = positions_of([each.name for each in settings], typed or [])
    ordered = sorted(zip(positions, settings, strict=True), key=lambda each: each[0])
    baselines = baseline_ids([each for _, each in ordered], baseline)
    lost: dict[str, list[Record]] = {}
    trials = [each for each in records if each.kind != "reference"]
    for record, pool in zip(trials, pool_ids(trials), strict=True):
        if record.status != "ok" and record.iterations:
            lost.setdefault(pool, []).append(record)
    shown = []
    for position, setting in ordered:
        counted = setting.records or lost.get(setting.setting_id, [])
        if counted:
            standing = standing_of_setting(setting)
            shown.append(
                Shown(
                    name=one_line(setting.name),
                    position=position,
                    setting=setting,
                    standing=standing,
                    records=counted,
                    summaries=[summarize(each) for each in counted],
                    remark=_remark(standing, is_baseline=setting.setting_id in baselines),
                )
            )
    return shown


def choose(
    settings: Sequence[Shown],
    value: Callable[[Shown], float | None] = lambda each: each.e2e_s,
    *,
    first: Sequence[Shown] = (),
) -> Choice:
    """The settings with the lowest values, those of `first` before them; ranked ones before others, unknown last."""
    kept = {each.position for each in first}

    def order(each: Shown) -> tuple[bool, bool, bool, float]:
        number = value(each)
        return each.position not in kept, not each.is_ranked, number is None, number or 0.0

    ordered = sorted(settings, key=order)
    return Choice(named=ordered[:MOST_NAMED], grey=ordered[MOST_NAMED:])


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a named setting is told from the others in one figure, with colours or without."""

    colour: str
    marker: str
    dash: Any  # of matplotlib

    @property
    def line(self) -> dict[str, Any]:
        """Of a legend's line with a marker."""
        return {"color": self.colour, "linestyle": self.dash, "marker": self.marker}

    @property
    def point(self) -> dict[str, Any]:
        """Of a marker alone."""
        return {"color": self.colour, "linestyle": "none", "marker": self.marker}


def are_comparable(settings: Sequence[Shown]) -> bool:
    """Whether all did the same work with the same model on the same device."""
    found = [each.setting for each in settings]
    is_one_work = all(len(values) == 1 for each in found for values in work_values(each).values())
    return is_one_work and len(comparable_groups(found)) <= 1


def looks_of(named: Sequence[Shown]) -> dict[int, Look]:
    """Position → look. No two have the same marker: that of the position where it is free, else the next free one."""
    taken: dict[int, str] = {}
    for each in sorted(named, key=lambda each: each.position):
        wanted = [MARKERS[(each.position + step) % len(MARKERS)] for step in range(len(MARKERS))]
        taken[each.position] = next(marker for marker in wanted if marker not in taken.values())
    return {
        each.position: Look(colour=each.colour, marker=taken[each.position], dash=DASHES[each.position % len(DASHES)])
        for each in named
    }


def median_of(series: Stats | None) -> float | None:
    """The median of a series that may not be there."""
    return series.median if series is not None else None


def processes_words(settings: Sequence[Shown]) -> str:
    """How many processes stand behind each setting: "one process each", "3 processes each", "1 to 3 processes each"."""
    counts = [len(each.records) for each in settings]
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one process each"
    return f"{most} processes each" if fewest == most else f"{fewest} to {most} processes each"


def _remark(standing: Standing, *, is_baseline: bool) -> str:
    words = ["baseline"] if is_baseline else []
    words += [REMARKS.get(each.kind, each.title) for each in standing.reasons]
    if standing.is_unverified:
        words.append(unverified.WORD)
    return ", ".join(words)
