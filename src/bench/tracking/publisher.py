"""Publish within time limits: whatever MLflow does, measurements are kept and the user gets one line.

All calls of MLflow run in a thread, for which a job waits at most `JOB_S`. A record that could not be published is on
disk and marked (`bench.tracking.publish_mark`); it is tried again at the end of the sweep, and by `bench sync`.

Not covered: work that the thread continues after its time limit runs beside the next measurement.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.config.mlflow_names import accepted_tags
from bench.host.command_line import to_type
from bench.host.secrets import without_credentials
from bench.results.record import Record, RecordError
from bench.results.sweep_file import SweepInfo, read_sweep, sweep_of
from bench.tracking.bounded import BoundedThread, NotInTimeError
from bench.tracking.folder_lock import LockedError, folder_lock
from bench.tracking.pages.links import Fastest, experiment_address, find_fastest, sweep_links, ui_command
from bench.tracking.pages.view import Extras, extras_of, save_view, saved_key
from bench.tracking.publish_mark import Mark, read_mark, record_key, sweep_key, write_mark
from bench.tracking.restore import Restored, Slot, Wanted, find, put_back
from bench.tracking.runs.artifact_check import check_artifacts
from bench.tracking.runs.experiment_note import describe_experiment
from bench.tracking.runs.standing import log_result, rank_trials, ranking_of
from bench.tracking.runs.sweep_run import (
    answer_sweep,
    begin_sweep,
    end_abandoned,
    end_sweep,
    ensure_sweep,
    gather_sweep,
    is_described,
    upload_plan,
)
from bench.tracking.runs.tables import upload_table
from bench.tracking.runs.trial_run import publish, size_of
from bench.tracking.store.destination import DEFAULT_URI
from bench.tracking.store.errors import OtherSchemaError, TrackingError, UnreachableError
from bench.tracking.store.opening import PreparedStore, absolute_uri, open_store, prepare_store
from bench.tracking.store.reachable import ANSWER_S, check_answers
from bench.tracking.store.relocated import GoneError, address_now, relative_database
from bench.tracking.store.request_time import seconds_for
from bench.tracking.store.store import Store

# How long the main thread waits.
OPEN_S = 20.0  # a new database takes 3 to 7 s, and longer when several sweeps start at once
AHEAD_S = 180.0  # during the check of the settings, which may take two minutes; then `open` waits for it
JOB_S = 5.0
SWEEP_S = 10.0  # for work once per sweep
RANK_S = 7.0  # of that, until the last trial has its rank
CATCH_UP_S = 60.0
RESTORE_S = 120.0  # hundreds of records
LOOK_S = 0.2  # how often a job checks whether another one has created the sweep's run

_Result = TypeVar("_Result")


class Publisher:
    """Publish to one store; each call tries to open it until that succeeds, returns in time, and raises nothing.

    Create one per process, not one per job, so that the next job knows of a server that hangs.

    Args:
        uri: the tracking address; None: mlflow.db in `folder`.
        experiment: the experiment's name; None: only its id is known.
        tags: the user's own tags, for every run.
        folder: the folder that the command was started in.
        warn: called with one line for each failure to publish.
        experiment_id: the experiment's id, if its name is unknown.
        artifact_location: for a new experiment; None: the default.
        origin: text on the sources of address and experiment; "": none.
        ahead: start preparing in the background, without writing anything; `open` continues from there.
    """

    def __init__(
        self,
        *,
        uri: str | None,
        experiment: str | None,
        tags: dict[str, str],
        folder: Path,
        warn: Callable[[str], None],
        experiment_id: str | None = None,
        artifact_location: str | None = None,
        origin: str = "",
        ahead: bool = False,
    ) -> None:
        self._uri = uri
        self.experiment = experiment  # None: not known until the store is open
        self.experiment_id = experiment_id
        self.artifact_location = artifact_location
        self._origin = origin
        self._tags = {name: value for name, (value, _) in accepted_tags(tags).items()}
        self._folder = folder.absolute()
        self._warn_user = warn
        self._warned: str | None = None  # the last line
        self._other_schema: str | None = None  # the reported reason why a database of another version cannot be used
        self._thread = BoundedThread()
        self._store: Store | None = None
        self._sweeps: dict[str, SweepInfo] = {}  # begun by this process
        self._folders: dict[str, Path] = {}  # sweep id → its folder
        self._parents: dict[str, str] = {}  # sweep id → its run
        self._views: dict[str, str] = {}  # sweep id → key of its saved view
        self._extras: dict[str, Extras] = {}  # sweep id → additional columns of its view
        self._fastest: dict[str, Fastest] = {}  # sweep id → its fastest trials when it ended
        # After a late call both threads write marks; the lock guards these two attributes and the marks.
        self._lock = threading.Lock()
        self._published: set[str] = set()  # record keys
        self._missing: dict[Path, None] = {}  # folders of jobs, in order
        self._prepared: PreparedStore | None = None
        if ahead:
            self._thread.begin(self._prepare, within_s=AHEAD_S)
        else:
            self.open()

    def open(self) -> None:
        """Open the store, or report why that failed; later calls try again."""
        self._tell("not published", lambda _: None, OPEN_S)

    def try_artifacts(self) -> None:
        """Check that a job's files can be published, or report why not; for a run without a sweep."""
        if self._store is not None:
            self._tell("the files of the run will not be published", check_artifacts, JOB_S)

    def _prepare(self) -> None:
        with contextlib.suppress(TrackingError):  # opening the store reports it
            self._prepared = prepare_store(self._uri, self._folder)

    @property
    def address(self) -> str | None:
        """Return the store's absolute address without credentials; None for an invalid one."""
        with contextlib.suppress(TrackingError):
            return without_credentials(absolute_uri(self._uri if self._uri is not None else DEFAULT_URI, self._folder))
        return None

    @property
    def unpublished(self) -> str | None:
        """Return the line that says how to publish missing records; None without any."""
        with self._lock:
            folders = list(self._missing)
        if not folders:
            return None
        many = f"{len(folders)} records are" if len(folders) > 1 else "1 record is"
        sweeps = {each.parent if read_sweep(each.parent) is not None else each: None for each in folders}
        where = " ".join(shlex.quote(str(each)) for each in sweeps)
        return f"{many} not published; later: {shlex.join(to_type('sync'))} {where}"

    def begin_sweep(
        self, *, sweep_id: str, name: str, swept: dict[str, list[str]], settings: list[str], baseline: str | None
    ) -> str | None:
        """Create the parent run of a sweep and its view in the UI; return the run's id, None after a failure.

        A resumed sweep reopens its run.
        """
        sweep = SweepInfo(
            sweep_id=sweep_id, name=name, swept=swept, settings=settings, baseline=baseline, started_at_s=time.time()
        )
        self._sweeps[sweep_id] = sweep
        self._extras[sweep_id] = replace(self._extras.get(sweep_id, Extras()), ranked=False)  # until it ends again

        def begin(store: Store) -> tuple[str, TrackingError | None]:
            self._parents[sweep_id] = begin_sweep(store, sweep, tags=self._tags)
            # At the start, so that it is there while the sweep runs and after a killed one.
            view_error = self._save_view(store, sweep)
            with contextlib.suppress(TrackingError):  # the end of the sweep writes it again
                describe_experiment(store, sweep, self._views.get(sweep_id))
            return self._parents[sweep_id], view_error

        try:
            run_id, view_error = self._do(begin, SWEEP_S)
        except TrackingError as error:
            self._complain("not published", error)
            return None
        # Upload a file before the first job, to detect a store that accepts none.
        self._tell(
            "the files of the jobs will not be published", lambda store: upload_plan(store, run_id, sweep), SWEEP_S
        )
        if view_error is not None:
            self._warn(f"the sweep's pages show MLflow's own columns: {view_error}")
        return run_id

    def publish(self, record: Record, folder: Path, parent_run_id: str | None = None) -> bool:
        """Publish a job's record and files, mark its folder, and return whether it is published.

        Without a parent run, the run of the record's sweep is used; it is created if missing.
        """
        error = self._attempt(record, folder, parent_run_id, JOB_S)
        if error is not None:
            self._complain(f"{record.name or 'the run'} is not published (its record is in {folder})", error)
        return error is None

    def publish_missing(self, folders: Sequence[Path], parent_run_id: str | None) -> int:
        """Publish the unpublished records in these job folders; return the number that remain.

        Stops after `CATCH_UP_S`, and at once if the store cannot be used. Large files get more time than during the
        sweep, because no job waits.
        """
        deadline_s = time.monotonic() + CATCH_UP_S
        missing = self._unpublished_in(folders)
        if missing:
            self._thread.wait_until_free(SWEEP_S)
        for number, (record, folder) in enumerate(missing):
            left_s = deadline_s - time.monotonic()
            within_s = JOB_S + seconds_for(size_of(folder))
            error = (
                self._attempt(record, folder, parent_run_id, min(within_s, left_s))
                if left_s > 0
                else UnreachableError(f"{CATCH_UP_S:g} s were not enough")
            )
            if error is None:
                continue
            self._complain(f"{record.name or 'the run'} is not published (its record is in {folder})", error)
            if isinstance(error, UnreachableError):
                with self._lock:
                    self._missing |= {each: None for _, each in missing[number:]}
                break
        return len(self._unpublished_in(folders))

    def end_sweep(self, run_id: str | None, records: Sequence[Record], *, interrupted: bool) -> bool:
        """End the parent run with the sweep's result, rank its trials, and return whether all of that is done.

        A run that was created after the sweep's start is found by the records. Waits at most `SWEEP_S` for an earlier
        call that is still running.
        """
        sweep_id = next((each.sweep_id for each in records if each.sweep_id is not None), None)
        ending: dict[str, Any] = {
            "statuses": [each.status for each in records],
            "interrupted": interrupted,
            "unverified": sum(bool(each.unverified) for each in records) or None,
        }

        is_ranked: list[bool] = []

        def end(store: Store) -> None:
            ended_at_s, until_s = time.time(), time.monotonic() + RANK_S
            if run_id is not None:  # first, because over a slow connection the rest may exceed the limit
                end_sweep(store, run_id, ended_at_s=ended_at_s, **ending)
            found = gather_sweep(store, sweep_id) if sweep_id is not None else None
            if found is not None and found != run_id:
                end_sweep(store, found, ended_at_s=ended_at_s, **ending)
            found = found or run_id
            if sweep_id is not None and found is not None:
                is_ranked.append(self._conclude_ranking(store, sweep_id, found, records, until_s))
            if found is not None and all(is_ranked):  # else `bench sync` continues from here
                self._mark_sweep(sweep_id, records, found)

        self._thread.wait_until_free(SWEEP_S)
        is_ended = self._tell("the sweep's run is not ended", end, SWEEP_S)
        if is_ended and not all(is_ranked):
            self._warn(f"not all trials have their rank in MLflow: {RANK_S:g} s were not enough")
        return is_ended and all(is_ranked)

    def restore(
        self,
        folder: Path,
        *,
        name: str | None,
        sweep_id: str | None,
        have: Collection[Slot],
        places: Mapping[Slot, str],
    ) -> Restored:
        """Bring records of a sweep back from MLflow into its folder; see `bench.tracking.restore`.

        May be called again for records published since. If MLflow does not answer, or the folder cannot be written,
        one of the returned lines says so.
        """
        wanted = Wanted(name=name, sweep_id=sweep_id, have=have)
        until_s = time.monotonic() + RESTORE_S
        try:
            # Write here and not in the thread: a late read must write nothing while the jobs run.
            store, lying = self._do(lambda store: (store, find(store, wanted, until_s=until_s)), RESTORE_S + SWEEP_S)
            return put_back(store, lying, folder, places=places)
        except TrackingError as error:
            return Restored(lines=[f"nothing comes back from MLflow, what lies in {folder} counts: {error}"])
        except OSError as error:
            return Restored(lines=[f"{folder}: records cannot be brought back: {error.strerror or error}"])

    def conclude(
        self,
        run_id: str | None,
        *,
        files: Sequence[Path] = (),
        base: Path | None = None,
        tables: Mapping[str, Mapping[str, Sequence[object]]] | None = None,
        answer: str | None = None,
    ) -> bool:
        """Upload the sweep's results to its run, in place of earlier ones, and return whether that is done.

        Args:
            run_id: the parent run's; None: that of the only sweep that was published here.
            files: those below `base` keep their relative path; all others go to the top.
            base: the sweep's folder.
            tables: artifact path that ends in .json → column → values; the UI shows them as tables.
            answer: Markdown for the description, above the list of swept keys.
        """

        def add(store: Store) -> None:
            parents = list(self._parents.values())
            found = run_id or (parents[0] if len(parents) == 1 else None)
            if found is None:
                return
            if answer is not None:  # first, in case time runs out
                answer_sweep(store, found, answer)
            for name, columns in (tables or {}).items():
                upload_table(store, found, name, columns)
            for file in files:
                is_below = base is not None and file.is_relative_to(base)
                folder = file.relative_to(base).parent.as_posix() if base is not None and is_below else "."
                store.upload(found, file, None if folder == "." else folder)

        if files or tables or answer is not None:
            self._thread.wait_until_free(SWEEP_S)  # an earlier late call must not cost the answer
            return self._tell("the sweep's results are not published", add, SWEEP_S)
        return True

    def ways_on(self, sweep_id: str | None) -> list[str]:
        """Return lines with the command that starts the UI and the pages to open.

        Makes no request: `end_sweep` has looked up the fastest trials.
        """
        if self._store is None:
            return []
        start = f" MLflow: {ui_command(self._store)}{f'  # {self._origin}' if self._origin else ''}"
        if sweep_id is None:
            return [start, f"   then: {experiment_address(self._store)}"]
        view, fastest = self._views.get(sweep_id), self._fastest.get(sweep_id)
        is_ranked = self._extras.get(sweep_id, Extras()).ranked
        return [start, *sweep_links(self._store, sweep_id=sweep_id, view=view, fastest=fastest, is_ranked=is_ranked)]

    # ---- in the main thread ------------------------------------------------------------------------------------

    def _do(self, work: Callable[[Store], _Result], within_s: float) -> _Result:
        """Run a function with the store, in the thread. TrackingError, or a subclass, if it failed or was late."""
        try:
            return self._thread.call(lambda: work(self._ready()), within_s=within_s)
        except TrackingError:
            raise
        except NotInTimeError as error:
            verb = "is" if error.is_busy else "gave"
            raise UnreachableError(f"MLflow at {self.address} {verb} {error}") from error
        except Exception as error:
            raise TrackingError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error

    def _tell(self, what: str, work: Callable[[Store], None], within_s: float) -> bool:
        """Run a function with the store; after a failure print a line that begins with `what`, and return False."""
        try:
            self._do(work, within_s)
        except TrackingError as error:
            self._complain(what, error)
            return False
        return True

    def _complain(self, what: str, error: TrackingError) -> None:
        """Report what failed and why; a database of another version is reported once."""
        if isinstance(error, OtherSchemaError):
            if str(error) == self._other_schema:
                return
            self._other_schema = str(error)
        self._warn(f"{what}: {error}")

    def _warn(self, line: str) -> None:
        """Pass one line to the user, unless it repeats the last one."""
        if line != self._warned:
            self._warned = line
            self._warn_user(line)

    def _attempt(
        self, record: Record, folder: Path, parent_run_id: str | None, within_s: float
    ) -> TrackingError | None:
        """Try to publish one record; return the failure, None after success."""
        self._place(record, folder)
        key = record_key(record)
        mark = self._mark(folder, key)

        def work(store: Store) -> None:
            with folder_lock(folder, ANSWER_S):
                parent = parent_run_id or self._parent(store, record, folder)
                known = self._sweep_of(record, folder)
                run_id = publish(store, record, folder, parent_run_id=parent, tags=self._tags, sweep=known)
                if record.sweep_id is not None:
                    self._show(store, known, extras_of([record]))
                with self._lock:  # here and not in the main thread, which may no longer wait
                    self._published.add(key)
                    self._missing.pop(folder, None)
                    write_mark(folder, replace(mark, published=True, run_id=run_id))

        try:
            self._do(work, within_s)
            with contextlib.suppress(OSError):  # only the time of publishing would be missing
                record.write(folder)
        except TrackingError as error:
            with self._lock:
                if key in self._published:  # just after the limit
                    return None
                self._missing[folder] = None
                write_mark(folder, replace(mark, error=str(error)))
                return error
        return None

    def _place(self, record: Record, folder: Path) -> None:
        """Remember the sweep's folder."""
        if record.sweep_id is not None and record.sweep_id not in self._folders:
            written = read_sweep(folder.parent)
            if written is not None and written.sweep_id == record.sweep_id:
                self._folders[record.sweep_id] = folder.parent

    def _unpublished_in(self, folders: Sequence[Path]) -> list[tuple[Record, Path]]:
        found = []
        for folder in folders:
            with contextlib.suppress(RecordError):
                record = Record.read(folder)
                self._place(record, folder)
                if record.kind == "trial" and not self._is_published(record, folder):
                    found.append((record, folder))
        return found

    def _is_published(self, record: Record, folder: Path) -> bool:
        key = record_key(record)
        mark = read_mark(folder)
        said = mark is not None and self._says(mark, folder, key)
        with self._lock:
            return said or key in self._published

    # ---- in the thread -----------------------------------------------------------------------------------------

    def _sweep_of(self, record: Record, folder: Path) -> SweepInfo | None:
        """Return the record's sweep as begun here, or from its file, which also lists settings that a search added."""
        begun = self._sweeps.get(record.sweep_id or "")
        if record.sweep_id is None or (begun is not None and record.name in begun.settings):
            return begun
        written = read_sweep(folder.parent)
        return written if written is not None and written.sweep_id == record.sweep_id else begun

    def _sweep_known(self, sweep_id: str) -> SweepInfo | None:
        """Return a sweep as begun here, else from the file in its folder."""
        folder = self._folders.get(sweep_id)
        return self._sweeps.get(sweep_id) or (read_sweep(folder) if folder is not None else None)

    def _conclude_ranking(
        self, store: Store, sweep_id: str, run_id: str, records: Sequence[Record], until_s: float
    ) -> bool:
        """Rank the trials of an ended sweep; return whether there was time for all."""
        ranking = ranking_of(records)
        is_done = rank_trials(store, sweep_id, ranking, until_s=until_s)
        if is_done:
            log_result(store, run_id, records, ranking)
        sweep = self._sweep_known(sweep_id)
        self._show(store, sweep, extras_of(records, ranked=is_done))
        with contextlib.suppress(TrackingError):  # only those lines are missing then
            describe_experiment(store, sweep, self._views.get(sweep_id))
            # Look it up now: later, a server that hangs would be waited for again.
            if is_done:
                ok = sum(each.status == "ok" for each in records)
                self._fastest[sweep_id] = find_fastest(store, sweep_id, ok)
        return is_done

    def _show(self, store: Store, sweep: SweepInfo | None, extras: Extras) -> None:
        """Add these columns to the view of a sweep."""
        if sweep is None:  # its other columns are unknown; each run has the tag or metric nevertheless
            return
        before = self._extras.get(sweep.sweep_id, Extras())
        if before | extras != before:
            self._extras[sweep.sweep_id] = before | extras
            self._save_view(store, sweep)

    def _ready(self) -> Store:
        """Return the store; open it first, or check that it still answers."""
        if self._store is not None:
            check_answers(self._store.uri)
            return self._store
        prepared, self._prepared = self._prepared, None  # used once: a later attempt starts again
        store = open_store(
            self._uri,
            self.experiment,
            self._folder,
            prepared,
            experiment_id=self.experiment_id,
            artifact_location=self.artifact_location,
        )
        self.experiment = store.experiment
        for line in store.notes:
            self._warn(line)
        with contextlib.suppress(TrackingError):  # the next start does it
            end_abandoned(store)
        self._store = store
        return store

    def _parent(self, store: Store, record: Record, folder: Path) -> str | None:
        """Return the run of the record's sweep; create it if the server was down when the sweep began."""
        sweep_id = record.sweep_id
        if sweep_id is None:
            return None
        if sweep_id not in self._parents:
            written = read_sweep(self._folders[sweep_id]) if sweep_id in self._folders else None
            sweep = self._sweeps.get(sweep_id) or written or sweep_of(record)
            run = self._find_or_make(store, sweep, folder.parent if written is not None else None)
            self._parents[sweep_id] = str(run.info.run_id)
            if (key := saved_key(sweep_id)) is not None:
                self._views.setdefault(sweep_id, key)
        return self._parents[sweep_id]

    def _find_or_make(self, store: Store, sweep: SweepInfo, folder: Path | None) -> Any:
        """Return a sweep's run. An existing one needs no lock, so jobs that end at the same time do not wait."""
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            run = next(iter(store.find_runs(sweep_id=sweep.sweep_id, kind="sweep")), None)
            if run is not None and is_described(run):
                return run
            try:
                with folder_lock(folder, LOOK_S) if folder is not None else contextlib.nullcontext():
                    run = ensure_sweep(store, sweep, tags=self._tags)
                    self._save_view(store, sweep)
                    return run
            except LockedError:
                if time.monotonic() > deadline_s:
                    raise

    def _save_view(self, store: Store, sweep: SweepInfo) -> TrackingError | None:
        try:
            self._views[sweep.sweep_id] = save_view(
                store,
                sweep_id=sweep.sweep_id,
                swept_keys=sweep.swept,
                extras=self._extras.get(sweep.sweep_id, Extras()),
            )
        except TrackingError as error:
            return error
        return None

    def _mark_sweep(self, sweep_id: str | None, records: Sequence[Record], run_id: str) -> None:
        if sweep_id in self._folders:
            key = sweep_key(str(sweep_id), records)
            folder = self._folders[str(sweep_id)]
            write_mark(folder, replace(self._mark(folder, key), published=True, run_id=run_id))

    def _mark(self, folder: Path, key: str) -> Mark:
        """Return the mark of a record that is not published yet."""
        relative = relative_database(self.address, folder, self._folder)
        return Mark(published=False, uri=self.address, experiment=self.experiment, database=relative, record_key=key)

    def _says(self, mark: Mark, folder: Path, key: str) -> bool:
        """Check whether a mark says that the record is published here, even if the database was moved since."""
        if mark.uri is not None and mark.database is not None:
            with contextlib.suppress(GoneError):
                mark = replace(mark, uri=address_now(mark.uri, folder, mark.database, is_recorded=True).uri)
        return self.experiment is not None and mark.says(key=key, uri=self.address, experiment=self.experiment)
