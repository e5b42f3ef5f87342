"""`bench.load_records`: the records of a sweep as a table for notebooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FLOATS = ("_ms", "_s", "_pct", "_mib", "_tps", "_tok")  # how the names of figures end
COUNTS = ("repeat", "calls", "warmup_calls", "graphs")
TRUTHS = ("ranked", "steady", "fidelity")


def load_records(path: str | os.PathLike[str], *, tracking_uri: str | None = None) -> pd.DataFrame:
    """One row a trial and repeat, reference runs left out.

    Args:
        path: a sweep's folder (`multirun/NAME`), a folder of several (`multirun`), the folder or `record.json` of one
            job, or a sweep's id in MLflow (also `mlflow:ID`).
        tracking_uri: MLflow's address for such an id; None: mlflow.db in the current folder.

    Returns:
        The columns of `bench.report.rows.COLUMNS`, which says what each means, and the swept keys (`attention`,
        `workload.batch_size`) as texts between `repeat` and `status`. Figures are floats in full precision with the
        unit in the name (`e2e_ms`, `cold_s`, `peak_mib`); what is not known is NaN there, and NA elsewhere. Before
        figures are compared, take the rows that are `ranked`: others failed, never became warm, left their level, or
        put out something else. Lines about records that are missing or left out are in `frame.attrs["notes"]`.

    Raises:
        ValueError: there are no records to read; one line says why and what to do.
    """
    import pandas as pd  # noqa: PLC0415

    from bench.report.rows import COLUMNS, columns_of, rows_of  # noqa: PLC0415
    from bench.sources import read_sources  # noqa: PLC0415

    sources = read_sources(os.fsdecode(path), tracking_uri)
    columns = columns_of(rows_of([record for source in sources for record in source.records]))
    frame = pd.DataFrame(columns)
    # The same types whatever is in them: pandas guesses another one for a column of which something is not known.
    frame = frame.astype({name: _kind(name) if name in COLUMNS else "string" for name in columns})
    frame.attrs["notes"] = [f"{source.label}: {note}" for source in sources for note in source.notes]
    return frame


def _kind(column: str) -> str:
    """The type that pandas is to keep a column in."""
    if column.endswith(FLOATS):
        return "float64"
    if column in COUNTS:
        return "Int64"
    return "boolean" if column in TRUTHS else "string"
