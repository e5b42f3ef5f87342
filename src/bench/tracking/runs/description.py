"""Describe a trial in Markdown: its figures, status, what ran, and how reliable the median is.

The UI shows the text as the run's description; it is also a file among the artifacts. Some of MLflow's headline metrics
are at the top, to the same four digits; unknown ones have no column. For an unranked trial it gives the reason.
"""

from __future__ import annotations

import re

from bench.analysis.code_sources import unusual_sources
from bench.analysis.ranking import standing_of
from bench.analysis.trials.summary import Summary
from bench.config.mlflow_names import LONGEST_TAG
from bench.results.record import Record
from bench.tracking.runs.standing import UNRANKED, published_headline

TAG = "mlflow.note.content"
UNVERIFIED = "unverified"  # the tag that lists the unverified parts of a trial's request
FIGURES = ("e2e_ms", UNRANKED, "ttft_ms", "itl_ms", "tok_per_s", "cold_s", "peak_mib")  # the UI has no space for more
SPACE = "\u00a0"  # no-break space


def describe(record: Record, summary: Summary) -> str:
    """Describe a record in Markdown."""
    lines = [f"**{record.status}**" + (f" in {record.stage}" if record.stage else ""), *_figures(record, summary)]
    if record.error is not None:
        error = f"{record.error.type}: {record.error.message}"
        lines += ["", *(f"    {line}" for line in error.splitlines())]
    return "\n".join([*lines, "", *_ran(record), *_trust(record, summary)])


def unverified_tag(record: Record) -> str | None:
    """Return the parts of the request that nothing confirms or contradicts, with their reasons; None without any.

    Cut to the length of a tag; the record holds the rest.
    """
    text = "; ".join(f"{each.key}: {each.reason}" for each in record.unverified)
    return (text if len(text) <= LONGEST_TAG else f"{text[: LONGEST_TAG - 1]}…") or None


def roomy(markdown: str) -> str:
    """Return the text with space between the columns of its tables, which the UI's description shows without any."""
    return "\n".join(_roomy_row(line) if line.startswith("|") else line for line in markdown.splitlines())


def _roomy_row(row: str) -> str:
    is_line = (
        re.fullmatch(r"[|\s:-]+", row) is not None
    )  # the separator below the header, which allows no other characters
    return row if is_line else row.replace(" | ", f"{SPACE} | {SPACE}")


def requested(record: Record, section: str, key: str) -> object:
    """Return the request as far as the record holds it in the usual form."""
    keys = record.requested.get(section)
    return keys.get(key) if isinstance(keys, dict) else None


def _figures(record: Record, summary: Summary) -> list[str]:
    figures = published_headline(record, summary)
    shown = {name: value for name in FIGURES if (value := figures.get(name)) is not None}
    if not shown:
        return []
    rows = [list(shown), ["---:"] * len(shown), [_four_digits(value) for value in shown.values()]]
    return ["", *(f"| {' | '.join(row)} |" for row in rows)]


def _four_digits(value: float) -> str:
    return f"{float(f'{value:.4g}'):.12g}"  # 12340, not 1.234e+04


def _ran(record: Record) -> list[str]:
    lines = []
    if (seen := record.observed) is not None:
        mode = requested(record, "compile", "mode") or "off"
        ran = f"{seen.model_class}, {seen.dtype}, attention {seen.attention.implementation}, compile {mode}"
        lines.append(f"- ran: {ran}, cache {seen.kv_cache}, on {seen.device_name} ({seen.device})")
        profiled = {"prefill": seen.attention.prefill, "decode": seen.attention.decode}
        lines += [
            f"- {phase} attention: {', '.join(kernels.families) or 'none seen'}"
            for phase, kernels in profiled.items()
            if kernels is not None
        ]
        if seen.attention.error:
            lines.append(f"- attention not seen: {seen.attention.error}")
        lines += [f"- **unverified: {each.key}**: {each.reason}" for each in record.unverified]
        lines += [f"- mended: {each}" for each in seen.mends]
        lines += [f"- **imported: {library} {words}**" for library, words in unusual_sources(record).items()]
    if (output := record.fidelity) is not None:
        agrees = {True: "same as", False: "**DIFFERS from**", None: "not compared with"}[output.agrees]
        lines.append(
            f"- output {agrees} the {output.reference} reference" + (f": {output.reason}" if output.reason else "")
        )
    return lines


def _trust(record: Record, summary: Summary) -> list[str]:
    lines = []
    if (e2e := summary.e2e_s) is not None:
        lines.append(f"- E2E: median {e2e.median:.4g} s of {e2e.n} calls")
        if e2e.median_low is not None and e2e.median_high is not None:
            lines[-1] += f", 95 % interval {e2e.median_low:.4g} to {e2e.median_high:.4g} s"
    if (beside := record.neighbours) is not None and beside.count:
        lines.append(f"- **jobs of bench beside it on the host: {beside.count}**")
    if record.warmup_status is not None:
        lines.append(f"- warm-up {record.warmup_status.replace('_', ' ')}: {record.warmup_stop}")
    if (judged := record.steadiness) is not None:
        word = {True: "steady", False: "**not steady**", None: judged.power}[judged.steady]
        lines.append(f"- E2E {word}; flags: {', '.join(judged.flags) or 'none'}; shape: {judged.shape or 'unknown'}")
    if record.status == "ok":
        lines += [f"- **not ranked**: {each.text}" for each in standing_of([record]).reasons]
    return lines
