"""What a sweep's folder tells those who publish it: the plan in sweep.json, and whether the sweep is running.

The plan is read as plain JSON, and each value that is missing or of another type is done without: a record can be
published without any of it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results.record import Record

FILE_NAME = "sweep.json"
LOCK_NAME = ".lock"  # held by the process that runs the sweep
# What the end of a sweep leaves in its folder for people, as patterns.
CONCLUSIONS = (
    "comparison.json",
    "comparison.md",
    "report.html",
    "report.md",
    "search.json",
    "search.md",
    "figures/*.svg",
)


@dataclass(frozen=True, kw_only=True)
class SweepInfo:
    """A sweep, as far as it is known."""

    sweep_id: str
    name: str
    swept: dict[str, list[str]] = field(default_factory=dict)  # override key → the values it takes, as typed
    settings: list[str] = field(default_factory=list)  # names of all settings, as typed; [] where not known
    baseline: str | None = None  # which of them the others are compared with; None: the first
    started_at_s: float  # Unix time
    tags: dict[str, str] = field(default_factory=dict)  # the user's own
    jobs: int | None = None  # how many were planned
    uri: str | None = None  # the store's address without credentials; None where there was none to use
    experiment: str | None = None
    database: str | None = None  # the way from the folder to the store's file, if they move together
    tells_database: bool = False  # False: a file of an older version, which does not say whether they do


def sweep_of(record: Record) -> SweepInfo:
    """What a single record tells of its sweep."""
    sweep_id = record.sweep_id or ""
    return SweepInfo(sweep_id=sweep_id, name=sweep_id, started_at_s=record.started_at_s)


def read_sweep(folder: Path) -> SweepInfo | None:
    """The sweep of a folder; None where no file says which."""
    try:
        data = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not isinstance(sweep_id := data.get("sweep_id"), str):
        return None
    tracking = _mapping(data.get("tracking"))
    started_at_s = data.get("started_at_s")
    jobs = data.get("jobs")
    return SweepInfo(
        sweep_id=sweep_id,
        name=_text(data.get("name")) or sweep_id,
        swept=_swept(data),
        settings=_texts(data.get("settings")),
        baseline=_text(data.get("baseline")),
        started_at_s=started_at_s if isinstance(started_at_s, int | float) else _made_at_s(folder),
        tags={str(name): str(value) for name, value in _mapping(tracking.get("tags")).items()},
        jobs=len(jobs) if isinstance(jobs, list) else None,
        uri=_text(tracking.get("uri")),
        experiment=_text(tracking.get("experiment")),
        database=_text(tracking.get("database")),
        tells_database="database" in tracking,
    )


def conclusions(folder: Path) -> list[Path]:
    """Those of `CONCLUSIONS` that lie in a sweep's folder."""
    return [path for pattern in CONCLUSIONS for path in sorted(folder.glob(pattern)) if path.is_file()]


def is_locked(folder: Path) -> bool | None:
    """Whether a process that runs the sweep holds its lock; None where there is no lock to look at."""
    try:
        with (folder / LOCK_NAME).open("rb") as file:
            # A shared lock, for a moment: two who look at once do not take each other for the sweep.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _swept(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """The swept keys and their values; where the plan does not list them, from its jobs."""
    if isinstance(listed := data.get("swept"), dict):
        return {str(key): _texts(values) for key, values in listed.items()}
    swept: dict[str, list[str]] = {}
    jobs = data.get("jobs")
    for job in jobs if isinstance(jobs, list) else []:
        for key, value in _mapping(_mapping(job).get("swept")).items():
            if str(value) not in swept.setdefault(str(key), []):
                swept[str(key)].append(str(value))
    return swept


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _made_at_s(folder: Path) -> float:
    try:
        return (folder / FILE_NAME).stat().st_mtime
    except OSError:
        return 0.0
