"""Tables and texts for Markdown as GitHub renders it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

# Names from overrides may hold what Markdown takes for a cell's end, emphasis, code, a link, HTML or a formula.
SPECIAL = "\\|*`[]<~$"


def escaped(text: str) -> str:
    """The text as it is, whatever is in it; it has one line."""
    for special in SPECIAL:
        text = text.replace(special, f"\\{special}")
    return text


def table(columns: Mapping[str, Sequence[str]], *, left: Collection[str] = ()) -> str:
    """A table: the first column and those in `left` hold words, the others figures. Rows without a word are left out.

    Args:
        columns: header → cells.
        left: headers of columns that are flush left, beside the first.
    """
    marks = ["---" if number == 0 or header in left else "---:" for number, header in enumerate(columns)]
    rows = [tuple(columns), tuple(marks), *(row for row in zip(*columns.values(), strict=True) if any(row))]
    return "\n".join(f"| {' | '.join(map(escaped, row))} |" for row in rows)
