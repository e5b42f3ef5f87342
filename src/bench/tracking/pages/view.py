"""Save a view of a sweep in the MLflow UI: only its trials, the best first, with the columns that differ.

While the sweep runs, its table is sorted by E2E, which only ranked trials have; after its end by the rank of each
trial's setting, as in the report.

Without a view the UI opens on a collapsed parent run and shows no metric. MLflow does not document its views
(`bench.tracking.mlflow_internals`). A version that stores them differently says so on the page and shows the
experiment's runs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.results.record import Record
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
from bench.tracking.runs.description import UNVERIFIED
from bench.tracking.runs.standing import RANK, UNRANKED, is_unranked
from bench.tracking.store.errors import SERVERS, TrackingError, explained
from bench.tracking.store.store import Store, trials_filter

__all__ = [
    "FIRST",
    "HEADLINE",
    "SECTIONS",
    "TAG_PREFIX",
    "Extras",
    "NoViewError",
    "extras_of",
    "save_view",
    "saved_key",
    "view_key",
]

# Steadiness and fidelity are next to the latency. These and the swept params should be visible without scrolling on a
# page 1700 pixels wide with MLflow's side panel open; the others need not be.
FIRST = ("e2e_ms", "steady", "fidelity", "ttft_ms", "itl_ms", "tok_per_s")
HEADLINE = (*FIRST, "tpot_ms", "decode_tps", "cold_s", "peak_mib", "mbu_pct", "j_per_tok")
BESIDE = "fidelity"  # precedes the column of the tag `unverified`, if a sweep has it
LEAST = ("tok_per_s", "itl_ms", "ttft_ms")  # moved after the params, in this order, where space is short

# The UI's own columns, with widths in pixels. Of the one for when a run was made, the sign for how it ended is all that
# a sweep's table needs.
OWN_WIDTHS = {RUN_NAME: 200, MADE: 46, DURATION: 84}
PARAM_WIDTH = 104  # a longer name is cut at its end, and shown under the pointer
RANK_WIDTH, UNRANKED_WIDTH = 60, 108
LEAST_WIDTH, LETTER_WIDTH = 22, 7  # of other columns: without its name, and for each letter of it
ROOM = 960  # of the 1700 pixels, those beside the UI's two panels: seen in a browser
PARAMS_SEEN = 2  # visible beside the first columns

# What stands for an override without a dot: a config group's choice by the key that its files differ in. A group
# that is missing here has no such key and gets no column; the choice is in the runs' names.
MAIN_KEYS = {
    "attention": "attention.implementation",
    "compile": "compile.mode",
    "device": "device",
    "model": "model.id",
    "workload": "workload.sequence_length",
}

# The sections of the chart page, and which of them are open: the headline bars are the answer, then come the curves.
SECTIONS = {
    UNGROUPED: True,
    "per_iter": True,
    "latency": False,
    "warmup": False,
    "compile": False,
    "memory": False,
    "fidelity": False,
    "roofline": False,
    "energy": False,
    "phases": False,
}


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Choose the columns that a sweep's table has only if its trials have values for them."""

    unverified: bool = False  # the tag of that name
    unranked: bool = False  # the E2E of a trial that is ok and not ranked
    ranked: bool = False  # the rank of each trial's setting, which then sorts the table

    def __or__(self, other: Extras) -> Extras:
        """Return the columns of both."""
        return Extras(
            unverified=self.unverified or other.unverified,
            unranked=self.unranked or other.unranked,
            ranked=self.ranked or other.ranked,
        )


def extras_of(records: Iterable[Record], *, ranked: bool = False) -> Extras:
    """Return the additional columns that these trials need.

    Args:
        records: of one sweep.
        ranked: whether they have their ranks.
    """
    extras = Extras(ranked=ranked)
    for each in records:
        extras |= Extras(unverified=bool(each.unverified), unranked=is_unranked(each))
    return extras


class NoViewError(TrackingError):
    """This MLflow has no saved views; a sweep's page then shows MLflow's own columns."""


def save_view(store: Store, *, sweep_id: str, swept_keys: Iterable[str], extras: Extras = Extras()) -> str:
    """Save the view of a sweep, in place of an earlier one; the sweep may have no trials yet.

    Args:
        store: where to.
        sweep_id: the sweep's; the view carries it as its name.
        swept_keys: the override keys that differ between trials.
        extras: the columns that not every sweep has.

    Returns:
        The view's key, for `experiment_address`.

    Raises:
        NoViewError: this MLflow has no such views.
        TrackingError: it could not be written.
    """
    key = view_key(sweep_id)
    tag = view_tag(key)
    if tag is None:
        raise NoViewError(SAVED_VIEW.unseen())
    release = None if store.uri.startswith(SERVERS) else installed()
    text = _view(sweep_id, swept_keys, extras=extras, release=release)
    with explained(store.uri, "save the sweep's view"):
        store.client.set_experiment_tag(store.experiment_id, tag, text)
    return key


def view_key(sweep_id: str) -> str:
    """Return the key of a sweep's view."""
    return hashlib.sha256(sweep_id.encode()).hexdigest()[:16]


def saved_key(sweep_id: str) -> str | None:
    """Return the key of a sweep's view that another process has saved; None if this MLflow has no views."""
    key = view_key(sweep_id)
    return None if view_tag(key) is None else key


def _view(sweep_id: str, swept_keys: Iterable[str], *, extras: Extras, release: str | None) -> str:
    e2e, *others_first = FIRST
    first = [*([RANK] if extras.ranked else []), e2e, *([UNRANKED] if extras.unranked else []), *others_first]
    metrics = {column("metrics", name): name for name in dict.fromkeys([*first, *HEADLINE])}
    params = {column("params", name): name for name in _param_names(swept_keys)}
    tags = {column("tags", UNVERIFIED): UNVERIFIED} if extras.unverified else {}
    widths = {each: max(70, LEAST_WIDTH + LETTER_WIDTH * len(name)) for each, name in (metrics | tags).items()}
    widths |= OWN_WIDTHS | dict.fromkeys(params, PARAM_WIDTH)
    widths |= {column("metrics", RANK): RANK_WIDTH, column("metrics", UNRANKED): UNRANKED_WIDTH}
    seen = [column("metrics", name) for name in first]
    seen[seen.index(column("metrics", BESIDE)) + 1 : 0] = tags
    moved = _without_room([RUN_NAME, MADE, *seen], widths)
    others = [*moved, *(each for each in metrics if each not in seen)]
    order = [RUN_NAME, MADE, *(each for each in seen if each not in moved), *params, *others, DURATION]
    return view_text(
        release=release,
        name=sweep_id,
        now_ms=round(time.time() * 1000),
        filter_by=trials_filter(sweep_id),
        sort_by=column("metrics", RANK if extras.ranked else e2e),  # runs without the metric come last
        selected=[*metrics, *params, *tags],
        widths={each: widths[each] for each in order},
        sections=SECTIONS,  # without an order of their own, they would be sorted by name
    )


def _without_room(columns: Sequence[str], widths: Mapping[str, int]) -> list[str]:
    """Return the columns of `LEAST` to leave out so that the others and the params have space."""
    kept, moved = list(columns), []
    for name in LEAST:
        if sum(widths[each] for each in kept) + PARAMS_SEEN * PARAM_WIDTH <= ROOM:
            break
        kept.remove(each := column("metrics", name))
        moved.append(each)
    return moved


def _param_names(swept_keys: Iterable[str]) -> list[str]:
    """Return the params that swept overrides set. A param is a key of a section; deeper keys are in its JSON."""
    names: dict[str, None] = {}
    for swept in swept_keys:
        key = swept.lstrip("+")
        name = ".".join(key.split(".")[:2]) if "." in key else MAIN_KEYS.get(key)
        if name is not None:
            names[name] = None
    return list(names)
