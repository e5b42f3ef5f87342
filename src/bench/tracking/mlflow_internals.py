"""What bench uses of MLflow that is not part of its public interface, and what it does where that is gone.

Names in Python are entries of `PrivateName`. Tags, addresses of pages and tables cannot be looked up before they are
used: each is a `PrivateFormat`, which is there until a release is known that has it no more. Nothing here is needed to
publish a record: the functions below return None, or find another way, for what is missing.

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

SINCE, UNTIL = "3.10.0", "3.18.0"  # the releases that were looked at: these, and 3.17.2
LONGEST_START_S = 180.0  # of a process that makes a database

# Exact release → the schema version of the databases that it makes: the newest migration in its wheel. Each minor
# release since 3.10 has one of its own. A release that is missing here is asked itself.
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
    """A tag, an address or a table that MLflow does not document, and what bench does without it."""

    what: str  # "the tag …", as the object of a sentence
    since: str  # the oldest and the newest release of MLflow in which it was seen
    until: str
    lost: str  # what bench cannot do, or tell, where it is gone
    gone_in: str | None = None  # the first release without it; None: none is known

    def is_here(self) -> bool:
        """Whether the installed MLflow has it, as far as that is known."""
        return self.gone_in is None or _numbers(installed()) < _numbers(self.gone_in)

    def unseen(self) -> str:
        """One line for a message: which version lacks what, and what that costs."""
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
    """The entries of a module that are no Python names, by the names of the constants that hold them."""
    return {name: each for name, each in vars(module).items() if isinstance(each, PrivateFormat)}


def installed() -> str:
    """The version of the installed MLflow."""
    return metadata.version("mlflow")


# ---- databases -------------------------------------------------------------------------------------------------------


def create_tables(database: Path, artifacts: Path) -> None:
    """Make all tables in an empty SQLite file, and leave no connection to it open. Raises what MLflow raises.

    Args:
        database: the file.
        artifacts: the folder that its first experiment names.
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
    """The schema version of a database; None for one without, or where it is kept elsewhere.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if not SCHEMA_TABLE.is_here() or "version_num" not in _columns(connection, "alembic_version"):
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def revision_at(uri: str) -> str | None:
    """The same for a database server's address; None also where it cannot be asked, of which MLflow tells."""
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
    """The schema version that the installed MLflow needs; None where nothing tells."""
    if (known := REVISIONS.get(installed())) is not None:
        return known
    with contextlib.suppress(Exception):  # alembic's, for a history of another form
        if (history := _history()) is not None:
            return str(history.get_current_head())
    return _revision_of_a_new_database()


def is_older(revision: str) -> bool | None:
    """Whether the installed MLflow can go on from a database of this schema version; None where nothing tells."""
    made_by = next((version for version, each in REVISIONS.items() if each == revision), None)
    if made_by is not None and (theirs := _numbers(made_by)[:2]) != (ours := _numbers(installed())[:2]):
        return theirs < ours
    with contextlib.suppress(Exception):  # alembic's
        if (history := _history()) is not None:
            return revision in {each.revision for each in history.walk_revisions()}
    return None


def release_of(revision: str) -> str | None:
    """The minor release, such as "3.18", whose databases have this schema version; None where that is not known."""
    version = next((version for version, each in REVISIONS.items() if each == revision), None)
    return None if version is None else _minor(version)


def release_after(revision: str) -> str | None:
    """The first of the known minor releases after a schema version that no release is known for; None likewise."""
    releases = {each: version for version, each in REVISIONS.items()}
    found = None
    with contextlib.suppress(Exception):  # alembic's, for a version that it does not know
        if (history := _history()) is not None:
            for each in history.iterate_revisions(history.get_current_head(), revision):  # the newest first
                found = releases.get(each.revision, found)
    return None if found is None else _minor(found)


def schema_versions(text: str) -> tuple[str, str] | None:
    """The schema version that a database has, and the one that MLflow needs, where an error of MLflow's names them."""
    found = re.search(r"out-of-date database schema \(found version ([\w.]+), but expected (\w+)\)", text)
    return (found[1], found[2]) if found is not None and SCHEMA_MESSAGE.is_here() else None


def without_known_addresses(connection: sqlite3.Connection) -> str | None:
    """Why the addresses in a database cannot be changed; None where they can, or it has no tables yet."""
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
    """How many runs a database holds; None where it keeps them in another table.

    Raises:
        sqlite3.Error: it has no tables of MLflow's, or cannot be read.
    """
    if not RUNS_TABLE.is_here() or (not _columns(connection, "runs") and _columns(connection, "alembic_version")):
        return None
    return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


def quiet_store() -> None:
    """Keep MLflow from writing a traceback of a hundred lines for each error of the database, which it raises too."""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """The columns of a table; none where there is no such table."""
    return {str(row[0]) for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def _history() -> Any:
    """The migrations that the installed MLflow knows, in a public class of alembic's; None where it hides them."""
    make = ALEMBIC_CONFIG.get()
    return None if make is MISSING else _history_by(make)


@functools.lru_cache(maxsize=1)
def _history_by(make: Any) -> Any:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - MLflow has imported it by then

    return ScriptDirectory.from_config(make(db_url=""))


@functools.cache
def _revision_of_a_new_database() -> str | None:
    """What MLflow itself writes into a database that it makes; some seconds."""
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory(prefix="bench-mlflow-") as folder:
        file = Path(folder, "new.db")
        create_tables(file, Path(folder))
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return revision_in(connection)
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, to compare it: (3, 18, 0) of 3.18.0, and of 3.18.0rc1."""
    return tuple(int(each) for each in re.findall(r"(?:^|\.)(\d+)", version))


def _minor(version: str) -> str:
    return ".".join(map(str, _numbers(version)[:2]))


# ---- pages of the UI -------------------------------------------------------------------------------------------------

VIEW_TAG = "mlflow.sharedViewState."
NAMED_VIEWS = "3.15.2"  # the first release seen to keep a view's state in a field of its own, beside its name
LONGEST_VIEW = 5000  # characters that every release keeps of an experiment's tag
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
    """The tag of an experiment that the UI reads the view of this key from; None where it has no such views."""
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
    """A view in the form in which the UI saves one.

    Args:
        release: of the MLflow that shows it; None: not known, and so in a form that all releases read.
        name: the view's.
        now_ms: Unix time.
        filter_by: the filter of the runs.
        sort_by: the column that they are sorted by, the least first.
        selected: columns to show beside the UI's own.
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
    """The UI's name for the column of a metric, a param or a tag: `kind` is "metrics", "params" or "tags"."""
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
    """The page of an experiment's runs, or the start page where there is none with such an address.

    Args:
        base: where the UI answers.
        experiment_id: the experiment's.
        view: the key of a saved view, which counts alone.
        filter_by: the filter of the runs, without a view.
        sort_by: the column that they are sorted by then, the least first.
        charts: show charts in place of the table.
    """
    if not RUNS_PAGE.is_here():
        return base
    query = {"workflowType": "machine_learning"}
    if view is not None and SAVED_VIEW.is_here():
        query["viewStateShareKey"] = view  # and no filter beside it: with one in the address the UI ignores the view
    elif filter_by is not None:
        # Sorted by when they were made, the trials would be folded away under their sweep's run.
        query |= {"searchFilter": filter_by}
        query |= {"orderByKey": sort_by, "orderByAsc": "true"} if sort_by is not None else {}
    if charts:
        query["compareRunsMode"] = "CHART"
    values = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
    return f"{base}/#/experiments/{experiment_id}/runs?{values}"


def compare_page(base: str, run_ids: Sequence[str], experiment_ids: Sequence[str]) -> str | None:
    """The page that shows runs side by side; None where there is none. Encoded, so that a terminal finds all of it."""
    if not COMPARE_PAGE.is_here():
        return None
    query = {"runs": list(run_ids), "experiments": list(experiment_ids)}
    texts = {name: json.dumps(value, separators=(",", ":")) for name, value in query.items()}
    return f"{base}/#/compare-runs?{urllib.parse.urlencode(texts, quote_via=urllib.parse.quote)}"


def missing_pages() -> list[str]:
    """A line for each kind of link that leads elsewhere, or nowhere, with the installed MLflow."""
    return [each.unseen() for each in (RUNS_PAGE, COMPARE_PAGE) if not each.is_here()]


# ---- tags that the UI reads ------------------------------------------------------------------------------------------

COLOUR, TABLES = "mlflow.runColor", "mlflow.loggedArtifacts"


def ui_tags(*, colour: str | None = None, tables: str | None = None) -> dict[str, str]:
    """Tags of a run that the UI reads; None: no such tag.

    Args:
        colour: the run's, in every table and chart.
        tables: which of its artifacts are tables, in the form that `mlflow.log_table` writes.
    """
    given = {COLOUR: (colour, COLOUR_TAG), TABLES: (tables, TABLES_TAG)}
    return {name: value for name, (value, entry) in given.items() if value is not None and entry.is_here()}
