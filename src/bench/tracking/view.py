"""A sweep's own view in the MLflow UI: its trials alone, the fastest first, with the columns that tell them apart.

Without one the UI opens on a collapsed parent run and shows no metric. MLflow does not document how it keeps views
(`bench.tracking.mlflow_internals`). A version that keeps them otherwise says so on the page and shows the experiment's
runs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from bench.tracking.description import UNVERIFIED
from bench.tracking.mlflow_internals import (
    DURATION,
    MADE,
    RUN_NAME,
    SAVED_VIEW,
    UNGROUPED,
    column,
    installed,
    view_tag,
    view_text,
)
from bench.tracking.mlflow_internals import VIEW_TAG as TAG_PREFIX
from bench.tracking.store import SERVERS, Store, TrackingError, explained, trials_filter

__all__ = ["FIRST", "HEADLINE", "SECTIONS", "TAG_PREFIX", "NoViewError", "save_view", "saved_key", "view_key"]

# Beside the latency stands whether it was steady and the output right. These and the swept params must not need
# scrolling to be seen, on a page 1700 pixels wide with MLflow's side panel open; the others may.
FIRST = ("e2e_ms", "steady", "fidelity", "ttft_ms", "itl_ms", "tok_per_s")
HEADLINE = (*FIRST, "tpot_ms", "decode_tps", "cold_s", "peak_mib", "mbu_pct", "j_per_tok")
BESIDE = "fidelity"  # stands before the column of the tag `unverified`, where a sweep has that column
LEAST = "tok_per_s"  # follows the params there, so that these still need no scrolling

# The UI's own columns, with widths in pixels. Of the one for when a run was made, the sign for how it ended is all that
# a sweep's table needs.
OWN_WIDTHS = {RUN_NAME: 200, MADE: 46, DURATION: 84}
PARAM_WIDTH = 104  # a longer name is cut at its end, and shown when one points at it

# What stands for an override without a dot: a config group's choice by the key that its files differ in. A group
# that is missing here has no such key and gets no column; the choice is in the runs' names.
MAIN_KEYS = {
    "attention": "attention.implementation",
    "compile": "compile.mode",
    "device": "device",
    "model": "model.id",
    "workload": "workload.sequence_length",
}

# The sections of the chart page, and which of them are open: the curves and the headline bars are what one came for.
SECTIONS = {
    "per_iter": True,
    UNGROUPED: True,
    "latency": False,
    "warmup": False,
    "compile": False,
    "memory": False,
    "fidelity": False,
    "roofline": False,
    "energy": False,
    "phases": False,
}


class NoViewError(TrackingError):
    """This MLflow keeps no saved views; a sweep's page then shows MLflow's own columns."""


def save_view(store: Store, *, sweep_id: str, swept_keys: Iterable[str], unverified: bool = False) -> str:
    """Save the view of a sweep, over the one it had; it may have no trials yet.

    Args:
        store: where to.
        sweep_id: the sweep's; the view carries it as its name.
        swept_keys: the override keys that differ between trials.
        unverified: whether a trial carries the tag of that name, which then has a column.

    Returns:
        The view's key, for `experiment_address`.

    Raises:
        NoViewError: this MLflow keeps no such views.
        TrackingError: it could not be written.
    """
    key = view_key(sweep_id)
    tag = view_tag(key)
    if tag is None:
        raise NoViewError(SAVED_VIEW.unseen())
    release = None if store.uri.startswith(SERVERS) else installed()
    text = _view(sweep_id, swept_keys, unverified=unverified, release=release)
    with explained(store.uri, "save the sweep's view"):
        store.client.set_experiment_tag(store.experiment_id, tag, text)
    return key


def view_key(sweep_id: str) -> str:
    """The key that the view of a sweep is saved under."""
    return hashlib.sha256(sweep_id.encode()).hexdigest()[:16]


def saved_key(sweep_id: str) -> str | None:
    """The key of a sweep's view that another process has saved; None where this MLflow keeps no views."""
    key = view_key(sweep_id)
    return None if view_tag(key) is None else key


def _view(sweep_id: str, swept_keys: Iterable[str], *, unverified: bool, release: str | None) -> str:
    metrics = {column("metrics", name): name for name in HEADLINE}
    params = {column("params", name): name for name in _param_names(swept_keys)}
    sort_by, *_ = metrics  # a failed trial has no such metric and comes last
    first, others = list(metrics)[: len(FIRST)], list(metrics)[len(FIRST) :]
    tags = {column("tags", UNVERIFIED): UNVERIFIED} if unverified else {}
    if unverified:
        first.insert(first.index(column("metrics", BESIDE)) + 1, *tags)
        first.remove(least := column("metrics", LEAST))
        others.insert(0, least)
    order = [RUN_NAME, MADE, *first, *params, *others, DURATION]
    widths = {each: max(72, 24 + 7 * len(name)) for each, name in (metrics | tags).items()}
    widths |= OWN_WIDTHS | dict.fromkeys(params, PARAM_WIDTH)
    return view_text(
        release=release,
        name=sweep_id,
        now_ms=round(time.time() * 1000),
        filter_by=trials_filter(sweep_id),
        sort_by=sort_by,
        selected=[*metrics, *params, *tags],
        widths={each: widths[each] for each in order},
        sections=SECTIONS,  # without an order of their own, the curves would come after forty bars
    )


def _param_names(swept_keys: Iterable[str]) -> list[str]:
    """The params that swept overrides set. A param is a section's key: what lies deeper is in its JSON."""
    names: dict[str, None] = {}
    for swept in swept_keys:
        key = swept.lstrip("+")
        name = ".".join(key.split(".")[:2]) if "." in key else MAIN_KEYS.get(key)
        if name is not None:
            names[name] = None
    return list(names)
