"""Define a plot with its texts, and convert it to a standalone file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.sax.saxutils import escape

SCALE = 2  # pixels of a file's own size for each unit of its figure

# A separate file has no page with colour and font.
_ALONE = (
    "svg{font-family:system-ui,sans-serif;color:#1f2328;background:#fff}"
    "@media (prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Hold a plot; its texts are plain, and the page escapes them."""

    key: str  # file name and anchor, such as "warmup_curves"
    title: str
    caption: str  # contents, reading instructions, omissions
    alt: str  # the main figures in words, for readers who cannot see it
    svg: str  # one <svg> element for inline HTML; text and axes use the page's colour and font


def standalone(figure: Figure) -> str:
    """Return the figure as a complete SVG file, in light or dark colours as set in the reader's system."""
    opening, rest = figure.svg.split(">", maxsplit=1)
    title, text = escape(figure.title), escape(figure.alt)
    head = f"<title>{title}</title><desc>{text}</desc><style>{_ALONE}</style>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_with_size(opening)}>{head}{rest}\n'


def _with_size(opening: str) -> str:
    """Return the tag of a figure with an explicit size: without a page, some viewers would give it none."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    if found is None:
        return opening
    width, height = (round(float(each) * SCALE) for each in found.groups())
    opening = re.sub(r' style="[^"]*"', "", opening)
    return opening.replace('width="100%"', f'width="{width}" height="{height}"')
