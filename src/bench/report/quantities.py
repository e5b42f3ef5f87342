"""Define the figures of settings: how each is read from the summary of a process, and how it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.analysis.trials.summary import Stats, Summary
from bench.report.text.format import mebibytes, milliseconds, percent, significant


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Define one figure; None if a process does not have it."""

    read: Callable[[Summary], float | None]
    write: Callable[[float | None], str]  # as a number without its unit

    def text(self, summary: Summary) -> str:
        """Write the figure of one process."""
        return self.write(self.read(summary))


def median(series: Stats | None) -> float | None:
    """Return the median of a series, None if there is no series."""
    return series.median if series is not None else None


def _half_width(series: Stats | None) -> float | None:
    """Return half of the interval of the median, as a fraction of the median."""
    if series is None or series.median_low is None or series.median_high is None or not series.median:
        return None
    return (series.median_high - series.median_low) / 2 / series.median


E2E = Quantity(read=lambda each: median(each.e2e_s), write=milliseconds)
E2E_HALF_WIDTH = Quantity(read=lambda each: _half_width(each.e2e_s), write=percent)
TTFT = Quantity(read=lambda each: median(each.ttft_s), write=milliseconds)
ITL = Quantity(read=lambda each: median(each.itl_s), write=milliseconds)
TPOT = Quantity(read=lambda each: median(each.tpot_s), write=milliseconds)
OUTPUT_THROUGHPUT = Quantity(read=lambda each: each.output_tokens_per_s, write=significant)
DECODE_THROUGHPUT = Quantity(read=lambda each: each.decode_tokens_per_s, write=significant)
COLD_START = Quantity(read=lambda each: each.cold_start_s, write=significant)
PEAK_MEMORY = Quantity(read=lambda each: each.peak_bytes, write=mebibytes)
MBU = Quantity(read=lambda each: each.decode_mbu, write=percent)
ENERGY = Quantity(read=lambda each: each.joules_per_token, write=significant)
