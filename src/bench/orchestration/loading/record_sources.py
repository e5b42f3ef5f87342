"""Read records from a sweep's folder, from one job's record, or from a sweep in MLflow.

Reading changes nothing. An unusable record is named and left out; a source without any is an error. Values of a sweep's
plan (names as typed, the baseline) are used if they are valid, and are otherwise unknown.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.renamed import rename_overrides
from bench.host.command_line import CommandError
from bench.results.file_names import HYDRA_NAME, OVERRIDES_NAME, RECORD_NAME, SWEEP_NAME
from bench.results.record import Record, RecordError, config_folder
from bench.results.sweep_file import ReadablePlan, are_texts, read_plan

PLACES = ("hydra.mode=", "hydra.run.", "hydra.sweep.", "hydra.job.env_set.")  # of outputs; differs in each run
MLFLOW_PREFIX = "mlflow:"
SOURCES_SHOWN = 3
LONGEST_PATH = 200  # maximum characters of a source in a message


class SourceError(CommandError):
    """A source has no usable records; the text is one line that names it and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Hold the records of one SOURCE, and the declarations of its sweep."""

    label: str
    records: list[Record]
    baseline: str | None = None  # None if the sweep declares none
    typed: list[str] | None = None  # names of the settings as typed; None if not known
    swept: dict[str, list[str]] = field(default_factory=dict)  # override key → its values; {} if not known
    folder: Path | None = None  # folder of the records; None for MLflow's
    jobs: int | None = None  # planned by the sweep; None if not known
    overrides: list[str] | None = None  # of one of its jobs; None if not known
    for_hydra: list[str] = field(default_factory=list)  # flags and overrides for the sweep as a whole
    notes: list[str] = field(default_factory=list)  # one line per missing or omitted record


def read_source(text: str, tracking_uri: str | None) -> Source:
    """Read the records of one SOURCE.

    Args:
        text: a path, which has priority, or a sweep's id in MLflow, also as `mlflow:ID`.
        tracking_uri: MLflow's address; None: mlflow.db in the current folder.

    Raises:
        SourceError: there are none to use.
    """
    path = Path(text)
    if not text.startswith(MLFLOW_PREFIX) and _exists(path):
        return _read_path(text, path)
    if not text.startswith(MLFLOW_PREFIX) and (os.sep in text or path.suffix == ".json"):
        raise SourceError(f"{text}: no such file or folder; name a sweep's folder, such as multirun/NAME, or its id")
    return _read_mlflow(text, tracking_uri)


def read_sources(text: str, tracking_uri: str | None) -> list[Source]:
    """Read the records of one SOURCE, or of all sweeps in a folder of sweeps (multirun).

    Raises:
        SourceError: there are none to use.
    """
    path = Path(text)
    if text.startswith(MLFLOW_PREFIX) or not _exists(path) or not path.is_dir() or _holds_records(path):
        return [read_source(text, tracking_uri)]
    found, unread = [], []
    for each in _sweeps_in(path):
        try:
            found.append(_read_path(str(each), each))
        except SourceError as error:  # a sweep that has just begun, or one of an older version
            unread.append(f"left out: {error}")
    if not found:
        return [read_source(text, tracking_uri)]  # raises an error that says what is wrong
    found.sort(key=lambda each: each.label)
    return [dataclasses.replace(found[0], notes=[*found[0].notes, *unread]), *found[1:]]


def _exists(path: Path) -> bool:
    """Tell whether a path exists. Raises SourceError if unknown: the name is too long, or a folder not accessible."""
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise SourceError(f"{str(path)[:LONGEST_PATH]}: cannot be read: {reason}") from error


# ---- MLflow --------------------------------------------------------------------------------------------------------


def _read_mlflow(text: str, tracking_uri: str | None) -> Source:
    from bench.tracking.fetch import fetch_sweep  # noqa: PLC0415
    from bench.tracking.store.errors import TrackingError  # noqa: PLC0415

    sweep_id = text.removeprefix(MLFLOW_PREFIX)
    if not sweep_id:
        raise SourceError(f"{text}: name a sweep behind it, as in {MLFLOW_PREFIX}ID")
    try:
        found = fetch_sweep(tracking_uri, sweep_id, Path.cwd())
    except TrackingError as error:
        absent = "" if text.startswith(MLFLOW_PREFIX) else "no such file or folder, and "
        raise SourceError(f"{text}: {absent}{error}") from error
    return Source(
        label=text,
        records=found.records,
        baseline=found.baseline if found.baseline is not None else _declared(found.records),
        typed=found.settings,
        notes=[f"left out: {each}" for each in found.left_out],
    )


# ---- folders -------------------------------------------------------------------------------------------------------


def _read_path(label: str, path: Path) -> Source:
    plan = read_plan(path)
    files = _record_files(path, plan)
    present = [each for each in files if each.exists()]
    if not present:
        raise SourceError(f"{label}: {_no_records(path, len(files))}")
    records, notes = [], []
    for each in present:
        try:
            records.append(Record.read(each))
        except RecordError as error:
            notes.append(f"left out: {error}")
    if not records:
        reason = notes[0].removeprefix("left out: ")
        raise SourceError(f"{label}: not one of {len(present)} records can be read; the first: {reason}; measure anew")
    if missing := len(files) - len(present):
        notes.append(f"{missing} of {len(files)} jobs left no record")
    return Source(
        label=label,
        records=records,
        baseline=plan.baseline if plan.baseline is not None else _declared(records),
        typed=plan.settings,
        swept=plan.swept,
        folder=path if path.is_dir() else path.parent,
        jobs=len(files) if plan.folders is not None else None,
        # A search writes its space in readable form, which is not an override.
        overrides=_overrides(present[0]) if not plan.is_search else None,
        for_hydra=_for_hydra(present[0]),
        notes=notes,
    )


def _record_files(path: Path, plan: ReadablePlan) -> list[Path]:
    """Return the paths at which the records of this folder or file are expected."""
    if path.is_file() or (path / RECORD_NAME).is_file():
        return [path]
    if plan.folders is not None:
        return [path / each / RECORD_NAME for each in plan.folders]
    return sorted(path.glob(f"*/{RECORD_NAME}"))


def _holds_records(path: Path) -> bool:
    return any(each.exists() for each in _record_files(path, read_plan(path)))


def _overrides(record: Path) -> list[str] | None:
    """Return the overrides of a job, from the YAML list that Hydra wrote."""
    found = _yaml(record, OVERRIDES_NAME)
    return rename_overrides(found) if are_texts(found) else None


def _for_hydra(record: Path) -> list[str]:
    """Return the typed flags for the config folder and the typed overrides of Hydra itself: hydra/launcher=ray."""
    found = _yaml(record, HYDRA_NAME)
    hydra = found.get("hydra") if isinstance(found, dict) else None
    overrides = _inside(hydra, "overrides", "hydra")
    typed = [each for each in overrides if not each.lstrip("+").startswith(PLACES)] if are_texts(overrides) else []
    sources = _inside(hydra, "runtime", "config_sources")
    given = [each for each in sources if _inside(each, "provider") == "command-line"] if type(sources) is list else []
    folders = [path for each in given if isinstance(path := _inside(each, "path"), str)]
    return [*(word for path in folders[:1] for word in ("--config-dir", path)), *typed]


def _inside(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _yaml(record: Path, name: str) -> Any:
    """Return a file that Hydra wrote beside a record, with all values as strings; None if it is not readable."""
    import yaml  # noqa: PLC0415 - only reports of folders need it

    folder = record if record.is_dir() else record.parent
    try:
        text = (config_folder(folder) / name).read_text(encoding="utf-8")
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - strings only
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _sweeps_in(path: Path) -> Iterator[Path]:
    """Yield the folders of sweeps in this folder, the newest first."""
    found = sorted(path.glob(f"*/{SWEEP_NAME}"), key=lambda each: each.stat().st_mtime, reverse=True)
    return (each.parent for each in found)


def _no_records(path: Path, expected: int) -> str:
    if expected:
        return f"none of its {expected} jobs left a record yet"
    sweeps = list(_sweeps_in(path))
    if sweeps:
        names = ", ".join(map(str, sweeps[:SOURCES_SHOWN]))
        return f"holds no records itself; name a sweep in it, such as {names}"
    return f"holds no {RECORD_NAME}, nor does a folder in it; name a sweep's folder, such as multirun/NAME"


def _declared(records: Sequence[Record]) -> str | None:
    """Return the baseline in the records of a sweep; None if they name none."""
    sweeps = (each.requested.get("sweep") for each in records)
    named = (sweep.get("baseline") for sweep in sweeps if isinstance(sweep, dict))
    return next((each for each in named if isinstance(each, str)), None)
