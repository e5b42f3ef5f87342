"""Build one row per trial and repeat, for pipelines, notebooks and MLflow's table of trials.

Figures are in full precision, under the names of MLflow's headline metrics, with the unit in the name. Unknown values
are None. A job that is not ok has its measurements up to its end: `ranked` tells which figures may be compared.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from bench.analysis.code_sources import unusual_sources
from bench.analysis.ranking import standing_of
from bench.analysis.settings import unverified_in
from bench.analysis.trials.headline import headline
from bench.analysis.trials.phases import NAMES, outside_generate_s, phases_of
from bench.analysis.trials.summary import Stats, Summary, summarize
from bench.report.text import unverified
from bench.report.text.format import bare, one_line
from bench.results.record import Record

# Column → meaning. The swept keys are between "repeat" and "status", each under its own name.
COLUMNS = {
    "name": "the setting: its swept values, short",
    "setting_id": "what the repeats of a setting in a sweep have in common",
    "trial_id": "hash of what defines the measurement; the same wherever it runs",
    "sweep_id": "the sweep; none for a single run",
    "repeat": "from 1; each in a process of its own",
    "status": "ok, skipped, failed, oom, timeout, crashed or interrupted",
    "ranked": "whether its figures may be compared: ok, warm, steady, and the same output as the reference",
    "marks": "≠ other output, ~ not warm, ! unsteady, ? unverified; empty for none",
    "reason": "why it is not ranked; none where it is",
    "e2e_ms": "median E2E of the measured calls",
    "e2e_low_ms": "lower end of the median's 95 % interval over the calls of this process",
    "e2e_high_ms": "upper end",
    "ttft_ms": "median time to the first token",
    "ttft_low_ms": "lower end of the 95 % interval",
    "ttft_high_ms": "upper end",
    "itl_ms": "median gap between successive tokens, of all calls together",
    "tpot_ms": "median time per output token after the first",
    "tpot_low_ms": "lower end of the 95 % interval",
    "tpot_high_ms": "upper end",
    "tok_per_s": "output throughput: batch × new tokens / E2E, totals over totals",
    "decode_tps": "decode throughput: the same without each call's first token, over first to last token",
    "cold_s": "the first call of the process",
    "compile_excess_s": "what the calls before the measurement took beyond the median E2E",
    "peak_mib": "peak memory: the GPU's reserve, or on the CPU the RSS",
    "mbu_pct": "share of the measured memory bandwidth that decoding reached",
    "j_per_tok": "energy of the measured calls over their tokens",
    "steady": "whether the measured calls were steady; none when they cannot tell",
    "steady_flags": "what was found against it, with spaces between",
    "fidelity": "whether the output agrees with the reference's; none when it was not compared",
    "unverified": "parts of the request that no evidence could see, and why; none where all was seen, or it is not ok",
    "calls": "measured calls",
    "warmup_calls": "calls before them, the validation call left out",
    "warmup_status": "fixed, converged or not_converged",
    "measurement_status": "likewise",
    "graphs": "graphs that torch.compile made, as observed",
    "compile_cache": "cold, warm or mixed; none where nothing was compiled",
    "kv_cache": "class of the KV cache, as observed",
    "device": "as observed",
    "device_name": "likewise",
    "dtype": "likewise",
    "sources": "libraries that were imported from elsewhere than pip's own folder, and from where; none where all were",
    "started_at_s": "Unix time",
    "phase_wait_s": "for neighbours on the machine, and for the device's memory",
    "phase_start_s": "from the decision to start its process to that one's first instruction",
    "phase_import_s": "importing the libraries",
    "phase_load_s": "loading the model",
    "phase_validation_s": "the first call, and the checks of it",
    "phase_warmup_s": "the warm-up, with what is done between its calls",
    "phase_measurement_s": "the measurement, likewise",
    "phase_evidence_s": "looking at what ran: attention, fidelity, roofline, profile",
    "phase_publish_s": "publishing to MLflow; none without",
    "phase_other_s": "from start to end, what no part covers",
    "outside_generate_s": "all parts but the wait, less the E2E of all calls",
    "error": "why it is not ok, in one line",
}
AFTER_SWEPT = "status"  # the first column after the swept keys

Row = dict[str, Any]


def rows_of(records: Sequence[Record], summaries: Sequence[Summary] | None = None) -> list[Row]:
    """Return a row for each record except reference runs, all with the same columns in the same order.

    Args:
        records: with any status.
        summaries: of the records, if available already.
    """
    summaries = summaries if summaries is not None else [summarize(each) for each in records]
    trials = [pair for pair in zip(records, summaries, strict=True) if pair[0].kind != "reference"]
    keys = dict.fromkeys(key for record, _ in trials for key in record.swept)
    names = {key: f"swept.{key}" if key in COLUMNS else key for key in keys}
    return [_row(record, summary, names) for record, summary in trials]


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the same as column → values; every column is present, even without rows."""
    names = list(rows[0]) if rows else list(COLUMNS)
    return {name: [row[name] for row in rows] for name in names}


def to_csv(rows: Sequence[Row]) -> str:
    """Return them as CSV with a header; unknown values are empty, and booleans are `true` or `false`, as in JSON."""
    columns = columns_of(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(each) for each in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """Return them as a JSON list of objects."""
    return json.dumps(list(rows), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


# ---- one row -------------------------------------------------------------------------------------------------------


def _row(record: Record, summary: Summary, swept: dict[str, str]) -> Row:
    known = _figures(record, summary) | _facts(record) | _phases(record)
    row: Row = {}
    for name in COLUMNS:
        if name == AFTER_SWEPT:
            typed = {column: record.swept.get(key) for key, column in swept.items()}
            row |= {column: None if value is None else bare(value) for column, value in typed.items()}
        row[name] = _finite(known[name])
    return row


def _figures(record: Record, summary: Summary) -> Row:
    figures: Row = dict(headline(record, summary))
    for name, series in (("e2e", summary.e2e_s), ("ttft", summary.ttft_s), ("tpot", summary.tpot_s)):
        figures[f"{name}_low_ms"], figures[f"{name}_high_ms"] = _interval_ms(series)
    figures["compile_excess_s"] = summary.compile_excess_s
    for name in ("steady", "fidelity"):
        figures[name] = None if figures[name] is None else bool(figures[name])
    return figures


def _facts(record: Record) -> Row:
    seen, judged, standing = record.observed, record.steadiness, standing_of([record])
    compiled = seen.compile if seen is not None else None
    return {
        "name": record.name,
        "setting_id": record.setting_id,
        "trial_id": record.trial_id,
        "sweep_id": record.sweep_id,
        "repeat": record.repeat,
        "status": record.status,
        "ranked": standing.is_ranked,
        "marks": standing.marks,
        "reason": "; ".join(one_line(each.text) for each in standing.reasons) or None,
        "steady_flags": " ".join(judged.flags) if judged is not None else None,
        "unverified": unverified.words(unverified_in([record])),
        "calls": len(record.calls("measurement")),
        "warmup_calls": len(record.calls("warmup")),
        "warmup_status": record.warmup_status,
        "measurement_status": record.measurement_status,
        "graphs": compiled.graphs if compiled is not None else None,
        "compile_cache": compiled.cache_state if compiled is not None else None,
        "kv_cache": seen.kv_cache if seen is not None else None,
        "device": seen.device if seen is not None else None,
        "device_name": seen.device_name if seen is not None else None,
        "dtype": seen.dtype if seen is not None else None,
        "sources": "; ".join(f"{name} {words}" for name, words in unusual_sources(record).items()) or None,
        "started_at_s": record.started_at_s,
        "error": one_line(f"{record.error.type}: {record.error.message}") if record.error is not None else None,
    }


def _phases(record: Record) -> Row:
    parts = phases_of(record)
    return {f"phase_{name}_s": parts.get(name) for name in NAMES} | {"outside_generate_s": outside_generate_s(record)}


def _interval_ms(series: Stats | None) -> tuple[float | None, float | None]:
    if series is None or series.median_low is None or series.median_high is None:
        return None, None
    return series.median_low * 1e3, series.median_high * 1e3


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    # Readers treat a carriage return as the end of a row, even within quotes.
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value
