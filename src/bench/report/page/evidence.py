"""Build the evidence of the page: failures with reasons, what ran in each setting, and the environment.

Jobs and settings with the same evidence are grouped, because a thousand of them would otherwise give a thousand
paragraphs; longer lists are cut, and the page says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.analysis.code_sources import sources, unusual_sources
from bench.report.page.content import Facts, Failure
from bench.report.setting_view import SettingView
from bench.report.text import unverified
from bench.report.text.format import (
    UNDEFINED,
    listed,
    mebibytes,
    one_line,
    percent,
    plural,
    reason,
    run_title,
    significant,
)
from bench.report.text.section import Section
from bench.results.record import AttentionObserved, CompileObserved, Observed, PhaseEvidence, Record

NAMES_SHOWN = 12
FAILURES_SHOWN = 40
GROUPS_SHOWN = 40
ROWS_SHOWN = 200
VALUES_SHOWN = 4
LINES_SHOWN, CHARACTERS_SHOWN = 40, 6000  # of the end of a log
REASONS_SHOWN = 5
BREAK_LENGTH = 200  # maximum characters of a graph break's reason
# Section → how its keys are introduced.
SECTIONS = {
    "versions": "",
    "variables": "",
    "cpu": "CPU ",
    "gpu": "GPU ",
    "memory": "memory ",
    "git": "commit: ",
    "start_folder": "start folder: ",
}
# Values that change from job to job and are no difference of their environments.
VOLATILE = ("load_average", "gpu.other_processes")


# ---- failures ------------------------------------------------------------------------------------------------------


def failures(records: Sequence[Record]) -> tuple[list[Failure], str]:
    """Return jobs that are not ok, grouped by ending; and how many kinds are not shown."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for each in records:
        if each.status != "ok" and each.kind != "reference":
            groups.setdefault((each.status, each.stage or UNDEFINED, reason(each)), []).append(each)
    found = [
        Failure(
            jobs=listed([run_title(each) for each in group], NAMES_SHOWN),
            status=status,
            stage=stage,
            reason=why,
            detail=_end(group),
        )
        for (status, stage, why), group in groups.items()
    ]
    return found[:FAILURES_SHOWN], _left_out(len(found), FAILURES_SHOWN, "kinds of failures")


def _end(group: Sequence[Record]) -> str | None:
    """Return the last lines of the first traceback or log among them."""
    details = [each.error.detail for each in group if each.error is not None and each.error.detail]
    if not details:
        return None
    lines = [_printable(line) for line in details[0].splitlines()[-LINES_SHOWN:]]
    return "\n".join(lines)[-CHARACTERS_SHOWN:]


# ---- observations --------------------------------------------------------------------------------------------------


def observed(settings: Sequence[SettingView]) -> tuple[list[Facts], str]:
    """Return what ran, settings grouped by equal observations; and how many kinds are not shown."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for each in settings:
        seen = each.counted[0].observed
        if seen is not None:
            facts = _facts(seen)
            if (unseen := unverified.words(each.unverified)) is not None:
                facts[unverified.WORD] = unseen
            groups.setdefault(tuple(facts.items()), []).append(each.name)
    found = [Facts(of=listed(names, NAMES_SHOWN), facts=dict(facts)) for facts, names in groups.items()]
    return found[:GROUPS_SHOWN], _left_out(len(found), GROUPS_SHOWN, "kinds")


def _facts(seen: Observed) -> dict[str, str]:
    facts = {
        "model class": f"{seen.model_class}, {seen.parameters:,} parameters",
        "dtype": seen.dtype,
        "device": f"{seen.device_name} ({seen.device})",
        "weights' commit": seen.revision,
        "gradients": seen.grad_mode,
        "KV cache": seen.kv_cache,
        "tokens": f"{seen.prompt_tokens} in, {seen.new_tokens} out, per row" if seen.new_tokens else None,
        **_attention_facts(seen.attention),
        **(_compile_facts(seen.compile) if seen.compile is not None else {}),
        "hub kernels": ", ".join(seen.kernels),
        "mended": "; ".join(seen.mends),
        "split": f"over {seen.tp_size} processes" if seen.tp_size else None,
    }
    return {key: one_line(value) for key, value in facts.items() if value}


def _attention_facts(seen: AttentionObserved) -> dict[str, str | None]:
    return {
        "attention": seen.implementation,
        "SDPA may use": ", ".join(seen.allowed_backends),
        "ran in prefill": _kernels(seen.prefill),
        "ran in decoding": _kernels(seen.decode),
        "not seen": seen.error,
    }


def _kernels(phase: PhaseEvidence | None) -> str | None:
    if phase is None:
        return None
    operators = ", ".join(each.name for each in phase.operators[:REASONS_SHOWN])
    compiled = f"; {phase.compiled_regions} × compiled code" if phase.compiled_regions else ""
    replays = f"; {phase.cudagraph_launches} CUDA graph launches" if phase.cudagraph_launches else ""
    named = f" ({operators})" if operators else ""
    return f"{', '.join(phase.families) or 'no attention kernel'}{named}{compiled}{replays}"


def _compile_facts(seen: CompileObserved) -> dict[str, str | None]:
    breaks = [f"{why[:BREAK_LENGTH]} (×{count})" for why, count in (seen.graph_breaks or {}).items()]
    recompiles = None if seen.recompiles is None else [each[:BREAK_LENGTH] for each in seen.recompiles]
    if seen.graphs == 0 and not breaks:
        return {"compiled": "no"}
    arguments = ", ".join(f"{key}={value}" for key, value in seen.arguments.items())
    own = f", {seen.attention_graphs} of them by flex_attention itself" if seen.attention_graphs else ""
    graphs = f"{UNDEFINED} (torch does not tell)" if seen.graphs is None else plural(seen.graphs, "graph")
    return {
        "compiled": f"{graphs}{own}" + (f"; torch.compile({arguments})" if arguments else ""),
        "graph breaks": UNDEFINED if seen.graph_breaks is None else listed(breaks, REASONS_SHOWN) or "none",
        "recompiles": UNDEFINED if recompiles is None else listed(recompiles, REASONS_SHOWN) or "none",
        "without CUDA graph": UNDEFINED if seen.cudagraph_skips is None else str(seen.cudagraph_skips or ""),
        "compile cache": seen.cache_state or UNDEFINED,
    }


def numbers(settings: Sequence[SettingView]) -> Section | None:
    """Return the counts of each setting's first process: compilation, memory, fidelity. None without any."""
    shown = [each for each in settings if each.counted[0].observed is not None][:ROWS_SHOWN]
    if not shown:
        return None
    cells = [(each.name, *_numbers(each.counted[0])) for each in shown]
    headers = (
        "setting", "compiling s", "autotuning s", "breaks", "recompiles", "KV cache MiB", "equal tokens %",
        "first other token", "top-1 %", "KL nats", "logits SD", "prefill MFU %", "decode MFU %",
    )  # fmt: skip
    columns = {header: [row[place] for row in cells] for place, header in enumerate(headers)}
    known = {header: column for header, column in columns.items() if any(each != UNDEFINED for each in column)}
    whole = sum(each.counted[0].observed is not None for each in settings)
    note = _left_out(whole, ROWS_SHOWN, "settings")
    return Section(
        title="Counted and compared, in the first process of each setting", columns=known, lines=[note] if note else []
    )


def _numbers(record: Record) -> tuple[str, ...]:
    assert record.observed is not None
    compiled, said, share = record.observed.compile, record.fidelity, record.roofline
    cache = record.memory.kv_cache_bytes
    return (
        significant(compiled.compile_s, 3) if compiled is not None else UNDEFINED,
        significant(compiled.autotune_s, 3) if compiled is not None and compiled.autotune_s else UNDEFINED,
        _graph_breaks(compiled),
        UNDEFINED if compiled is None or compiled.recompiles is None else str(len(compiled.recompiles)),
        mebibytes(cache) if cache is not None else UNDEFINED,
        percent(said.equal_tokens_share, 3) if said is not None else UNDEFINED,
        _divergence(record),
        percent(said.top1_share, 3) if said is not None else UNDEFINED,
        _scientific(said.kl_mean_nats) if said is not None else UNDEFINED,
        _scientific(said.logit_mean_diff_sd) if said is not None else UNDEFINED,
        percent(share.prefill_mfu, 3) if share is not None else UNDEFINED,
        percent(share.decode_mfu, 3) if share is not None else UNDEFINED,
    )


def _graph_breaks(compiled: CompileObserved | None) -> str:
    known = None if compiled is None else compiled.graph_breaks
    return UNDEFINED if known is None else str(sum(known.values()))


def _divergence(record: Record) -> str:
    said = record.fidelity
    if said is None or said.equal_tokens_share is None:
        return UNDEFINED
    return "none" if said.first_divergent_token is None else str(said.first_divergent_token)


# ---- environment ---------------------------------------------------------------------------------------------------


def environment(records: Sequence[Record]) -> tuple[Facts, list[str]]:
    """Return the common environment of all jobs, and a line for each difference."""
    values: dict[str, Counter[str]] = {}
    known = [each for each in records if each.environment]
    for record in known:
        imported = ((f"{name} as imported", words) for name, words in sources(record).items())
        for key, value in (*_flat(record.environment), *imported, *_rates(record)):
            values.setdefault(key, Counter())[value] += 1
    common = {key: next(iter(found)) for key, found in values.items() if len(found) == 1}
    differing = [f"{one_line(key)}: {_counted(found)}" for key, found in values.items() if len(found) > 1]
    jobs = "1 job" if len(known) == 1 else f"all {len(known)} jobs"
    return Facts(of=jobs, facts={one_line(key): one_line(value) for key, value in common.items()}), differing


def not_as_installed(records: Sequence[Record]) -> list[str]:
    """Return a line for each copy of a library that was not imported from pip's own folder."""
    jobs: dict[str, int] = {}
    for record in records:
        for library, words in unusual_sources(record).items():
            text = one_line(f"{library} {words}")
            jobs[text] = jobs.get(text, 0) + 1
    return [f"{text}: {plural(count, 'job')}" for text, count in jobs.items()]


def _flat(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return property → value, without unknown values and values that change constantly."""
    for section, found in environment.items():
        if section == "sources":
            continue  # in words below
        for key, value in found.items() if isinstance(found, dict) else [("", found)]:
            name = f"{section}.{key}".rstrip(".")
            if name in VOLATILE or value is None or value in ({}, []):
                continue
            is_bytes = name.endswith("_bytes") and isinstance(value, int)
            yield _words(section, str(key)), _bytes(value) if is_bytes else str(value)


def _words(section: str, key: str) -> str:
    """Write `cpu.torch_threads` as `CPU torch threads`; keep names of packages and variables."""
    if not key:
        return section.replace("_", " ")
    before = SECTIONS.get(section, f"{section} ")
    return f"{before}{key.removesuffix('_bytes').replace('_', ' ')}" if before else key


def _rates(record: Record) -> Iterator[tuple[str, str]]:
    """Return the measured rates of the device."""
    rates = record.roofline.rates if record.roofline is not None else None
    if rates is not None:
        yield "measured bandwidth", f"{significant(rates.bandwidth_bytes_per_s / 1e9, 3)} GB/s"
        if rates.cache_bandwidth_bytes_per_s is not None:
            yield "measured bandwidth of the caches", f"{significant(rates.cache_bandwidth_bytes_per_s / 1e9, 3)} GB/s"
        yield f"measured matrix rate ({rates.dtype})", f"{significant(rates.matmul_flops_per_s / 1e12, 3)} TFLOP/s"


def _counted(found: Counter[str]) -> str:
    shown = [f"{one_line(value)} ({plural(count, 'job')})" for value, count in found.most_common()]
    return listed(shown, VALUES_SHOWN)


# ---- words ---------------------------------------------------------------------------------------------------------


def _left_out(whole: int, most: int, what: str) -> str:
    return f"{whole - most} more {what} are not shown; the records hold them" if whole > most else ""


def _printable(line: str) -> str:
    """Return the line without escape sequences; keep its spaces."""
    return "".join(each if each.isprintable() or each == "\t" else "\N{REPLACEMENT CHARACTER}" for each in line)


def _scientific(value: float | None) -> str:
    return UNDEFINED if value is None else "0" if value == 0 else f"{value:.1e}"


def _bytes(size: int) -> str:
    return f"{significant(size / 2**30, 3)} GiB"
