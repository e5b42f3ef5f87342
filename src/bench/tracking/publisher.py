"""Publishing that is never in the way: whatever MLflow does, the measurement stands and the user gets one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.record import Record
from bench.tracking.publish import begin_sweep, end_sweep, publish
from bench.tracking.store import Store, TrackingError, experiment_address, open_store, ui_command
from bench.tracking.view import save_view


class Publisher:
    """One store, or none where it could not be opened; every method then does nothing.

    Args:
        uri: the tracking address; None: mlflow.db in `folder`.
        experiment: the experiment's name.
        tags: the user's own tags, for every run.
        folder: the folder that the command was started in.
        warn: takes one line for each thing that could not be published.
    """

    def __init__(
        self, *, uri: str | None, experiment: str, tags: dict[str, str], folder: Path, warn: Callable[[str], None]
    ) -> None:
        self._tags = tags
        self._warn = warn
        self._views: dict[str, str] = {}  # sweep id → key of its saved view
        self._store: Store | None = None
        try:
            self._store = open_store(uri, experiment, folder)
        except TrackingError as error:
            self._warn(f"not published: {error}")

    def begin_sweep(
        self, *, sweep_id: str, name: str, swept: dict[str, list[str]], settings: list[str], baseline: str | None
    ) -> str | None:
        """Make the parent run of a sweep and its view in the UI; returns the run's id, None when that failed."""
        if self._store is None:
            return None
        try:
            run_id = begin_sweep(
                self._store,
                sweep_id=sweep_id,
                name=name,
                swept=swept,
                settings=settings,
                baseline=baseline,
                tags=self._tags,
                started_at_s=time.time(),
            )
        except TrackingError as error:
            self._warn(f"not published: {error}")
            return None
        # Now and not at the end, so that it serves while the sweep runs and after one that was killed.
        try:
            self._views[sweep_id] = save_view(self._store, sweep_id=sweep_id, swept_keys=swept)
        except TrackingError as error:
            self._warn(f"the sweep's pages show MLflow's own columns: {error}")
        return run_id

    def publish(self, record: Record, folder: Path, parent_run_id: str | None = None) -> None:
        """Publish a job's record and files."""
        if self._store is None:
            return
        try:
            publish(self._store, record, folder, parent_run_id=parent_run_id, tags=self._tags)
        except TrackingError as error:
            self._warn(f"{record.name or 'the run'} is not published (its record is in {folder}): {error}")

    def end_sweep(self, run_id: str | None, records: Sequence[Record], *, interrupted: bool) -> None:
        """End the parent run."""
        if self._store is None or run_id is None:
            return
        statuses = [record.status for record in records]
        try:
            end_sweep(self._store, run_id, statuses=statuses, ended_at_s=time.time(), interrupted=interrupted)
        except TrackingError as error:
            self._warn(f"the sweep's run is not ended: {error}")

    def upload(self, run_id: str | None, files: Sequence[Path]) -> None:
        """Add files to the parent run."""
        if self._store is None or run_id is None:
            return
        try:
            for file in files:
                self._store.upload(run_id, file, None)
        except TrackingError as error:
            self._warn(f"the comparison is not published: {error}")

    def ways_on(self, sweep_id: str | None) -> list[str]:
        """Lines that lead to the results: how to start the UI, and which pages to open."""
        if self._store is None:
            return []
        start = f"Compare: {ui_command(self._store)}"
        if sweep_id is None:
            return [start, f"   then: {experiment_address(self._store)}"]
        view = self._views.get(sweep_id)
        return [
            start,
            f"  table: {experiment_address(self._store, sweep_id=sweep_id, view=view)}",
            f" charts: {experiment_address(self._store, sweep_id=sweep_id, view=view, charts=True)}",
        ]
