"""Build the addresses of a sweep's pages in MLflow's UI: table, charts, and the fastest trials side by side.

MLflow does not document the addresses of its pages (`bench.tracking.mlflow_internals`). `bench.tracking.pages.view`
decides what the table shows.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from bench.tracking.mlflow_internals import column, compare_page, missing_pages, runs_page
from bench.tracking.runs.standing import RANK
from bench.tracking.store.errors import SERVERS, explained, mlflow_command
from bench.tracking.store.store import Store, trials_filter

LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` answers
SIDE_BY_SIDE = 10  # with more, the page has no space for their figures


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """List the fastest trials of a sweep."""

    run_ids: list[str]  # of the settings in the order of the report, each repeat's newest attempt, at most SIDE_BY_SIDE
    of: int  # how many trials there are to choose from


def find_fastest(store: Store, sweep_id: str, of: int, *, is_ranked: bool = True) -> Fastest:
    """Ask MLflow for the fastest ranked trials.

    Args:
        store: where the sweep is.
        sweep_id: the sweep's.
        of: how many of its trials are ok.
        is_ranked: whether its trials have their ranks; False while it runs: the lowest E2E so far comes first.

    Raises:
        TrackingError: MLflow did not answer.
    """
    metrics = [RANK, "e2e_ms"] if is_ranked else ["e2e_ms"]
    query = " and ".join([trials_filter(sweep_id), *(f"metrics.{each} > 0" for each in metrics)])
    order = [f"metrics.{each} ASC" for each in metrics]
    with explained(store.uri, "look for the fastest runs"):
        runs = store.client.search_runs([store.experiment_id], query, order_by=order, max_results=SIDE_BY_SIDE)
    run_ids = [str(run.info.run_id) for run in runs]
    return Fastest(run_ids=run_ids, of=max(of, len(run_ids)))


def ui_command(store: Store) -> str:
    """Return the shell command that starts the UI on this store; for a server, its address."""
    if store.uri.startswith(SERVERS):
        return store.address
    return f"{mlflow_command()} ui --backend-store-uri {shlex.quote(store.address)} --host 127.0.0.1"


def experiment_address(
    store: Store,
    base: str = LOCAL_UI,
    *,
    sweep_id: str | None = None,
    view: str | None = None,
    charts: bool = False,
    sort_by: str = "e2e_ms",
) -> str:
    """Return the address of a page of the experiment's runs.

    Args:
        store: the experiment.
        base: where the UI of a database answers; a server has its own address.
        sweep_id: show only the trials of this sweep.
        view: the key of a saved view, as `bench.tracking.pages.view.save_view` returns it.
        charts: show charts instead of the table.
        sort_by: the metric to sort by without a view.
    """
    if store.uri.startswith(SERVERS):
        base = store.address
    return runs_page(
        base.rstrip("/"),
        store.experiment_id,
        view=view,
        filter_by=None if sweep_id is None else trials_filter(sweep_id),
        sort_by=column("metrics", sort_by),
        charts=charts,
    )


def compare_address(store: Store, run_ids: list[str], base: str = LOCAL_UI) -> str | None:
    """Return the address of the page that shows these runs side by side; None if this MLflow has no such page."""
    base = store.address if store.uri.startswith(SERVERS) else base
    return compare_page(base.rstrip("/"), run_ids, [store.experiment_id])


def sweep_links(
    store: Store,
    *,
    sweep_id: str,
    view: str | None,
    fastest: Fastest | None = None,
    base: str = LOCAL_UI,
    is_ranked: bool = False,
) -> list[str]:
    """Return one line for each page of a sweep.

    Args:
        store: where it is.
        sweep_id: the sweep's.
        view: the key of its saved view; None where it has none.
        fastest: its fastest trials; with fewer than two there is nothing to compare, and no line.
        base: where the UI of a database answers.
        is_ranked: whether its trials have their ranks.
    """
    sort_by = RANK if is_ranked else "e2e_ms"
    table, charts = (
        experiment_address(store, base, sweep_id=sweep_id, view=view, charts=each, sort_by=sort_by)
        for each in (False, True)
    )
    lines = [f"  table: {table}", f" charts: {charts}"]
    if fastest is not None and len(fastest.run_ids) > 1:
        shown = len(fastest.run_ids)
        which = f" (the {shown} fastest of {fastest.of})" if fastest.of > shown else ""
        if (address := compare_address(store, fastest.run_ids, base)) is not None:
            lines.append(f"compare: {address}{which}")
    return [*lines, *(f"   note: {line}" for line in missing_pages())]
