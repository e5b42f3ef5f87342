"""Build one row per setting, over all its processes, in the order of the ranking of a sweep.

`bench.analysis.ranking` decides which settings may be ranked, with which marks and reasons. Figures are in full
precision, under the names of `bench.report.rows`, with the unit in the name; each is the median over the setting's ok
processes. Unknown values are None.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.analysis.ranking import RankedSetting, rank
from bench.analysis.settings import UNKNOWN, Setting, settings_of, steady_words
from bench.analysis.trials.headline import headline
from bench.analysis.trials.summary import summarize
from bench.report.text import unverified
from bench.report.text.format import bare
from bench.results.record import Record

# Column → meaning. The swept keys are between "sweep_id" and "ranked", each under its own name.
COLUMNS = {
    "name": "the setting: its swept values, short",
    "setting_id": "what the repeats of a setting in a sweep have in common",
    "sweep_id": "the sweep; none for a single run",
    "ranked": "whether it may be called fastest",
    "marks": "as in the table: output differs ≠, warm-up not converged ~, unsteady !, unverified ?; empty for none",
    "reason": "why it is not ranked, the deciding reason first; none where it is ranked",
    "status": "ok when any process is ok, else the worst status",
    "processes": "ok processes: the figures are medians over these",
    "processes_lost": "processes that ended otherwise",
    "e2e_ms": "E2E of the measured calls, the figure that orders ranked settings",
    "ttft_ms": "time to the first token",
    "itl_ms": "gap between successive tokens",
    "tpot_ms": "time per output token after the first",
    "tok_per_s": "output throughput",
    "decode_tps": "decode throughput",
    "cold_s": "the first call of the process",
    "peak_mib": "peak memory: the GPU's reserve, or on the CPU the RSS",
    "mbu_pct": "share of the measured memory bandwidth that decoding reached",
    "j_per_tok": "energy of the measured calls over their tokens",
    "steady": "yes, no, noisy or few, with counts where processes differ (2 no 3 yes); none where none was judged",
    "unverified": "parts of the request that no evidence could see, and why; none where all was seen",
}
AFTER_SWEPT = "ranked"  # the first column after the swept keys
FIGURES = tuple(COLUMNS)[tuple(COLUMNS).index("e2e_ms") : tuple(COLUMNS).index("steady")]

Row = dict[str, Any]


def setting_rows(sweeps: Iterable[Sequence[Record]]) -> dict[str, list[Any]]:
    """Return column → values, one per setting in the order of `rank`; every column is present, even without rows.

    Args:
        sweeps: the records of each, with any status. A setting measured in two sweeps has a row for each.
    """
    settings = [setting for records in sweeps for setting in settings_of(records)]
    keys = dict.fromkeys(key for each in settings for key in each.swept)
    swept = {key: f"swept.{key}" if key in COLUMNS else key for key in keys}
    rows = [_row(each, swept) for each in rank(settings)]
    return {name: [row[name] for row in rows] for name in _names(list(swept.values()))}


def _names(swept: Sequence[str]) -> list[str]:
    names = list(COLUMNS)
    at = names.index(AFTER_SWEPT)
    return [*names[:at], *swept, *names[at:]]


def _row(place: RankedSetting, swept: dict[str, str]) -> Row:
    setting, standing = place.setting, place.standing
    typed = {column: setting.swept.get(key) for key, column in swept.items()}
    steady = steady_words(setting.records)
    return {
        "name": setting.name,
        "setting_id": setting.setting_id,
        "sweep_id": next((each.sweep_id for each in setting.every or setting.records), None),
        **{column: None if value is None else bare(value) for column, value in typed.items()},
        "ranked": standing.is_ranked,
        "marks": standing.marks,
        "reason": "; ".join(each.text for each in standing.reasons) or None,
        "status": standing.status,
        "processes": len(setting.records),
        "processes_lost": sum(setting.lost.values()),
        **_figures(setting),
        "e2e_ms": None if place.e2e_s is None else place.e2e_s * 1e3,
        "steady": None if steady == UNKNOWN else steady,
        "unverified": unverified.words(setting.unverified),
    }


def _figures(setting: Setting) -> Row:
    """Return the median of each headline figure over the processes that have it."""
    processes = [headline(each, summarize(each)) for each in setting.records]
    found: Row = {}
    for name in FIGURES:
        known = [value for each in processes if (value := each[name]) is not None]
        found[name] = statistics.median(known) if known else None
    return found
