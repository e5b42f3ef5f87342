"""Define the content of a page before it is HTML or Markdown: plain texts, unescaped, in reading order.

Long lists are cut where they are created, with a line that says how many entries were left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.page.answer import Answer
from bench.report.page.formulas import Formula
from bench.report.text.section import Section


@dataclass(frozen=True, kw_only=True)
class Column:
    """Describe a column of a sortable table."""

    header: str
    unit: str = ""
    meaning: str = ""
    is_number: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold a text and its sort value; None: sort by the text, and in a column of numbers not at all."""

    text: str
    value: float | None = None
    tone: str = ""  # "good", "bad", "doubt" or ""; the word says it too


@dataclass(frozen=True, kw_only=True)
class SettingRow:
    """Hold one setting of the table."""

    name: str
    colour: str
    marks: list[str]  # words after its name
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class SettingsTable:
    """Hold all settings with their figures."""

    columns: list[Column]  # after the name
    rows: list[SettingRow]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Hold jobs that ended in the same way."""

    jobs: str
    status: str
    stage: str
    reason: str  # one line
    detail: str | None  # a traceback, or the last lines of the log


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold facts about some settings, or about all."""

    of: str
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Again:
    """Hold the instructions to reproduce the results."""

    commands: list[tuple[str, str]]  # purpose, command
    files: list[tuple[str, str]]  # contents, path
    config: dict[str, str]  # key → value, common to all settings


@dataclass(frozen=True, kw_only=True)
class Page:
    """Hold the whole report except its figures."""

    title: str
    about: list[str]  # short facts under the title
    answer: Answer
    settings: SettingsTable | None  # None: no record
    comparison: list[Section]
    failures: list[Failure]
    failures_left_out: str  # "" or how many are not shown
    observed: list[Facts]
    observed_left_out: str
    evidence: Section | None
    environment: Facts
    environment_differences: list[str]
    not_as_installed: list[str]  # libraries that were imported from elsewhere
    formulas: list[Formula]
    again: Again
    notes: list[str]  # about missing or omitted records
