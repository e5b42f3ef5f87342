"""Build every part of the page from a sweep's records, before it is HTML or Markdown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.analysis.settings import asked
from bench.report.comparison import ComparisonReport
from bench.report.page.answer import build_answer
from bench.report.page.content import Page
from bench.report.page.evidence import environment, failures, not_as_installed, numbers, observed
from bench.report.page.formulas import FORMULAS
from bench.report.page.reproduce import PROGRAMS, build_again
from bench.report.page.settings_table import build_table
from bench.report.setting_view import SettingView, setting_views
from bench.report.terminal.comparison_text import sections
from bench.report.text.format import listed, one_line, plural, title
from bench.report.text.section import Section
from bench.results.record import Record

ROWS_SHOWN = 200  # of a table below the one of all settings
LINES_SHOWN, LONGEST_LINE = 60, 800


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Hold information about a sweep beside its records; for a single run, little of it."""

    typed: Sequence[str] | None = None  # names of the settings as typed; None: the order of the records
    jobs: int | None = None  # planned jobs; None: not known
    source: str | None = None  # its folder or id, as a command accepts it
    command: str | None = None  # the command that repeats the measurement
    programs: Mapping[str, str] = field(default_factory=lambda: PROGRAMS)  # how `compare` and `report` are typed here
    found: Sequence[Section] = ()  # further results, such as the best of a search
    notes: Sequence[str] = ()  # about missing or omitted records


def build_page(
    records: Sequence[Record],
    sweep: Sweep,
    report: ComparisonReport | None,
    settings: Sequence[SettingView] | None = None,
) -> Page:
    """Return the whole page except its figures.

    Args:
        records: with any status; reference runs are left out.
        sweep: other information about the sweep.
        report: the comparison of the settings on E2E; None if they were not compared.
        settings: of the records; None: they are built here.
    """
    settings = settings if settings is not None else setting_views(records, typed=sweep.typed)
    answer = build_answer(settings, report, jobs=sweep.jobs)
    trials = [each for each in records if each.kind != "reference"]
    sweep_id = next((each.sweep_id for each in trials if each.sweep_id is not None), None)
    swept = list(dict.fromkeys(key for each in settings for key in each.setting.swept))
    ended, ended_left_out = failures(trials)
    ran, ran_left_out = observed(settings)
    where, differing = environment(trials)
    return Page(
        title=_title(trials, sweep_id),
        about=_about(trials, settings, sweep),
        answer=answer,
        settings=build_table(settings, swept) if settings else None,
        comparison=[_cut(each) for each in (*sweep.found, *(sections(report) if report is not None else ()))],
        failures=ended,
        failures_left_out=ended_left_out,
        observed=ran,
        observed_left_out=ran_left_out,
        evidence=numbers(settings),
        environment=where,
        environment_differences=differing,
        not_as_installed=not_as_installed(trials),
        formulas=list(FORMULAS),
        again=build_again(
            trials, sweep_id=sweep_id, source=sweep.source, command=sweep.command, programs=sweep.programs
        ),
        notes=[one_line(each) for each in sweep.notes],
    )


def _title(trials: Sequence[Record], sweep_id: str | None) -> str:
    if sweep_id is not None:
        return one_line(sweep_id)
    return title(trials[0]) if trials else "no records"


def _about(trials: Sequence[Record], settings: Sequence[SettingView], sweep: Sweep) -> list[str]:
    """State the time, the subject and the device in short facts."""
    if not trials:
        return []
    models = dict.fromkeys(str(asked(each, "model.id") or "a model without a name") for each in trials)
    devices = dict.fromkeys(each.observed.device_name for each in trials if each.observed is not None)
    jobs = len(trials) if sweep.jobs is None else sweep.jobs
    facts = [
        _day(trials),
        listed([one_line(each) for each in models], 3),
        listed([one_line(each) for each in devices], 3),
        f"{plural(len(settings), 'setting')}, {plural(jobs, 'job')}",
        f"{sum(each.status == 'ok' for each in trials)} ok",
    ]
    return [each for each in facts if each]


def _day(trials: Sequence[Record]) -> str:
    first = dt.datetime.fromtimestamp(min(each.started_at_s for each in trials), tz=dt.UTC)
    return first.strftime("%Y-%m-%d %H:%M UTC")


def _cut(section: Section) -> Section:
    """Shorten a section: a thousand settings have a thousand rows, and a line with all their names."""
    rows = max(map(len, section.columns.values()), default=0)
    lines = [each if len(each) <= LONGEST_LINE else f"{each[:LONGEST_LINE]} …" for each in section.lines]
    if len(lines) > LINES_SHOWN:
        lines = [*lines[:LINES_SHOWN], f"{len(lines) - LINES_SHOWN} more lines are in comparison.json"]
    if rows > ROWS_SHOWN:
        lines = [f"{rows - ROWS_SHOWN} more rows are in comparison.json", *lines]
    columns = {header: cells[:ROWS_SHOWN] for header, cells in section.columns.items()}
    return Section(title=section.title, columns=columns, lines=lines)
