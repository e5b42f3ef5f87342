"""Describe the effects of torch.compile in the processes of a setting, for the tables of terminal and report."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.settings import asked
from bench.report.text.format import UNDEFINED
from bench.results.record import CompileObserved, Record


def graphs_words(records: Sequence[Record]) -> str:
    """Write the number of observed graphs; a range if processes differ, and "own" if they were not requested."""
    counts = sorted({each.graphs for each in _observed(records) if each.graphs is not None})
    if not counts:
        return UNDEFINED
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"
    return f"{text} own" if compiles_itself(records) else text


def compiles_itself(records: Sequence[Record]) -> bool:
    """Tell whether graphs were created without a request: flex_attention wraps itself in torch.compile."""
    unasked = [each for each in records if asked(each, "compile.mode") is None]
    return any((each.attention_graphs or 0) > 0 for each in _observed(unasked))


def starts_warm(records: Sequence[Record]) -> bool:
    """Tell whether compiled code came from a cache; the first call was then no cold start."""
    return any(each.cache_state in ("warm", "mixed") for each in _observed(records))


def _observed(records: Sequence[Record]) -> list[CompileObserved]:
    return [each.observed.compile for each in records if each.observed and each.observed.compile]
