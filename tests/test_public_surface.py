"""What users' files, notebooks, dashboards and scripts depend on: none of it changes without being named here.

`public_surface.json` lists config keys with defaults and allowed values, the fields of records and of `sweep.json`, the
names in MLflow, the columns of tables and the exit statuses. A key that is added or renamed on purpose is changed there
in the same commit, and a rename keeps the old key working for one version.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import types
import typing
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.cli.sync import main as sync
from bench.config.schema import BenchmarkConfig, walk
from bench.host.command_line import ExitStatus
from bench.report import rows, setting_rows
from bench.results.record import READABLE, STATUSES, Record
from bench.results.sweep_file import SweepFile
from factories import make_evidence, make_record

LISTED = json.loads((Path(__file__).parent / "public_surface.json").read_text(encoding="utf-8"))


def config_keys() -> dict[str, dict[str, Any]]:
    keys = {}
    for path, value, rule, _ in walk(BenchmarkConfig()):
        keys[path] = {"default": value} | ({"allowed": list(rule.allowed)} if rule.allowed else {})
    return json.loads(json.dumps(keys))


def fields_of(kind: type) -> dict[str, list[str]]:
    """Return the fields of a dataclass and of nested ones by class name."""
    found: dict[str, list[str]] = {}
    waiting = [kind]
    while waiting:
        each = waiting.pop()
        if each.__name__ in found:
            continue
        hints = typing.get_type_hints(each)
        found[each.__name__] = sorted(field.name for field in dataclasses.fields(each))
        waiting += [inner for field in dataclasses.fields(each) for inner in _classes(hints[field.name])]
    return dict(sorted(found.items()))


def _classes(hint: Any) -> list[type]:
    if dataclasses.is_dataclass(hint):
        return [typing.cast("type", hint)]
    if typing.get_origin(hint) in (list, dict, tuple, typing.Union, types.UnionType):
        return [each for inner in typing.get_args(hint) for each in _classes(inner)]
    return []


@pytest.fixture(scope="module")
def mlflow_names(tmp_path_factory) -> dict[str, list[str]]:
    """Return the store's names for a published sweep of one full and one failed record."""
    start = tmp_path_factory.mktemp("start")
    folder = start / "multirun/night"
    failed = make_record(status="failed", repeat=2, sweep_id="night-1", iterations=[], observed=None, output=None)
    for number, record in enumerate([make_record(**make_evidence(), sweep_id="night-1", repeat=1), failed]):
        record.write(_made(folder / f"{number}_default_r{number + 1}"))
    uri = f"sqlite:///{start}/mlflow.db"
    plan = {
        "schema_version": 1,
        "sweep_id": "night-1",
        "name": "night",
        "parent_run_id": None,
        "settings": ["default"],
        "baseline": None,
        "swept": {"compile.mode": ["default"]},
        "started_at_s": 1.0,
        "tracking": {"uri": uri, "experiment": "bench", "tags": {}},
        "jobs": [],
    }
    (folder / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    assert sync([str(folder), "--tracking-uri", uri]) == 0
    with closing(sqlite3.connect(start / "mlflow.db")) as database:
        return {
            table: sorted(name for (name,) in database.execute(f"SELECT DISTINCT key FROM {table}"))
            for table in ("metrics", "params", "tags")
        }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_config_keys_with_their_defaults_and_allowed_values() -> None:
    assert config_keys() == LISTED["config_keys"]


def test_fields_of_a_record() -> None:
    assert {"readable_versions": list(READABLE), **fields_of(Record)} == LISTED["record"]


def test_fields_of_a_sweep_file() -> None:
    assert fields_of(SweepFile) == LISTED["sweep_file"]


@pytest.mark.parametrize("table", ["metrics", "params", "tags"])
def test_names_in_mlflow(mlflow_names, table: str) -> None:
    assert mlflow_names[table] == LISTED["mlflow"][table]


def test_columns_of_tables() -> None:
    columns = {"trials": list(rows.COLUMNS), "settings": list(setting_rows.COLUMNS)}
    assert columns == LISTED["columns"]


def test_statuses_of_jobs_and_exit_statuses() -> None:
    exits = {each.name: each.value for each in ExitStatus}
    assert {"jobs": sorted(STATUSES), "exit": exits} == LISTED["statuses"]
