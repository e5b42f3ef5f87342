"""A sweep's records, read back from MLflow: the runs that carry its id, and the record.json of each.

Reading leaves no trace: no database, experiment or file is made, and what had to be downloaded is removed again. A run
whose record cannot be read (an artifact that is gone, a record of another schema version) is named and left out; none
at all is an error.

Not covered: a PostgreSQL or MySQL database without MLflow's tables, in which MLflow itself makes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.host.secrets import without_credentials
from bench.results.file_names import RECORD_NAME
from bench.results.record import Record, RecordError
from bench.tracking.mlflow_api import MlflowClient
from bench.tracking.mlflow_internals import number_of_runs
from bench.tracking.store.database import sqlite_file
from bench.tracking.store.database_schema import check_schema, check_schema_at, explain_schema
from bench.tracking.store.destination import DEFAULT_URI, SERVED, URI_KEY, AddressError, decide
from bench.tracking.store.errors import TrackingError, mlflow_command, reason_of
from bench.tracking.store.opening import absolute_uri
from bench.tracking.store.relocated import artifacts_now
from bench.tracking.store.store import PUBLISH, pages, runs_where, tags_filter, trials_filter

# Read when a download starts: a progress bar for each of a hundred small files would hide everything else.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

SWEEPS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FetchedSweep:
    """What MLflow knows of one sweep."""

    records: list[Record]  # in the order in which their jobs started
    baseline: str | None = None  # as the sweep declares it; None where it does not
    settings: list[str] | None = None  # names of its settings as typed; None where the sweep's run does not say
    left_out: list[str] = field(default_factory=list)  # one line for each run without a record that can be used


def fetch_sweep(uri: str | None, sweep_id: str, folder: Path) -> FetchedSweep:
    """Read all records of a sweep, whatever their status, over all experiments that are not deleted.

    A record that was published twice counts once, by its newest run; deleted runs do not count.

    Args:
        uri: the tracking address; None: that of MLflow's variable, else the database mlflow.db in `folder`.
        sweep_id: the sweep's id, as its folder's sweep.json and its runs' tags have it.
        folder: to which paths are relative.

    Raises:
        TrackingError: there is no such store or sweep, MLflow does not answer, or none of the records can be read.
    """
    uri = _existing(uri, folder.absolute())
    with _explained(uri):
        _check_schema(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiments = [str(each.experiment_id) for each in pages(client.search_experiments)]
        trials = newest(runs_where(client, experiments, trials_filter(sweep_id)))
        parents = runs_where(client, experiments, tags_filter({"sweep_id": sweep_id, "kind": "sweep"}))
        if not trials:
            others = client.search_runs(experiments, tags_filter({"kind": "sweep"}), max_results=SWEEPS_SHOWN)
            raise TrackingError(_unknown(sweep_id, uri, others, known=bool(parents)))
    records, left_out = _records(client, uri, trials)
    if not records:
        raise TrackingError(f"none of the records of sweep {sweep_id} can be read: {left_out[0]}")
    tags = parents[0].data.tags if parents else {}
    return FetchedSweep(
        records=sorted(records, key=lambda each: each.started_at_s),
        baseline=tags.get("baseline"),
        settings=_names(tags.get("settings")),
        left_out=left_out,
    )


def _existing(uri: str | None, folder: Path) -> str:
    """Return the absolute address of a store; TrackingError for a database file that is missing or not MLflow's.

    MLflow would create the file, or the tables in it.
    """
    try:
        chosen = decide(uri=uri, experiment=None)
        uri = absolute_uri(chosen.uri or DEFAULT_URI, folder, chosen.uri_from or URI_KEY)
    except AddressError as error:
        raise TrackingError(f"{error}, or give an address with --tracking-uri") from error
    except TrackingError as error:
        raise TrackingError(str(error).replace("tracking.uri", "--tracking-uri")) from error
    database = sqlite_file(uri)
    if database is None:
        return uri
    if not database.is_file():
        raise TrackingError(f"no MLflow database at {database}: give its address with --tracking-uri")
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            found = number_of_runs(connection)
    except sqlite3.Error as error:
        raise TrackingError(
            f"{database} cannot be read as an MLflow database ({error}): give another one's address with --tracking-uri"
        ) from error
    if found == 0:  # without experiments, too: MLflow would make a first one
        raise TrackingError(f"the MLflow database {database} holds no runs: give another's address with --tracking-uri")
    return uri


def _check_schema(uri: str) -> None:
    """Refuse a database of another MLflow version, which MLflow might migrate when it opens it."""
    if (database := sqlite_file(uri)) is not None:
        check_schema(database)
    elif not uri.startswith(SERVED):
        check_schema_at(uri)


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into a TrackingError; see `errors.explained`."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        where, reason = without_credentials(uri), reason_of(error, uri)
        remedy = "check that the server runs" if uri.startswith(("http:", "https:")) else "check that store"
        if schema := explain_schema(error, uri, mlflow_command()):
            reason, remedy = schema
        text = f"MLflow at {where} cannot be read: {reason}; {remedy}"
        raise TrackingError(f"{text}, or give another address with --tracking-uri") from error


def newest(runs: Sequence[Any]) -> list[Any]:
    """Return one run per record: the first, because MLflow lists the newest first."""
    distinct: dict[str, Any] = {}
    for run in runs:
        distinct.setdefault(run.data.tags.get("record_key", run.info.run_id), run)
    return list(distinct.values())


def _records(client: Any, uri: str, runs: Sequence[Any]) -> tuple[list[Record], list[str]]:
    """Return the records of these runs, and a line for each run without a usable one."""
    records, left_out = [], []
    for run in runs:
        try:
            records.append(read_record(client, uri, run))
        except TrackingError as error:
            left_out.append(str(error))
    return records, left_out


def read_record(client: Any, uri: str, run: Any) -> Record:
    """Return the record of one run. TrackingError, which names the run, if it has no usable one."""
    name = f"MLflow run {run.info.run_name} ({run.info.run_id})"
    with tempfile.TemporaryDirectory(prefix="bench-fetch-") as temporary:
        try:
            with _explained(uri):
                # Reading does not update the addresses in a database that was moved.
                moved = artifacts_now(uri, str(run.info.artifact_uri))
                if moved is None or not (moved / RECORD_NAME).is_file():
                    client.download_artifacts(run.info.run_id, RECORD_NAME, temporary)
                    moved = Path(temporary)
            record = Record.read(moved)
        except RecordError as error:
            # The path is of a temporary copy.
            text = str(error).removeprefix(str(Path(temporary, RECORD_NAME))).lstrip(": ")
            raise TrackingError(f"{name}: {text}") from error
        except TrackingError as error:
            raise TrackingError(f"{name}: {error}") from error
    if (publish_s := run.data.metrics.get(PUBLISH)) is not None:  # the file was written before publishing ended
        record.phases_s["publish"] = float(publish_s)
    return record


def _names(text: str | None) -> list[str] | None:
    """Return a tag's JSON list of names; None for anything else."""
    try:
        names = json.loads(text) if text is not None else None
    except ValueError:  # cut to MLflow's length, or a user's own tag of that name
        return None
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def _unknown(sweep_id: str, uri: str, others: Sequence[Any], *, known: bool) -> str:
    where = f"MLflow at {without_credentials(uri)}"
    if known:
        return f"{where} has no trials of sweep {sweep_id}: none was published; its records are in the sweep's folder"
    ids = [each.data.tags["sweep_id"] for each in others if "sweep_id" in each.data.tags]
    newest = f"the newest are {', '.join(ids)}" if ids else "it holds no sweep at all"
    return f"{where} has no sweep {sweep_id}: {newest}; another store is named with --tracking-uri"
