"""`sweep.json`, the plan of a sweep: its schema, and all that reads and writes it.

It is read in two ways. Whoever goes on with a sweep needs all of it (`SweepFile.read`). Whoever publishes, reports or
compares uses what is there (`read_sweep`, `read_plan`): values that are missing or of another type are left out,
because a record can be published and compared without any of them.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.renamed import rename_swept
from bench.host.atomic_files import write_whole
from bench.host.secrets import scrub
from bench.results.file_names import CONCLUSIONS, LOCK_NAME, SWEEP_NAME, file_name
from bench.results.json_dataclasses import load
from bench.results.record import Record

SCHEMA_VERSION = 2
HEAD_BYTES = 1000  # the beginning of the file, which holds the sweep's id
LONGEST_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process to come: a setting and which repeat of it."""

    number: int  # position in the order, from 0; Hydra's job number
    repeat: int  # from 1
    trial_id: str
    name: str  # the swept values, short
    swept: dict[str, str]
    folder: str  # below the sweep's folder
    arm: str | None = None
    done: bool = False  # when this plan was made: the folder has its record

    @property
    def setting_id(self) -> str:
        """The same as `Record.setting_id`."""
        return f"{self.trial_id}-{self.arm}" if self.arm else self.trial_id

    @property
    def key(self) -> tuple[str, int]:
        """Setting id and repeat, which identify a job within a sweep whatever its number, name and folder."""
        return self.setting_id, self.repeat


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """The whole file: what each job, a later resumption, and who publishes or compares afterwards must know."""

    schema_version: int = SCHEMA_VERSION
    sweep_id: str
    name: str  # of its run in MLflow
    parent_run_id: str | None = None  # in MLflow; None: not published
    started_at_s: float  # Unix time of the first start
    launched_at_s: float  # of the latest one
    settings: list[str]  # their names, as typed
    baseline: str | None = None
    swept: dict[str, list[str]] = field(default_factory=dict)  # override key → the values it takes, as typed
    tracking: dict[str, Any] = field(default_factory=dict)  # uri without credentials, experiment, tags
    jobs: list[Job]
    kept: list[str] = field(default_factory=list)  # folders of finished jobs that are none of these now
    trials: int | None = None  # of a search, how many jobs it may come to; None: all jobs are here

    def write(self, folder: Path) -> None:
        """Write the file into a sweep's folder; a resumed sweep replaces the one before."""
        write_whole(folder / SWEEP_NAME, scrub(json.dumps(dataclasses.asdict(self), indent=1)))

    @classmethod
    def read(cls, folder: Path) -> SweepFile:
        """Read the file from a sweep's folder. OSError when there is none, ValueError when it cannot be used."""
        path = folder / SWEEP_NAME
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair can be read, but not written
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            shown = ascii(version)[:LONGEST_SHOWN]
            raise ValueError(f"{path}: schema version {shown}; this version of bench reads {SCHEMA_VERSION}")
        try:
            found = load(cls, data, "sweep")
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
        for each in found.jobs:
            # The name of a folder must not lead out of the sweep's own.
            if each.folder != file_name(each.folder) or each.number < 0 or each.repeat < 1:
                job = f"number {each.number}, repeat {each.repeat}, folder {ascii(each.folder)[:LONGEST_SHOWN]}"
                raise ValueError(f"{path}: an impossible job: {job}")
        jobs = [dataclasses.replace(each, swept=rename_swept(each.swept)) for each in found.jobs]
        return dataclasses.replace(found, jobs=jobs, swept=rename_swept(found.swept))


# ---- what is usable of it ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SweepInfo:
    """A sweep as those who publish it need it, as far as it is known."""

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


@dataclass(frozen=True, kw_only=True)
class ReadablePlan:
    """A sweep as those who read its records need it, as far as it is known."""

    folders: list[str] | None = None  # of its jobs, below the sweep's; None where the jobs are not known
    settings: list[str] | None = None  # names, as typed
    baseline: str | None = None
    swept: dict[str, list[str]] = field(default_factory=dict)  # override key → values as typed; {} where not known
    is_search: bool = False


def sweep_of(record: Record) -> SweepInfo:
    """Return what a single record tells of its sweep."""
    sweep_id = record.sweep_id or ""
    return SweepInfo(sweep_id=sweep_id, name=sweep_id, started_at_s=record.started_at_s)


def read_sweep(folder: Path) -> SweepInfo | None:
    """Read the sweep of a folder for publishing; None where no file says which sweep it is."""
    data = _parsed(folder / SWEEP_NAME)
    if not isinstance(sweep_id := data.get("sweep_id"), str):
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


def read_plan(folder: Path) -> ReadablePlan:
    """Read the plan of a folder for reports and comparisons; nothing is known where there is no usable file."""
    data = _parsed(folder / SWEEP_NAME)
    settings, swept = data.get("settings"), data.get("swept")
    return ReadablePlan(
        folders=_folders(data.get("jobs")),
        settings=settings if are_texts(settings) else None,
        baseline=_text(data.get("baseline")),
        swept=rename_swept(swept) if isinstance(swept, dict) and all(map(are_texts, swept.values())) else {},
        is_search=isinstance(data.get("trials"), int),
    )


def is_sweep_file(path: Path) -> bool:
    """Whether a file is the plan of a sweep of bench; a file of the same name may be somebody else's."""
    data = _parsed(path)
    return isinstance(data.get("sweep_id"), str) and isinstance(data.get("jobs"), list)


def is_folder_of(sweep_id: str, folder: Path) -> bool:
    """Whether this is the folder of the sweep itself, and not one of the same name on another machine."""
    try:
        with (folder / SWEEP_NAME).open("rb") as file:
            return json.dumps(sweep_id).encode() in file.read(HEAD_BYTES)
    except OSError:
        return False


def _parsed(path: Path) -> Mapping[str, Any]:
    """Return the file's values; {} where it is missing or holds no JSON object."""
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _folders(jobs: object) -> list[str] | None:
    """Return the folders of the jobs; None unless each is a plain name, which leads to no other folder."""
    found = [_text(_mapping(each).get("folder")) or "" for each in jobs] if isinstance(jobs, list) else []
    plain = [re.fullmatch(r"[A-Za-z0-9=_][\w.=-]{0,99}", each, re.ASCII) for each in found]
    return found if found and all(plain) else None


def _swept(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the swept keys and their values; where the plan does not list them, from its jobs."""
    if isinstance(listed := data.get("swept"), dict):
        return rename_swept({str(key): _texts(values) for key, values in listed.items()})
    swept: dict[str, list[str]] = {}
    jobs = data.get("jobs")
    for job in jobs if isinstance(jobs, list) else []:
        for key, value in _mapping(_mapping(job).get("swept")).items():
            if str(value) not in swept.setdefault(str(key), []):
                swept[str(key)].append(str(value))
    return rename_swept(swept)


def are_texts(value: object) -> bool:
    """Whether a parsed value is a list of texts."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _made_at_s(folder: Path) -> float:
    try:
        return (folder / SWEEP_NAME).stat().st_mtime
    except OSError:
        return 0.0


# ---- other files in a sweep's folder -------------------------------------------------------------------------------


def conclusions(folder: Path) -> list[Path]:
    """Return those of `CONCLUSIONS` that lie in a sweep's folder."""
    return [path for pattern in CONCLUSIONS for path in sorted(folder.glob(pattern)) if path.is_file()]


def is_locked(folder: Path) -> bool | None:
    """Whether a process that runs the sweep holds its lock; None where there is no lock to look at."""
    try:
        with (folder / LOCK_NAME).open("rb") as file:
            # A shared lock, for a moment: two readers that look at once do not take each other for the sweep.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
