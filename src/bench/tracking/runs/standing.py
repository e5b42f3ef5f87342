"""Choose the headline metrics of a trial, and write the rank of each setting to MLflow.

`bench.analysis.ranking` decides; this module gives its decision the names by which MLflow sorts. An unranked trial has
no speed under a headline name, so that it cannot come first in a sorted table: its E2E is `UNRANKED`. At a sweep's end
each trial gets the place of its setting as `RANK`, which sorts the sweep's table in the order of the report.

Not covered: sweeps that share an experiment; each has ranks of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.ranking import RankedSetting, comparable_groups, rank, standing_of
from bench.analysis.settings import settings_of
from bench.analysis.trials.headline import headline
from bench.analysis.trials.summary import Summary
from bench.results.record import Record
from bench.tracking.publish_mark import record_key
from bench.tracking.runs.tags import common_tags
from bench.tracking.store.errors import explained
from bench.tracking.store.store import Store

# 1 is the best. The repeats of a setting have the same, but for those that are not ranked themselves: half a place
# later, for MLflow shows charts and columns in the order of the first run's metrics, which should have a speed. A
# setting that is not ranked has none.
RANK = "rank"
OWN_DOUBT = 0.5
UNRANKED = "unranked_ms"  # the median E2E of a trial that is ok and not ranked
KEPT = ("cold_s", "peak_mib", "steady", "fidelity")  # headline metrics of a trial that is ok, ranked or not
# Metrics of a sweep's run.
BEST = "best_e2e_ms"
RANKED = "ranked"  # number of ranked settings; set once all trials have their ranks


def published_headline(record: Record, summary: Summary) -> dict[str, float | None]:
    """Return headline name → value for a trial's run; {} for a trial that is not ok."""
    if record.status != "ok":
        return {}
    figures = headline(record, summary)
    if standing_of([record]).is_ranked:
        return figures
    return {UNRANKED: figures["e2e_ms"]} | {name: figures[name] for name in KEPT}


def is_unranked(record: Record) -> bool:
    """Check whether a trial is ok but not ranked, so that its E2E is published as `UNRANKED`."""
    return record.status == "ok" and not standing_of([record]).is_ranked


def rank_trials(store: Store, sweep_id: str, ranking: Sequence[RankedSetting], *, until_s: float | None = None) -> bool:
    """Set the metric `RANK` of each run of a sweep to the place of its setting, and remove it from unranked ones.

    Args:
        store: where the runs are.
        sweep_id: the sweep's.
        ranking: all settings of the sweep.
        until_s: on the monotonic clock; stop then. None: no limit.

    Returns:
        Whether all of them have it. A further call skips runs that have it already.

    Raises:
        TrackingError: MLflow did not take it.
    """
    places = places_of(ranking)

    def place_of(run: Any) -> float | None:
        tags = run.data.tags
        return places.get(tags.get("record_key", "")) if tags.get("kind") == "trial" else None

    runs = [run for run in store.find_runs(sweep_id=sweep_id) if run.data.tags.get("kind") != "sweep"]
    last = len(places) + 1
    for run in sorted(runs, key=lambda run: place_of(run) or last):  # if time runs out, the best have theirs
        if until_s is not None and time.monotonic() > until_s:
            return False
        store.set_metrics(run, {RANK: place_of(run)})
    return True


def ranking_of(records: Sequence[Record]) -> list[RankedSetting]:
    """Return the settings of a sweep in their order."""
    return rank(settings_of(records))


def places_of(ranking: Sequence[RankedSetting]) -> dict[str, float]:
    """Return record key → the place of its setting, for every repeat of the ranked settings; see `RANK`."""
    ranked = [each.setting for each in ranking if each.standing.is_ranked]
    return {
        record_key(record): place if standing_of([record]).is_ranked else place + OWN_DOUBT
        for place, setting in enumerate(ranked, start=1)
        for record in setting.every or setting.records
    }


def has_result(run: Any) -> bool:
    """Check whether a sweep's run has its result, and its trials their ranks."""
    return run.info.status != "RUNNING" and RANKED in run.data.metrics


def log_result(store: Store, run_id: str, records: Sequence[Record], ranking: Sequence[RankedSetting]) -> None:
    """Log a sweep's result as metrics and its trials' environment as tags; both replace earlier ones.

    Args:
        store: where the run is.
        run_id: the run's.
        records: of the sweep's trials.
        ranking: the same by settings.
    """
    with explained(store.uri, "look at a run"):
        run = store.client.get_run(run_id)
    store.set_metrics(run, sweep_metrics(ranking), tags=common_tags(records))


def sweep_metrics(ranking: Sequence[RankedSetting]) -> Mapping[str, float | None]:
    """Return name → value. Settings are counted; one with any ok process counts as ok.

    `BEST` is the lowest E2E of a ranked setting; None if none is ranked, or if the ranked ones did different work.
    """
    statuses = [each.standing.status for each in ranking]
    ranked = [each for each in ranking if each.standing.is_ranked]
    ok, skipped = statuses.count("ok"), statuses.count("skipped")
    is_comparable = len(comparable_groups([each.setting for each in ranked])) == 1
    best_s = ranked[0].e2e_s if is_comparable else None
    return {
        BEST: None if best_s is None else float(f"{best_s * 1e3:.4g}"),
        "settings_ok": ok,
        RANKED: len(ranked),
        "unranked": ok - len(ranked),
        "skipped": skipped,
        "failed": len(statuses) - ok - skipped,
    }
