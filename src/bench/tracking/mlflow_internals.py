"""Use names and formats of MLflow that are not public, and define what happens without them.

Names in Python are entries of `PrivateName`. Tags, addresses of pages and tables cannot be looked up in advance: each
is a `PrivateFormat`, which counts as present until a release is known to lack it. Publishing a record needs none of
them: if one is missing, the functions below return None or use another way.

Public, and used without an entry: `mlflow.MlflowClient`, `mlflow.entities`, `mlflow.exceptions.MlflowException`, the
commands `mlflow server`, `ui`, `db upgrade` and `experiments restore`, the variables of `mlflow.environment_variables`,
and the tags `mlflow.note.content`, `mlflow.parentRunId` and `mlflow.runName`, which the documentation lists.

Importing this module does not import MLflow.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import logging
import re
import sqlite3
import subprocess
import sys
import tempfile
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.compat.private_name import MISSING, PrivateName

SINCE, UNTIL = "3.10.0", "3.18.0"  # the releases that were inspected: these, and 3.17.2
LONGEST_START_S = 180.0  # of a process that creates a database

# Exact release → the schema version of its databases: the newest migration in its wheel. Each minor release since 3.10
# has its own. A release that is missing here is asked itself.
REVISIONS = {
    "3.10.0": "1b5f0d9ad7c1",
    "3.11.1": "c3d6457b6d8a",
    "3.12.0": "7d34483879f0",
    "3.13.0": "da6fb0208061",
    "3.14.0": "b7e4c1a90f23",
    "3.15.2": "6f8d9c3b2a1e",
    "3.16.1": "b7e2c1a4d9f3",
    "3.17.2": "dc11669786a5",
    "3.18.0": "f4a9b2c7d1e6",
}


@dataclass(frozen=True, kw_only=True)
class PrivateFormat:
    """Describe a tag, an address or a table that MLflow does not document, and the loss without it."""

    what: str  # "the tag …", as the object of a sentence
    since: str  # the oldest and the newest release of MLflow in which it was seen
    until: str
    lost: str  # what bench cannot do or show without it
    gone_in: str | None = None  # the first release without it; None: none is known

    def is_here(self) -> bool:
        """Check whether the installed MLflow has it, as far as known."""
        return self.gone_in is None or _numbers(installed()) < _numbers(self.gone_in)

    def unseen(self) -> str:
        """Return one line for a message: which version lacks what, and the loss."""
        return f"MLflow {installed()} has no {self.what}: {self.lost}"


# ---- the entries -----------------------------------------------------------------------------------------------------

ALEMBIC_CONFIG = PrivateName(
    where="mlflow.store.db.utils:_get_alembic_config",
    since=SINCE,
    until=UNTIL,
    lost="the schema version that it needs is read from a new database, and which of two is older from REVISIONS alone",
)
SQL_STORE = PrivateName(
    where="mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore",
    since=SINCE,
    until=UNTIL,
    lost="a new database is made by a process of its own, and its experiment Default keeps artifacts elsewhere",
)
SCHEMA_TABLE = PrivateFormat(
    what="schema version in the table alembic_version",
    since=SINCE,
    until=UNTIL,
    lost="it cannot be told whether another MLflow made a database before this one opens it",
)
SCHEMA_MESSAGE = PrivateFormat(
    what="error 'out-of-date database schema (found version …, but expected …)'",
    since=SINCE,
    until=UNTIL,
    lost="where it refuses a database, its own words are shown",
)
STORE_LOGGER = PrivateFormat(
    what="logger mlflow.store.db.utils",
    since=SINCE,
    until=UNTIL,
    lost="it writes a traceback beside the error that it raises",
)
ADDRESSES = PrivateFormat(
    what="addresses of artifacts in the known columns of its tables",
    since=SINCE,
    until=UNTIL,
    lost="those of a database that was moved or copied are left as they are, and new artifacts go to the former place",
)
RUNS_TABLE = PrivateFormat(
    what="table runs",
    since=SINCE,
    until=UNTIL,
    lost="a database without runs is opened, and not refused, when a sweep is read from it",
)
SAVED_VIEW = PrivateFormat(
    what="saved view of an experiment's runs in the tag mlflow.sharedViewState.KEY",
    since=SINCE,
    until=UNTIL,
    lost="the link to a sweep's table has a filter in its place",
)
RUNS_PAGE = PrivateFormat(
    what="page of an experiment's runs at #/experiments/ID/runs with a filter in its address",
    since=SINCE,
    until=UNTIL,
    lost="the links lead to the start page",
)
COMPARE_PAGE = PrivateFormat(
    what="page of several runs at #/compare-runs",
    since=SINCE,
    until=UNTIL,
    lost="there is no link to the fastest runs side by side",
)
COLOUR_TAG = PrivateFormat(
    what="tag mlflow.runColor",
    since=SINCE,
    until=UNTIL,
    lost="runs have the colours that the UI chooses",
)
TABLES_TAG = PrivateFormat(
    what="tag mlflow.loggedArtifacts",
    since=SINCE,
    until=UNTIL,
    lost="the UI shows tables among the artifacts as JSON",
)
HEALTH = PrivateFormat(
    what="path /health of its server",
    since=SINCE,
    until=UNTIL,
    lost="any answer but an error of the server's own counts as one",
)


def formats(module: ModuleType) -> dict[str, PrivateFormat]:
    """Return a module's entries of `PrivateFormat` by the names of their constants."""
    return {name: each for name, each in vars(module).items() if isinstance(each, PrivateFormat)}


def installed() -> str:
    """Return the version of the installed MLflow."""
    return metadata.version("mlflow")


# ---- databases -------------------------------------------------------------------------------------------------------


def create_tables(database: Path, artifacts: Path) -> None:
    """Create all tables in an empty SQLite file, and leave no connection open. Raises MLflow's exceptions.

    Args:
        database: the file.
        artifacts: the artifact folder of its default experiment.
    """
    store = SQL_STORE.get()
    if store is not MISSING:
        store(f"sqlite:///{database}", artifacts.as_uri()).engine.dispose()
        return
    # A client keeps its connection for as long as its process lives.
    code = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1], sys.argv[1]).search_experiments()"
    made = subprocess.run(  # noqa: S603 - the command is ours
        [sys.executable, "-P", "-W", "ignore", "-c", code, f"sqlite:///{database}"],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=LONGEST_START_S,
        check=False,
    )
    if made.returncode != 0:
        raise RuntimeError(next(iter(made.stderr.strip().splitlines()[-1:]), f"status {made.returncode}"))


def revision_in(connection: sqlite3.Connection) -> str | None:
    """Return the schema version of a database; None if it has none, or stores it elsewhere.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if not SCHEMA_TABLE.is_here() or "version_num" not in _columns(connection, "alembic_version"):
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def revision_at(uri: str) -> str | None:
    """Return the same for a database server; None also if it cannot be queried, which MLflow reports."""
    from sqlalchemy import create_engine, text  # noqa: PLC0415 - slow, and seldom needed

    if not SCHEMA_TABLE.is_here():
        return None
    with contextlib.suppress(Exception):  # those of drivers, one that is missing among them
        engine = create_engine(uri)
        try:
            with engine.connect() as connection:
                return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
        finally:
            engine.dispose()
    return None


def newest_revision() -> str | None:
    """Return the schema version that the installed MLflow needs; None if unknown."""
    if (known := REVISIONS.get(installed())) is not None:
        return known
    with contextlib.suppress(Exception):  # alembic's, for a history of another form
        if (history := _history()) is not None:
            return str(history.get_current_head())
    return _revision_of_a_new_database()


def is_older(revision: str) -> bool | None:
    """Check whether the installed MLflow can migrate a database of this schema version; None if unknown."""
    made_by = next((version for version, each in REVISIONS.items() if each == revision), None)
    if made_by is not None and (theirs := _numbers(made_by)[:2]) != (ours := _numbers(installed())[:2]):
        return theirs < ours
    with contextlib.suppress(Exception):  # alembic's
        if (history := _history()) is not None:
            return revision in {each.revision for each in history.walk_revisions()}
    return None


def release_of(revision: str) -> str | None:
    """Return the minor release, such as "3.18", whose databases have this schema version; None if unknown."""
    version = next((version for version, each in REVISIONS.items() if each == revision), None)
    return None if version is None else _minor(version)


def release_after(revision: str) -> str | None:
    """Return the first known minor release after a schema version without a known release; None if unknown."""
    releases = {each: version for version, each in REVISIONS.items()}
    found = None
    with contextlib.suppress(Exception):  # alembic's, for a version that it does not know
        if (history := _history()) is not None:
            for each in history.iterate_revisions(history.get_current_head(), revision):  # the newest first
                found = releases.get(each.revision, found)
    return None if found is None else _minor(found)


def schema_versions(text: str) -> tuple[str, str] | None:
    """Return the schema versions of a database and of MLflow if an error of MLflow names them."""
    found = re.search(r"out-of-date database schema \(found version ([\w.]+), but expected (\w+)\)", text)
    return (found[1], found[2]) if found is not None and SCHEMA_MESSAGE.is_here() else None


def without_known_addresses(connection: sqlite3.Connection) -> str | None:
    """Return why the addresses in a database cannot be changed; None if they can, or without tables."""
    known = {
        "experiments": {"experiment_id", "artifact_location"},
        "experiment_tags": {"experiment_id", "key"},
        "runs": {"run_uuid", "artifact_uri"},
    }
    found = {table: _columns(connection, table) for table in known}
    if not any(found.values()) and not _columns(connection, "alembic_version"):
        return None
    is_known = ADDRESSES.is_here() and all(columns <= found[table] for table, columns in known.items())
    return None if is_known else ADDRESSES.unseen()


def number_of_runs(connection: sqlite3.Connection) -> int | None:
    """Return the number of runs in a database; None if it stores them in another table.

    Raises:
        sqlite3.Error: it has no MLflow tables, or cannot be read.
    """
    if not RUNS_TABLE.is_here() or (not _columns(connection, "runs") and _columns(connection, "alembic_version")):
        return None
    return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


def quiet_store() -> None:
    """Prevent MLflow from logging a long traceback for each database error, which it also raises."""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """Return the columns of a table; empty without such a table."""
    return {str(row[0]) for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def _history() -> Any:
    """Return the migrations of the installed MLflow, as alembic's public class; None if they cannot be found."""
    make = ALEMBIC_CONFIG.get()
    return None if make is MISSING else _history_by(make)


@functools.lru_cache(maxsize=1)
def _history_by(make: Any) -> Any:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - MLflow has imported it by then

    return ScriptDirectory.from_config(make(db_url=""))


@functools.cache
def _revision_of_a_new_database() -> str | None:
    """Return the schema version that MLflow writes into a new database; takes some seconds."""
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory(prefix="bench-mlflow-") as folder:
        file = Path(folder, "new.db")
        create_tables(file, Path(folder))
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return revision_in(connection)
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison: (3, 18, 0) for 3.18.0 and 3.18.0rc1."""
    return tuple(int(each) for each in re.findall(r"(?:^|\.)(\d+)", version))


def _minor(version: str) -> str:
    return ".".join(map(str, _numbers(version)[:2]))


# ---- pages of the UI -------------------------------------------------------------------------------------------------

VIEW_TAG = "mlflow.sharedViewState."
NAMED_VIEWS = "3.15.2"  # the first release seen to store a view's state in a field of its own
LONGEST_VIEW = 5000  # characters of an experiment's tag that every release stores
# What a release before that asks of a view beside what `view_text` puts into it: it fills in nothing.
WHOLE_STATE = {
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"lineSmoothness": 0, "selectedXAxisMetricKey": "", "xAxisKey": "step"},
    "groupBy": None,
    "groupsExpanded": {},
    "hideEmptyCharts": True,
    "runListHidden": False,
    "runsExpanded": {},
    "runsHidden": [],
    "runsPinned": [],
    "runsVisibilityMap": {},
    "useGroupedValuesInCharts": True,
    "viewMaximized": False,
}
# Columns of the UI's own. "runDateAndNestInfo" is when the run was made, and the sign for how it ended.
RUN_NAME, MADE, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
UNGROUPED = "Model metrics"  # what the UI calls the section of metrics without a prefix


def view_tag(key: str) -> str | None:
    """Return the experiment tag from which the UI reads the view of this key; None without such views."""
    return VIEW_TAG + key if SAVED_VIEW.is_here() else None


def view_text(
    *,
    release: str | None,
    name: str,
    now_ms: int,
    filter_by: str,
    sort_by: str,
    selected: Sequence[str],
    widths: Mapping[str, int],
    sections: Mapping[str, bool],
) -> str:
    """Return a view in the format in which the UI saves it.

    Args:
        release: of the MLflow that shows it; None: unknown, so in a format that all releases read.
        name: the view's.
        now_ms: Unix time.
        filter_by: the filter of the runs.
        sort_by: the column that sorts them, ascending.
        selected: columns to show in addition to the UI's own.
        widths: all columns in their order, each with its width in pixels.
        sections: the sections of the chart page, and whether each is open.
    """
    state = {
        "searchFilter": filter_by,
        "orderByKey": sort_by,
        "orderByAsc": True,
        "selectedColumns": list(selected),
        "columnOrder": list(widths),  # else by name
        "columnWidths": dict(widths),
        "runsHiddenMode": "SHOW_ALL",  # else charts show the first ten
        # No charts but the sections they go to: the UI makes a chart of each metric that it finds, with the metrics
        # in the order that they were logged in where a section counts as reordered.
        "compareRunCharts": [],
        "compareRunSections": [
            {"uuid": each, "name": each, "display": is_open, "isReordered": True} for each, is_open in sections.items()
        ],
        "isAccordionReordered": True,  # else by name
    }
    view = {"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": _packed(state)}
    if release is not None and _numbers(release) >= _numbers(NAMED_VIEWS):
        return json.dumps(view)
    # A release before reads the state from these fields themselves, and its page never loads where they are missing.
    both = json.dumps(view | WHOLE_STATE | state, separators=(",", ":"))
    # The packed state by itself is read by all releases too, and has no name.
    return both if len(both) <= LONGEST_VIEW else _packed(WHOLE_STATE | state)


def _packed(state: Mapping[str, Any]) -> str:
    return f"deflate;{base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()}"


def column(kind: str, name: str) -> str:
    """Return the UI's name for the column of a metric, a param or a tag: `kind` is "metrics", "params" or "tags"."""
    return f"{kind}.`{name}`"


def runs_page(
    base: str,
    experiment_id: str,
    *,
    view: str | None = None,
    filter_by: str | None = None,
    sort_by: str | None = None,
    charts: bool = False,
) -> str:
    """Return the page of an experiment's runs, or the start page if this MLflow has no such address.

    Args:
        base: where the UI answers.
        experiment_id: the experiment's.
        view: the key of a saved view, which replaces the arguments below.
        filter_by: the filter of the runs, without a view.
        sort_by: the column that sorts them without a view, ascending.
        charts: show charts instead of the table.
    """
    if not RUNS_PAGE.is_here():
        return base
    query = {"workflowType": "machine_learning"}
    if view is not None and SAVED_VIEW.is_here():
        query["viewStateShareKey"] = view  # without a filter: with one in the address the UI ignores the view
    elif filter_by is not None:
        # Sorted by creation time, the trials would be collapsed under their sweep's run.
        query |= {"searchFilter": filter_by}
        query |= {"orderByKey": sort_by, "orderByAsc": "true"} if sort_by is not None else {}
    if charts:
        query["compareRunsMode"] = "CHART"
    values = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
    return f"{base}/#/experiments/{experiment_id}/runs?{values}"


def compare_page(base: str, run_ids: Sequence[str], experiment_ids: Sequence[str]) -> str | None:
    """Return the page with runs side by side; None without one. Encoded, so that a terminal links all of it."""
    if not COMPARE_PAGE.is_here():
        return None
    query = {"runs": list(run_ids), "experiments": list(experiment_ids)}
    texts = {name: json.dumps(value, separators=(",", ":")) for name, value in query.items()}
    return f"{base}/#/compare-runs?{urllib.parse.urlencode(texts, quote_via=urllib.parse.quote)}"


def missing_pages() -> list[str]:
    """Return a line for each kind of link that does not work with the installed MLflow."""
    return [each.unseen() for each in (RUNS_PAGE, COMPARE_PAGE) if not each.is_here()]


# ---- tags that the UI reads ------------------------------------------------------------------------------------------

COLOUR, TABLES = "mlflow.runColor", "mlflow.loggedArtifacts"


def ui_tags(*, colour: str | None = None, tables: str | None = None) -> dict[str, str]:
    """Return a run's tags that the UI reads; None: no such tag.

    Args:
        colour: the run's, in every table and chart.
        tables: which of its artifacts are tables, in the format of `mlflow.log_table`.
    """
    given = {COLOUR: (colour, COLOUR_TAG), TABLES: (tables, TABLES_TAG)}
    return {name: value for name, (value, entry) in given.items() if value is not None and entry.is_here()}
