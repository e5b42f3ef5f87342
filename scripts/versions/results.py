"""Read the files of a leg (counts of tests, installed versions); show and write the legs' results."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from packaging.version import Version

from bench.orchestration.tested_versions import FILE
from bench.orchestration.tested_versions import table as table_of_page
from versions.legs import ROOT, Leg, canonical

# The libraries whose versions matter to a user, in the order of the tables.
SHOWN = ("torch", "transformers", "hydra-core", "omegaconf", "mlflow", "optuna")
README, PAGE = ROOT / "README.md", ROOT / "docs/versions.md"
SENTENCE = re.compile(r"^Tested on .*?\(docs/versions\.md\)\.$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^\| leg \| Python \|.*?(?=\n\n)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Count the tests of a leg by outcome. An error outside of a test counts as failed."""

    passed: int
    failed: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """Describe the outcome of a leg."""

    leg: str
    result: str
    """``passed``, ``failed``, or ``skipped`` where this machine lacks the leg's Python."""
    reason: str = ""
    """Why it was skipped, or failed before its tests."""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    """Of all packages, by canonical name."""
    counts: Counts | None = None
    seconds: float = 0.0
    """From the start of the leg to its end, its install included."""


def read_counts(junit: Path) -> Counts | None:
    """Return the counts in pytest's XML file, None if it is missing or broken."""
    try:
        root = ET.parse(junit).getroot()  # noqa: S314  # written by our own pytest
    except (OSError, ET.ParseError):
        return None
    total = failed = skipped = 0
    for suite in root.iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return Counts(passed=total - failed - skipped, failed=failed, skipped=skipped)


def read_result(leg: Leg, *, session: str, reason: str, seconds: float) -> Result:
    """Build a leg's result from nox's report of the session and from the files that the session wrote.

    A session that succeeded without a passed test counts as failed, because it has shown nothing.
    """
    if session == "skipped":
        return Result(leg=leg.name, result="skipped", reason=reason, seconds=seconds)
    try:
        told = json.loads(leg.versions.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Result(leg=leg.name, result="failed", reason="could not be installed", seconds=seconds)
    python = told.pop("python")
    versions = {canonical(name): each for name, each in told.items()}
    counts = read_counts(leg.junit)
    passed = session == "success" and counts is not None and counts.passed > 0 and counts.failed == 0
    why = "" if counts is not None else "pytest left no result"
    return Result(
        leg=leg.name,
        result="passed" if passed else "failed",
        reason=why,
        python=python,
        versions=versions,
        counts=counts,
        seconds=seconds,
    )


def table(results: list[Result]) -> str:
    """Return the legs and their results as columns of text."""
    rows = [["leg", "result", "Python", *SHOWN, "passed", "failed", "skipped", "s"]]
    for each in results:
        counts = ["-"] * 3
        if each.counts is not None:
            counts = [str(number) for number in (each.counts.passed, each.counts.failed, each.counts.skipped)]
        versions = [each.versions.get(name, "-") for name in SHOWN]
        rows.append([each.leg, each.result, each.python or "-", *versions, *counts, f"{each.seconds:.0f}"])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines + [f"{each.leg}: {each.reason}" for each in results if each.reason])


def as_json(results: list[Result], date: str) -> str:
    """Return the file of tested versions: only the legs that ran; nothing is kept from a former file."""
    legs = [
        {
            "leg": each.leg,
            "python": each.python,
            "result": each.result,
            "versions": {name: each.versions[name] for name in SHOWN if name in each.versions},
        }
        for each in results
        if each.versions
    ]
    return json.dumps({"written": date, "legs": legs}, indent=2) + "\n"


def sentence(tested: dict[str, Any]) -> str:
    """Return README.md's sentence for a file of tested versions: the lowest and highest of each that passed."""
    passed = [leg for leg in tested["legs"] if leg["result"] == "passed"]
    parts = []
    for name in (*SHOWN, "Python"):
        found = [leg["python"] if name == "Python" else leg["versions"].get(name) for leg in passed]
        ordered = sorted({each for each in found if each}, key=Version)
        if ordered:
            parts.append(f"{name} {ordered[0]}" + (f" to {ordered[-1]}" if len(ordered) > 1 else ""))
    text = f"Tested on {tested['written']} with {', '.join(parts)}: [which with which](docs/versions.md)."
    return "\n".join(textwrap.wrap(text, 120, break_on_hyphens=False, break_long_words=False))


def write(found: list[Result], date: str) -> list[Path]:
    """Write the file of tested versions and the sentences about it in the pages; return the written files."""
    text = as_json(found, date)
    tested = json.loads(text)
    FILE.write_text(text, encoding="utf-8")
    for page, pattern, new in ((README, SENTENCE, sentence(tested)), (PAGE, TABLE, "\n".join(table_of_page(FILE)))):
        page.write_text(pattern.sub(lambda _, new=new: new, page.read_text(encoding="utf-8")), encoding="utf-8")
    return [FILE, README, PAGE]
