"""Records on disk as a sweep leaves them, and what MLflow holds of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.results.record import Record
from bench.tracking import publisher
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import STARTED_AT_S, make_config, make_record


@pytest.fixture
def job_on_disk() -> Callable[..., tuple[Record, Path]]:
    """Write a record into a folder of its own, which is made; keywords replace fields of Record."""

    def write(folder: Path, **changes: Any) -> tuple[Record, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        record = make_record(**changes)
        record.write(folder)
        (folder / "worker.log").write_text("the libraries said nothing\n")
        return record, folder

    return write


@pytest.fixture
def sweep_on_disk(job_on_disk) -> Callable[..., list[tuple[Record, Path]]]:
    """Write a whole sweep below a start folder, as it was to be published in the database there."""

    def write(
        start: Path, sweep_id: str = "night-1", jobs: int = 3, uri: str | None = None
    ) -> list[tuple[Record, Path]]:
        folder = start / "multirun" / sweep_id
        uri = uri if uri is not None else f"sqlite:///{start}/mlflow.db"
        written = [
            job_on_disk(
                folder / f"{number}_default_r{number + 1}",
                sweep_id=sweep_id,
                repeat=number + 1,
                name="default",
                started_at_s=STARTED_AT_S + 100 * number,
                ended_at_s=STARTED_AT_S + 100 * number + 90,
                requested=make_config().to_dict(),
            )
            for number in range(jobs)
        ]
        plan = {
            "schema_version": 1,
            "sweep_id": sweep_id,
            "name": "night",
            "parent_run_id": None,
            "settings": ["default"],
            "baseline": None,
            "swept": {"compile.mode": ["default"]},
            "started_at_s": STARTED_AT_S - 1,
            "tracking": {"uri": uri, "experiment": "bench", "tags": {"team": "x"}},
            "jobs": [
                {"number": number, "repeat": number + 1, "folder": path.name}
                for number, (_, path) in enumerate(written)
            ],
        }
        (folder / "sweep.json").write_text(json.dumps(plan))
        return written

    return write


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One start folder for all sweeps of a test file, since a new database takes seconds."""
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def store(start: Path) -> Store:
    return open_store(None, "bench", start)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever answers has the time that a busy machine takes for it; for tests in which nothing hangs."""
    monkeypatch.setattr(publisher, "OPEN_S", 120.0)
    monkeypatch.setattr(publisher, "JOB_S", 120.0)


@pytest.fixture
def rows() -> Callable[[Path, str], list[tuple[Any, ...]]]:
    """Ask a database file itself, past MLflow."""

    def ask(database: Path, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(database, timeout=20)) as connection:
            return connection.execute(query).fetchall()

    return ask
