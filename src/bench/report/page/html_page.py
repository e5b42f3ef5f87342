"""Write the page as one self-contained HTML file: with styles, script and figures; nothing is fetched.

Names come from users and from libraries, so the template engine escapes every text; only the figures' SVG, which
``bench.report.figures`` has escaped, is inserted unchanged. In addition a content security policy allows no script
other than the page's own, for any contents.

jinja2 is imported here: import this module only to write a page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from bench.report.page.content import Page
from bench.report.page.formulas import SYMBOLS
from bench.report.text.section import LEFT

if TYPE_CHECKING:
    from bench.report.figures import Figure

TEMPLATES = Path(__file__).parent / "templates"


def to_html(page: Page, figures: Sequence[Figure], figures_note: str = "") -> str:
    """Return the whole file.

    Args:
        page: the page without the figures.
        figures: in order.
        figures_note: why there are none, or not all; "" without a note.
    """
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return _template().render(
        page=page,
        figures=[{**vars(each), "svg": Markup(each.svg)} for each in figures],  # noqa: S704 - made and escaped by us
        figures_note=figures_note,
        left=LEFT,
        symbols=SYMBOLS,
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=_hash(script),
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rows"] = _rows
    return environment.get_template("page.html.j2")


def _rows(columns: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the rows of a table given as columns; empty rows, which separate groups on a terminal, are left out."""
    return [row for row in zip(*columns.values(), strict=True) if any(row)]


def _hash(script: str) -> str:
    """Return the hash by which the policy identifies the page's own script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
