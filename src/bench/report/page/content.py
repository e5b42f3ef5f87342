"""What a page consists of, before it is HTML or Markdown: plain texts, unescaped, in the order in which they are read.

Lists that would be too long are cut where they are made, with a line that says how many were left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.page.answer import Answer
from bench.report.page.formulas import Formula
from bench.report.text.section import Section


@dataclass(frozen=True, kw_only=True)
class Column:
    """Of a table that can be sorted."""

    header: str
    unit: str = ""
    meaning: str = ""
    is_number: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A text, and the value that it is sorted by; None: its text, and for numbers nothing that could be sorted."""

    text: str
    value: float | None = None
    tone: str = ""  # "good", "bad", "doubt" or ""; the word says it, too


@dataclass(frozen=True, kw_only=True)
class SettingRow:
    """One setting in the table."""

    name: str
    colour: str
    marks: list[str]  # words behind its name
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class SettingsTable:
    """All settings with their figures."""

    columns: list[Column]  # behind the name
    rows: list[SettingRow]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Jobs that ended in the same way."""

    jobs: str
    status: str
    stage: str
    reason: str  # one line
    detail: str | None  # a traceback, or the last lines of the log


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What holds for some settings, or for all."""

    of: str
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Again:
    """How to get the same again."""

    commands: list[tuple[str, str]]  # what it does, command
    files: list[tuple[str, str]]  # what it holds, path
    config: dict[str, str]  # key → value, what all settings have in common


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole report but its figures."""

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
    notes: list[str]  # about records that are missing or left out
