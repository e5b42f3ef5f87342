"""Publish records later, for `bench sync`: decide where to, skip published ones, and end their sweeps' runs.

`bench.cli.sync` finds the records and prints the lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.mlflow_names import accepted_tags, problem_of_tag
from bench.host.secrets import without_credentials
from bench.results.file_names import MARK_NAME
from bench.results.record import Record, RecordError
from bench.results.sweep_file import SweepInfo, conclusions, is_locked, read_sweep, sweep_of
from bench.tracking.folder_lock import folder_lock
from bench.tracking.pages.view import NoViewError, extras_of, save_view
from bench.tracking.publish_mark import Mark, read_mark, record_key, sweep_key, write_mark
from bench.tracking.runs.experiment_note import describe_experiment
from bench.tracking.runs.standing import log_result, rank_trials, ranking_of
from bench.tracking.runs.sweep_run import (
    UNVERIFIED_COUNT,
    end_sweep,
    ensure_sweep,
    gather_sweep,
    is_current,
    is_owned_by_the_living,
)
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.destination import (
    DEFAULT_URI,
    URI_KEY,
    URI_VARIABLE,
    AddressError,
    Destination,
    decide,
    with_known_credentials,
)
from bench.tracking.store.errors import SERVERS, TrackingError, UnreachableError
from bench.tracking.store.opening import absolute_uri, open_store
from bench.tracking.store.reachable import check_answers
from bench.tracking.store.relocated import GoneError, address_now, start_of, way_to
from bench.tracking.store.store import Store

LOCK_S = 60.0  # for another process that publishes the same folder


@dataclass(frozen=True, kw_only=True)
class Target:
    """Name the store and experiment to publish to."""

    uri: str  # absolute; may hold credentials
    experiment: str | None  # None: known by its id alone
    experiment_id: str | None = None


class CatchUp:
    """Publish groups of jobs, and count the results.

    Args:
        uri: the tracking address for all; None: the address stored with each record.
        experiment: likewise.
        check_all: also check in MLflow what is marked as published.
        say: called with one line for each problem.

    Raises:
        TrackingError: the address is invalid.
    """

    def __init__(self, *, uri: str | None, experiment: str | None, check_all: bool, say: Callable[[str], None]) -> None:
        self._uri = None if uri is None else absolute_uri(uri, Path.cwd())
        self._experiment = experiment
        self._check_all = check_all
        self._say = say
        self._said: set[str] = set()  # what concerns many records, and is said once
        self._stores: dict[Target, Store | TrackingError] = {}  # an error: cannot be used, and that has been said
        self.published = self.already = self.failed = 0
        self._renamed: set[str] = set()  # tags that have another name in MLflow, and of which that has been said
        self._problems = 0  # with the runs of sweeps, all of whose records may be there

    @property
    def is_all_there(self) -> bool:
        """Return whether nothing is left to do."""
        return self.failed == 0 and self._problems == 0

    def publish(self, sweep_folder: Path | None, jobs: Sequence[Path]) -> None:
        """Publish the records in these job folders, and end the run of the sweep that they belong to."""
        sweep = read_sweep(sweep_folder) if sweep_folder is not None else None
        if sweep_folder is not None and sweep is None:
            self._say(f"{sweep_folder}: its sweep.json cannot be read; its records are published by what they say")
        new = 0
        used: Target | None = None
        for job in jobs:
            record = self._read(job)
            if record is None or record.kind != "trial":
                continue
            try:
                target = self._target(job, record, sweep)
            except TrackingError as error:
                self._complain(error, job)
                self.failed += 1
                continue
            except GoneError as error:
                self._say_once(str(error))
                self.failed += 1
                continue
            done = self._publish_job(job, record, sweep, target)
            new += done == "published"
            used = target if done != "failed" else used
        if sweep_folder is not None and sweep is not None and used is not None:
            self._end_sweep(sweep_folder, sweep, used, is_changed=new > 0)

    def _read(self, job: Path) -> Record | None:
        try:
            return Record.read(job)
        except RecordError as error:
            self._say(str(error))
            self.failed += 1
            return None

    # ---- where to ----------------------------------------------------------------------------------------------

    def _target(self, job: Path, record: Record, sweep: SweepInfo | None) -> Target:
        """Return the options' target, else that of the mark, else the sweep's, else the requested one.

        Raises:
            TrackingError: the requested target is invalid.
            GoneError: the database is missing, and only the user can name another one.
        """
        asked = record.requested.get("tracking")
        asked = asked if isinstance(asked, dict) else {}
        mark = read_mark(job)
        names = (
            self._experiment,
            mark.experiment if mark else None,
            sweep.experiment if sweep else None,
            asked.get("experiment"),
        )
        chosen = self._chosen(asked)
        experiment = next((each for each in names if isinstance(each, str)), chosen.experiment)
        experiment_id = chosen.experiment_id if experiment is None else None
        if self._uri is not None:
            return Target(uri=self._uri, experiment=experiment, experiment_id=experiment_id)
        if mark is not None and mark.uri is not None:
            uri = self._now(mark.uri, job, mark.database, is_recorded=mark.database is not None)
            return Target(uri=uri, experiment=experiment, experiment_id=experiment_id)
        if sweep is not None and sweep.uri is not None:
            uri = self._now(sweep.uri, job.parent, sweep.database, is_recorded=sweep.tells_database)
            return Target(uri=uri, experiment=experiment, experiment_id=experiment_id)
        if asked.get("enabled") is False:
            raise TrackingError("it was run with tracking.enabled=false: say where to with --tracking-uri")
        return Target(uri=self._asked_uri(job, chosen), experiment=experiment, experiment_id=experiment_id)

    @staticmethod
    def _chosen(asked: Mapping[str, Any]) -> Destination:
        """Return the requested target, else that of MLflow's variables, else the default."""
        texts = {name: value for name in ("uri", "experiment") if isinstance(value := asked.get(name), str)}
        try:
            return decide(uri=texts.get("uri"), experiment=texts.get("experiment"))
        except AddressError as error:
            raise TrackingError(f"{error}, or say where to with --tracking-uri") from error

    def _now(self, uri: str, folder: Path, relative: str | None, *, is_recorded: bool) -> str:
        """Return the address that a file names, after a move, with credentials from the user."""
        lies = address_now(uri, folder, relative, is_recorded=is_recorded)
        if lies.note is not None:
            self._say_once(lies.note)
        return with_known_credentials(lies.uri, os.environ.get(URI_VARIABLE))

    def _asked_uri(self, job: Path, chosen: Destination) -> str:
        uri, name = chosen.uri or DEFAULT_URI, chosen.uri_from or URI_KEY
        start = start_of(job)
        if start is not None:
            uri = absolute_uri(uri, start, name)
            return address_now(uri, job, None, is_recorded=False).uri
        if not uri.startswith((*SERVERS, "sqlite:////")):
            raise TrackingError("it lies below no multirun or outputs folder: say where to with --tracking-uri")
        return address_now(uri, job, None, is_recorded=True).uri

    def _store(self, target: Target) -> Store:
        """Return the open store. UnreachableError if it cannot be used, which is reported once."""
        if target not in self._stores:
            try:
                opened = open_store(target.uri, target.experiment, Path.cwd(), experiment_id=target.experiment_id)
                self._stores[target] = opened
                for line in opened.notes:
                    self._say(line)
            except TrackingError as error:
                self._give_up(target, error)
        store = self._stores[target]
        if isinstance(store, TrackingError):
            raise UnreachableError(str(store))
        return store

    def _give_up(self, target: Target, error: TrackingError) -> None:
        if not isinstance(self._stores.get(target), TrackingError):
            self._complain(error)
        self._stores[target] = error

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _complain(self, error: TrackingError, where: Path | None = None) -> None:
        text = str(error).removesuffix(", or set tracking.enabled=false")
        text = text.replace("tracking.uri", "--tracking-uri").replace("tracking.experiment", "--experiment")
        self._say(text if where is None else f"{where}: {text}")

    # ---- jobs --------------------------------------------------------------------------------------------------

    def _publish_job(self, job: Path, record: Record, sweep: SweepInfo | None, target: Target) -> str:
        """Publish one record unless it is published; count and return the outcome."""
        key = record_key(record)
        if not self._check_all and self._is_marked(job, key, target):
            self.already += 1
            return "already"
        done = self._publish_unmarked(job, record, sweep, target)
        self.published += done == "published"
        self.already += done == "already"
        self.failed += done == "failed"
        return done

    def _publish_unmarked(self, job: Path, record: Record, sweep: SweepInfo | None, target: Target) -> str:
        key = record_key(record)
        try:
            store = self._store(target)
            with folder_lock(job, LOCK_S):
                if not self._check_all and self._is_marked(job, key, target):  # by now
                    return "already"
                check_answers(store.uri)
                return self._publish_to(store, job, record, sweep)
        except UnreachableError as error:
            self._give_up(target, error)  # for all further records
            self._mark_failure(job, key, target, error)
        except TrackingError as error:
            self._complain(error, job)
            self._mark_failure(job, key, target, error)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # invalid figures
            self._say(f"{job}: its record cannot be published: {type(error).__name__}: {error}")
        return "failed"

    def _publish_to(self, store: Store, job: Path, record: Record, sweep: SweepInfo | None) -> str:
        """Publish one record. The caller holds the folder's lock."""
        key = record_key(record)
        run = next((each for each in store.find_runs(record_key=key) if is_current(each)), None)
        if run is not None:
            run_id, done = str(run.info.run_id), "already"
        else:
            parent = self._parent(store, job, record, sweep)
            tags = self._accepted(sweep.tags if sweep is not None and sweep.tags else _tags_asked(record))
            own = _own(sweep, record)
            run_id, done = publish(store, record, job, parent_run_id=parent, tags=tags, sweep=own), "published"
        write_mark(job, _published_mark(store, job, run_id, key))
        return done

    def _accepted(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the user's tags under allowed names; report each changed name once."""
        accepted = accepted_tags(tags)
        for stored, (value, name) in accepted.items():
            if name is not None and name not in self._renamed:
                self._renamed.add(name)
                self._say(f"the tag {name!r} is stored as {stored!r}: {problem_of_tag(name, value, tags)}")
        return {stored: value for stored, (value, _) in accepted.items()}

    @staticmethod
    def _is_marked(folder: Path, key: str, target: Target) -> bool:
        mark, address = read_mark(folder), without_credentials(target.uri)
        known = target.experiment is not None
        return known and mark is not None and mark.says(key=key, uri=address, experiment=str(target.experiment))

    @staticmethod
    def _mark_failure(job: Path, key: str, target: Target, error: TrackingError) -> None:
        """Write the reason, unless the mark says that the record is published elsewhere."""
        mark = read_mark(job)
        if mark is None or mark.record_key != key or not mark.published:
            address = without_credentials(target.uri)
            own = {"uri": address, "experiment": target.experiment, "database": way_to(address, job)}
            write_mark(job, Mark(published=False, record_key=key, error=str(error), **own))

    # ---- sweeps ------------------------------------------------------------------------------------------------

    def _parent(self, store: Store, job: Path, record: Record, sweep: SweepInfo | None) -> str | None:
        if record.sweep_id is None:
            return None
        own = _own(sweep, record)
        with folder_lock(job.parent, LOCK_S):
            run = ensure_sweep(store, own or sweep_of(record), tags=self._accepted(own.tags if own is not None else {}))
        return str(run.info.run_id)

    def _end_sweep(self, folder: Path, sweep: SweepInfo, target: Target, *, is_changed: bool) -> None:
        """End the sweep's run from the files on disk, if it lacks any result."""
        records = _trials_of(folder, sweep.sweep_id)
        key = sweep_key(sweep.sweep_id, records)
        is_done = self._is_marked(folder, key, target) and not is_changed and not _has_new_conclusions(folder)
        if not records or is_locked(folder) or (is_done and not self._check_all):
            return
        try:
            store = self._store(target)
            run_id = self._end_run(store, folder, sweep, records)
        except TrackingError as error:
            if not isinstance(error, UnreachableError):
                self._complain(error, folder)
            self._problems += 1
            return
        if run_id is not None:
            write_mark(folder, _published_mark(store, folder, run_id, key))

    def _end_run(self, store: Store, folder: Path, sweep: SweepInfo, records: Sequence[Record]) -> str | None:
        """End the run and return its id; None if the sweep is still running."""
        with folder_lock(folder, LOCK_S):
            run = ensure_sweep(store, sweep, tags=self._accepted(sweep.tags))
            # A folder without a lock is one of a sweep of which nothing else is known but its run's owner.
            if is_locked(folder) is None and run.info.status == "RUNNING" and is_owned_by_the_living(run):
                return None
            statuses = [each.status for each in records]
            is_cut = "interrupted" in statuses or (sweep.jobs is not None and len(records) < sweep.jobs)
            ended_at_s = max(each.ended_at_s or each.started_at_s for each in records)
            run_id = gather_sweep(store, sweep.sweep_id) or str(run.info.run_id)
            unverified = sum(bool(each.unverified) for each in records)
            end_sweep(
                store,
                run_id,
                statuses=statuses,
                ended_at_s=ended_at_s,
                interrupted=is_cut,
                unverified=unverified if unverified or UNVERIFIED_COUNT in run.data.tags else None,
            )
            ranking = ranking_of(records)
            rank_trials(store, sweep.sweep_id, ranking)
            log_result(store, run_id, records, ranking)
            view = None
            try:
                extras = extras_of(records, ranked=True)
                view = save_view(store, sweep_id=sweep.sweep_id, swept_keys=sweep.swept, extras=extras)
            except NoViewError as error:
                self._say_once(str(error))
            describe_experiment(store, sweep, view)
            for file in conclusions(folder):
                below = file.relative_to(folder).parent.as_posix()
                store.upload(run_id, file, None if below == "." else below)
        return run_id


def _published_mark(store: Store, folder: Path, run_id: str, key: str) -> Mark:
    own = {"uri": store.address, "experiment": store.experiment, "database": way_to(store.address, folder)}
    return Mark(published=True, run_id=run_id, record_key=key, **own)


def _own(sweep: SweepInfo | None, record: Record) -> SweepInfo | None:
    """Return the sweep of the record's folder if the record belongs to it."""
    return sweep if sweep is not None and sweep.sweep_id == record.sweep_id else None


def _has_new_conclusions(folder: Path) -> bool:
    """Check whether the sweep's folder has newer conclusions than its run."""
    try:
        marked_at_s = (folder / MARK_NAME).stat().st_mtime
        return any(path.stat().st_mtime >= marked_at_s for path in conclusions(folder))
    except OSError:  # a file that is just being replaced
        return True


def _trials_of(folder: Path, sweep_id: str) -> list[Record]:
    """Return all readable records of a sweep's folder, published or not."""
    records = []
    for path in sorted(folder.glob("*/record.json")):
        try:
            record = Record.read(path)
        except RecordError:
            continue
        if record.kind == "trial" and record.sweep_id == sweep_id:
            records.append(record)
    return records


def _tags_asked(record: Record) -> dict[str, str]:
    asked = record.requested.get("tracking")
    tags = asked.get("tags") if isinstance(asked, dict) else None
    return {str(name): str(value) for name, value in tags.items()} if isinstance(tags, dict) else {}
