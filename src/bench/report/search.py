"""What a search found: its best setting, or with several objectives its Pareto front, for the terminal and as files.

It describes: each setting ran in one process, and processes differ. Verdicts need repeats (`bench.report.comparison`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.analysis.objectives import objectives_of, order_of, pareto_front
from bench.analysis.settings import steady_words, unverified_in
from bench.record import Record, Unverified
from bench.report import markdown, unverified
from bench.report.comparison_text import Section
from bench.report.format import one_line, significant, title
from bench.report.layout import PLAIN_WIDTH, grid, is_watched, print_at

# Objectives that a smaller workload improves whatever the settings are.
BY_WORK = ("e2e_ms", "ttft_ms", "cold_s", "peak_mib")
LEFT = ("setting", "steady")  # columns of words
CAUTION = "descriptive, one process each: not a verdict; sweep.repeats=5 over these settings gives one"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting that was measured."""

    name: str
    trial_id: str
    swept: dict[str, str]
    steady: str  # in one word
    values: dict[str, float] | None  # objective → value; None: pruned
    reason: str | None = None  # why
    unverified: list[Unverified] = field(default_factory=list)  # what its evidence could not see


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """All that a search came to."""

    goals: dict[str, str]  # objective → minimize or maximize
    space: dict[str, list[str]]  # override key → values
    size: int | None  # settings in it; None: no end of them
    rows: list[Row]  # in the order in which they were asked for
    refused: list[str]  # why settings were not run at all
    lost: int = 0  # jobs that left no record

    @property
    def front(self) -> list[Row]:
        """The settings that no other one beats in everything, the best in the first objective first."""
        told = [(row, row.values) for row in self.rows if row.values is not None]
        found = pareto_front([list(values.values()) for _, values in told], list(self.goals.values()))
        return [told[place][0] for place in sorted(found, key=lambda place: order_of(told[place][1], self.goals))]

    @property
    def pruned(self) -> dict[str, int]:
        """Kind of reason → how many settings."""
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
    """Everything from the records: what the study was told is derived from them, too.

    Args:
        records: of the search's jobs, under the names that they have in it.
        goals: objective → minimize or maximize.
        space: override key → values.
        size: settings in the space; None: no end of them.
        refused: why settings were not run.
        lost: jobs that left no record.
    """
    rows = []
    for record in records:
        values = objectives_of(record, list(goals))
        told = isinstance(values, dict)
        rows.append(
            Row(
                name=title(record),
                trial_id=record.trial_id,
                swept=record.swept,
                steady=steady_words([record]),
                values=values if isinstance(values, dict) else None,
                reason=None if told else str(values),
                unverified=unverified_in([record]),
            )
        )
    return SearchReport(
        goals=dict(goals),
        space={key: list(values) for key, values in space.items()},
        size=size,
        rows=rows,
        refused=list(refused),
        lost=lost,
    )


def print_search(console: Console, report: SearchReport) -> None:
    """The best setting or the front, and how many trials that is taken from."""
    console.print()
    console.print(Text(_heading(report), style="bold"), soft_wrap=True)
    columns = _columns(report)
    if report.front:
        table = grid(gap=2)
        for header in columns:
            table.add_column(header, justify="left" if header in LEFT else "right", overflow="fold")
        for cells in zip(*columns.values(), strict=True):
            table.add_row(*map(Text, cells))
        print_at(console, table, console.width if is_watched(console) else PLAIN_WIDTH)
    for line in _lines(report, with_reasons=False):  # the table above has told them
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def search_to_markdown(report: SearchReport) -> str:
    """The same as a heading, a table and a list that GitHub renders."""
    parts = [f"**{markdown.escaped(_heading(report))}**"]
    columns = _columns(report)
    if report.front:
        parts.append(markdown.table(columns, left=LEFT))
    parts.append("\n".join(f"- {markdown.escaped(line)}" for line in _lines(report, with_reasons=True)))
    return "\n\n".join(parts) + "\n"


def search_section(report: SearchReport) -> Section:
    """The same for the sweep's page."""
    columns = _columns(report) if report.front else {}
    return Section(title=_heading(report), columns=columns, lines=_lines(report, with_reasons=True))


def search_to_json(report: SearchReport) -> dict[str, Any]:
    """All of it, in full precision."""
    return {
        "objectives": report.goals,
        "space": report.space,
        "size": report.size,
        "jobs": len(report.rows) + report.lost,
        "pruned": report.pruned,
        "refused": report.refused,
        "front": [_plain(row) for row in report.front],
        "trials": [_plain(row) for row in report.rows],
        "note": CAUTION,
    }


def _plain(row: Row) -> dict[str, Any]:
    about: dict[str, Any] = {"name": row.name, "trial_id": row.trial_id, "swept": row.swept, "steady": row.steady}
    about["unverified"] = [asdict(each) for each in row.unverified]
    return about | ({"values": row.values} if row.values is not None else {"reason": row.reason})


def _heading(report: SearchReport) -> str:
    wanted = ", ".join(f"{name} {goal}d" for name, goal in report.goals.items())
    told = sum(row.values is not None for row in report.rows)
    if not report.front:
        return f"Nothing found: no trial has values of {', '.join(report.goals)}"
    if len(report.goals) == 1:
        return f"Best of {told} trials, {wanted}"
    return f"Pareto front: {len(report.front)} of {told} trials, {wanted}"


def _columns(report: SearchReport) -> dict[str, list[str]]:
    front = report.front
    columns = {"setting": [f"{row.name} {unverified.MARK}" if row.unverified else row.name for row in front]}
    for name in report.goals:
        columns[name] = [significant(row.values[name]) for row in front if row.values is not None]
    return columns | {"steady": [row.steady for row in front]}


def _lines(report: SearchReport, *, with_reasons: bool) -> list[str]:
    jobs = len(report.rows) + report.lost
    of = "settings without end" if report.size is None else f"{report.size} settings"
    lines = [f"{jobs} {'job' if jobs == 1 else 'jobs'} out of {of}"]
    if report.pruned:
        counts = ", ".join(f"{count} {kind}" for kind, count in report.pruned.items())
        lines[0] += f"; pruned {sum(report.pruned.values())}: {counts}"
    if with_reasons:
        lines += [f"{row.name}: pruned, {one_line(row.reason or '')}" for row in report.rows if row.values is None]
    lines += [one_line(each) for each in report.refused]
    lines += _unverified_lines(report, with_reasons=with_reasons)
    work = [key for key in report.space if key.partition(".")[0] == "workload"]
    if report.front and work and (favoured := [name for name in report.goals if name in BY_WORK]):
        lines.append(
            f"settings differ in {', '.join(work)}: {', '.join(favoured)} favours less work; tok_per_s is fair"
        )
    return [*lines, CAUTION] if report.front else lines


def _unverified_lines(report: SearchReport, *, with_reasons: bool) -> list[str]:
    """Which of the best settings have the mark, and why."""
    if with_reasons:
        return unverified.notes([(row.name, row.unverified) for row in report.front])
    marked = [row.name for row in report.front if row.unverified]
    return [f"{unverified.MARK} {unverified.WORD}, see above: {', '.join(marked)}"] if marked else []
