"""Publishing that is never in the way: whatever MLflow does, the measurement stands and the user gets one line.

All that talks to MLflow runs in a thread, for which a job waits `JOB_S` at most. What could not be published is on disk
and marked so (`bench.tracking.publish_mark`); it is tried again when the sweep ends, and by `python -m
bench.tracking.sync`.

Not covered: what the thread still does after its time was up runs beside the next measurement.
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
AHEAD_S = 180.0  # beside the examination of the settings, which may take two minutes; then `open` waits for it
JOB_S = 5.0
SWEEP_S = 10.0  # for what happens once a sweep
RANK_S = 7.0  # of that, until the last trial has its rank
CATCH_UP_S = 60.0
RESTORE_S = 120.0  # hundreds of records
LOOK_S = 0.2  # how often a job looks whether another one has made the sweep's run

_Result = TypeVar("_Result")


class Publisher:
    """One store, tried anew by each call while it cannot be opened. Every call returns in time, and raises nothing.

    Make one for a process, not one for a job: only then is a server that hangs known to the next job.

    Args:
        uri: the tracking address; None: mlflow.db in `folder`.
        experiment: the experiment's name; None: only its id is known.
        tags: the user's own tags, for every run.
        folder: the folder that the command was started in.
        warn: takes one line for each thing that could not be published.
        experiment_id: the experiment's id, where no name is known.
        artifact_location: of an experiment that has to be made; None: the default.
        origin: what to say of where address and experiment come from; "": nothing.
        ahead: begin with what leaves nothing behind, and wait for none of it; `open` goes on from there.
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
        self._other_schema: str | None = None  # why a database of another version cannot be used, once that is said
        self._thread = BoundedThread()
        self._store: Store | None = None
        self._sweeps: dict[str, SweepInfo] = {}  # those begun here
        self._folders: dict[str, Path] = {}  # sweep id → its folder
        self._parents: dict[str, str] = {}  # sweep id → its run
        self._views: dict[str, str] = {}  # sweep id → key of its saved view
        self._extras: dict[str, Extras] = {}  # sweep id → the columns that its view has beside those of every sweep
        self._fastest: dict[str, Fastest] = {}  # sweep id → its fastest trials when it ended
        # Both sides of a call that was not in time write marks; the lock is for these two, and for the marks.
        self._lock = threading.Lock()
        self._published: set[str] = set()  # record keys
        self._missing: dict[Path, None] = {}  # folders of jobs, in order
        self._prepared: PreparedStore | None = None
        if ahead:
            self._thread.begin(self._prepare, within_s=AHEAD_S)
        else:
            self.open()

    def open(self) -> None:
        """Open the store, or say why not; what is published later tries again."""
        self._tell("not published", lambda _: None, OPEN_S)

    def try_artifacts(self) -> None:
        """See whether a job's files can be published, or say why not; for a run that has no sweep."""
        if self._store is not None:
            self._tell("the files of the run will not be published", check_artifacts, JOB_S)

    def _prepare(self) -> None:
        with contextlib.suppress(TrackingError):  # who opens the store will tell
            self._prepared = prepare_store(self._uri, self._folder)

    @property
    def address(self) -> str | None:
        """The store's absolute address without credentials; None for one that cannot be used."""
        with contextlib.suppress(TrackingError):
            return without_credentials(absolute_uri(self._uri if self._uri is not None else DEFAULT_URI, self._folder))
        return None

    @property
    def unpublished(self) -> str | None:
        """The line that tells how to publish what is missing; None when nothing is."""
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
        """Make the parent run of a sweep and its view in the UI; returns the run's id, None when that failed.

        A sweep that is resumed has its run again, which goes on.
        """
        sweep = SweepInfo(
            sweep_id=sweep_id, name=name, swept=swept, settings=settings, baseline=baseline, started_at_s=time.time()
        )
        self._sweeps[sweep_id] = sweep
        self._extras[sweep_id] = replace(self._extras.get(sweep_id, Extras()), ranked=False)  # until it ends again

        def begin(store: Store) -> tuple[str, TrackingError | None]:
            self._parents[sweep_id] = begin_sweep(store, sweep, tags=self._tags)
            # Now and not at the end, so that it serves while the sweep runs and after one that was killed.
            view_error = self._save_view(store, sweep)
            with contextlib.suppress(TrackingError):  # the end of the sweep writes it again
                describe_experiment(store, sweep, self._views.get(sweep_id))
            return self._parents[sweep_id], view_error

        try:
            run_id, view_error = self._do(begin, SWEEP_S)
        except TrackingError as error:
            self._complain("not published", error)
            return None
        # A file of its own, before any job has one: a store that takes no files is found out now.
        self._tell(
            "the files of the jobs will not be published", lambda store: upload_plan(store, run_id, sweep), SWEEP_S
        )
        if view_error is not None:
            self._warn(f"the sweep's pages show MLflow's own columns: {view_error}")
        return run_id

    def publish(self, record: Record, folder: Path, parent_run_id: str | None = None) -> bool:
        """Publish a job's record and files, and mark its folder; returns whether it is published.

        Without a parent run, that of the record's sweep is looked for, and made where the sweep has none.
        """
        error = self._attempt(record, folder, parent_run_id, JOB_S)
        if error is not None:
            self._complain(f"{record.name or 'the run'} is not published (its record is in {folder})", error)
        return error is None

    def publish_missing(self, folders: Sequence[Path], parent_run_id: str | None) -> int:
        """Publish the records in these job folders that are not yet; returns how many remain.

        Gives up after `CATCH_UP_S`, and at once when there is nobody to publish to. A record whose files are large has
        more time than in the midst of a sweep, for no job waits.
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

        One that had to be made later than the sweep's start is found by the records.
        What the store is still busy with is waited for, as long as ending the run itself may take.
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
            if run_id is not None:  # first: over a slow line, the rest may take longer than there is time for
                end_sweep(store, run_id, ended_at_s=ended_at_s, **ending)
            found = gather_sweep(store, sweep_id) if sweep_id is not None else None
            if found is not None and found != run_id:
                end_sweep(store, found, ended_at_s=ended_at_s, **ending)
            found = found or run_id
            if sweep_id is not None and found is not None:
                is_ranked.append(self._conclude_ranking(store, sweep_id, found, records, until_s))
            if found is not None and all(is_ranked):  # else `bench sync` goes on from here
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

        May be called again, for what has come to MLflow since. That MLflow does not answer, or that the folder cannot
        be written, is one of the lines to say.
        """
        wanted = Wanted(name=name, sweep_id=sweep_id, have=have)
        until_s = time.monotonic() + RESTORE_S
        try:
            # Written only here: nobody waits for a reading that is late, and the jobs run by then.
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
        """Add to the parent run what its sweep came to, and return whether it is all there.

        What the run had of the same names is replaced.

        Args:
            run_id: the parent run's; None: that of the only sweep that was published here.
            files: those below `base` keep their path from there, all others lie at the top.
            base: the sweep's folder.
            tables: artifact path that ends in .json → column → values; the UI shows them as tables.
            answer: Markdown, which stands above the list of what was swept in the description.
        """

        def add(store: Store) -> None:
            parents = list(self._parents.values())
            found = run_id or (parents[0] if len(parents) == 1 else None)
            if found is None:
                return
            if answer is not None:  # first: the most telling, should the time be up
                answer_sweep(store, found, answer)
            for name, columns in (tables or {}).items():
                upload_table(store, found, name, columns)
            for file in files:
                is_below = base is not None and file.is_relative_to(base)
                folder = file.relative_to(base).parent.as_posix() if base is not None and is_below else "."
                store.upload(found, file, None if folder == "." else folder)

        if files or tables or answer is not None:
            self._thread.wait_until_free(SWEEP_S)  # what was late before must not cost the answer
            return self._tell("the sweep's results are not published", add, SWEEP_S)
        return True

    def ways_on(self, sweep_id: str | None) -> list[str]:
        """Lines that lead to the results: how to start the UI, and which pages to open.

        It asks nobody: what there is to compare was looked up by `end_sweep`.
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
        """Do something with the store, in the thread. TrackingError, of whatever kind, when it did not come through."""
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
        """Do something with the store, and return whether it is done; failing costs a line that begins with `what`."""
        try:
            self._do(work, within_s)
        except TrackingError as error:
            self._complain(what, error)
            return False
        return True

    def _complain(self, what: str, error: TrackingError) -> None:
        """Say what failed and why; that the database is of another version is said once, for nothing changes it."""
        if isinstance(error, OtherSchemaError):
            if str(error) == self._other_schema:
                return
            self._other_schema = str(error)
        self._warn(f"{what}: {error}")

    def _warn(self, line: str) -> None:
        """Hand one line on, unless it is the last one again."""
        if line != self._warned:
            self._warned = line
            self._warn_user(line)

    def _attempt(
        self, record: Record, folder: Path, parent_run_id: str | None, within_s: float
    ) -> TrackingError | None:
        """Try to publish one record; returns why it is not, None when it is."""
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
                with self._lock:  # here and not by the main thread, which may have gone on
                    self._published.add(key)
                    self._missing.pop(folder, None)
                    write_mark(folder, replace(mark, published=True, run_id=run_id))

        try:
            self._do(work, within_s)
            with contextlib.suppress(OSError):  # it is there, but for what publishing took
                record.write(folder)
        except TrackingError as error:
            with self._lock:
                if key in self._published:  # in the very last moment
                    return None
                self._missing[folder] = None
                write_mark(folder, replace(mark, error=str(error)))
                return error
        return None

    def _place(self, record: Record, folder: Path) -> None:
        """Remember which folder is the sweep's."""
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
        """The record's sweep as it was begun here, or as its file tells, which knows what a search has added since."""
        begun = self._sweeps.get(record.sweep_id or "")
        if record.sweep_id is None or (begun is not None and record.name in begun.settings):
            return begun
        written = read_sweep(folder.parent)
        return written if written is not None and written.sweep_id == record.sweep_id else begun

    def _sweep_known(self, sweep_id: str) -> SweepInfo | None:
        """A sweep as it was begun here, else as the file in its folder tells."""
        folder = self._folders.get(sweep_id)
        return self._sweeps.get(sweep_id) or (read_sweep(folder) if folder is not None else None)

    def _conclude_ranking(
        self, store: Store, sweep_id: str, run_id: str, records: Sequence[Record], until_s: float
    ) -> bool:
        """Rank the trials of a sweep that has ended; returns whether there was time for all of them."""
        ranking = ranking_of(records)
        is_done = rank_trials(store, sweep_id, ranking, until_s=until_s)
        if is_done:
            log_result(store, run_id, records, ranking)
        sweep = self._sweep_known(sweep_id)
        self._show(store, sweep, extras_of(records, ranked=is_done))
        with contextlib.suppress(TrackingError):  # they cost those lines
            describe_experiment(store, sweep, self._views.get(sweep_id))
            # Now, and not when somebody asks for the way there: a server that hangs would be waited for again.
            if is_done:
                ok = sum(each.status == "ok" for each in records)
                self._fastest[sweep_id] = find_fastest(store, sweep_id, ok)
        return is_done

    def _show(self, store: Store, sweep: SweepInfo | None, extras: Extras) -> None:
        """Give the view of a sweep these columns too."""
        if sweep is None:  # then nobody knows its other columns; each run has the tag or metric all the same
            return
        before = self._extras.get(sweep.sweep_id, Extras())
        if before | extras != before:
            self._extras[sweep.sweep_id] = before | extras
            self._save_view(store, sweep)

    def _ready(self) -> Store:
        """The store, opened if it is not yet, and seen to answer."""
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
        with contextlib.suppress(TrackingError):  # whoever starts next does it
            end_abandoned(store)
        self._store = store
        return store

    def _parent(self, store: Store, record: Record, folder: Path) -> str | None:
        """The run of the record's sweep. It is missing where there was no server when the sweep began."""
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
        """A sweep's run. What is there needs no lock: of many jobs that end at once, all but one need only look."""
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
        """Of a record that is not published yet."""
        relative = relative_database(self.address, folder, self._folder)
        return Mark(published=False, uri=self.address, experiment=self.experiment, database=relative, record_key=key)

    def _says(self, mark: Mark, folder: Path, key: str) -> bool:
        """Whether a mark says that the record is published here; the database may have been moved since."""
        if mark.uri is not None and mark.database is not None:
            with contextlib.suppress(GoneError):
                mark = replace(mark, uri=address_now(mark.uri, folder, mark.database, is_recorded=True).uri)
        return self.experiment is not None and mark.says(key=key, uri=self.address, experiment=self.experiment)
