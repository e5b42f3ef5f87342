"""Turn MLflow's failures into `TrackingError` with a one-line text that says what failed, where, why, and the remedy.

A tracking failure must never cost a measurement, so the modules of this package raise nothing but TrackingError.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import shutil
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from bench.host.secrets import without_credentials
from bench.tracking.mlflow_api import MlflowException
from bench.tracking.store.database import sqlite_file
from bench.tracking.store.database_schema import explain_schema

LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
SERVERS = ("http:", "https:")


class TrackingError(Exception):
    """MLflow failed; the text is one line: what failed, where, why, and the remedy."""


class UnreachableError(TrackingError):
    """The store cannot be used: the same failure would meet every other run."""


class ForbiddenError(UnreachableError):
    """The server knows the user and denies this operation."""


class OtherSchemaError(UnreachableError):
    """The database belongs to another MLflow version and is left unchanged."""


@contextlib.contextmanager
def explained(
    uri: str, doing: str, kind: type[TrackingError] = TrackingError, remedy: str | None = None
) -> Iterator[None]:
    """Turn every exception of MLflow into a TrackingError, or into the given kind of it, with an optional remedy.

    Everything is caught because MLflow passes on exceptions of database drivers and artifact stores of the user's
    choice. So the block must contain nothing but calls of MLflow.
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
    """Return the HTTP status of the server's answer; None for any other failure."""
    return error.get_http_status_code() if isinstance(error, MlflowException) else None


def reason_of(error: Exception, uri: str) -> str:
    """Return the first line of an exception, or of the cause that it names, without credentials."""
    if (status := status_of(error)) in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return f"the server answers {status} {http.client.responses[status]}"
    # SQLAlchemy first says where a database's error was raised, and later gives the database's own text.
    own = getattr(error.__cause__, "orig", None) or error
    lines = [line for line in str(own).strip().splitlines() if not line.startswith("(raised as a result of")]
    text = (lines[0] if lines else type(error).__name__).replace(uri, without_credentials(uri))
    if "(Caused by " in text:
        text = text.rpartition("(Caused by ")[2].removesuffix(")")
    authority = urllib.parse.urlsplit(uri).netloc.rpartition("@")[0]
    if authority:
        # MLflow appends a path to the address; drivers name only the password.
        text = text.replace(f"{authority}@", "")
        if password := authority.partition(":")[2]:
            text = text.replace(password, "***").replace(urllib.parse.unquote(password), "***")
    return text if len(text) <= 300 else f"{text[:300]}…"


def mlflow_command() -> str:
    """Return the `mlflow` command to type, with its folder if the shell would not find this environment's."""
    own = Path(sys.executable).with_name("mlflow")
    found = shutil.which("mlflow")
    return "mlflow" if not own.exists() or (found and Path(found) == own) else shlex.quote(str(own))
