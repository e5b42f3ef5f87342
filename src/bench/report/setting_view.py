"""Prepare a setting for terminal, page, Markdown and figures; each statistic is derived once.

A figure of several repeats is the median over the ok processes of each one's own figure. Nothing is judged here:
`bench.analysis.ranking` decides which settings are ranked, in which order.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.baselines import baseline_ids
from bench.analysis.code_sources import pool_ids
from bench.analysis.ranking import Standing, lowest, rank
from bench.analysis.settings import Setting, settings_of, steady_words
from bench.analysis.trials.summary import Summary, summarize
from bench.report.comparison import in_order
from bench.report.quantities import E2E, Quantity
from bench.report.text import unverified
from bench.report.text.compiled import compiles_itself, graphs_words, starts_warm
from bench.report.text.format import UNDEFINED, one_line
from bench.results.palette import colour, positions_of
from bench.results.record import Record, Unverified

# Kind of reason → suffix of the name of a setting in a figure.
REMARKS = {"output": "output differs", "warm-up": "not warm", "unsteady": "unsteady", "no calls": "no calls"}


@dataclass(frozen=True, kw_only=True)
class SettingView:
    """Hold one setting: all its processes, and the figures of those that count (the ok ones, or all if none is)."""

    setting: Setting  # its records are the ok ones
    standing: Standing
    place: int  # in the order of `bench.analysis.ranking.rank`, from 0
    is_lowest: bool  # whether it has the lowest median of several comparable ranked settings
    is_baseline: bool
    records: list[Record]  # all attempts, with any status
    counted: list[Record]
    summaries: list[Summary]  # of those that count
    position: int  # among the settings as typed, from 0: its colour, and its name in the figures' SVG

    @property
    def name(self) -> str:
        """Return its name in one line; it may be long."""
        return one_line(self.setting.name)

    @property
    def full_name(self) -> str:
        """Return its name with the doubts about its figures, or the note that it is the baseline."""
        words = ["baseline"] if self.is_baseline else []
        words += [REMARKS.get(each.kind, each.title) for each in self.standing.reasons]
        words += [unverified.WORD] if self.standing.is_unverified else []
        return f"{self.name} ({', '.join(words)})" if words else self.name

    @property
    def colour(self) -> str:
        """Return its colour, the same one in all figures and pages."""
        return colour(self.position)

    @property
    def key(self) -> str:
        """Return its name in the figures' SVG."""
        return f"setting-{self.position}"

    @property
    def status(self) -> str:
        """Return ok if any process is ok, otherwise the worst status."""
        return self.standing.status

    @property
    def is_ok(self) -> bool:
        """Tell whether the processes that count are ok."""
        return self.standing.status == "ok"

    @property
    def processes(self) -> int:
        """Return the number of ok processes."""
        return len(self.setting.records)

    def figure(self, quantity: Quantity) -> float | None:
        """Return the median over processes of one figure; None if no process has it."""
        values = [value for value in map(quantity.read, self.summaries) if value is not None]
        return statistics.median(values) if values else None

    def text(self, quantity: Quantity) -> str:
        """Write the same figure."""
        return quantity.write(self.figure(quantity))

    @property
    def e2e_s(self) -> float | None:
        """Return the headline figure, which orders the settings."""
        return self.figure(E2E)

    @property
    def steady(self) -> str:
        """Say in one word, or in counts, whether its processes were steady."""
        return steady_words(self.counted)

    @property
    def is_ranked(self) -> bool:
        """Tell whether it may be called fastest."""
        return self.standing.is_ranked

    @property
    def is_wrong(self) -> bool:
        """Tell whether any of its processes has another output than the reference."""
        return any(each.fidelity is not None and each.fidelity.agrees is False for each in self.counted)

    @property
    def output(self) -> str:
        """Say how the output compares with the reference's."""
        if self.is_wrong:
            return "DIFFERS"
        same = all(each.fidelity is not None and each.fidelity.agrees for each in self.counted)
        return "same" if same else UNDEFINED

    @property
    def graphs(self) -> str:
        """Return the number of graphs as `bench.report.text.compiled` writes it."""
        return graphs_words(self.counted)

    @property
    def compiles_itself(self) -> bool:
        """Tell whether graphs were created without a request."""
        return compiles_itself(self.counted)

    @property
    def starts_warm(self) -> bool:
        """Tell whether the first call was no cold start."""
        return starts_warm(self.counted)

    @property
    def unverified(self) -> list[Unverified]:
        """Return what its evidence could not confirm."""
        return self.setting.unverified


def setting_views(
    records: Sequence[Record],
    summaries: Sequence[Summary] | None = None,
    *,
    typed: Sequence[str] | None = None,
    baseline: str | None = None,
) -> list[SettingView]:
    """Return the settings of these records in the order in which they were typed.

    Args:
        records: of one sweep, with any status; reference runs are left out.
        summaries: of the records; None: they are computed here.
        typed: names of the settings as typed; other settings come after those. None: the order of the records.
        baseline: as for `bench.analysis.baselines.baseline_ids`.
    """
    summaries = summaries if summaries is not None else [summarize(each) for each in records]
    known = {id(record): summary for record, summary in zip(records, summaries, strict=True)}
    groups: dict[str, list[Record]] = {}
    trials = [each for each in records if each.kind != "reference"]
    for record, pool in zip(trials, pool_ids(trials), strict=True):
        groups.setdefault(pool, []).append(record)
    settings = in_order(settings_of(records), typed)
    ranking = rank(settings)
    places = {each.setting.setting_id: (place, each.standing) for place, each in enumerate(ranking)}
    lowest_ids = {each.setting.setting_id for each in lowest(ranking)}
    baselines = baseline_ids(settings, baseline)
    positions = positions_of([each.name for each in settings], typed or [])
    found = []
    for position, setting in zip(positions, settings, strict=True):
        own = setting.setting_id
        counted = setting.records or groups[own]
        place, standing = places[own]
        found.append(
            SettingView(
                setting=setting,
                standing=standing,
                place=place,
                is_lowest=own in lowest_ids,
                is_baseline=own in baselines,
                records=groups[own],
                counted=counted,
                summaries=[known[id(each)] for each in counted],
                position=position,
            )
        )
    return found
