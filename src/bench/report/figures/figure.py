"""One plot with its words, and how it becomes a file that shows by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.sax.saxutils import escape

SCALE = 2  # pixels of a file's own size for each unit of its figure

# A file has no page whose colour and font it could take.
_ALONE = (
    "svg{font-family:system-ui,sans-serif;color:#1f2328;background:#fff}"
    "@media (prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot; the texts are plain, and whoever puts them into a page escapes them."""

    key: str  # file name and anchor, such as "warmup_curves"
    title: str
    caption: str  # what is shown, how to read it, what was left out
    alt: str  # the main figures in words, for people who cannot see it
    svg: str  # one <svg> element to put inline into HTML; text and axes take the page's colour and font


def standalone(figure: Figure) -> str:
    """Return the figure as a whole SVG file, in light or dark as the reader's system has it."""
    opening, rest = figure.svg.split(">", maxsplit=1)
    title, text = escape(figure.title), escape(figure.alt)
    head = f"<title>{title}</title><desc>{text}</desc><style>{_ALONE}</style>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_with_size(opening)}>{head}{rest}\n'


def _with_size(opening: str) -> str:
    """The tag of a figure with a size of its own: where there is no page to fill, some viewers give it none at all."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    if found is None:
        return opening
    width, height = (round(float(each) * SCALE) for each in found.groups())
    opening = re.sub(r' style="[^"]*"', "", opening)
    return opening.replace('width="100%"', f'width="{width}" height="{height}"')
