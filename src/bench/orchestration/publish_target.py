"""Decide once where a start publishes, from the config and MLflow's variables; every job receives the decision."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.secrets import has_credentials, without_credentials
from bench.results.sweep_file import SweepFile
from bench.tracking.store.destination import (
    DEFAULT_EXPERIMENT,
    DEFAULT_URI,
    EXPERIMENT_KEY,
    RECORD,
    URI_KEY,
    URI_VARIABLE,
    AddressError,
    Destination,
    absolute_address,
    decide,
    with_known_credentials,
)
from bench.tracking.store.relocated import GoneError, address_now, relative_database

if TYPE_CHECKING:
    from bench.jobs.assignment import Assignment
    from bench.tracking.publisher import Publisher


def decided(config: BenchmarkConfig) -> Destination:
    """Return where a run or a new sweep is published. Raises ConfigError if a variable in use holds no address."""
    tracking = config.tracking
    try:
        return decide(
            uri=tracking.uri, experiment=tracking.experiment, artifact_location=tracking.artifact_location,
            environment=os.environ if tracking.enabled else {},
        )  # fmt: skip
    except AddressError as error:
        raise ConfigError(error.name, error.value, error.remedy) from error


def resumed(config: BenchmarkConfig, file: SweepFile | None, folder: Path, say: Callable[[str], None]) -> Destination:
    """Return where a resumed sweep is published: at the address in its file, unless the user has set the key now.

    Args:
        config: for keys of the whole sweep.
        file: of the sweep's former start; None: it begins.
        folder: of the sweep.
        say: called with one line if this start would have chosen another place.
    """
    here = decided(config)
    written = file.tracking if file is not None and config.tracking.enabled else {}
    uri, experiment = written.get("uri"), written.get("experiment")
    address = address_of(here)
    if not isinstance(uri, str) or address is None:
        return here
    try:
        lies = address_now(uri, folder, written.get("database"), is_recorded="database" in written)
    except GoneError:
        say(f"this sweep was published to {uri}, which is gone: it goes on in {address}")
        return here
    if not lies.is_there:
        return here
    going_on = dataclasses.replace(
        here,
        **({} if here.uri_from == URI_KEY else {"uri": with_known_credentials(lies.uri, here.uri), "uri_from": RECORD}),
        **({} if here.experiment_from == EXPERIMENT_KEY or not isinstance(experiment, str)
           else {"experiment": experiment, "experiment_id": None, "experiment_from": RECORD}),
    )  # fmt: skip
    was, chosen, goes = (
        (lies.uri, experiment), (address, here.experiment), (address_of(going_on), going_on.experiment)
    )  # fmt: skip
    if here.experiment is None:  # the variable holds only its id
        chosen = (address, experiment)
    if was == chosen == goes:
        return here
    instead = "" if goes == chosen else f", and not in {_named(*chosen)} ({here.origin})"
    say(f"this sweep was published to {_named(*was)}; it goes on in {_named(*goes)}{instead}")
    return going_on


def handed_on(config: BenchmarkConfig, given: Assignment) -> Destination:
    """Return where a job of a sweep is published, regardless of the variables on its machine.

    These only add the user's credentials to the same address, because an assignment holds none.
    """
    known = (config.tracking.uri, os.environ.get(URI_VARIABLE))
    is_default = given.experiment is None and given.experiment_id is None
    return Destination(
        # An unusable address is not passed on: here the key also holds it.
        uri=config.tracking.uri if given.tracking_uri is None else with_known_credentials(given.tracking_uri, *known),
        experiment=config.tracking.experiment or DEFAULT_EXPERIMENT if is_default else given.experiment,
        experiment_id=given.experiment_id,
        artifact_location=given.artifact_location,
    )


def address_of(destination: Destination) -> str | None:
    """Return the absolute address without credentials; None for an unusable one."""
    with contextlib.suppress(AddressError):
        return without_credentials(absolute_address(destination.uri or DEFAULT_URI, Path.cwd()))
    return None


def written_down(config: BenchmarkConfig, publisher: Publisher | None, folder: Path) -> dict[str, Any]:
    """Return the section `tracking` of a sweep's file: where it is published, without credentials.

    Args:
        config: for keys of the whole sweep.
        publisher: None: it is published nowhere.
        folder: of the sweep.
    """
    tags = {name: str(value) for name, value in config.tracking.tags.items()}
    if publisher is None:
        return {"uri": None, "experiment": config.tracking.experiment, "tags": tags}
    location = publisher.artifact_location
    written = {
        "uri": publisher.address,
        "experiment": publisher.experiment,
        "tags": tags,
        "database": relative_database(publisher.address, folder, Path.cwd()),
    }
    if publisher.experiment_id is not None:
        written["experiment_id"] = publisher.experiment_id
    if location is not None and not has_credentials(location):
        written["artifact_location"] = location
    return written


def _named(address: str | None, experiment: str | None) -> str:
    return f"{address} (experiment {experiment})" if experiment is not None else f"{address}"
