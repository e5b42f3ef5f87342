"""List the pages of the latest sweep that a UI shows, by asking its server."""

from __future__ import annotations

from typing import Any

from bench.tracking.mlflow_internals import view_tag
from bench.tracking.pages.links import experiment_address, find_fastest, sweep_links
from bench.tracking.pages.view import view_key
from bench.tracking.runs.standing import has_result
from bench.tracking.runs.sweep_run import NAME
from bench.tracking.store.errors import explained
from bench.tracking.store.reachable import check_answers
from bench.tracking.store.store import Store, connect, tags_filter
from bench.tracking.store.store import pages as listed


def pages(address: str, *, sweep_id: str | None, experiment: str | None) -> list[str]:
    """Return one line for each page of a sweep.

    Args:
        address: of an MLflow server.
        sweep_id: which sweep; a missing one means the latest, and so does None without an experiment.
        experiment: shown where no sweep is asked for, as of a single run, or none is there; None: whichever there is.

    Raises:
        TrackingError: the server does not answer.
    """
    check_answers(address)
    with explained(address, "be asked for its sweeps"):
        client = connect(address)
        experiments = {str(each.experiment_id): each for each in listed(client.search_experiments)}
        shown = next((each for each in experiments.values() if each.name == experiment), None)
        run = sweep_id and _latest(client, list(experiments), sweep_id=sweep_id)
        if not run and (sweep_id is not None or shown is None):
            run = _latest(client, list(experiments))
    if not run:
        shown = shown or next((each for each in experiments.values() if each.name != "Default"), None)
        if shown is None:
            return [f" MLflow: {address}"]
        return [f"   runs: {experiment_address(_store(address, shown, client))}"]
    tags = run.data.tags
    shown, sweep_id = experiments[str(run.info.experiment_id)], tags["sweep_id"]
    store = _store(address, shown, client)
    view = key if view_tag(key := view_key(sweep_id)) in shown.tags else None
    is_ranked = has_result(run)
    fastest = find_fastest(store, sweep_id, int(tags.get("n_ok", 0)), is_ranked=is_ranked)
    return [
        f"  sweep: {tags.get(NAME) or sweep_id}",
        *sweep_links(store, sweep_id=sweep_id, view=view, fastest=fastest, is_ranked=is_ranked),
    ]


def _latest(client: Any, experiment_ids: list[str], **tags: str) -> Any:
    query = {"filter_string": tags_filter({"kind": "sweep"} | tags), "order_by": ["attributes.start_time DESC"]}
    return next(iter(client.search_runs(experiment_ids, max_results=1, **query)), None)


def _store(address: str, experiment: Any, client: Any) -> Store:
    return Store(uri=address, experiment_id=str(experiment.experiment_id), experiment=experiment.name, client=client)
