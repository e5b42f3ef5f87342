"""The MLflow store: where it is, how it is made, and how one talks to it.

All that is known about MLflow itself is in this module: limits, quiet, retries, and failures, which leave it as
`TrackingError` with a one-line text. What of a record is published is decided in `bench.tracking.runs.trial_run`.

A tracking failure must never cost a measurement, so nothing but TrackingError is raised here, and `check_answers` says
within seconds whether a store can be talked to. What comes after it may take as long as MLflow's own timeouts: who must
not wait so long calls through `bench.tracking.bounded`. Not covered by that check: a MySQL or SQL Server that does not
answer, whose retries MLflow gives no setting for.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import logging
import math
import os
import shlex
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock

from bench.config.mlflow_names import LONGEST_RUN_NAME, accepted_name, problem_of_experiment
from bench.host.secrets import scrub, scrub_texts, without_credentials
from bench.tracking.mlflow_internals import column, quiet_store, runs_page
from bench.tracking.store import relocated
from bench.tracking.store.artifact_access import of_another_machine, remedy_for
from bench.tracking.store.database import (
    ROOM_BYTES,
    Template,
    check_writable,
    make_database,
    make_template,
    sqlite_file,
)
from bench.tracking.store.database_schema import check_schema, check_schema_at, explain_schema
from bench.tracking.store.destination import (
    DEFAULT_URI,
    EXPERIMENT_ID_VARIABLE,
    EXPERIMENT_VARIABLE,
    SERVED,
    URI_KEY,
    AddressError,
    absolute_address,
    location_uri,
)
from bench.tracking.store.relocated import ARTIFACTS
from bench.tracking.store.request_time import time_for

# Read by MLflow when it is imported or when it makes a request; what the user has set stays. With MLflow's own
# retries one call to a server that refuses connections takes four minutes.
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

# Once more for a program that had imported MLflow before. And Hydra lets every logger speak from INFO on: alembic
# would name each of its migrations, and urllib3 each retry.
logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
quiet_store()

LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` answers
SERVERS = ("http:", "https:")
LOCK_TIMEOUT_S = 120.0  # making a database takes seconds, on a busy machine tens of them
ANSWER_S = 2.0  # for a server's first byte, and for another process to let go of a database

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
TAGS_PER_BATCH = 100
BATCH_BYTES = 250_000  # of each of the three: MLflow refuses requests of more than a million bytes
PAGE = 1000  # runs or experiments asked for at once
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

COMPLETE = "complete"  # the tag of a run that has all of its record; it comes last
LAYOUT, THIS_LAYOUT = "layout", "2"  # a tag beside it; it changes with what a run holds of a record. Earlier: none
PUBLISH = "phases/publish_s"  # the metric of what publishing a record took
DOUBLE = "double"  # the kind of a run that is a copy of another one, where it may not be deleted

_Value = TypeVar("_Value")


class TrackingError(Exception):
    """MLflow could not do its part; the text is one line: what failed, where, why, and the remedy."""


class UnreachableError(TrackingError):
    """There is nobody to talk to: what failed now would fail for every other run as well."""


class ForbiddenError(UnreachableError):
    """The server knows us, and does not let us do that."""


class OtherSchemaError(UnreachableError):
    """The database is of another MLflow version, and is left as it is."""


class Point(NamedTuple):
    """One value of one metric."""

    key: str
    value: float
    time_ms: int  # Unix time
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Store:
    """One experiment in one MLflow store."""

    uri: str  # absolute; may hold credentials, so people are shown `address`
    experiment_id: str
    experiment: str
    client: Any  # mlflow.MlflowClient
    artifacts: str = ""  # the address that the experiment's artifacts lie below; "" where it was not asked for
    notes: tuple[str, ...] = ()  # what was found and changed when it was opened, a line each for the user

    @property
    def address(self) -> str:
        """The store's address without credentials."""
        return without_credentials(self.uri)

    def find_runs(self, **tags: str) -> list[Any]:
        """The runs that carry all these tags and are neither deleted nor doubles, the newest first."""
        with explained(self.uri, "look for a run"):
            found = runs_where(self.client, [self.experiment_id], tags_filter(tags))
        return [run for run in found if run.data.tags.get("kind") != DOUBLE]

    def running(self) -> list[Any]:
        """The runs that have not ended."""
        with explained(self.uri, "look for runs that have not ended"):
            return runs_where(self.client, [self.experiment_id], "attributes.status = 'RUNNING'")

    def sole_run(self, identity: Mapping[str, str], *, name: str, started_at_s: float, tags: Mapping[str, str]) -> Any:
        """The one run that carries the tags of `identity`, made where there is none; doubles are deleted.

        Doubles come of processes that look and make at the same time, and of a request that MLflow repeated because
        the server was slow to answer. A process that looked a moment before another one made its run keeps its own,
        which that other one may delete: what is written to it then fails, and is found missing.
        """
        runs = self.find_runs(**identity)
        if not runs:
            self.create_run(name, started_at_s, {**tags, **identity})
            runs = self.find_runs(**identity)
        if not runs:
            raise TrackingError(f"MLflow at {self.address} does not show the run {name} that it has just made")
        return self.keep_one(runs)

    def keep_one(self, runs: Iterable[Any]) -> Any:
        """Of runs that are one and the same, at least one of them, that which stays; the others are deleted."""
        # The same choice in every process: the one that has all, else any.
        kept, *doubles = sorted(runs, key=lambda run: (COMPLETE not in run.data.tags, run.info.run_id))
        for each in doubles:
            with contextlib.suppress(TrackingError):
                self.retire(each.info.run_id, DOUBLE)
        return kept

    def retire(self, run_id: str, kind: str) -> None:
        """Delete a run that is not needed; who may edit runs but not delete any gives it this kind, and its end."""
        try:
            with explained(self.uri, "delete a run"):
                self.client.delete_run(run_id)
        except ForbiddenError:
            self.log(run_id, tags={"kind": kind})
            self.end_run(run_id, "KILLED", time.time())

    def create_run(self, name: str, started_at_s: float, tags: Mapping[str, str]) -> str:
        """Make a run and return its id."""
        stored = {accepted_name(tag): _stored(value, TAG_LENGTH) for tag, value in _without_secrets(tags).items()}
        with explained(self.uri, "create a run"), self._time_for(sum(map(_size, stored.items()))):
            name = _stored(scrub(name), LONGEST_RUN_NAME)
            run = self.client.create_run(self.experiment_id, _milliseconds(started_at_s), stored, name)
            return str(run.info.run_id)

    def end_run(self, run_id: str, status: str, ended_at_s: float) -> None:
        """Give a run its end, FINISHED, FAILED or KILLED; a run without one is shown as running for ever."""
        with explained(self.uri, "end a run"):
            self.client.set_terminated(run_id, status, _milliseconds(ended_at_s))

    def reopen_run(self, run_id: str) -> None:
        """Let a run that has ended go on."""
        with explained(self.uri, "reopen a run"):
            self.client.update_run(run_id, status="RUNNING")

    def log(
        self,
        run_id: str,
        *,
        points: Iterable[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log all of it, in as few requests as MLflow's limits allow.

        Values are cut to MLflow's lengths, and a name that it would refuse is replaced by the nearest that it takes.
        """
        texts = {
            accepted_name(name): _stored(value, PARAM_LENGTH) for name, value in _without_secrets(params or {}).items()
        }
        marks = {
            accepted_name(name): _stored(value, TAG_LENGTH) for name, value in _without_secrets(tags or {}).items()
        }
        batches = itertools.zip_longest(
            _batches(list(points), METRICS_PER_BATCH),
            _batches(list(texts.items()), PARAMS_PER_BATCH),
            _batches(list(marks.items()), TAGS_PER_BATCH),
            fillvalue=(),
        )
        with explained(self.uri, "log to a run"):
            for some_points, some_texts, some_marks in batches:
                with self._time_for(sum(map(_size, (*some_points, *some_texts, *some_marks)))):
                    self.client.log_batch(
                        run_id,
                        [Metric(*each) for each in some_points],
                        [Param(*each) for each in some_texts],
                        [RunTag(*each) for each in some_marks],
                    )

    def set_metrics(
        self, run: Any, figures: Mapping[str, float | None], *, tags: Mapping[str, str] | None = None
    ) -> None:
        """Give a run these metrics, with the time of now, in the place of what it had of the same names.

        Args:
            run: as MLflow returned it, with its metrics.
            figures: name → value; None: it has none (any more).
            tags: to log with them.
        """
        points = self.changed_points(run, figures, time_ms=_milliseconds(time.time()))
        if points or tags:
            self.log(str(run.info.run_id), points=points, tags=tags)

    def changed_points(self, run: Any, figures: Mapping[str, float | None], *, time_ms: int) -> list[Point]:
        """The points to log so that a run has these metrics; those that it has already are left out.

        MLflow deletes no metric and shows the value with the latest time. So a value that replaces another one gets a
        later time, and a metric that a run should not have any more becomes NaN: MLflow sorts it behind all values, in
        both directions, and no filter that compares finds it.

        Args:
            run: as MLflow returned it, with its metrics.
            figures: name → value; None: it has none (any more).
            time_ms: Unix time of the values that replace none.
        """
        before, points = run.data.metrics, []
        for name, figure in figures.items():
            value = math.nan if figure is None else float(figure)
            if name not in before:
                points += [] if figure is None else [Point(name, value, time_ms)]
            elif before[name] != value and not (math.isnan(before[name]) and math.isnan(value)):
                points.append(Point(name, value, max(time_ms, self._latest_ms(run, name) + 1)))
        return points

    def _latest_ms(self, run: Any, name: str) -> int:
        with explained(self.uri, "look at a metric"):
            history = self.client.get_metric_history(str(run.info.run_id), name)
        return max((int(each.timestamp) for each in history), default=0)

    def rename_run(self, run_id: str, name: str) -> None:
        """Give a run another name."""
        with explained(self.uri, "rename a run"):
            self.client.update_run(run_id, name=_stored(scrub(name), LONGEST_RUN_NAME))

    def upload(self, run_id: str, file: Path, artifact_folder: str | None) -> None:
        """Copy a file to the run's artifacts, over one of that name."""
        size_bytes = file.stat().st_size if file.exists() else 0
        with self.uploading(f"upload {file.name}", size_bytes):
            self.client.log_artifact(run_id, str(file), artifact_folder)

    def upload_texts(self, run_id: str, texts: Mapping[str, str]) -> None:
        """Put texts among the run's artifacts, path → text, over those of that name; all of them with one call."""
        largest = max((len(text.encode("utf-8", "replace")) for text in texts.values()), default=0)
        with self.uploading(f"upload {', '.join(texts)}", largest), tempfile.TemporaryDirectory() as folder:
            for name, text in texts.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(scrub(text), encoding="utf-8", errors="replace")
            self.client.log_artifacts(run_id, folder)

    @contextlib.contextmanager
    def uploading(self, doing: str, size_bytes: int = 0) -> Iterator[None]:
        """Let requests of this block carry artifacts, the largest of so many bytes, and explain why they cannot.

        Raises:
            TrackingError: they cannot, or would go to a folder of this machine where the server's is meant.
        """
        remedy = remedy_for(self.uri, self.artifacts)
        if problem := of_another_machine(self.uri, self.artifacts):
            raise TrackingError(f"MLflow at {self.address} cannot {doing}: {problem}; {remedy}")
        with explained(self.uri, doing, remedy=remedy), self._time_for(size_bytes):
            yield

    def _time_for(self, size_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Give requests to a server the time that so many bytes need; a database has a time of its own."""
        return time_for(size_bytes) if self.uri.startswith(SERVERS) else contextlib.nullcontext()


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What of opening a store is done already, and has left nothing behind."""

    client: Any = None  # of a database that was there
    template: Template | None = None  # for a database that was not


def look_ahead(uri: str | None, folder: Path) -> Ahead:
    """Do what takes longest of `open_store` and leaves nothing behind, should the sweep be refused.

    Of a database that is there, it makes MLflow's client; for a new one, it makes the tables elsewhere. A server is
    left alone until then.

    Raises:
        TrackingError: as `open_store`.
    """
    uri = absolute_uri(uri if uri is not None else DEFAULT_URI, folder.absolute())
    database = sqlite_file(uri)
    if database is None:
        return Ahead()
    with explained(uri, "open the store"):
        if database.exists() and database.stat().st_size:
            check_answers(uri)
            check_schema(database)
            return Ahead(client=connect(uri))
        return Ahead(template=make_template(database.parent / ARTIFACTS))


def open_store(
    uri: str | None,
    experiment: str | None,
    folder: Path,
    ahead: Ahead | None = None,
    *,
    experiment_id: str | None = None,
    artifact_location: str | None = None,
) -> Store:
    """Connect to MLflow, making the database and the experiment where they do not exist.

    Several processes may do so at once: they wait for each other.

    Args:
        uri: the tracking address; None is the database mlflow.db in `folder`.
        experiment: the experiment's name; None: it is known by its id.
        folder: the folder that the command was started in; relative paths count from it.
        ahead: what `look_ahead` did for the same store.
        experiment_id: of the experiment, which exists then; None: known by its name.
        artifact_location: of an experiment that has to be made; None: the default, or the server's own choice.

    Raises:
        TrackingError: the store cannot be reached, made or written, or the experiment is deleted.
    """
    folder = folder.absolute()
    uri = absolute_uri(uri if uri is not None else DEFAULT_URI, folder)
    database = sqlite_file(uri)
    artifacts = (database.parent if database else folder) / ARTIFACTS
    if experiment is not None and (problem := problem_of_experiment(experiment)):
        raise TrackingError(f"tracking.experiment={experiment!r}: {problem}")
    notes: list[str] = []
    if not database or (database.exists() and database.stat().st_size):
        # Before the lock: of a database that cannot be written one is told that, and not that no lock can be made.
        check_answers(uri, room_bytes=ROOM_BYTES)
    with explained(uri, "open the store"):
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        # A server keeps artifacts where it was told to; only for a database the client decides.
        is_served = uri.startswith(SERVED)
        ahead = ahead or Ahead()
        client = connect(uri) if is_served else None
        # What is there needs no lock: of many jobs that end at once none waits for the others.
        found = _known_experiment(client, experiment, experiment_id) if client is not None else None
        if found is None:
            with FileLock(_lock_file(uri), timeout=LOCK_TIMEOUT_S):
                if database:
                    make_database(database, artifacts, ahead.template)
                    check_answers(uri)
                    check_schema(database)
                    notes = relocated.bring_along(database)
                elif not is_served:
                    check_schema_at(uri)
                client = client or ahead.client or connect(uri)
                found = _known_experiment(client, experiment, experiment_id)
                if found is None and experiment is not None and experiment_id is None:
                    chosen = None if artifact_location is None else location_uri(artifact_location, folder)
                    default = None if is_served else artifacts.as_uri()
                    found = _make_experiment(client, experiment, chosen or default, is_chosen=chosen is not None)
    if found is None or experiment_id not in (None, str(found.experiment_id)):
        raise TrackingError(
            f"{EXPERIMENT_ID_VARIABLE}={experiment_id} is no experiment of MLflow at {without_credentials(uri)}"
            + (f", or not the one that {EXPERIMENT_VARIABLE}={experiment} names" if experiment is not None else "")
            + f": set {EXPERIMENT_ID_VARIABLE} to one that is there, or unset it, or set tracking.experiment to a name"
        )
    experiment = str(found.name)
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow experiment {experiment} at {without_credentials(uri)} is deleted: restore it with "
            f"'mlflow experiments restore --experiment-id {found.experiment_id}' and MLFLOW_TRACKING_URI set to that "
            f"address, or set tracking.experiment to another name"
        )
    return Store(
        uri=uri,
        experiment_id=str(found.experiment_id),
        experiment=experiment,
        client=client,
        artifacts=str(found.artifact_location),
        notes=tuple(notes),
    )


def connect(uri: str) -> Any:
    """MLflow's client of a store that is there; to be called with `explained`."""
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def check_answers(uri: str, timeout_s: float = ANSWER_S, *, room_bytes: int = 0) -> None:
    """See whether a store can be talked to, which MLflow itself would try for minutes.

    Args:
        uri: an absolute address. One that is no server's, PostgreSQL's or SQLite file's is not looked at.
        timeout_s: for the server to answer, whatever it answers, or for a lock on the database.
        room_bytes: for which there must be room beside a database file.

    Raises:
        UnreachableError: it cannot: nobody answers, or with a fault of the server's own; the database is gone, locked,
            not one or not writable.
    """
    if uri.startswith(SERVERS):
        with explained(uri, "be reached", UnreachableError):
            _check_server(uri, timeout_s)
    elif database := sqlite_file(uri):
        with explained(uri, "be written", UnreachableError):
            check_writable(database, timeout_s, room_bytes=room_bytes)
    elif uri.startswith("postgresql"):
        with explained(uri, "be reached", UnreachableError):
            _check_postgresql(uri, timeout_s)


def _check_server(uri: str, timeout_s: float) -> None:
    # urllib takes user and password for a part of the host's name.
    request = urllib.request.Request(f"{without_credentials(uri).rstrip('/')}/health")  # noqa: S310 - http or https
    try:
        urllib.request.urlopen(request, timeout=timeout_s).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise OSError(f"the server answers {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError(f"no connection within {timeout_s:g} s") from error
        # Whether a certificate is good enough is for MLflow to say, which has settings for it.
        if not isinstance(error.reason, ssl.SSLError):
            raise


def _check_postgresql(uri: str, timeout_s: float) -> None:
    """Ask whether it speaks TLS, as every client may before it says who it is: a server that hangs says nothing."""
    address = urllib.parse.urlsplit(uri)
    if not address.hostname or "," in address.netloc:  # a socket file, or several servers: the driver's business
        return
    request = struct.pack("!ii", 8, 80877103)  # its length, and the protocol's number for SSLRequest
    try:
        with socket.create_connection((address.hostname, address.port or 5432), timeout=timeout_s) as connection:
            connection.sendall(request)
            answer = connection.recv(1)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from error
    if answer not in (b"S", b"N", b"E"):
        raise OSError("what answers there is no PostgreSQL server" if answer else "it hangs up")


def ui_command(store: Store) -> str:
    """The shell line that starts the UI on this store; for a server, which has one, its address."""
    if store.uri.startswith(SERVERS):
        return store.address
    return f"{mlflow_command()} ui --backend-store-uri {shlex.quote(store.address)} --host 127.0.0.1"


def mlflow_command() -> str:
    """`mlflow` as one can type it: with its folder where the shell would not find the one of this environment."""
    own = Path(sys.executable).with_name("mlflow")
    found = shutil.which("mlflow")
    return "mlflow" if not own.exists() or (found and Path(found) == own) else shlex.quote(str(own))


def experiment_address(
    store: Store,
    base: str = LOCAL_UI,
    *,
    sweep_id: str | None = None,
    view: str | None = None,
    charts: bool = False,
    sort_by: str = "e2e_ms",
) -> str:
    """A page of the experiment's runs.

    Args:
        store: the experiment.
        base: where the UI of a database answers; a server has its own address.
        sweep_id: show only the trials of this sweep.
        view: show them as saved under this key, which `bench.tracking.pages.view.save_view` returns.
        charts: show charts in place of the table.
        sort_by: the metric that they are sorted by where there is no view.
    """
    if store.uri.startswith(SERVERS):
        base = store.address
    return runs_page(
        base.rstrip("/"),
        store.experiment_id,
        view=view,
        filter_by=None if sweep_id is None else trials_filter(sweep_id),
        sort_by=column("metrics", sort_by),
        charts=charts,
    )


def trials_filter(sweep_id: str) -> str:
    """MLflow's filter for the trials of one sweep, without the sweep's own run."""
    return tags_filter({"sweep_id": sweep_id, "kind": "trial"})


def tags_filter(tags: Mapping[str, str]) -> str:
    """MLflow's filter for the runs with all these tags."""
    # A folder's name may be part of a tag, and hold a quote.
    quoted = {name: f'"{value}"' if "'" in value else f"'{value}'" for name, value in tags.items()}
    return " and ".join(f"tags.{name} = {value}" for name, value in quoted.items())


@contextlib.contextmanager
def explained(
    uri: str, doing: str, kind: type[TrackingError] = TrackingError, remedy: str | None = None
) -> Iterator[None]:
    """Turn whatever MLflow raises into a TrackingError, or into the given kind of it; the remedy may be given.

    Everything is caught because behind MLflow stand database drivers and artifact stores of the user's choice, each
    with exceptions of its own. So nothing but calls of MLflow belongs into the block.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        where, status = without_credentials(uri), status_of(error)
        reason = reason_of(error, uri)
        if schema := explain_schema(error, uri, mlflow_command()):
            kind, (reason, remedy) = OtherSchemaError, schema
        elif status == http.client.UNAUTHORIZED:
            kind, remedy = UnreachableError, f"{'check' if _has_login() else 'set'} {LOGIN}"
        elif status == http.client.FORBIDDEN:
            kind = ForbiddenError
            remedy = f"the user of {LOGIN} needs the permission EDIT for that experiment"
        elif remedy is not None:
            pass
        elif uri.startswith(SERVERS):
            remedy = "check that the server runs and that tracking.uri is its address"
        elif sqlite_file(uri):
            remedy = "check that file and its folder, or set tracking.uri to another"
        else:
            remedy = "check tracking.uri and the driver that it needs"
        text = f"MLflow at {where} cannot {doing}: {reason}; {remedy}, or set tracking.enabled=false"
        raise kind(text) from error


def _has_login() -> bool:
    return all(os.environ.get(name) for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"))


def status_of(error: Exception) -> int | None:
    """The status that a server answered with; None where the failure was another one."""
    return error.get_http_status_code() if isinstance(error, MlflowException) else None


def reason_of(error: Exception, uri: str) -> str:
    """The first line of an exception, its cause if it names one, without what the address hides."""
    if (status := status_of(error)) in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return f"the server answers {status} {http.client.responses[status]}"
    # Of a database's error SQLAlchemy tells first where it was raised, and the database's own words later.
    own = getattr(error.__cause__, "orig", None) or error
    lines = [line for line in str(own).strip().splitlines() if not line.startswith("(raised as a result of")]
    text = (lines[0] if lines else type(error).__name__).replace(uri, without_credentials(uri))
    if "(Caused by " in text:
        text = text.rpartition("(Caused by ")[2].removesuffix(")")
    authority = urllib.parse.urlsplit(uri).netloc.rpartition("@")[0]
    if authority:
        # MLflow names the address with a path appended, drivers name the password alone.
        text = text.replace(f"{authority}@", "")
        if password := authority.partition(":")[2]:
            text = text.replace(password, "***").replace(urllib.parse.unquote(password), "***")
    return text if len(text) <= 300 else f"{text[:300]}…"


def absolute_uri(uri: str, folder: Path, name: str = URI_KEY) -> str:
    """The address that means the same from every folder. TrackingError for one that cannot be used."""
    try:
        return absolute_address(uri, folder, name)
    except AddressError as error:
        raise TrackingError(str(error)) from error


def _lock_file(uri: str) -> Path:
    """Beside the database; for a server, a file that this user's processes on this machine share."""
    if database := sqlite_file(uri):
        return database.with_name(f"{database.name}.lock")
    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"bench-mlflow-{os.getuid()}-{digest}.lock"


def _known_experiment(client: Any, name: str | None, experiment_id: str | None) -> Any:
    """The experiment of a name, or of an id where it has no name here; None where there is none."""
    if name is not None:
        return client.get_experiment_by_name(name)
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        # A database takes an id that is no number for a wrong parameter.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _make_experiment(client: Any, name: str, location: str | None, *, is_chosen: bool) -> Any:
    tags = {relocated.CHOSEN: "chosen"} if is_chosen else None  # it does not move with the database
    try:
        return client.get_experiment(client.create_experiment(name, location, tags))
    except MlflowException as error:
        # Another machine was faster; the lock holds on this one.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)


def _without_secrets(texts: Mapping[str, str]) -> dict[str, str]:
    """Mask what is secret in a run's tags or params: whoever sees the run may not be whoever ran it."""
    return dict(zip(texts, scrub_texts(list(texts.values())), strict=True))


def pages(search: Any, *arguments: Any) -> Iterator[Any]:
    """All that a search of MLflow's finds, page after page; to be called with `explained`."""
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def runs_where(client: Any, experiments: Sequence[str], query: str) -> list[Any]:
    """All runs that a filter finds, newest first; deleted ones are not among them."""
    return list(pages(lambda **page: client.search_runs(list(experiments), query, **page)))


def _batches(values: list[_Value], number: int) -> Iterator[list[_Value]]:
    """The values in order, in lists of at most so many that are not too large for a request together."""
    batch: list[_Value] = []
    total = 0
    for value in values:
        size = _size(value)
        if batch and (len(batch) == number or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(value)
        total += size
    if batch:
        yield batch


def _size(value: Any) -> int:
    """The bytes that a metric, param or tag takes in a request, a little too many rather than too few."""
    return len(json.dumps(value)) + 64


def _stored(text: str, length: int) -> str:
    """A text as every database takes it: without NUL and broken characters, and no longer than allowed."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:length]


def _milliseconds(time_s: float) -> int:
    return round(time_s * 1000)
