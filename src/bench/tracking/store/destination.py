"""Decide where results are published, and record the source: a key, else one of MLflow's variables, else the default.

The process that the user started decides once; jobs on other machines receive its decision, whatever variables those
machines have. An empty variable and a null key count as not set.

Nothing here imports MLflow, so that a wrong value is refused before anything is created.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.config.mlflow_names import problem_of_experiment
from bench.host.home_folder import expanded
from bench.host.secrets import without_credentials
from bench.results.file_names import SWEEP_NAME

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "bench"
URI_KEY, EXPERIMENT_KEY, ARTIFACTS_KEY = "tracking.uri", "tracking.experiment", "tracking.artifact_location"
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT_ID_VARIABLE = "MLFLOW_EXPERIMENT_ID"
ARTIFACTS_VARIABLE = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # of `mlflow server`, for new experiments in a database
RECORD = SWEEP_NAME
SERVED = ("http:", "https:", "databricks")  # the server decides where artifacts are stored


class AddressError(ValueError):
    """An address that cannot be used; `str` is one line for the user."""

    def __init__(self, name: str, value: str, remedy: str) -> None:
        self.name, self.value, self.remedy = name, value, remedy
        super().__init__(f"{name}={value} {remedy}")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """State where results are published. The source of a value is a key, a variable or `RECORD`; None: the default."""

    uri: str | None = None  # as given, perhaps with credentials; None: `DEFAULT_URI`
    uri_from: str | None = None
    experiment: str | None = DEFAULT_EXPERIMENT  # None: only its id is known
    experiment_id: str | None = None
    experiment_from: str | None = None
    artifact_location: str | None = None  # of a new experiment; None: the default, or the server's choice

    @property
    def origin(self) -> str:
        """Return the sources of address and experiment as text; the default experiment is not mentioned."""
        address = "default" if self.uri_from is None else f"from {self.uri_from}"
        if self.experiment_from is None or (self.uri_from, self.experiment_from) == (RECORD, RECORD):
            return address
        name = f"experiment {self.experiment}" if self.experiment is not None else "experiment"
        return f"{address}, {name} from {self.experiment_from}"


def decide(
    *,
    uri: str | None,
    experiment: str | None,
    artifact_location: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Destination:
    """Decide where to publish.

    Args:
        uri: the key's value; None where the user did not set it.
        experiment: likewise.
        artifact_location: likewise.
        environment: None: this process's own.

    Raises:
        AddressError: a variable that applies holds an invalid address or experiment name; the value of a key is
            checked where it is used.
    """
    variables = os.environ if environment is None else environment

    def set_in(name: str) -> str | None:
        return variables.get(name, "").strip() or None

    uri_from: str | None = URI_KEY
    if uri is None and (uri := set_in(URI_VARIABLE)) is not None:
        uri_from = URI_VARIABLE
        absolute_address(uri, Path("/"), URI_VARIABLE)
    experiment_id, experiment_from = None, EXPERIMENT_KEY
    if experiment is None:
        experiment, experiment_id = set_in(EXPERIMENT_VARIABLE), set_in(EXPERIMENT_ID_VARIABLE)
        experiment_from = EXPERIMENT_VARIABLE if experiment is not None else EXPERIMENT_ID_VARIABLE
        if experiment is not None and (problem := problem_of_experiment(experiment)):
            raise AddressError(EXPERIMENT_VARIABLE, experiment, f"cannot be used: {problem}, or unset the variable")
    if artifact_location is None and not (uri or DEFAULT_URI).startswith(SERVED):
        artifact_location = set_in(ARTIFACTS_VARIABLE)
    is_default = experiment is None and experiment_id is None
    return Destination(
        uri=uri,
        uri_from=None if uri is None else uri_from,
        experiment=DEFAULT_EXPERIMENT if is_default else experiment,
        experiment_id=experiment_id,
        experiment_from=None if is_default else experiment_from,
        artifact_location=artifact_location,
    )


def absolute_address(uri: str, folder: Path, name: str = URI_KEY) -> str:
    """Return the address with absolute paths.

    Args:
        uri: as given.
        folder: absolute; relative paths to a database start there.
        name: of the key or variable that holds it.

    Raises:
        AddressError: MLflow cannot use it.
    """
    instead = "" if name == URI_KEY else f", or unset {name}"
    scheme, separator, rest = expanded(uri).partition("://")
    is_address = uri == "databricks" or (
        separator and (rest or scheme.startswith("sqlite")) and re.fullmatch(r"\w[\w+.-]*", scheme, re.ASCII)
    )
    if not is_address or scheme == "file":
        remedy = "is no address that MLflow can record to: write sqlite:///mlflow.db for a database file, or "
        raise AddressError(name, without_credentials(uri), f"{remedy}http://localhost:5000 for a server{instead}")
    if scheme.partition("+")[0] != "sqlite":
        return uri
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path in ("", ":memory:"):
        raise AddressError(name, uri, f"names no file: write sqlite:///mlflow.db{instead}")
    file = folder / path
    if {"%", "?"} & set(str(file)):
        remedy = f"cannot be used: the path {file} holds a % or a ?, which MLflow takes for part of the address: "
        raise AddressError(
            name, uri, f"{remedy}set {name} to a database elsewhere, such as sqlite:////home/me/mlflow.db"
        )
    return f"{scheme}:///{file}"


def location_uri(location: str, folder: Path) -> str:
    """Return an artifact location as an absolute URI; a relative path starts at `folder`."""
    if re.match(r"[A-Za-z][\w+.-]*:", location):
        return location
    return (folder / expanded(location)).absolute().as_uri()


def with_known_credentials(address: str, *known: str | None) -> str:
    """Return the address with user and password, taken from a known address that is otherwise equal."""
    return next((each for each in known if each is not None and without_credentials(each) == address), address)
