"""The pages of MLflow's UI that show a sweep: its table, its charts, and its fastest trials side by side.

MLflow does not document the addresses of its pages (`bench.tracking.mlflow_internals`). How one comes to a store's UI
is in `bench.tracking.store.store` (`ui_command`), and what the table shows in `bench.tracking.pages.view`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.tracking.mlflow_internals import compare_page, missing_pages
from bench.tracking.runs.standing import RANK
from bench.tracking.store.store import LOCAL_UI, SERVERS, Store, experiment_address, explained, trials_filter

SIDE_BY_SIDE = 10  # with more, the page has no room for their figures


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """The fastest trials of a sweep."""

    run_ids: list[str]  # of the settings in the order of the report, each repeat's newest attempt, at most SIDE_BY_SIDE
    of: int  # how many trials there are to choose from


def find_fastest(store: Store, sweep_id: str, of: int, *, is_ranked: bool = True) -> Fastest:
    """Ask MLflow for them; a trial that is not ranked is none of them.

    Args:
        store: where the sweep is.
        sweep_id: the sweep's.
        of: how many of its trials are ok.
        is_ranked: whether its trials have their ranks; False while it runs: the lowest E2E so far comes first.

    Raises:
        TrackingError: it did not answer.
    """
    metrics = [RANK, "e2e_ms"] if is_ranked else ["e2e_ms"]
    query = " and ".join([trials_filter(sweep_id), *(f"metrics.{each} > 0" for each in metrics)])
    order = [f"metrics.{each} ASC" for each in metrics]
    with explained(store.uri, "look for the fastest runs"):
        runs = store.client.search_runs([store.experiment_id], query, order_by=order, max_results=SIDE_BY_SIDE)
    run_ids = [str(run.info.run_id) for run in runs]
    return Fastest(run_ids=run_ids, of=max(of, len(run_ids)))


def compare_address(store: Store, run_ids: list[str], base: str = LOCAL_UI) -> str | None:
    """The page that shows these runs side by side; None where this MLflow has no such page."""
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
    """A line for each page of a sweep.

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
