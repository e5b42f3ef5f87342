"""The settings of a sweep with the figures that the page shows of them; each statistic is derived once.

A figure of several repeats is the median over the processes that came through of each one's own figure. Nothing is
judged here: whether a setting may be called best at all (`Measured.distrust`) follows from what its records say.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis.code_sources import pool_ids
from bench.analysis.settings import Setting, settings_of, steady_words
from bench.analysis.summary import Stats, Summary
from bench.palette import colour, positions_of
from bench.record import STATUSES, Record, Unverified
from bench.report.comparison import in_order
from bench.report.compiled import compiles_itself, graphs_words, starts_warm
from bench.report.format import UNDEFINED, one_line

Read = Callable[[Summary], float | None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One setting: all its processes, and the figures of those that count (the ok ones, or all where none is)."""

    setting: Setting  # its records are the ok ones
    records: list[Record]  # all, those that came to nothing too
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
        """The worst of the processes that count."""
        return max((each.status for each in self.counted), key=STATUSES.index)

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
        """In one word whether its processes stayed on one level, or how many of them did."""
        return steady_words(self.counted)

    @property
    def is_unsteady(self) -> bool:
        """Whether at least half of its processes left their level while they were measured."""
        return 0 < len(self.setting.unsteady) >= self.processes / 2

    @property
    def is_warm(self) -> bool:
        """Whether the warm-up did its work in more than half of its processes."""
        return 2 * len(self.setting.not_warm) < max(self.processes, 1)

    @property
    def is_wrong(self) -> bool:
        """Whether any of its processes put out something else than the reference."""
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
        """As `bench.report.compiled` writes them."""
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
    def flags(self) -> list[str]:
        """What was found against its steadiness in any process."""
        judged = [each.steadiness for each in self.setting.unsteady if each.steadiness is not None]
        return list(dict.fromkeys(flag for each in judged for flag in each.flags))

    @property
    def distrust(self) -> str | None:
        """Why it must not be called best, whatever its median; None where nothing speaks against it."""
        if not self.setting.records:
            return one_line(self.setting.lost_reason or self.status)
        if self.is_wrong:
            said = self.setting.wrong[0].fidelity
            why = f" ({one_line(said.reason)})" if said is not None and said.reason else ""
            return f"its output DIFFERS from the reference's{why}"
        if not self.is_warm:
            stop = self.setting.not_warm[0].warmup_stop
            return "its warm-up did not converge" + (f" ({one_line(stop)})" if stop else "")
        if self.is_unsteady:
            return f"it did not stay on one level ({', '.join(self.flags)})"
        return None if self.e2e_s is not None else "it has no measured call"


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
    positions = positions_of([each.name for each in settings], typed or [])
    for position, setting in zip(positions, settings, strict=True):
        counted = setting.records or groups[setting.setting_id]
        found.append(
            Measured(
                setting=setting,
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
