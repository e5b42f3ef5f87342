"""Define a section of a report with title, table and lines, which terminal, page and Markdown show alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from bench.report.text import markdown

LEFT = ("verdict", "status", "cache")  # columns of words, besides the first


@dataclass(frozen=True, kw_only=True)
class Section:
    """Hold a title, a table, and lines below; each of them may be missing."""

    title: str = ""
    columns: dict[str, list[str]] = field(default_factory=dict)  # header → cells; the first column holds names
    lines: list[str] = field(default_factory=list)


def to_markdown(sections: Iterable[Section], *, left: Collection[str] = LEFT) -> str:
    """Return paragraphs, tables and lists that GitHub renders.

    Args:
        sections: in order.
        left: headers of left-aligned columns, besides the first.
    """
    parts = []
    for each in sections:
        parts.append(f"**{markdown.escaped(each.title)}**" if each.title else "")
        parts.append(markdown.table(each.columns, left=left) if each.columns else "")
        parts.append(markdown.bullets(each.lines))
    return "\n\n".join(filter(None, parts))
