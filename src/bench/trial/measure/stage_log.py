"""Make the lines that the runner logs at the end of each stage, from the record."""

from __future__ import annotations

import statistics

from bench.results.record import PhaseEvidence, Record, Steadiness
from bench.trial.measure.result import milliseconds


def loaded(record: Record) -> str:
    """Say how long loading the model took."""
    return f"model loaded in {record.phases_s['load']:.1f} s"


def validated(record: Record) -> str:
    """Say how long the first call took, whether it was a cold start, and how warm the compile cache was."""
    (call,) = record.calls("validation")
    compiled = record.observed.compile if record.observed is not None else None
    facts = ["no cold start: this set-up had made calls before" if record.warm_start else "cold start"]
    if compiled is not None and compiled.graphs:
        facts.append(f"{compiled.graphs} {'graph' if compiled.graphs == 1 else 'graphs'} compiled")
    if compiled is not None and compiled.cache_state is not None:
        facts.append(f"compile cache {compiled.cache_state}")
    return f"validation done: first call {milliseconds(call.e2e_s)} ms ({', '.join(facts)})"


def warmed_up(record: Record) -> str:
    """Say how many calls the warm-up had, and why it ended."""
    return f"warm-up done: {_calls(record, 'warmup')}, {record.warmup_status} ({record.warmup_stop})"


def measured(record: Record) -> str:
    """Say the median E2E, and whether the calls were steady."""
    times_s = [each.e2e_s for each in record.calls("measurement")]
    median = f"median E2E {milliseconds(statistics.median(times_s))} ms of " if times_s else ""
    steady = f", {_steady(record.steadiness)}" if record.steadiness is not None else ""
    return f"measurement done: {median}{_calls(record, 'measurement')}{steady}"


def inspected(record: Record) -> str:
    """Say which attention ran, whether the output agrees with the reference's, and what could not be seen."""
    facts = []
    if record.observed is not None:
        seen = record.observed.attention
        facts += [f"{name} ran {_kernels(each)}" for name, each in (("prefill", seen.prefill), ("decode", seen.decode))]
    if record.fidelity is not None:
        words = {True: "agrees with", False: "DIFFERS from", None: "could not be compared with"}
        facts.append(f"output {words[record.fidelity.agrees]} the reference's")
    keys = ", ".join(dict.fromkeys(each.key for each in record.unverified))
    facts.append(f"unverified: {keys}" if keys else "nothing unverified")
    return f"evidence done: {'; '.join(facts)}"


def _calls(record: Record, phase: str) -> str:
    count = len(record.calls(phase))
    return "1 call" if count == 1 else f"{count} calls"


def _steady(judged: Steadiness) -> str:
    if judged.steady is None:
        return judged.power
    flags = f" ({', '.join(judged.flags)})" if judged.flags else ""
    return f"{'steady' if judged.steady else 'unsteady'}{flags}"


def _kernels(phase: PhaseEvidence | None) -> str:
    return ", ".join(phase.families) if phase is not None and phase.families else "unknown attention"
