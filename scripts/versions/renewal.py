"""Rewrite the files of versions from what pip installs today."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from versions.legs import ENVIRONMENTS, EXTRA, NEWEST, OLDEST, PINNED, ROOT, lower_bounds, merged_pins, pins
from versions.legs import LEGS as _LEGS

# A release of torch requires its own versions of these, and a build for the CPU requires none of them.
TORCHS_OWN = re.compile(r"nvidia-(?!ml-py$).*|cuda-.*|triton")
NOT_LISTED = {"pip", "bench"}
DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Define a file of versions that can be renewed."""

    file: str
    extra: str


TARGETS = {
    "oldest": Target(file=OLDEST, extra=EXTRA),
    "pinned": Target(file=PINNED, extra="test"),
    "newest": Target(file=NEWEST, extra=EXTRA),
}


def constraints_of(target: str) -> dict[str, str]:
    """Return the fixed versions of an install for a file: ``oldest`` keeps the lower bounds, ``pinned`` its torch."""
    if target == "oldest":
        return lower_bounds()
    if target == "pinned":
        return {"torch": merged_pins(_LEGS["pinned"])["torch"]}
    return {}


def freeze_of(target: str) -> Path:
    """Return the file in which an install for this target leaves pip's list."""
    return ENVIRONMENTS / f"renew-{target}.freeze.txt"


def pins_of_freeze(listed: str) -> dict[str, str]:
    """Return the versions in a list of ``pip freeze``, with the names as written there."""
    lines = (line.strip().partition("==") for line in listed.splitlines())
    return portable({name: version for name, equals, version in lines if equals})


def portable(versions: dict[str, str]) -> dict[str, str]:
    """Return installed versions without pip, bench, and packages specific to one build of torch."""
    kept = {name: each for name, each in versions.items() if name not in NOT_LISTED and not TORCHS_OWN.fullmatch(name)}
    return kept | ({"torch": kept["torch"].partition("+")[0]} if "torch" in kept else {})


def renewed(text: str, found: dict[str, str], date: str) -> str:
    """Return a file of versions with its header kept, the date in it replaced, and these versions below."""
    lines = text.splitlines()
    head = lines[: next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    body = [f"{name}=={version}" for name, version in sorted(found.items(), key=lambda item: item[0].lower())]
    return "\n".join([*(DATE.sub(date, line) for line in head), *body]) + "\n"


def write(target: str, date: str) -> list[str]:
    """Rewrite the file from the list that the install wrote; return the changes, one line per package."""
    file = ROOT / TARGETS[target].file
    text = file.read_text(encoding="utf-8")
    found = pins_of_freeze(freeze_of(target).read_text(encoding="utf-8"))
    new = renewed(text, found, date)
    file.write_text(new, encoding="utf-8")
    return differences(pins(text), pins(new))


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a line for each package with different versions, or in only one of the two."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            lines.append(f"{name} {old or '(not there)'} -> {new or '(not there)'}")
    return lines
