"""Select the headline metrics of one trial: the few figures by which settings are sorted and searched.

MLflow shows them rounded; a search uses them in full precision. Each is None if the record does not have it.
"""

from __future__ import annotations

from bench.analysis.trials.summary import Stats, Summary
from bench.results.record import Record


def headline(record: Record, summary: Summary) -> dict[str, float | None]:
    """Return name → value in the unit in the name; `steady` and `fidelity` are 0 or 1."""
    agrees = record.fidelity.agrees if record.fidelity is not None else None
    seen = record.steadiness
    return {
        "e2e_ms": _median_ms(summary.e2e_s),
        "ttft_ms": _median_ms(summary.ttft_s),
        "itl_ms": _median_ms(summary.itl_s),
        "tpot_ms": _median_ms(summary.tpot_s),
        "tok_per_s": summary.output_tokens_per_s,
        "decode_tps": summary.decode_tokens_per_s,
        "cold_s": summary.cold_start_s,
        "peak_mib": None if summary.peak_bytes is None else summary.peak_bytes / 2**20,
        "mbu_pct": None if summary.decode_mbu is None else summary.decode_mbu * 100,
        "j_per_tok": summary.joules_per_token,
        "steady": None if seen is None or seen.steady is None else float(seen.steady),
        "fidelity": None if agrees is None else float(agrees),
    }


def _median_ms(series: Stats | None) -> float | None:
    return None if series is None else series.median * 1e3
