"""Convert matplotlib's SVG into an element for a page.

The drawing library writes a separate file: with a fixed size, a style sheet that would apply to the whole page, names
that collide with those of the next figure, and six decimals. Here it becomes one element that uses the page's colour
and font, with names that begin with the figure's key, and titles that are shown when the pointer is on a mark. No style
attributes are left, so a page may forbid them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, fromstring
from xml.sax.saxutils import escape, quoteattr

INK = "#010203"  # placeholder for the page's text colour in the drawing
MOST_WIDE = 620  # CSS pixels

_NUMBER = re.compile(r"(?<![#\w])-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")
_COMMAND = re.compile(r"([MLQCz])([^MLQCz]*)")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_PAGES = ("font-family", "font-style", "font-variant", "font-weight", "font-stretch")  # the page defines these
_DEFAULTS = {
    "opacity": "1",
    "stroke-opacity": "1",
    "fill-opacity": "1",
    "stroke-linecap": "butt",
    "text-anchor": "start",
}
_UNTURNED = re.compile(r"rotate\(-?0(?:\.0+)? [^)]*\)")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Hold the properties of a named mark."""

    title: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


def tidy(text: str, *, key: str, alt: str, marks: Mapping[str, Mark]) -> str:
    """Return one <svg> element from a file that matplotlib wrote.

    Args:
        text: the file.
        key: begins every name in it.
        alt: what the figure shows, in words.
        marks: by the name under which they were drawn.
    """
    root = fromstring(text)  # noqa: S314 (our own text, not an external one)
    names = _Names(key=key, marks=marks, root=root)
    viewbox = root.get("viewBox", "")
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="bench-figure" role="img" aria-label={quoteattr(alt)} '
        f'viewBox={quoteattr(viewbox)} width="100%" fill="currentColor" stroke-linejoin="round" '
        f'style="max-width:{MOST_WIDE}px;height:auto">'
    )
    return "".join([opening, *(part for child in root for part in _written(child, names)), "</svg>"])


class _Names:
    """Rename referenced elements and marks; remove all other names."""

    def __init__(self, *, key: str, marks: Mapping[str, Mark], root: Element) -> None:
        self.key = key
        self.marks = marks
        self._made: dict[str, str] = {}
        for element in root.iter():
            for name, value in element.items():
                if name.endswith("href"):
                    self._new(value.removeprefix("#"))
                elif found := _REFERENCE.search(value):
                    self._new(found[1])

    def of(self, old: str) -> str | None:
        """Return the name of an element in the page; None if nothing refers to it."""
        return f"{self.key}-{old}" if old in self.marks else self._made.get(old)

    def _new(self, old: str) -> None:
        self._made.setdefault(old, f"{self.key}-r{len(self._made)}")


def _written(element: Element, names: _Names, given: Mapping[str, str] | None = None) -> Iterator[str]:
    """Write an element and its contents; `given` are attributes that its parent sets for all of them."""
    tag = element.tag.rpartition("}")[2]
    if tag in ("metadata", "style"):
        return
    attributes = {
        name: value for name, value in _attributes(element, names).items() if (given or {}).get(name) != value
    }
    children = list(element)
    common: dict[str, str] = {}
    if tag == "g" and len(children) > 1 and all(each.tag.endswith("}use") for each in children):
        own = [_attributes(each, names) for each in children]
        common = {name: value for name, value in own[0].items() if all(each.get(name) == value for each in own)}
        for place in ("href", "x", "y"):
            common.pop(place, None)
    mark = names.marks.get(element.get("id", "")) if tag == "g" else None
    parts = [part for each in children for part in _written(each, names, common)]
    if tag in ("g", "defs") and not any(parts) and mark is None:
        return
    if tag == "g" and not attributes and not common:
        yield from parts
        return
    yield f"<{tag}{''.join(f' {name}={quoteattr(value)}' for name, value in (attributes | common).items())}"
    title = f"<title>{escape(mark.title)}</title>" if mark is not None and mark.title else ""
    text = escape(element.text) if tag == "text" and element.text else ""
    if not (title or text or parts):
        yield "/>"
        return
    yield from (">", title, text, *parts, f"</{tag}>")


def _attributes(element: Element, names: _Names) -> dict[str, str]:
    """Return the attributes with short numbers, new names, and each declaration of the style as an attribute."""
    found: dict[str, str] = {}
    for long_name, value in element.items():
        name = long_name.rpartition("}")[2]
        if name == "id":
            if (new := names.of(value)) is not None:
                found["id"] = new
            if (mark := names.marks.get(value)) is not None:
                found |= {f"data-{key}": each for key, each in mark.data.items()}
        elif name == "href":
            found["href"] = f"#{names.of(value.removeprefix('#'))}"
        elif name == "style":
            found |= _declarations(value)
        elif name == "d":
            found["d"] = _path(value)
        elif name == "transform" and _UNTURNED.fullmatch(value):
            continue
        else:
            found[name] = _REFERENCE.sub(lambda match: f"url(#{names.of(match[1])})", _short(value))
    return found


def _declarations(style: str) -> dict[str, str]:
    pairs = (each.partition(":")[::2] for each in style.split(";") if each.strip())
    found = {name.strip(): value.strip().replace(INK, "currentColor") for name, value in pairs}
    found = {name: value for name, value in found.items() if name not in _PAGES and _DEFAULTS.get(name) != value}
    if found.get("stroke-dashoffset") == "0":
        del found["stroke-dashoffset"]
    return {name: value.removesuffix("px") if name == "font-size" else _short(value) for name, value in found.items()}


def _path(d: str) -> str:
    """Write lengths to a tenth of a point, and a command's letter once for successive commands of its kind."""
    parts, last = [], ""
    for letter, numbers in _COMMAND.findall(_short(d)):
        parts.append(" " if letter == last == "L" else letter)
        parts.append(" ".join(numbers.split()))
        last = letter
    return "".join(parts)


def _short(text: str) -> str:
    """Write numbers with one decimal; small ones, such as those of markers and opacities, with two or three."""
    return _NUMBER.sub(_rounded, text)


def _rounded(match: re.Match[str]) -> str:
    value = float(match[0])
    digits = 1 if abs(value) >= 10 else 2
    written = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written
