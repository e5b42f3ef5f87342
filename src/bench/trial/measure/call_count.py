"""Decide how many calls a phase has: a fixed number, or until `bench.analysis.calls.stopping` has enough."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.calls.events import disturbed_calls
from bench.analysis.calls.stopping import MeasurementRule, Stop, WarmupRule
from bench.config.schema import BenchmarkConfig, MeasurementConfig, WarmupConfig
from bench.results.record import CompileEvent, Record


def planned_calls(phase: WarmupConfig | MeasurementConfig) -> int | None:
    """Return how many calls the phase will have; None where a rule decides while they are made."""
    return phase.iterations if phase.policy == "fixed" else None


def fixed_stop(phase: WarmupConfig | MeasurementConfig) -> Stop:
    """Return the end of a phase that had as many calls as asked for."""
    return Stop(status="fixed", reason=f"{phase.iterations} calls asked for")


def warmup_stop(config: BenchmarkConfig, record: Record, events: Sequence[CompileEvent]) -> Stop | None:
    """Return whether a warm-up of policy auto ends with the record's last call.

    Args:
        config: the setting.
        record: with all calls so far.
        events: what torch.compile did until now.
    """
    bounds, measurement = config.warmup, config.measurement
    rule = WarmupRule(
        window=bounds.window,
        min_calls=bounds.min_iterations,
        max_calls=bounds.max_iterations,
        max_s=bounds.max_s,
        planned_calls=planned_calls(measurement) or measurement.min_iterations,
    )
    calls = record.calls("warmup")
    disturbed = disturbed_calls(record.iterations, events)
    return rule.decide(
        [each.e2e_s for each in calls], {place for place, each in enumerate(calls) if each.index in disturbed}
    )


def measurement_stop(config: BenchmarkConfig, record: Record) -> Stop | None:
    """Return whether a measurement of policy adaptive ends with the record's last call."""
    bounds = config.measurement
    rule = MeasurementRule(
        half_width=bounds.half_width,
        min_calls=bounds.min_iterations,
        max_calls=bounds.max_iterations,
        step=bounds.step,
        max_s=bounds.max_s,
    )
    return rule.decide([each.e2e_s for each in record.calls("measurement")])
