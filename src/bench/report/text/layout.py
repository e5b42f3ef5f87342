"""Lay out tables and paragraphs of a given width, on terminals and elsewhere."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 100  # if the console is no terminal and has no width
NARROWEST_NAME = 14
_Cells = TypeVar("_Cells")


def grid(*, gap: int) -> Table:
    """Return a table without lines, with so many cells between columns."""
    return Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")


def natural_width(console: Console, table: Table) -> int:
    """Return the width in cells of a table without a width limit."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def is_watched(console: Console) -> bool:
    """Tell whether it is a terminal, and not a file or pipe with forced colours, such as by FORCE_COLOR in CI."""
    is_forced = os.environ.get("FORCE_COLOR") or os.environ.get("TTY_COMPATIBLE") == "1"
    return console.is_terminal and (not is_forced or console.file.isatty())


def width_of(console: Console) -> int:
    """Return the maximum width of tables and paragraphs in cells."""
    return console.width if is_watched(console) else PLAIN_WIDTH


def can_redraw(console: Console) -> bool:
    """Tell whether a line may be redrawn: not in a log (CI), nor on a terminal that cannot do it (dumb)."""
    return is_watched(console) and console.is_interactive and os.environ.get("CI", "").lower() in ("", "0", "false")


@dataclass(frozen=True)
class _AtWidth:
    """Render at a width other than the console's: off terminals rich assumes 80."""

    renderable: RenderableType
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        options = options.update(width=self.width, no_wrap=False, overflow="fold")
        for line in console.render_lines(self.renderable, options, pad=False):
            yield from _without_blank_end(line)
            yield Segment.line()


def _without_blank_end(line: Sequence[Segment]) -> list[Segment]:
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    return [*kept[:-1], *(Segment(each.text.rstrip(), each.style) for each in kept[-1:])]


def print_at(console: Console, renderable: RenderableType, width: int) -> None:
    """Print within so many cells, for any width of the console."""
    console.print(_AtWidth(renderable, width), crop=False, end="")


def print_paragraph(console: Console, text: Text, width: int) -> None:
    """Print a text within so many cells, with all lines after the first indented."""
    first, *rest = text.wrap(console, width - 2)
    print_at(console, Text("\n  ").join([first, *rest]), width)


def narrowed(
    console: Console,
    width: int,
    *,
    names: Sequence[str],
    columns: dict[str, _Cells],
    expendable: Iterable[str],
    layout: Callable[[Sequence[str], dict[str, _Cells]], Table],
) -> Table:
    """Return a table of so many cells: if necessary without some columns, and with its names wrapped.

    Args:
        console: where it will be printed.
        width: in cells.
        names: of the rows.
        columns: header → cells, after the names.
        expendable: headers of columns that may be left out, in this order.
        layout: makes the table.
    """
    kept = dict(columns)
    for header in ("", *expendable):
        kept.pop(header, None)
        spare = width - natural_width(console, layout([""] * len(names), kept))
        if spare >= 0:
            break
    # textwrap breaks names at spaces and hyphens; rich would break them anywhere.
    return layout([textwrap.fill(each, NARROWEST_NAME + max(spare, 0)) for each in names], kept)
