"""Load the records and the settings of a sweep as tables for notebooks: `bench.load_records`, `bench.load_settings`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from bench.orchestration.loading.record_sources import Source

FLOATS = ("_ms", "_s", "_pct", "_mib", "_tps", "_tok")  # how the names of figures end
COUNTS = ("repeat", "calls", "warmup_calls", "graphs", "processes", "processes_lost")
TRUTHS = ("ranked", "steady", "fidelity")


def load_records(path: str | os.PathLike[str], *, tracking_uri: str | None = None) -> pd.DataFrame:
    """Return one row per trial and repeat, without reference runs.

    Args:
        path: a sweep's folder (`multirun/NAME`), a folder of several (`multirun`), the folder or `record.json` of one
            job, or a sweep's id in MLflow (also `mlflow:ID`).
        tracking_uri: MLflow's address for such an id; None: mlflow.db in the current folder.

    Returns:
        The columns of `bench.report.rows.COLUMNS`, which says what each means, and the swept keys (`attention`,
        `workload.batch_size`) as texts between `repeat` and `status`. Figures are floats in full precision with the
        unit in the name (`e2e_ms`, `cold_s`, `peak_mib`); unknown values are NaN there, and NA elsewhere. Before you
        compare figures, select the rows that are `ranked`: the others failed, did not converge in warm-up, were
        unstable during measurement, or had another output. `load_settings` shows which setting is fastest, over all
        repeats. Lines about missing or omitted records are in `frame.attrs["notes"]`.

    Raises:
        ValueError: there are no records to read; one line says why and what to do.
    """
    from bench.orchestration.loading.record_sources import read_sources  # noqa: PLC0415
    from bench.report.rows import COLUMNS, columns_of, rows_of  # noqa: PLC0415

    sources = read_sources(os.fsdecode(path), tracking_uri)
    columns = columns_of(rows_of([record for source in sources for record in source.records]))
    return _frame(columns, COLUMNS, TRUTHS, sources)


def load_settings(path: str | os.PathLike[str], tracking_uri: str | None = None) -> pd.DataFrame:
    """Return one row per setting, over all its repeats, in the order of the ranking in the table and the report.

    Args:
        path: as for `load_records`.
        tracking_uri: likewise.

    Returns:
        The columns of `bench.report.setting_rows.COLUMNS`, which says what each means, and the swept keys as texts
        between `sweep_id` and `ranked`. The ranked settings come first, the one with the lowest median E2E on top;
        the others follow, with the `reason` why they may not be called fastest. Figures are medians over the ok
        processes, as floats in full precision with the unit in the name (`e2e_ms`, `tok_per_s`). Unknown values are
        NaN there, and NA elsewhere. Whether the first is faster than the second is the verdict of a comparison. Lines
        about missing or omitted records are in `frame.attrs["notes"]`.

    Raises:
        ValueError: there are no records to read; one line says why and what to do.
    """
    from bench.orchestration.loading.record_sources import read_sources  # noqa: PLC0415
    from bench.report.setting_rows import COLUMNS, setting_rows  # noqa: PLC0415

    sources = read_sources(os.fsdecode(path), tracking_uri)
    return _frame(setting_rows([each.records for each in sources]), COLUMNS, ("ranked",), sources)


def _frame(
    columns: Mapping[str, Sequence[Any]], own: Collection[str], truths: Sequence[str], sources: Sequence[Source]
) -> pd.DataFrame:
    """Return the columns as a data frame; columns not in `own` are swept keys.

    The types do not depend on the contents: pandas alone would infer another type for a column with unknown values.
    """
    import pandas as pd  # noqa: PLC0415

    frame = pd.DataFrame(columns)
    frame = frame.astype({name: _kind(name, truths) if name in own else "string" for name in columns})
    frame.attrs["notes"] = [f"{source.label}: {note}" for source in sources for note in source.notes]
    return frame


def _kind(column: str, truths: Sequence[str]) -> str:
    """Return the pandas type of a column."""
    if column.endswith(FLOATS):
        return "float64"
    if column in COUNTS:
        return "Int64"
    return "boolean" if column in truths else "string"
