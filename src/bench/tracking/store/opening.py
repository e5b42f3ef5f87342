"""Open a store: find or create its database and its experiment.

Several processes may open the same store at once: they wait for each other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.config.mlflow_names import problem_of_experiment
from bench.host.secrets import without_credentials
from bench.tracking.mlflow_api import MlflowException
from bench.tracking.store import relocated
from bench.tracking.store.database import ROOM_BYTES, Template, make_database, make_template, sqlite_file
from bench.tracking.store.database_schema import check_schema, check_schema_at
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
from bench.tracking.store.errors import TrackingError, explained
from bench.tracking.store.reachable import check_answers
from bench.tracking.store.relocated import ARTIFACTS
from bench.tracking.store.store import Store, connect

LOCK_TIMEOUT_S = 120.0  # creating a database takes seconds, on a busy machine tens of seconds


@dataclass(frozen=True, kw_only=True)
class PreparedStore:
    """Hold the slow parts of opening a store, done in advance without writing to it."""

    client: Any = None  # of an existing database
    template: Template | None = None  # for a new database


def prepare_store(uri: str | None, folder: Path) -> PreparedStore:
    """Do the slow parts of `open_store` that leave nothing behind, in case the sweep is refused.

    For an existing database this creates MLflow's client; for a new one, its tables in a temporary folder. A server is
    not contacted yet.

    Raises:
        TrackingError: as `open_store`.
    """
    uri = absolute_uri(uri if uri is not None else DEFAULT_URI, folder.absolute())
    database = sqlite_file(uri)
    if database is None:
        return PreparedStore()
    with explained(uri, "open the store"):
        if database.exists() and database.stat().st_size:
            check_answers(uri)
            check_schema(database)
            return PreparedStore(client=connect(uri))
        return PreparedStore(template=make_template(database.parent / ARTIFACTS))


def open_store(
    uri: str | None,
    experiment: str | None,
    folder: Path,
    prepared: PreparedStore | None = None,
    *,
    experiment_id: str | None = None,
    artifact_location: str | None = None,
) -> Store:
    """Connect to MLflow, and create the database and the experiment if they do not exist.

    Several processes may do so at once: they wait for each other.

    Args:
        uri: the tracking address; None is the database mlflow.db in `folder`.
        experiment: the experiment's name; None: `experiment_id` identifies it.
        folder: the folder that the command was started in, to which paths are relative.
        prepared: the result of `prepare_store` for the same store.
        experiment_id: of an experiment that exists; None: `experiment` identifies it.
        artifact_location: for a new experiment; None: the default, or the server's own choice.

    Raises:
        TrackingError: the store cannot be reached, created or written, or the experiment is deleted.
    """
    folder = folder.absolute()
    uri = absolute_uri(uri if uri is not None else DEFAULT_URI, folder)
    database = sqlite_file(uri)
    artifacts = (database.parent if database else folder) / ARTIFACTS
    if experiment is not None and (problem := problem_of_experiment(experiment)):
        raise TrackingError(f"tracking.experiment={experiment!r}: {problem}")
    notes: list[str] = []
    if not database or (database.exists() and database.stat().st_size):
        # Before the lock, so that a read-only database is reported as such and not as a failing lock.
        check_answers(uri, room_bytes=ROOM_BYTES)
    with explained(uri, "open the store"):
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        # A server has its own artifact location; the client chooses one only for a database.
        is_served = uri.startswith(SERVED)
        prepared = prepared or PreparedStore()
        client = connect(uri) if is_served else None
        # An existing experiment needs no lock, so that jobs that end at the same time do not wait for each other.
        found = _known_experiment(client, experiment, experiment_id) if client is not None else None
        if found is None:
            with FileLock(_lock_file(uri), timeout=LOCK_TIMEOUT_S):
                if database:
                    make_database(database, artifacts, prepared.template)
                    check_answers(uri)
                    check_schema(database)
                    notes = relocated.bring_along(database)
                elif not is_served:
                    check_schema_at(uri)
                client = client or prepared.client or connect(uri)
                found = _known_experiment(client, experiment, experiment_id)
                if found is None and experiment is not None and experiment_id is None:
                    chosen = None if artifact_location is None else location_uri(artifact_location, folder)
                    default = None if is_served else artifacts.as_uri()
                    found = _create_experiment(client, experiment, chosen or default, is_chosen=chosen is not None)
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


def absolute_uri(uri: str, folder: Path, name: str = URI_KEY) -> str:
    """Return the address with absolute paths. TrackingError for one that cannot be used."""
    try:
        return absolute_address(uri, folder, name)
    except AddressError as error:
        raise TrackingError(str(error)) from error


def _lock_file(uri: str) -> Path:
    """Return a file beside the database; for a server, one that this user's processes on this machine share."""
    if database := sqlite_file(uri):
        return database.with_name(f"{database.name}.lock")
    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"bench-mlflow-{os.getuid()}-{digest}.lock"


def _known_experiment(client: Any, name: str | None, experiment_id: str | None) -> Any:
    """Return the experiment of this name, or of this id if the name is None; None if it does not exist."""
    if name is not None:
        return client.get_experiment_by_name(name)
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        # A database reports an id that is not a number as a wrong parameter.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _create_experiment(client: Any, name: str, location: str | None, *, is_chosen: bool) -> Any:
    tags = {relocated.CHOSEN: "chosen"} if is_chosen else None  # it does not move with the database
    try:
        return client.get_experiment(client.create_experiment(name, location, tags))
    except MlflowException as error:
        # Another machine was faster: the lock holds on this machine only.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)
