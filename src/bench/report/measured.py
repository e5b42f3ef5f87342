"""The settings of a sweep with the figures that terminal and page show of them; each statistic is derived once.

A figure of several repeats is the median over the ok processes of each one's own figure. Nothing is judged here:
`bench.analysis.ranking` decides which settings are ranked, in which order.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis.code_sources import pool_ids
from bench.analysis.ranking import Standing, lowest, rank
from bench.analysis.settings import Setting, settings_of, steady_words
from bench.analysis.trials.summary import Stats, Summary
from bench.report.comparison import in_order
from bench.report.text.compiled import compiles_itself, graphs_words, starts_warm
from bench.report.text.format import UNDEFINED, one_line
from bench.results.palette import colour, positions_of
from bench.results.record import Record, Unverified

Read = Callable[[Summary], float | None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One setting: all its processes, and the figures of those that count (the ok ones, or all where none is)."""

    setting: Setting  # its records are the ok ones
    standing: Standing
    place: int  # in the order of `bench.analysis.ranking.rank`, from 0
    is_lowest: bool  # whether it has the lowest median of several comparable ranked settings
    records: list[Record]  # all attempts, with any status
    counted: list[Record]
    summaries: list[Summary]  # of those that count
    position: int  # among the settings as typed, from 0

    @property
    def name(self) -> str:
        """In one line."""
        return one_line(self.setting.name)

    @property
    def colour(self) -> str:
        """The one that it has in the figures."""
        return colour(self.position)

    @property
    def status(self) -> str:
        """Of the setting: ok when any process is, else the worst status."""
        return self.standing.status

    @property
    def processes(self) -> int:
        """How many came through."""
        return len(self.setting.records)

    def figure(self, read: Read) -> float | None:
        """The median over processes of one figure; None when no process has it."""
        values = [value for value in map(read, self.summaries) if value is not None]
        return statistics.median(values) if values else None

    @property
    def e2e_s(self) -> float | None:
        """The headline."""
        return self.figure(median_of(lambda summary: summary.e2e_s))

    @property
    def half_width(self) -> float | None:
        """Half of the interval of the median E2E, as a fraction."""
        return self.figure(lambda summary: _half_width(summary.e2e_s))

    @property
    def steady(self) -> str:
        """Whether its processes were steady: one word, or counts."""
        return steady_words(self.counted)

    @property
    def is_ranked(self) -> bool:
        """Whether it may be called fastest."""
        return self.standing.is_ranked

    @property
    def is_wrong(self) -> bool:
        """Whether any of its processes has another output than the reference."""
        return any(each.fidelity is not None and each.fidelity.agrees is False for each in self.counted)

    @property
    def output(self) -> str:
        """How the output compares with the reference's."""
        if self.is_wrong:
            return "DIFFERS"
        same = all(each.fidelity is not None and each.fidelity.agrees for each in self.counted)
        return "same" if same else UNDEFINED

    @property
    def graphs(self) -> str:
        """As `bench.report.text.compiled` writes them."""
        return graphs_words(self.counted)

    @property
    def compiles_itself(self) -> bool:
        """Whether graphs were made although none were asked for."""
        return compiles_itself(self.counted)

    @property
    def starts_warm(self) -> bool:
        """Whether the first call was no cold start."""
        return starts_warm(self.counted)

    @property
    def unverified(self) -> list[Unverified]:
        """What its evidence could not see."""
        return self.setting.unverified

    @property
    def not_ranked(self) -> str | None:
        """The first reason why it must not be called fastest, in one line; None when it is ranked."""
        return one_line(self.standing.reasons[0].text) if self.standing.reasons else None


def measure(
    records: Sequence[Record], summaries: Sequence[Summary], typed: Sequence[str] | None = None
) -> list[Measured]:
    """The settings of these records as they were typed.

    Args:
        records: with any status; reference runs are left out.
        summaries: theirs.
        typed: names of the settings as typed; None: the order of the records.
    """
    known = {id(record): summary for record, summary in zip(records, summaries, strict=True)}
    groups: dict[str, list[Record]] = {}
    trials = [each for each in records if each.kind != "reference"]
    for record, pool in zip(trials, pool_ids(trials), strict=True):
        groups.setdefault(pool, []).append(record)
    found = []
    settings = in_order(settings_of(records), typed)
    ranking = rank(settings)
    places = {each.setting.setting_id: (place, each.standing) for place, each in enumerate(ranking)}
    lowest_ids = {each.setting.setting_id for each in lowest(ranking)}
    positions = positions_of([each.name for each in settings], typed or [])
    for position, setting in zip(positions, settings, strict=True):
        counted = setting.records or groups[setting.setting_id]
        place, standing = places[setting.setting_id]
        found.append(
            Measured(
                setting=setting,
                standing=standing,
                place=place,
                is_lowest=setting.setting_id in lowest_ids,
                records=groups[setting.setting_id],
                counted=counted,
                summaries=[known[id(each)] for each in counted],
                position=position,
            )
        )
    return found


def median_of(series: Callable[[Summary], Stats | None]) -> Read:
    """Reads the median of a series."""

    def read(summary: Summary) -> float | None:
        found = series(summary)
        return None if found is None else found.median

    return read


def _half_width(stats: Stats | None) -> float | None:
    if stats is None or stats.median_low is None or stats.median_high is None or not stats.median:
        return None
    return (stats.median_high - stats.median_low) / 2 / stats.median
