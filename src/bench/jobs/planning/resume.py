"""Resume a sweep: what its folder holds already, and which jobs of the plan are still to be run.

A job is done when the folder has a record of its setting and repeat that is `ok` or `skipped`, was made in this
environment, and has all outputs that are asked for now (`bench.jobs.planning.outputs`). Names, order, numbers and
folders may have changed. The folder of a job that is run again is first moved to `earlier/`: each setting and repeat
has one record in the sweep, and no record is lost.

Of two starts on one folder at the same time the second is refused, by a lock that the kernel releases when its process
ends, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.jobs.folders.sweep_folder import check_nothing_is_overwritten, is_record, own_folders
from bench.jobs.planning.fingerprint import changes, software
from bench.jobs.planning.outputs import Outputs
from bench.jobs.planning.plan import Plan
from bench.results.file_names import EARLIER, LOCK_NAME, RECORD_NAME, REFERENCES, RESERVE_NAME, SWEEP_NAME
from bench.results.record import Record, RecordError
from bench.results.sweep_file import Job, SweepFile, is_sweep_file

LOCK_TIMEOUT_S = 0.5  # `bench sync` holds it for a moment, to find out whether the sweep runs
FINISHED = ("ok", "skipped")

Key = tuple[str, int]  # setting id and repeat, which identify a job of a sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Past:
    """The parts of an existing record that decide whether its job runs again."""

    folder: str
    setting_id: str
    repeat: int
    status: str
    reason: str | None
    sweep_id: str | None
    fingerprint: dict[str, str]
    outputs: Outputs = dataclasses.field(default_factory=Outputs)

    @property
    def key(self) -> Key:
        """The same as `Job.key`."""
        return self.setting_id, self.repeat

    @classmethod
    def of(cls, record: Record, folder: str) -> Past:
        """Return the summary of a record; thousands of these are in memory at once."""
        return cls(
            folder=folder,
            setting_id=record.setting_id,
            repeat=record.repeat,
            status=record.status,
            reason=record.error.message if record.error else None,
            sweep_id=record.sweep_id,
            fingerprint=record.fingerprint,
            outputs=Outputs.of(record),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The contents of a sweep's folder."""

    file: SweepFile | None = None  # None: no sweep, or one that was stopped before its first job
    past: list[Past] = dataclasses.field(default_factory=list)
    without_record: list[str] = dataclasses.field(default_factory=list)  # folders of jobs without a usable one
    others: list[str] = dataclasses.field(default_factory=list)  # not known to be bench's: it stays in place
    broken: list[str] = dataclasses.field(default_factory=list)  # one line for each file that cannot be used

    @property
    def sweep_id(self) -> str | None:
        """The id that the plan, or else the first record of a sweep, gives; None where neither is there."""
        if self.file is not None:
            return self.file.sweep_id
        return next((past.sweep_id for past in self.past if past.sweep_id), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resumption:
    """A plan, and which of its jobs are still to be run."""

    plan: Plan  # its jobs say which are done, and name the folders of their records
    again: dict[int, Past]  # job number → the record that does not count
    kept: list[str]  # folders of finished jobs that are not in the plan
    changed: list[str]  # differences in the environment, for which jobs run again
    put_aside: list[str]  # folders to move before anything runs
    lacking: dict[int, str] = dataclasses.field(default_factory=dict)  # job number → what its finished record lacks


# ---- claiming a folder ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a sweep's folder, so that no other start uses it. Raises ConfigError when one does."""
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        remedy = f"a sweep is running in {folder}; wait for it, or choose another name"
        raise ConfigError("sweep.name", folder.name, remedy) from error
    except FileNotFoundError as error:  # another start has made it, was refused, and has removed it
        raise ConfigError("sweep.name", folder.name, f"{folder} is gone; start again") from error
    except (NotImplementedError, OSError):  # a file system without locks: two starts are not kept apart
        yield
        return
    try:
        yield
    finally:
        lock.release()


def check_is_free(folder: Path) -> None:
    """Refuse a folder that holds a sweep which has begun. Raises ConfigError."""
    if any(is_record(each) for each in folder.glob(f"*/{RECORD_NAME}")) or is_sweep_file(folder / SWEEP_NAME):
        remedy = f"{folder} holds a sweep already; choose another name, or go on with it: sweep.resume=true"
        raise ConfigError("sweep.name", folder.name, remedy)
    check_nothing_is_overwritten(folder)


def check_is_resumable(folder: Path) -> None:
    """Refuse to go on in a folder where a sweep would begin and overwrite files. Raises ConfigError.

    The files of a sweep that has begun may be overwritten by it.
    """
    if not is_sweep_file(folder / SWEEP_NAME) and not any(is_record(each) for each in folder.glob(f"*/{RECORD_NAME}")):
        check_nothing_is_overwritten(folder)


# ---- reading -------------------------------------------------------------------------------------------------------


def look(folder: Path, *, is_local: bool = True) -> Found:
    """Read the contents of a sweep's folder, which may be missing.

    Where the jobs run on other machines, the hardware is left out of the fingerprints of their records.
    """
    file: SweepFile | None = None
    past, without, others, broken = list[Past](), list[str](), list[str](), list[str]()
    try:
        file = SweepFile.read(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        broken.append(str(error))
    named = own_folders(file)
    for each in sorted(folder.iterdir()) if folder.is_dir() else []:
        if each.name in (EARLIER, REFERENCES):
            continue
        if not each.is_dir():
            others.append(each.name)
            continue
        try:
            record = Record.read(each)
            if not is_local:
                record.fingerprint = software(record.fingerprint)
            past.append(Past.of(record, each.name))
        except RecordError as error:
            is_own = is_record(each / RECORD_NAME) or (each.name in named and not each.is_symlink())
            if is_own and (each / RECORD_NAME).exists():
                broken.append(str(error))
            (without if is_own else others).append(each.name)
    return Found(file=file, past=past, without_record=without, others=others, broken=broken)


def resume(plan: Plan, found: Found, now: Mapping[str, str]) -> Resumption:
    """Find which jobs of the plan are done, and where their records are.

    Args:
        plan: all jobs, as if none were done.
        found: the contents of the folder.
        now: the fingerprint of this environment.
    """
    asked = {job.key: point.config for job, point in zip(plan.jobs, plan.points, strict=True)}
    done, undone, missing, superseded = _judged(found.past, asked, now)
    # The record of a single run does not belong to the sweep: its folder is not moved.
    staying = {past.folder for past in found.past if past.sweep_id is None}
    taken = {past.folder for past in done.values()} | set(found.others) | staying
    jobs = []
    for job in plan.jobs:
        if job.key in done:
            jobs.append(dataclasses.replace(job, folder=done[job.key].folder, done=True))
        else:
            jobs.append(dataclasses.replace(job, folder=_free_name(job, taken)))
            taken.add(jobs[-1].folder)
    repeated = {key: past for key, past in undone.items() if key in asked}
    put_aside = [*superseded, *(past.folder for past in repeated.values())]
    changed = [text for past in repeated.values() if past.status in FINISHED for text in changes(past.fingerprint, now)]
    to_run = [job for job in jobs if not job.done]
    return Resumption(
        plan=dataclasses.replace(plan, jobs=jobs),
        again={job.number: repeated[job.key] for job in to_run if job.key in repeated},
        kept=[past.folder for key, past in done.items() if key not in asked],
        changed=list(dict.fromkeys(changed)),
        put_aside=[*(each for each in put_aside if each not in staying), *found.without_record],
        lacking={job.number: missing[job.key] for job in to_run if job.key in missing},
    )


def _judged(
    pasts: Iterable[Past], asked: Mapping[Key, BenchmarkConfig], now: Mapping[str, str]
) -> tuple[dict[Key, Past], dict[Key, Past], dict[Key, str], list[str]]:
    """Judge which records count.

    Returns:
        The records that count; those that do not, where none of the same job counts; the outputs that finished ones of
        these lack; and the folders of further records of the same jobs.
    """
    done: dict[Key, Past] = {}
    undone: dict[Key, Past] = {}
    missing: dict[Key, str] = {}
    superseded = []
    for past in pasts:
        is_finished = past.status in FINISHED and not changes(past.fingerprint, now)
        config = asked.get(past.key)
        lacks = past.outputs.missing(config, past.status) if is_finished and config is not None else None
        group = done if is_finished and lacks is None else undone
        if past.key in group:
            superseded.append(past.folder)
            continue
        group[past.key] = past
        if lacks is not None:
            missing[past.key] = lacks
    superseded += [undone.pop(key).folder for key in done if key in undone]
    return done, undone, missing, superseded


def _free_name(job: Job, taken: set[str]) -> str:
    name, number = job.folder, 2
    while name in taken:
        name, number = f"{job.folder}-{number}", number + 1
    return name


# ---- putting aside -------------------------------------------------------------------------------------------------


def put_aside(folder: Path, names: list[str]) -> None:
    """Move folders of jobs to `earlier/`, where they are kept but not counted. ConfigError where that is a file."""
    if names and os.path.lexists(folder / EARLIER) and not (folder / EARLIER).is_dir():
        remedy = f"{folder / EARLIER} is no folder, and former attempts are kept there; move it"
        raise ConfigError("sweep.name", folder.name, remedy)
    for name in names:
        target, number = folder / EARLIER / name, 2
        target.parent.mkdir(parents=True, exist_ok=True)  # the folder of a reference run is two levels down
        while os.path.lexists(target):
            target, number = folder / EARLIER / f"{name}.{number}", number + 1
        (folder / name).rename(target)
        (target / RESERVE_NAME).unlink(missing_ok=True)  # of a job whose parent was killed


def unusable_references(folder: Path, now: Mapping[str, str], *, is_local: bool = True) -> list[str]:
    """Return reference runs that failed or ran in another environment, as paths below the sweep's folder."""
    names = []
    for each in sorted((folder / REFERENCES).glob("*/")):
        try:
            record = Record.read(each)
        except RecordError:
            if is_record(each / RECORD_NAME):
                names.append(os.fspath(each.relative_to(folder)))
            continue  # a folder without a record is used again
        before = record.fingerprint if is_local else software(record.fingerprint)
        if record.status != "ok" or changes(before, now):
            names.append(os.fspath(each.relative_to(folder)))
    return names
