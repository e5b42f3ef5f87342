"""Show the results of a search on the terminal and in files: its best setting, or a Pareto front of objectives.

Only trials that may be ranked (`bench.analysis.ranking`) can be best. Others with values are shown with their marks if
they would be as good as the best. All results are descriptive: each setting ran in one process, and processes differ.
Verdicts require repeats (`bench.report.comparison`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.analysis.objectives import objectives_of, order_of, pareto_front
from bench.analysis.ranking import FAIR_ON_RATE, Standing, rank, standing_of
from bench.analysis.settings import settings_of, steady_words, unverified_in
from bench.report.terminal.answer_text import shortened
from bench.report.text import unverified
from bench.report.text.format import listed, one_line, plural, significant, title
from bench.report.text.layout import grid, print_at, width_of
from bench.report.text.remedy import remedy
from bench.report.text.section import Section, to_markdown
from bench.results.record import Record, Unverified

# Objectives that a smaller workload improves for any settings.
BY_WORK = ("e2e_ms", "ttft_ms", "cold_s", "peak_mib")
RATE = "tok_per_s"  # the objective that stays comparable if only the amount of work differs
LEFT = ("setting", "steady")  # columns of words
NAMES_SHOWN = 4
CONTENDERS_SHOWN = 3
CAUTION = "descriptive, one process each: not a verdict; sweep.repeats=5 over these settings gives one"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one measured setting."""

    name: str
    trial_id: str
    swept: dict[str, str]
    steady: str  # in one word
    standing: Standing
    place: int  # in the order of the ranking, from 0
    values: dict[str, float] | None  # objective → value; None: pruned
    reason: str | None = None  # why it is pruned
    unverified: list[Unverified] = field(default_factory=list)  # not confirmed by its evidence

    @property
    def label(self) -> str:
        """Return the name followed by its marks."""
        return f"{self.name} {self.standing.marks}".rstrip()


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """Hold all results of a search."""

    goals: dict[str, str]  # objective → minimize or maximize
    space: dict[str, list[str]]  # override key → values
    size: int | None  # number of settings in it; None: infinite
    rows: list[Row]  # in the order of the requests
    refused: list[str]  # why settings did not run at all
    lost: int = 0  # jobs that left no record
    remedy: str = ""  # how to get ranked trials, if there are none

    @property
    def front(self) -> list[Row]:
        """Return the ranked settings that no other ranked one dominates, the best in the first objective first."""
        return self._best_of([row for row in self.rows if row.standing.is_ranked])

    @property
    def contenders(self) -> list[Row]:
        """Return the settings that would be as good as those of the front, or better, if they were ranked."""
        front = {row.trial_id for row in self.front}
        unranked = {row.trial_id for row in self.not_ranked}
        best = self._best_of([row for row in self.rows if row.trial_id in front | unranked])
        return [row for row in best if row.trial_id in unranked]

    @property
    def not_ranked(self) -> list[Row]:
        """Return the settings that have values and may not be called best."""
        return [row for row in self.rows if row.values is not None and not row.standing.is_ranked]

    def _best_of(self, rows: Sequence[Row]) -> list[Row]:
        """Return the settings that no other one dominates, in order; equal ones as in the ranking."""
        told = [(row, row.values) for row in rows if row.values is not None]
        found = pareto_front([list(values.values()) for _, values in told], list(self.goals.values()))
        best = sorted((told[each] for each in found), key=lambda each: (*order_of(each[1], self.goals), each[0].place))
        return [row for row, _ in best]

    @property
    def pruned(self) -> dict[str, int]:
        """Return kind of reason → how many settings."""
        kinds = [(row.reason or "pruned").partition(": ")[0] for row in self.rows if row.values is None]
        kinds += ["refused"] * len(self.refused) + ["no record"] * self.lost
        return dict(Counter(kinds).most_common())


def build_search_report(
    records: Sequence[Record],
    *,
    goals: Mapping[str, str],
    space: Mapping[str, Sequence[str]],
    size: int | None,
    refused: Sequence[str] = (),
    lost: int = 0,
) -> SearchReport:
    """Return the report of a search; the values of the study are also derived from the records.

    Args:
        records: of the search's jobs, with their names in the search.
        goals: objective → minimize or maximize.
        space: override key → values.
        size: number of settings in the space; None: infinite.
        refused: why settings did not run.
        lost: jobs without a record.
    """
    rows = []
    places = {
        id(each): place for place, ranked in enumerate(rank(settings_of(records))) for each in ranked.setting.every
    }
    for record in records:
        values = objectives_of(record, list(goals))
        told = isinstance(values, dict)
        rows.append(
            Row(
                name=title(record),
                trial_id=record.trial_id,
                swept=record.swept,
                steady=steady_words([record]),
                standing=standing_of([record]),
                place=places.get(id(record), len(places)),
                values=values if isinstance(values, dict) else None,
                reason=None if told else str(values),
                unverified=unverified_in([record]),
            )
        )
    standings = [row.standing for row in rows]
    none_is_ranked = not any(each.is_ranked for each in standings)
    return SearchReport(
        goals=dict(goals),
        space={key: list(values) for key, values in space.items()},
        size=size,
        rows=rows,
        refused=list(refused),
        lost=lost,
        remedy=remedy(standings, records, verb="Search") if none_is_ranked else "",
    )


def print_search(console: Console, report: SearchReport) -> None:
    """Print the best setting or the front, and the number of trials."""
    console.print()
    console.print(Text(_heading(report), style="bold"), soft_wrap=True)
    columns = _columns(report)
    if columns:
        table = grid(gap=2)
        for header in columns:
            table.add_column(header, justify="left" if header in LEFT else "right", overflow="fold")
        for cells in zip(*columns.values(), strict=True):
            table.add_row(*map(Text, cells))
        print_at(console, table, width_of(console))
    for line in _lines(report, with_reasons=False):  # the table above has shown them
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def search_to_markdown(report: SearchReport) -> str:
    """Return the same as a heading, a table and a list that GitHub renders."""
    return f"{to_markdown([search_section(report)], left=LEFT)}\n"


def search_section(report: SearchReport) -> Section:
    """Return the same for the sweep's page."""
    return Section(title=_heading(report), columns=_columns(report), lines=_lines(report, with_reasons=True))


def search_answer(report: SearchReport) -> str:
    """Say the result for the last lines of the output: the best, or why there is none; and the next step."""
    front = report.front
    if not front:
        pruned = _pruned(report)
        return shortened([f"{_heading(report)}.", *([f"P{pruned[1:]}."] if pruned else [])], report.remedy)
    best = "; ".join(f"{row.label} ({_values(report, row)})" for row in front[:NAMES_SHOWN])
    more = f" and {len(front) - NAMES_SHOWN} more" if len(front) > NAMES_SHOWN else ""
    return shortened([f"{_heading(report)}: {best}{more}."], f"{CAUTION[0].upper()}{CAUTION[1:]}.")


def _pruned(report: SearchReport) -> str:
    """Say how many trials have no values, by kind of reason; "" if all have some."""
    counts = ", ".join(f"{count} {kind}" for kind, count in report.pruned.items())
    return f"pruned {sum(report.pruned.values())}: {counts}" if counts else ""


def search_to_json(report: SearchReport) -> dict[str, Any]:
    """Return all results in full precision."""
    return {
        "objectives": report.goals,
        "space": report.space,
        "size": report.size,
        "jobs": len(report.rows) + report.lost,
        "pruned": report.pruned,
        "refused": report.refused,
        "front": [_plain(row) for row in report.front],
        "not_ranked": [_plain(row) for row in report.not_ranked],
        "remedy": report.remedy or None,
        "trials": [_plain(row) for row in report.rows],
        "note": CAUTION,
    }


def _plain(row: Row) -> dict[str, Any]:
    about: dict[str, Any] = {"name": row.name, "trial_id": row.trial_id, "swept": row.swept, "steady": row.steady}
    about |= {"ranked": row.standing.is_ranked, "marks": row.standing.marks}
    about["not_ranked_because"] = [each.text for each in row.standing.reasons]
    about["unverified"] = [asdict(each) for each in row.unverified]
    return about | ({"values": row.values} if row.values is not None else {"reason": row.reason})


def _heading(report: SearchReport) -> str:
    wanted = ", ".join(f"{name} {goal}d" for name, goal in report.goals.items())
    told = sum(row.values is not None for row in report.rows)
    if not told:
        return f"Nothing found: no trial has values of {', '.join(report.goals)}"
    ranked = told - len(report.not_ranked)
    if not ranked:
        trials = "the only trial with values is not ranked" if told == 1 else f"none of {told} trials is ranked"
        return f"No setting can be called best, {wanted}: {trials}"
    of = f"{ranked}{'' if ranked == told else ' ranked'} {'trial' if ranked == 1 else 'trials'}"
    if len(report.goals) == 1:
        return f"Best of {of}, {wanted}"
    return f"Pareto front: {len(report.front)} of {of}, {wanted}"


def _columns(report: SearchReport) -> dict[str, list[str]]:
    """Return the front, then settings as good but not ranked, with their marks; {} if no setting has values."""
    shown = [*report.front, *report.contenders[:CONTENDERS_SHOWN]]
    if not shown:
        return {}
    columns = {"setting": [row.label for row in shown]}
    for name in report.goals:
        columns[name] = [significant(row.values[name]) for row in shown if row.values is not None]
    return columns | {"steady": [row.steady for row in shown]}


def _values(report: SearchReport, row: Row) -> str:
    return ", ".join(f"{name} {significant((row.values or {}).get(name))}" for name in report.goals)


def _lines(report: SearchReport, *, with_reasons: bool) -> list[str]:
    jobs = len(report.rows) + report.lost
    of = "settings without end" if report.size is None else f"{report.size} settings"
    lines = [f"{plural(jobs, 'job')} out of {of}"]
    if pruned := _pruned(report):
        lines[0] += f"; {pruned}"
    if with_reasons:
        lines += [f"{row.name}: pruned, {one_line(row.reason or '')}" for row in report.rows if row.values is None]
    lines += [one_line(each) for each in report.refused]
    lines += _not_ranked_lines(report, with_reasons=with_reasons)
    lines += _unverified_lines(report, with_reasons=with_reasons)
    lines += _work_lines(report)
    return [*lines, CAUTION] if report.front else [*lines, *([report.remedy] if report.remedy else [])]


def _not_ranked_lines(report: SearchReport, *, with_reasons: bool) -> list[str]:
    """Say which trials with values may not be called best, and why."""
    if with_reasons:
        return [
            f"{row.label}: not ranked, {'; '.join(one_line(each.text) for each in row.standing.reasons)}"
            for row in report.not_ranked
        ]
    kinds: dict[str, list[str]] = {}
    for row in report.not_ranked:
        kinds.setdefault(", ".join(each.title for each in row.standing.reasons), []).append(row.label)
    return [f"not ranked ({reason}): {listed(labels)}" for reason, labels in kinds.items()]


def _work_lines(report: SearchReport) -> list[str]:
    """Say which objectives are not comparable between these settings, because their work differs."""
    work = [key.lstrip("+") for key in report.space if key.lstrip("+").partition(".")[0] == "workload"]
    if not report.front or not work:
        return []
    is_fair_on_rate = set(work) <= FAIR_ON_RATE
    favoured = [name for name in report.goals if name in BY_WORK or (name == RATE and not is_fair_on_rate)]
    if not favoured:
        return []
    instead = f"; {RATE} is fair" if is_fair_on_rate else ""
    return [f"settings differ in {', '.join(work)}: {', '.join(favoured)} favours less work{instead}"]


def _unverified_lines(report: SearchReport, *, with_reasons: bool) -> list[str]:
    """Say which of the best settings have the mark, and why."""
    shown = [*report.front, *report.contenders[:CONTENDERS_SHOWN]]
    if with_reasons:
        return unverified.notes([(row.name, row.unverified) for row in shown])
    marked = [row.name for row in shown if row.unverified]
    return [f"{unverified.MARK} {unverified.WORD}, see above: {', '.join(marked)}"] if marked else []
