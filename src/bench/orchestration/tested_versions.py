"""Read the tested versions of the libraries and of Python from `tested_versions.json` beside this file.

The test matrix writes that file; nothing else does. It is a JSON object:

- ``written``: the date of writing, as ``YYYY-MM-DD``;
- ``legs``: a list with one object per environment of the matrix, in display order:
  - ``leg``: its name, such as ``oldest``, ``pinned`` or ``newest``;
  - ``python``: the interpreter's version, such as ``3.11.7``;
  - ``result``: ``passed``, or another word such as ``failed``; only legs that passed count as tested;
  - ``versions``: name of the distribution → installed version, a local part such as ``+cpu`` included.

A version newer than any tested one is named in one line when a command starts (`newer_line`); it is not refused,
because it may work. A missing or broken file counts as empty, and a broken object in it is left out.

Not covered: versions older than the tested ones; the ranges of `pyproject.toml` exclude them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from bench.host.machine import versions

FILE = Path(__file__).with_suffix(".json")
LIBRARIES = ("torch", "transformers", "hydra-core", "omegaconf", "mlflow")  # whose private names and behaviour matter
PYTHON = "python"  # its key beside the libraries
PASSED = "passed"
SHOWN = (*LIBRARIES, "optuna")  # columns of the table
MORE = "docs/versions.md"
UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Hold one environment of the test matrix."""

    name: str
    python: str
    result: str
    versions: dict[str, str] = field(default_factory=dict)  # distribution → version


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Hold the contents of the file."""

    written: str | None = None  # date as YYYY-MM-DD; None: not known
    legs: tuple[Leg, ...] = ()


def read(path: Path = FILE) -> Tested:
    """Read the tested versions; without legs if the file is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return Tested()
    if not isinstance(found, dict):
        return Tested()
    legs, written = found.get("legs"), found.get("written")
    return Tested(
        written=written if isinstance(written, str) else None,
        legs=tuple(_legs(legs)) if isinstance(legs, list) else (),
    )


def newest_tested(path: Path = FILE) -> dict[str, str]:
    """Return the newest version of each library in a passed leg, without a local part; under `PYTHON` as in "3.13".

    A library without a readable version is left out.
    """
    newest: dict[str, Version] = {}
    for leg in read(path).legs:
        tested = leg.versions | {PYTHON: leg.python} if leg.result == PASSED else {}
        for name, text in tested.items():
            if (version := _parsed(text)) is not None:
                newest[name] = max(version, newest.get(name, version))
    return {name: _minor(version) if name == PYTHON else str(version) for name, version in newest.items()}


def newer_line(path: Path = FILE) -> str | None:
    """Name the main libraries, and Python, that are newer here than in any passed leg; None if none is.

    Installed versions are read from package metadata: nothing is imported. A development or pre-release version counts
    as newer than the releases before it. Nothing is raised.
    """
    try:
        newer = list(_newer(newest_tested(path), versions()))
    except Exception:  # noqa: BLE001 - metadata may be damaged in any way, and a hint must not stop a measurement
        return None
    return f"bench: newer than any tested version: {', '.join(newer)}; see {MORE}" if newer else None


def table(path: Path = FILE) -> list[str]:
    """Return the lines of a Markdown table with one row per leg; [] without any."""
    legs = read(path).legs
    if not legs:
        return []
    cells = [(leg.name, leg.python, *(_shown(leg.versions.get(each)) for each in SHOWN), leg.result) for leg in legs]
    rows = [("leg", "Python", *SHOWN, "result"), ("---",) * (len(SHOWN) + 3), *cells]
    return [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in row)} |" for row in rows]


def _newer(tested: Mapping[str, str], installed: Mapping[str, str | None]) -> Iterator[str]:
    for name in (*LIBRARIES, PYTHON):
        newest, here = _parsed(tested.get(name)), _parsed(installed.get(name))
        if newest is None or here is None:
            continue
        if name == PYTHON:
            if here.release[:2] > newest.release[:2]:
                yield f"Python {_minor(here)} (tested up to {_minor(newest)})"
        elif here > newest:
            yield f"{name} {here} (tested up to {newest})"


def _legs(found: Iterable[Any]) -> Iterator[Leg]:
    """Return the complete legs; versions that are not strings are left out."""
    for each in found:
        match each:
            case {"leg": str(name), "python": str(python), "result": str(result), "versions": dict(held)}:
                known = {library: text for library, text in held.items() if isinstance(text, str)}
                yield Leg(name=name, python=python, result=result, versions=known)


def _parsed(text: str | None) -> Version | None:
    """Parse a version without its local part; None for other text. Python built from a checkout ends in a plus."""
    try:
        return None if text is None else Version(Version(text.removesuffix("+")).public)
    except InvalidVersion:
        return None


def _minor(version: Version) -> str:
    return f"{version.major}.{version.minor}"


def _shown(text: str | None) -> str:
    return str(_parsed(text) or text or UNKNOWN)
