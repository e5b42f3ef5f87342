"""Print within 100 columns what each job took and what it ran."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from bench.analysis.trials.summary import summarize
from bench.report.text.format import UNDEFINED, milliseconds, percent, significant
from bench.results.record import PhaseEvidence
from gpu_check.running import Outcome

WIDTH = 100

SPEED = (
    ("job", 24), ("status", 8), ("E2E ms", 8), ("TTFT ms", 8), ("ITL ms", 7), ("tok/s", 6), ("cold s", 6),
    ("MFU %", 5), ("MBU %", 5), ("J/token", 8), ("GiB", 5),
)  # fmt: skip
PROOF = (
    ("job", 24), ("prefill ran", 14), ("decoding ran", 14), ("graphs", 6), ("again", 5), ("replays", 7), ("cache", 5),
    ("KL nats", 8), ("agrees", 7),
)  # fmt: skip


def tables(outcomes: Sequence[Outcome]) -> list[str]:
    """Return two tables, of durations and of evidence, then the reasons of jobs that are not ok."""
    reached = [each for each in outcomes if each.status != "not reached"]
    lines = [_line(SPEED, [name for name, _ in SPEED])]
    lines += [_line(SPEED, _speed(each)) for each in reached]
    lines += ["", _line(PROOF, [name for name, _ in PROOF])]
    lines += [_line(PROOF, _proof(each)) for each in reached if each.ok]
    if left := [each.job.name for each in outcomes if each.status == "not reached"]:
        lines += ["", *_wrapped(f"not reached: {', '.join(left)}")]
    for each in (each for each in reached if not each.ok):
        lines += ["", *_wrapped(f"{each.job.name}: {each.reason}")]
    return lines


def _speed(outcome: Outcome) -> list[str]:
    record = outcome.record
    if record is None:
        return [outcome.job.name, outcome.status, *[UNDEFINED] * (len(SPEED) - 2)]
    found, roofline = summarize(record), record.roofline
    stats = (found.e2e_s, found.ttft_s, found.itl_s)
    peak = record.memory.measurement_peak
    return [
        outcome.job.name,
        outcome.status,
        *(milliseconds(each.median if each is not None else None) for each in stats),
        significant(found.output_tokens_per_s),
        significant(found.cold_start_s, 3),
        percent(roofline.prefill_mfu if roofline is not None else None),
        percent(roofline.decode_mbu if roofline is not None else None),
        significant(found.joules_per_token, 3),
        gib((peak.device_reserved_bytes or peak.host_rss_bytes) if peak is not None else None),
    ]


def _proof(outcome: Outcome) -> list[str]:
    assert outcome.record is not None
    seen, fidelity = outcome.record.observed, outcome.record.fidelity
    assert seen is not None
    attention, compiled = seen.attention, seen.compile
    return [
        outcome.job.name,
        _with_share(attention.prefill),
        _with_share(attention.decode),
        UNDEFINED if compiled is None or compiled.graphs is None else str(compiled.graphs),
        UNDEFINED if compiled is None else str(len(compiled.recompiles)),
        UNDEFINED if attention.decode is None else str(attention.decode.cudagraph_launches),
        (compiled.cache_state if compiled is not None else None) or UNDEFINED,
        small(fidelity.kl_mean_nats if fidelity is not None else None),
        {True: "yes", False: "NO", None: "unknown"}[fidelity.agrees if fidelity is not None else None],
    ]


def _with_share(phase: PhaseEvidence | None) -> str:
    share = phase.attention_share if phase is not None else None
    return families(phase) + (f" {percent(share)} %" if share is not None else "")


def _line(columns: Sequence[tuple[str, int]], cells: Sequence[str]) -> str:
    parts = []
    for (name, width), cell in zip(columns, cells, strict=True):
        words = name in ("job", "status", "prefill ran", "decoding ran", "cache", "agrees")
        parts.append(cell[:width].ljust(width) if words else cell[:width].rjust(width))
    return " ".join(parts).rstrip()


def shortened(text: str) -> str:
    """Return the text, cut to the width."""
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _wrapped(text: str) -> list[str]:
    """Return the text in lines, three at most."""
    return textwrap.wrap(text, WIDTH, max_lines=3, placeholder=" …", subsequent_indent="  ")


def families(phase: PhaseEvidence | None) -> str:
    """Return the backends' names without their common ending."""
    if phase is None:
        return UNDEFINED
    return "+".join(re.sub(r"_attention$", "", each) for each in phase.families) or UNDEFINED


def gib(size: int | None) -> str:
    """Return bytes as a number of GiB."""
    return UNDEFINED if size is None else f"{size / 2**30:.2f}"


def small(value: float | None) -> str:
    """Return a number near 0 as text."""
    return UNDEFINED if value is None else f"{value:.1e}"
