"""Write the page as Markdown that GitHub renders: the same content in the same order, figures in separate files.

Every text that is not the page's own is escaped and put on one line, so no name begins a heading or a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.report.page import answer
from bench.report.page.content import Again, Failure, Page, SettingsTable
from bench.report.page.formulas import SYMBOLS
from bench.report.text import markdown, section

if TYPE_CHECKING:
    from bench.report.figures import Figure

FIGURES = "figures"  # the folder of the figures, beside the file


def to_markdown(page: Page, figures: Sequence[Figure], figures_note: str = "") -> str:
    """Return the whole file. Arguments as those of `bench.report.page.html_page.to_html`."""
    parts = [f"# {markdown.escaped(page.title)}", markdown.escaped(" · ".join(page.about))]
    parts += ["## Answer", answer.to_markdown(page.answer).rstrip(), markdown.bullets(page.notes)]
    if page.settings is not None:
        parts += ["## Settings", _settings(page.settings), markdown.bullets(page.settings.notes)]
    if page.comparison:
        parts += ["## Comparison", section.to_markdown(page.comparison)]
    if figures or figures_note:
        parts += ["## Figures", markdown.escaped(figures_note), *(_figure(each) for each in figures)]
    if page.failures:
        parts += ["## What failed, and why", *map(_failure, page.failures), markdown.escaped(page.failures_left_out)]
    parts += _observed(page)
    parts += _environment(page)
    parts += ["## Every formula", markdown.escaped(SYMBOLS), _formulas(page)]
    parts += ["## How to get it again", *_again(page.again)]
    return "\n\n".join(each for each in parts if each) + "\n"


def _settings(found: SettingsTable) -> str:
    names = [" ".join([row.name, *(f"({mark})" for mark in row.marks)]) for row in found.rows]
    columns: dict[str, Sequence[str]] = {"Setting": names}
    left = []
    for place, column in enumerate(found.columns):
        header = f"{column.header} {column.unit}".strip()
        columns[header] = [row.cells[place].text for row in found.rows]
        if not column.is_number:
            left.append(header)
    return markdown.table(columns, left=left)


def _figure(figure: Figure) -> str:
    image = f"![{markdown.escaped(_one_line(figure.alt))}]({FIGURES}/{figure.key}.svg)"
    return f"### {markdown.escaped(figure.title)}\n\n{image}\n\n{markdown.escaped(_one_line(figure.caption))}"


def _failure(found: Failure) -> str:
    stage, jobs, reason = map(markdown.escaped, (found.stage, found.jobs, found.reason))
    head = f"- **{found.status}** in {stage}: {jobs}: {reason}"
    if not found.detail:
        return head
    return f"{head}\n\n{_indented(_fenced(found.detail))}"


def _observed(page: Page) -> Iterator[str]:
    if page.observed:
        yield "## What ran"
    for group in page.observed:
        yield f"**{markdown.escaped(group.of)}**"
        yield _facts(group.facts)
    if page.observed_left_out:
        yield markdown.escaped(page.observed_left_out)
    if page.evidence is not None:
        yield section.to_markdown([page.evidence])


def _environment(page: Page) -> Iterator[str]:
    yield "## Environment"
    if not page.environment.facts:
        yield "No job told where it ran."
    else:
        yield f"The same in {page.environment.of}."
        yield _facts(page.environment.facts)
    if page.not_as_installed:
        yield "### Libraries that are not as pip installed them"
        yield markdown.bullets(page.not_as_installed)
    if page.environment_differences:
        yield "### Where jobs differ"
        yield markdown.bullets(page.environment_differences)


def _formulas(page: Page) -> str:
    columns = {
        "figure": [each.name for each in page.formulas],
        "formula": [each.formula for each in page.formulas],
        "unit": [each.unit for each in page.formulas],
        "note": [each.note for each in page.formulas],
        "source": [f"{each.source}.py" for each in page.formulas],
    }
    return markdown.table(columns, left=tuple(columns))


def _again(again: Again) -> Iterator[str]:
    for what, command in again.commands:
        yield f"{markdown.escaped(what)}:\n\n{_fenced(command)}"
    yield "Beside this file:"
    yield "\n".join(f"- {markdown.escaped(path)}: {markdown.escaped(what)}" for what, path in again.files)
    if again.config:
        yield "Requested of all settings alike:"
        yield _facts(again.config)


def _facts(facts: Mapping[str, str]) -> str:
    return markdown.table({"what": list(facts), "value": list(facts.values())}, left=("value",))


def _fenced(text: str) -> str:
    """Return the text as code, with a fence that is longer than any in the text."""
    longest = max((len(each) for each in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _one_line(text: str) -> str:
    return " ".join(text.split())
