"""A sweep's own view in the MLflow UI: its trials alone, the fastest first, with the columns that tell them apart.

Without one the UI opens on a collapsed parent run and shows no metric. MLflow does not document how it keeps views;
this is what the UI of 3.17.2 reads and writes. A version that keeps them otherwise says so on the page and shows the
experiment's runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from collections.abc import Iterable

from bench.tracking.store import Store, explained, trials_filter

TAG_PREFIX = "mlflow.sharedViewState."
# Beside the latency stands whether it was steady and the output right. These and the swept params must not need
# scrolling to be seen, on a page 1700 pixels wide with MLflow's side panel open; the others may.
FIRST = ("e2e_ms", "steady", "fidelity", "ttft_ms", "itl_ms", "tok_per_s")
HEADLINE = (*FIRST, "tpot_ms", "decode_tps", "cold_s", "peak_mib", "mbu_pct", "j_per_tok")

# The UI's own columns, and widths in pixels. "runDateAndNestInfo" is when the run was made, and the sign for how it
# ended: that sign is all that a sweep's table needs of it.
RUN_NAME, MADE, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
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
# "Model metrics" is the UI's own name for metrics without a prefix.
SECTIONS = {
    "per_iter": True,
    "Model metrics": True,
    "latency": False,
    "warmup": False,
    "compile": False,
    "memory": False,
    "fidelity": False,
    "roofline": False,
    "energy": False,
    "phases": False,
}


def save_view(store: Store, *, sweep_id: str, swept_keys: Iterable[str]) -> str:
    """Save the view of a sweep, over the one it had; it may have no trials yet.

    Args:
        store: where to.
        sweep_id: the sweep's; the view carries it as its name.
        swept_keys: the override keys that differ between trials.

    Returns:
        The view's key, for `experiment_address`.

    Raises:
        TrackingError: it could not be written.
    """
    key = view_key(sweep_id)
    now_ms = round(time.time() * 1000)
    packed = base64.b64encode(zlib.compress(json.dumps(_state(sweep_id, swept_keys)).encode())).decode()
    view = {"name": sweep_id, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"}
    with explained(store.uri, "save the sweep's view"):
        store.client.set_experiment_tag(store.experiment_id, TAG_PREFIX + key, json.dumps(view))
    return key


def view_key(sweep_id: str) -> str:
    """The key that the view of a sweep is saved under."""
    return hashlib.sha256(sweep_id.encode()).hexdigest()[:16]


def _state(sweep_id: str, swept_keys: Iterable[str]) -> dict[str, object]:
    metrics = {f"metrics.`{name}`": name for name in HEADLINE}
    params = {f"params.`{name}`": name for name in _param_names(swept_keys)}
    sort_by, *_ = metrics
    first = list(metrics)[: len(FIRST)]
    order = [RUN_NAME, MADE, *first, *params, *list(metrics)[len(FIRST) :], DURATION]
    widths = {column: max(72, 24 + 7 * len(name)) for column, name in metrics.items()}
    return {
        "searchFilter": trials_filter(sweep_id),
        "orderByKey": sort_by,  # a failed trial has no such metric and comes last
        "orderByAsc": True,
        "selectedColumns": [*metrics, *params],
        "columnOrder": order,  # else by name
        "columnWidths": OWN_WIDTHS | widths | dict.fromkeys(params, PARAM_WIDTH),
        "runsHiddenMode": "SHOW_ALL",  # else charts show the first ten
        # No charts but the sections they go to: the UI makes a chart of each metric that it finds, with the metrics
        # in the order that they were logged in where a section counts as reordered.
        "compareRunCharts": [],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": is_open, "isReordered": True} for name, is_open in SECTIONS.items()
        ],
        "isAccordionReordered": True,  # else by name, the curves after forty bars
    }


def _param_names(swept_keys: Iterable[str]) -> list[str]:
    """The params that swept overrides set. A param is a section's key: what lies deeper is in its JSON."""
    names: dict[str, None] = {}
    for swept in swept_keys:
        key = swept.lstrip("+")
        name = ".".join(key.split(".")[:2]) if "." in key else MAIN_KEYS.get(key)
        if name is not None:
            names[name] = None
    return list(names)
