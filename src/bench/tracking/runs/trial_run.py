"""Publish a record to MLflow: one run per trial and repeat, nested in its sweep's (`bench.tracking.runs.sweep_run`).

The headline metrics come first, without prefix, short and rounded, for the columns of the UI; which of them a trial has
is decided in `bench.tracking.runs.standing`. All figures in full precision are in groups, for every trial, as far as it
measured them before it ended. Every call but the first is a step under ``per_iter``, so that the UI draws the warm-up
curve; the first one, the validation call, is ``cold_s``, and would flatten the curve. A value that is not known is left
out, never logged as 0.

Everything published has the time it was measured at, so publishing a record again changes nothing; where an earlier
version published something else, the run gets what it would have now. MLflow deletes no metric: one that a run should
not have any more becomes NaN, and the steps that an earlier version logged stay.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import statistics
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.analysis.code_sources import published_sources
from bench.analysis.ranking import MARKS, standing_of
from bench.analysis.ranking import UNVERIFIED as UNVERIFIED_MARK
from bench.analysis.trials.headline import headline
from bench.analysis.trials.phases import phases_of, until_ready_s
from bench.analysis.trials.summary import Stats, Summary, batch_size, summarize
from bench.config.mlflow_names import accepted_name
from bench.host.secrets import without_credentials
from bench.results.file_names import CONFIG_FOLDER, CONFIG_NAME, LOG_NAME, OVERRIDES_NAME, PROFILE_NAMES, RECORD_NAME
from bench.results.palette import colour
from bench.results.record import Iteration, MemoryUse, Record, config_folder
from bench.results.sweep_file import SweepInfo
from bench.tracking.mlflow_internals import ui_tags
from bench.tracking.publish_mark import record_key
from bench.tracking.runs.description import TAG as NOTE
from bench.tracking.runs.description import UNVERIFIED, describe, requested, roomy, unverified_tag
from bench.tracking.runs.run_names import last_part, short_name
from bench.tracking.runs.run_owner import TAG as OWNER
from bench.tracking.runs.run_owner import own_tag
from bench.tracking.runs.standing import UNRANKED, published_headline
from bench.tracking.runs.tables import CALLS, calls_of, table_text, tag_text
from bench.tracking.runs.tags import SOURCE, USER, fact_tags, user_tag
from bench.tracking.store.store import COMPLETE, LAYOUT, PUBLISH, THIS_LAYOUT, Point, Store

ARTIFACTS = (
    RECORD_NAME,
    f"{CONFIG_FOLDER}/{CONFIG_NAME}",
    f"{CONFIG_FOLDER}/{OVERRIDES_NAME}",
    LOG_NAME,
    *PROFILE_NAMES,
)
ERROR_LENGTH = 5000
SUMMARY = "summary.md"
PARENT = "mlflow.parentRunId"
UNLISTED = 256  # colours for settings that their sweep does not list, after as many for those that it does
ADDRESSES = ("tracking.uri", "search.storage")  # keys whose value may hold a user's name and password

# The end that MLflow knows for each status; FAILED for all others.
RUN_STATUS = {"ok": "FINISHED", "skipped": "FINISHED", "interrupted": "KILLED"}


def publish(
    store: Store,
    record: Record,
    folder: Path,
    *,
    parent_run_id: str | None,
    tags: dict[str, str],
    sweep: SweepInfo | None = None,
) -> str:
    """Publish one record and the files of its job; return the run's id.

    The time for it is added to the record's `phases_s` and to a metric of the run; the uploaded file lacks it.

    Args:
        store: where to.
        record: of a job with any status. Published again, it keeps its run; a new measurement gets another run.
        folder: the job's folder.
        parent_run_id: the sweep's run, None for a single run.
        tags: the user's own.
        sweep: the record's sweep, for the run's name and colour; None: unknown.
    """
    began_s = time.monotonic()
    summary = summarize(record)
    all_tags = tags | _tags(record, summary, parent_run_id, sweep)
    name = run_name(record, sweep)
    run = store.sole_run(
        {"record_key": record_key(record)},
        name=name,
        started_at_s=record.started_at_s,
        tags=all_tags | user_tag(),
    )
    run_id = str(run.info.run_id)
    if run.info.run_name != name and _without_marks(run.info.run_name) == _without_marks(name):
        store.rename_run(run_id, name)  # keep a name that the user gave in the UI
    if USER not in run.data.tags:  # of an earlier version; whoever publishes again does not take the run over
        all_tags |= user_tag()
    # End it before logging anything, so that a later failure leaves no run that seems to be running.
    store.end_run(run_id, RUN_STATUS.get(record.status, "FAILED"), _end_s(record))
    figures = _gone(run, record, summary) | _figures(record, summary)
    points = [*store.changed_points(run, figures, time_ms=round(_end_s(record) * 1000)), *_steps(record)]
    store.log(run_id, points=points, params=_params(record.requested), tags=all_tags)
    for name in ARTIFACTS:
        parent = str(Path(name).parent)
        file = folder / name if parent == "." else config_folder(folder) / Path(name).name
        if file.is_file():
            store.upload(run_id, file, None if parent == "." else parent)
    calls = {CALLS: table_text(calls_of(record))} if record.iterations else {}
    store.upload_texts(run_id, {SUMMARY: describe(record, summary) + "\n", **calls})
    if record.sweep_id is not None:
        _supersede(store, record)
    record.phases_s["publish"] = publish_s = time.monotonic() - began_s
    took = Point(PUBLISH, publish_s, round(time.time() * 1000))
    store.log(run_id, points=[took], tags={COMPLETE: "yes", LAYOUT: THIS_LAYOUT})
    return run_id


def size_of(folder: Path) -> int:
    """Return the size in bytes of a job's published files."""
    total = 0
    for name in ARTIFACTS:
        with contextlib.suppress(OSError):
            total += (folder / name).stat().st_size
    return total


def _supersede(store: Store, record: Record) -> None:
    """Keep the last of several attempts at one repeat as the trial; a resumed sweep makes several.

    The others get another kind, so that a filter `kind = 'trial'` finds each repeat once.
    """
    assert record.sweep_id is not None
    slot = {"sweep_id": record.sweep_id, "setting_id": record.setting_id, "repeat": str(record.repeat)}
    by_record: dict[str | None, list[Any]] = {}
    for run in store.find_runs(**slot):
        by_record.setdefault(run.data.tags.get("record_key"), []).append(run)
    # Two processes that publish one record may each have made a run before they saw the other's.
    attempts = sorted(map(store.keep_one, by_record.values()), key=lambda run: (run.info.start_time, run.info.run_id))
    for number, run in enumerate(attempts, start=1):
        kind = "trial" if number == len(attempts) else "superseded"
        if run.data.tags.get("kind") != kind:
            store.log(run.info.run_id, tags={"kind": kind})


def run_name(record: Record, sweep: SweepInfo | None = None) -> str:
    """Return the short swept values (for a single run the model), and the repeat if there are several.

    Every page and chart shows the name, so the marks follow it.
    """
    known = {} if sweep is None else sweep.swept
    name = short_name(record.swept, known) or record.name or last_part(str(requested(record, "model", "id") or ""))
    repeats = requested(record, "sweep", "repeats")
    several = record.repeat > 1 or (isinstance(repeats, int) and repeats > 1)
    marks = standing_of([record]).marks
    name = name or "model without a name"
    return (f"{name} r{record.repeat}" if several else name) + (f" {marks}" if marks else "")


def _without_marks(name: str) -> str:
    """Return the name that bench gives a run, without marks."""
    letters = "".join(MARKS.values()) + UNVERIFIED_MARK
    return re.sub(rf" [{re.escape(letters)}]+\Z", "", name)


def colour_of(record: Record, sweep: SweepInfo | None) -> str:
    """Return the colour of the record's setting, by its position among the settings of its sweep, as typed."""
    if sweep is None:
        return colour(0)
    if record.name in sweep.settings:
        return colour(sweep.settings.index(record.name))
    # Its sweep does not list it, as a search that goes on: by what the setting is, so that it keeps it.
    return colour(UNLISTED + zlib.crc32(record.setting_id.encode()) % UNLISTED)


# ---- tags and params ---------------------------------------------------------------------------------------------


def _steadiness_tags(record: Record) -> dict[str, str | None]:
    seen = record.steadiness
    if seen is None:
        return {}
    return {
        "steadiness": seen.power if seen.steady is None else "steady" if seen.steady else "unsteady",
        "steady_flags": ", ".join(seen.flags) or "none",
        "steady_shape": seen.shape,
    }


def _tags(
    record: Record, summary: Summary, parent_run_id: str | None, sweep: SweepInfo | None = None
) -> dict[str, str]:
    error = f"{record.error.type}: {record.error.message}"[:ERROR_LENGTH] if record.error else None
    compiled = record.observed.compile if record.observed is not None else None
    tags = {
        "kind": "trial",
        "sweep_id": record.sweep_id,
        "trial_id": record.trial_id,
        "setting_id": record.setting_id,
        "arm": str(label) if (label := requested(record, "sweep", "label")) else None,
        "repeat": str(record.repeat),
        "record_key": record_key(record),  # one record, one run
        OWNER: own_tag(),
        "status": record.status,
        "stage": record.stage,
        "error": error,
        "compile_cache": compiled.cache_state if compiled is not None else None,
        "warmup_status": record.warmup_status,
        "warmup_stop": record.warmup_stop,
        "measurement_status": record.measurement_status,
        "measurement_stop": record.measurement_stop,
        **_steadiness_tags(record),
        "neighbours": str(beside.count) if (beside := record.neighbours) is not None and beside.count else None,
        "neighbours_unknown": beside.unknown if beside is not None else None,
        "fidelity_reason": record.fidelity.reason if record.fidelity is not None else None,
        UNVERIFIED: unverified_tag(record),
        **fact_tags(record),
        **SOURCE,
        **{f"source.{library}": words[:ERROR_LENGTH] for library, words in published_sources(record).items()},
        PARENT: parent_run_id,
        NOTE: roomy(describe(record, summary)),
        **ui_tags(colour=colour_of(record, sweep), tables=tag_text(CALLS) if record.iterations else None),
    }
    return {name: value for name, value in tags.items() if value is not None}


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the config's dotted keys with values as typed; a value that is a mapping is JSON."""
    params: dict[str, str] = {}
    for section, keys in config.items():
        values = (
            {f"{section}.{key}": value for key, value in keys.items()} if isinstance(keys, dict) else {section: keys}
        )
        for name, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            params[param_name(name)] = without_credentials(text) if name in ADDRESSES else text
    return params


def param_name(key: str) -> str:
    """Return a config key as a name that MLflow allows; override keys may hold characters such as + and @."""
    return accepted_name(key)


# ---- metrics -----------------------------------------------------------------------------------------------------


def _figures(record: Record, summary: Summary) -> dict[str, float | None]:
    """Return the metrics that a trial has once, the headline first, without unknown or non-finite values."""
    figures = published_headline(record, summary)
    rounded = {name: value if value is None else float(f"{value:.4g}") for name, value in figures.items()}
    return {
        key: float(value)
        for key, value in {**rounded, **_detail(record, summary)}.items()
        if value is not None and math.isfinite(value)
    }


def _gone(run: Any, record: Record, summary: Summary) -> dict[str, float | None]:
    """Return the earlier headline metrics that a run should no longer have."""
    names = (*headline(record, summary), UNRANKED)
    return {name: None for name in names if name in run.data.metrics}


def _steps(record: Record) -> list[Point]:
    """Return the metrics of every call but the validation call."""
    ready_s = record.started_at_s + until_ready_s(record)
    return [
        Point(f"per_iter/{key}", float(value), round((ready_s + call.start_s) * 1000), call.index)
        for call in record.iterations
        if call.phase != "validation"
        for key, value in _step(call, batch_size(record)).items()
        if math.isfinite(value)
    ]


def _detail(record: Record, summary: Summary) -> dict[str, float | None]:
    """Return the grouped metrics in full precision."""
    detail: dict[str, float | None] = {}
    for name in ("e2e_s", "ttft_s", "itl_s", "tpot_s"):
        series: Stats | None = getattr(summary, name)
        for field, value in vars(series).items() if series is not None else ():
            # e2e_median_s, but e2e_n and e2e_cv: those two have no unit.
            quantity = name.removesuffix("_s")
            detail[f"latency/{quantity}_{field}" + ("" if field in ("n", "cv") else "_s")] = value
    detail["latency/output_tokens_per_s"] = summary.output_tokens_per_s
    detail["latency/decode_tokens_per_s"] = summary.decode_tokens_per_s
    warmup = record.calls("warmup")
    detail["warmup/calls"] = len(warmup)
    if warmup:
        detail["warmup/total_s"] = sum(call.e2e_s for call in warmup)
        detail["warmup/first_s"] = warmup[0].e2e_s
        detail["warmup/last_s"] = warmup[-1].e2e_s
        detail["warmup/converged"] = {"converged": 1.0, "not_converged": 0.0}.get(record.warmup_status or "")
    if (seen := record.steadiness) is not None:
        detail["latency/e2e_drift"] = seen.drift
        detail["latency/e2e_lag1"] = seen.lag1
        detail["latency/e2e_smallest_step"] = seen.smallest_step
    detail["compile/cold_start_s"] = summary.cold_start_s
    detail["compile/excess_s"] = summary.compile_excess_s
    if record.observed is not None and (compiled := record.observed.compile) is not None:
        detail["compile/compile_s"] = compiled.compile_s
        detail["compile/autotune_s"] = compiled.autotune_s
        detail["compile/graphs"] = compiled.graphs
        detail["compile/attention_graphs"] = compiled.attention_graphs
        if compiled.graph_breaks is not None:
            detail["compile/graph_breaks"] = sum(compiled.graph_breaks.values())
        if compiled.recompiles is not None:
            detail["compile/recompiles"] = len(compiled.recompiles)
        detail["compile/cudagraph_skips"] = compiled.cudagraph_skips
        detail["compile/cache_hits"] = compiled.cache_hits
        detail["compile/cache_misses"] = compiled.cache_misses
    detail["memory/peak_bytes"] = summary.peak_bytes
    for name, value in vars(record.memory).items():
        if isinstance(value, MemoryUse):
            detail |= {f"memory/{name}_{quantity}": each for quantity, each in vars(value).items()}
        else:
            detail[f"memory/{name}"] = value
    # Not what publishing took, which a record tells only once it is published: publishing it again changes nothing.
    detail |= {f"phases/{name}_s": seconds for name, seconds in phases_of(record).items() if name != "publish"}
    return detail | _evidence(record, summary)


def _evidence(record: Record, summary: Summary) -> dict[str, float | None]:
    """Return the metrics of the evidence."""
    detail: dict[str, float | None] = {}
    for group, part in (("fidelity", record.fidelity), ("roofline", record.roofline)):
        figures = vars(part).items() if part is not None else ()
        detail |= {f"{group}/{name}": float(value) for name, value in figures if isinstance(value, int | float)}
    if record.roofline is not None and (rates := record.roofline.rates) is not None:
        detail["roofline/bandwidth_bytes_per_s"] = rates.bandwidth_bytes_per_s
        detail["roofline/matmul_flops_per_s"] = rates.matmul_flops_per_s
    if record.energy is not None:
        known = [each for each in record.energy.joules if each is not None]
        detail["energy/total_j"] = sum(known) if known else None
        detail["energy/joules_per_token"] = summary.joules_per_token
    return detail


def _step(call: Iteration, size: int | None) -> dict[str, float]:
    """Return the metrics of one call."""
    step = {"e2e_ms": call.e2e_s * 1e3}  # the UI draws its charts in this order
    if call.token_times_s:
        step["ttft_ms"] = call.ttft_s * 1e3
    if len(call.token_times_s) > 1:
        step["tpot_ms"] = call.tpot_s * 1e3
        step["itl_ms"] = statistics.median(call.itl_s) * 1e3
        if size is not None and call.decode_s > 0:
            step["decode_tps"] = size * len(call.itl_s) / call.decode_s
    return step


def _end_s(record: Record) -> float:
    """Return the end of the job in Unix time; if it is unknown, the end of its last call."""
    if record.ended_at_s is not None:
        return record.ended_at_s
    last = max((call.start_s + call.e2e_s for call in record.iterations), default=0.0)
    return record.started_at_s + until_ready_s(record) + last
