"""Write to and read from one experiment of an MLflow store.

MLflow's limits are observed here; its failures become `TrackingError` (`bench.tracking.store.errors`). What of a record
is published is decided in `bench.tracking.runs.trial_run`. A call may take as long as MLflow's own timeouts: a caller
that must not wait so long calls through `bench.tracking.bounded`.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.config.mlflow_names import LONGEST_RUN_NAME, accepted_name
from bench.host.secrets import scrub, scrub_texts, without_credentials
from bench.tracking.mlflow_api import Metric, MlflowClient, Param, RunTag
from bench.tracking.store.artifact_access import of_another_machine, remedy_for
from bench.tracking.store.errors import SERVERS, ForbiddenError, TrackingError, explained
from bench.tracking.store.request_time import time_for

ENTITIES = (Metric, Param, RunTag)
BATCH_BYTES = 500_000  # of one `log_batch`, which splits by number only: a server refuses more than a million
PAGE = 1000  # runs or experiments asked for at once
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

COMPLETE = "complete"  # the tag of a run that holds its whole record; written last
LAYOUT, THIS_LAYOUT = "layout", "2"  # the version of what a run holds of a record; earlier runs have none
PUBLISH = "phases/publish_s"  # the metric: time to publish a record
DUPLICATE = "double"  # the kind of a duplicate run where the user may not delete it


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
    artifacts: str = ""  # the root address of the experiment's artifacts; "" where it is unknown
    notes: tuple[str, ...] = ()  # changes made when it was opened, one line each for the user

    @property
    def address(self) -> str:
        """Return the store's address without credentials."""
        return without_credentials(self.uri)

    def find_runs(self, **tags: str) -> list[Any]:
        """Return the runs with all these tags, newest first, without deleted runs and duplicates."""
        with explained(self.uri, "look for a run"):
            found = runs_where(self.client, [self.experiment_id], tags_filter(tags))
        return [run for run in found if run.data.tags.get("kind") != DUPLICATE]

    def running(self) -> list[Any]:
        """Return the runs that have not ended."""
        with explained(self.uri, "look for runs that have not ended"):
            return runs_where(self.client, [self.experiment_id], "attributes.status = 'RUNNING'")

    def sole_run(self, identity: Mapping[str, str], *, name: str, started_at_s: float, tags: Mapping[str, str]) -> Any:
        """Return the one run with the tags of `identity`; create it if it is missing and delete duplicates.

        Duplicates arise when processes search and create at the same time, and when MLflow repeats a request to a slow
        server. A process that searched just before another one created its run keeps its own run, which the other one
        may delete: later writes to it then fail, and the record counts as missing.
        """
        runs = self.find_runs(**identity)
        if not runs:
            self.create_run(name, started_at_s, {**tags, **identity})
            runs = self.find_runs(**identity)
        if not runs:
            raise TrackingError(f"MLflow at {self.address} does not show the run {name} that it has just made")
        return self.keep_one(runs)

    def keep_one(self, runs: Iterable[Any]) -> Any:
        """Choose which of several duplicates stays, delete the others, and return it; there must be at least one."""
        # Every process makes the same choice: the complete run, else the one with the lowest id.
        kept, *duplicates = sorted(runs, key=lambda run: (COMPLETE not in run.data.tags, run.info.run_id))
        for each in duplicates:
            with contextlib.suppress(TrackingError):
                self.retire(each.info.run_id, DUPLICATE)
        return kept

    def retire(self, run_id: str, kind: str) -> None:
        """Delete a run; a user without permission to delete marks it with this kind and ends it."""
        try:
            with explained(self.uri, "delete a run"):
                self.client.delete_run(run_id)
        except ForbiddenError:
            self.log(run_id, tags={"kind": kind})
            self.end_run(run_id, "KILLED", time.time())

    def create_run(self, name: str, started_at_s: float, tags: Mapping[str, str]) -> str:
        """Create a run and return its id."""
        stored = _storable(tags, TAG_LENGTH)
        with explained(self.uri, "create a run"), self._time_for(sum(_size(*each) for each in stored.items())):
            name = _stored(scrub(name), LONGEST_RUN_NAME)
            run = self.client.create_run(self.experiment_id, _milliseconds(started_at_s), stored, name)
            return str(run.info.run_id)

    def end_run(self, run_id: str, status: str, ended_at_s: float) -> None:
        """End a run as FINISHED, FAILED or KILLED; MLflow shows a run without an end as running for ever."""
        with explained(self.uri, "end a run"):
            self.client.set_terminated(run_id, status, _milliseconds(ended_at_s))

    def reopen_run(self, run_id: str) -> None:
        """Set a run that has ended back to RUNNING."""
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
        """Log all of it, in as few requests as the server's limit on their size allows.

        Values are cut to MLflow's lengths, and a refused name is replaced by the nearest allowed one.
        """
        entries = [
            *(Metric(*each) for each in points),
            *(Param(*each) for each in _storable(params or {}, PARAM_LENGTH).items()),
            *(RunTag(*each) for each in _storable(tags or {}, TAG_LENGTH).items()),
        ]
        with explained(self.uri, "log to a run"):
            for batch in _batches(entries):
                metrics, texts, marks = ([each for each in batch if isinstance(each, kind)] for kind in ENTITIES)
                with self._time_for(sum(_size(each.key, each.value) for each in batch)):
                    self.client.log_batch(run_id, metrics, texts, marks)

    def set_metrics(
        self, run: Any, figures: Mapping[str, float | None], *, tags: Mapping[str, str] | None = None
    ) -> None:
        """Set metrics of a run, with the current time, and replace earlier values of the same names.

        Args:
            run: as MLflow returned it, with its metrics.
            figures: name → value; None: the run has no such value, or no longer.
            tags: to log with them.
        """
        points = self.changed_points(run, figures, time_ms=_milliseconds(time.time()))
        if points or tags:
            self.log(str(run.info.run_id), points=points, tags=tags)

    def changed_points(self, run: Any, figures: Mapping[str, float | None], *, time_ms: int) -> list[Point]:
        """Return the points to log so that a run has these metrics, without those that it already has.

        MLflow cannot delete a metric and shows the value with the latest time. So a replacing value gets a later time,
        and a metric that a run should no longer have becomes NaN: MLflow sorts NaN after all values, in both
        directions, and no comparing filter finds it.

        Args:
            run: as MLflow returned it, with its metrics.
            figures: name → value; None: the run has no such value, or no longer.
            time_ms: Unix time of new values.
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
        """Rename a run."""
        with explained(self.uri, "rename a run"):
            self.client.update_run(run_id, name=_stored(scrub(name), LONGEST_RUN_NAME))

    def upload(self, run_id: str, file: Path, artifact_folder: str | None) -> None:
        """Copy a file to the run's artifacts; replace one of the same name."""
        size_bytes = file.stat().st_size if file.exists() else 0
        with self.uploading(f"upload {file.name}", size_bytes):
            self.client.log_artifact(run_id, str(file), artifact_folder)

    def upload_texts(self, run_id: str, texts: Mapping[str, str]) -> None:
        """Write texts (path → text) to the run's artifacts with one call; replace those of the same names."""
        largest = max((len(text.encode("utf-8", "replace")) for text in texts.values()), default=0)
        with self.uploading(f"upload {', '.join(texts)}", largest), tempfile.TemporaryDirectory() as folder:
            for name, text in texts.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(scrub(text), encoding="utf-8", errors="replace")
            self.client.log_artifacts(run_id, folder)

    @contextlib.contextmanager
    def uploading(self, doing: str, size_bytes: int = 0) -> Iterator[None]:
        """Give the requests of this block the time for artifacts of at most `size_bytes`, and explain failures.

        Raises:
            TrackingError: an upload failed, or would write to a folder of this machine instead of the server's.
        """
        remedy = remedy_for(self.uri, self.artifacts)
        if problem := of_another_machine(self.uri, self.artifacts):
            raise TrackingError(f"MLflow at {self.address} cannot {doing}: {problem}; {remedy}")
        with explained(self.uri, doing, remedy=remedy), self._time_for(size_bytes):
            yield

    def _time_for(self, size_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Give requests to a server the time that `size_bytes` need; databases have timeouts of their own."""
        return time_for(size_bytes) if self.uri.startswith(SERVERS) else contextlib.nullcontext()


def connect(uri: str) -> Any:
    """Return MLflow's client for an existing store; call it inside `explained`."""
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def trials_filter(sweep_id: str) -> str:
    """Return MLflow's filter for the trials of one sweep, without the sweep's own run."""
    return tags_filter({"sweep_id": sweep_id, "kind": "trial"})


def tags_filter(tags: Mapping[str, str]) -> str:
    """Return MLflow's filter for the runs with all these tags."""
    # A tag may contain the name of a folder, and that a quote.
    quoted = {name: f'"{value}"' if "'" in value else f"'{value}'" for name, value in tags.items()}
    return " and ".join(f"tags.{name} = {value}" for name, value in quoted.items())


def pages(search: Any, *arguments: Any) -> Iterator[Any]:
    """Yield all results of an MLflow search, page by page; call it inside `explained`."""
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def runs_where(client: Any, experiments: Sequence[str], query: str) -> list[Any]:
    """Return all runs that match a filter, newest first, without deleted ones."""
    return list(pages(lambda **page: client.search_runs(list(experiments), query, **page)))


def _batches(entries: Iterable[Any]) -> Iterator[list[Any]]:
    """Divide metrics, params and tags, in order, into lists of at most BATCH_BYTES."""
    batch: list[Any] = []
    total = 0
    for each in entries:
        size = _size(each.key, each.value)
        if batch and total + size > BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(each)
        total += size
    if batch:
        yield batch


def _size(key: str, value: str | float) -> int:
    """Return an upper estimate of the bytes that a metric, param or tag adds to a request."""
    return len(json.dumps([key, value])) + 128


def _storable(texts: Mapping[str, str], length: int) -> dict[str, str]:
    """Return tags or params with allowed names and lengths, and without secrets: others may see the run."""
    masked = scrub_texts(list(texts.values()))
    return {accepted_name(name): _stored(text, length) for name, text in zip(texts, masked, strict=True)}


def _stored(text: str, length: int) -> str:
    """Return a text that every database accepts: without NUL and invalid characters, cut to the allowed length."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:length]


def _milliseconds(time_s: float) -> int:
    return round(time_s * 1000)
