"""Write the doubts about the figures of settings that ran, for the tables of terminal and page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.analysis.trials.summary import compiled_while_measured
from bench.report.setting_view import SettingView
from bench.report.text.format import one_line, run_title
from bench.results.record import Record

SAME_CACHE = "generation.kv_cache=static compares like with like"


def process_notes(record: Record) -> Iterator[str]:
    """Say which doubts there are about the figures of one process that is ok."""
    name, fidelity, output = run_title(record), record.fidelity, record.output
    if fidelity is not None and fidelity.agrees is None and fidelity.reason:
        yield f"{name}: output not compared: {one_line(fidelity.reason)}"
    if output is not None and not output.same_in_all_calls:
        yield f"{name}: its calls put out different tokens"
    if count := compiled_while_measured(record):
        yield f"{name}: compiled anew in {count} of {len(record.calls('measurement'))} measured calls"


def compilation_notes(settings: Iterable[SettingView]) -> Iterator[str]:
    """Explain the words after cold starts and numbers of graphs."""
    if any(each.starts_warm for each in settings):
        yield "w: compiled code came from a cache, so the first call was no cold start"
    if any(each.compiles_itself for each in settings):
        yield "own: flex_attention compiles itself, compile.mode or not"


def kv_caches(settings: Iterable[SettingView]) -> dict[str, list[str]]:
    """Return class of the KV cache → names of the ok settings with that class."""
    found: dict[str, list[str]] = {}
    for each in settings:
        seen = each.counted[0].observed
        if each.is_ok and seen is not None and seen.kv_cache:
            found.setdefault(seen.kv_cache, []).append(each.name)
    return found
