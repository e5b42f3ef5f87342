"""Upload tables to a run's artifacts, in the format of MLflow's `log_table`, which its UI shows as tables.

`log_table` itself appends to an existing table, so that publishing again would duplicate the rows. Here the new table
replaces an earlier one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from bench.results.record import Iteration, Record
from bench.tracking.mlflow_internals import TABLES as TAG
from bench.tracking.mlflow_internals import ui_tags
from bench.tracking.store.errors import explained
from bench.tracking.store.store import Store

CALLS = "calls.json"
DIGITS = 6


def upload_table(store: Store, run_id: str, name: str, columns: Mapping[str, Sequence[object]]) -> None:
    """Upload a table to a run's artifacts, in place of one of the same name.

    Args:
        store: where to.
        run_id: the run's.
        name: a path that ends in .json.
        columns: name → values, of plain types and as many in each; None is an empty cell.

    Raises:
        ValueError: the columns differ in length.
        TrackingError: MLflow did not take it.
    """
    store.upload_texts(run_id, {name: table_text(columns)})
    with explained(store.uri, "look at a run"):
        before = store.client.get_run(run_id).data.tags.get(TAG)
    store.log(run_id, tags=ui_tags(tables=tag_text(name, before)))


def table_text(columns: Mapping[str, Sequence[object]]) -> str:
    """Return the file: the names, and the values row by row."""
    rows = [[_cell(value) for value in row] for row in zip(*columns.values(), strict=True)]
    return json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False)


def _cell(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no other form


def tag_text(name: str, before: str | None = None) -> str:
    """Return the tag of a run that has this table in addition to those that the tag already names."""
    try:
        named = json.loads(before or "[]")
    except ValueError:
        named = []
    table = {"path": name, "type": "table"}
    others = [each for each in named if each != table] if isinstance(named, list) else []
    return json.dumps([*others, table])


def calls_of(record: Record) -> dict[str, list[object]]:
    """Return the columns of a record's calls, in order, warm-up included."""
    rows = [_row(call) for call in record.iterations]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _row(call: Iteration) -> dict[str, object]:
    steps = len(call.token_times_s)
    return {
        "index": call.index,
        "phase": call.phase,
        "e2e_ms": _rounded(call.e2e_s * 1e3),
        "ttft_ms": _rounded(call.ttft_s * 1e3) if steps else None,
        "tpot_ms": _rounded(call.tpot_s * 1e3) if steps > 1 else None,
        "graphs": call.graphs,
        "compile_s": None if call.compile_s is None else _rounded(call.compile_s),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
