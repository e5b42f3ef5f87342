"""Write tables and texts in Markdown as GitHub renders it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

# Names from overrides may contain Markdown syntax: a cell's end, emphasis, code, a link, HTML or a formula.
SPECIAL = "\\|*`[]<~$&"


def escaped(text: str) -> str:
    """Escape a text so that Markdown shows it unchanged; it has one line, and may begin one."""
    return re.sub(r"^(\d*)([#>+=.)-])", r"\1\\\2", _inline(text))  # a heading, a quote, a list


def _inline(text: str) -> str:
    for special in SPECIAL:
        text = text.replace(special, f"\\{special}")
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word an underscore is no emphasis


def bullets(lines: Iterable[str]) -> str:
    """Return a list, each line escaped and in one line; "" without lines."""
    return "\n".join(f"- {escaped(' '.join(each.split()))}" for each in lines)


def table(columns: Mapping[str, Sequence[str]], *, left: Collection[str] = ()) -> str:
    """Return a table: the first column and those in `left` hold words, the others figures. Empty rows are left out.

    Args:
        columns: header → cells.
        left: headers of left-aligned columns, besides the first.
    """
    marks = ["---" if number == 0 or header in left else "---:" for number, header in enumerate(columns)]
    cells = [tuple(map(_inline, row)) for row in (columns, *zip(*columns.values(), strict=True)) if any(row)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:]))
