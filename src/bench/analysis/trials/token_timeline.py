"""Compute the latency of each token of a call, by position in the output.

The first token includes the prefill and is given separately as the TTFT; each later one is the gap to the token before
it. At each position the median over the measured calls counts, because an outlier in one call is not a property of a
token. Calls shorter than the longest count for the positions that they have.

Not covered: the requests of a continuous batch, whose tokens share no steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.results.record import Record


@dataclass(frozen=True, kw_only=True)
class TokenTimeline:
    """Hold median latencies by position; for several processes the median of their medians."""

    ttft_s: float
    gaps_s: list[float]  # of the second and all later tokens; [] if calls have one token


def token_timeline(records: Sequence[Record]) -> TokenTimeline | None:
    """Return the timeline of the processes of one setting; None if no measured call has token times."""
    own = [median for record in records if (median := _medians(record)) is not None]
    if not own:
        return None
    places = own[0] if len(own) == 1 else _median_of_columns(own)
    return TokenTimeline(ttft_s=float(places[0]), gaps_s=[float(each) for each in places[1:]])


def _medians(record: Record) -> npt.NDArray[np.float64] | None:
    measured = [each for each in record.calls("measurement") if each.request_times_s is None]
    calls = [each.token_times_s for each in measured if each.token_times_s]
    if not calls:
        return None
    return _median_of_columns([np.diff(np.asarray(each, dtype=np.float64), prepend=0.0) for each in calls])


def _median_of_columns(rows: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return the median at each position over the rows that are long enough."""
    longest = max(map(len, rows))
    if all(len(each) == longest for each in rows):
        return np.asarray(np.median(np.stack(rows), axis=0), dtype=np.float64)
    padded = np.full((len(rows), longest), np.nan)
    for row, each in zip(padded, rows, strict=True):
        row[: len(each)] = each
    return np.asarray(np.nanmedian(padded, axis=0), dtype=np.float64)
