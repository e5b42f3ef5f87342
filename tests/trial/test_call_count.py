"""Check how many calls each phase has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.config.schema import BenchmarkConfig, MeasurementConfig, WarmupConfig
from bench.results.record import CompileEvent
from bench.trial.measure.call_count import fixed_stop, measurement_stop, planned_calls, warmup_stop
from bench.trial.measure.runner import BenchmarkRunner
from factories import make_iteration, make_record

AUTO = BenchmarkConfig(warmup=WarmupConfig(policy="auto"))


def warmed_up(*e2e_s: float, reserved: dict[int, int] | None = None):
    """A record with the validation call and these warm-up calls; `reserved`: index of a call → bytes from it on."""
    calls = [make_iteration(0, "validation")]
    calls += [dataclasses.replace(make_iteration(0, "warmup"), index=n, e2e_s=e) for n, e in enumerate(e2e_s, 1)]
    for start, size in sorted((reserved or {}).items()):
        calls[start:] = [dataclasses.replace(each, device_reserved_bytes=size) for each in calls[start:]]
    return make_record(iterations=calls)


def test_level_calls_end_the_warm_up() -> None:
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 7), []) is None
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 8), []).status == "converged"


def test_what_the_validation_call_compiled_does_not_count() -> None:
    """It is no warm-up call, and everything compiles in it."""
    graph = CompileEvent(iteration=0, kind="graph")
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 8), [graph]).status == "converged"


@pytest.mark.parametrize("kind", ["graph", "recompile", "autotune", "failure", "cudagraph_record"])
def test_an_event_in_a_warm_up_call_restarts_the_window(kind: str) -> None:
    event = CompileEvent(iteration=3, kind=kind)
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 10), [event]) is None
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 11), [event]).status == "converged"


def test_a_growing_reserve_restarts_the_window() -> None:
    grown = {0: 100, 2: 200}
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 9, reserved=grown), []) is None
    assert warmup_stop(AUTO, warmed_up(*[1.0] * 10, reserved=grown), []).status == "converged"


def test_the_bounds_are_those_of_the_config() -> None:
    config = BenchmarkConfig(warmup=WarmupConfig(policy="auto", window=4, min_iterations=6, max_iterations=7))
    assert warmup_stop(config, warmed_up(*[1.0] * 5), []) is None
    assert warmup_stop(config, warmed_up(*[1.0] * 6), []).status == "converged"
    falling = [2 * 0.9**n for n in range(7)]
    assert warmup_stop(config, warmed_up(*falling), []).reason.startswith("after 7 calls the last 4 ")


def test_the_planned_measurement_bounds_the_warm_up() -> None:
    config = BenchmarkConfig(warmup=WarmupConfig(policy="auto"), measurement=MeasurementConfig(iterations=3))
    falling = [2 * 0.9**n for n in range(12)]
    assert [warmup_stop(config, warmed_up(*falling[:n]), []) is None for n in (8, 9)] == [True, False]


def test_a_fixed_phase_has_as_many_calls_as_asked_for() -> None:
    assert planned_calls(WarmupConfig(iterations=7)) == 7
    assert planned_calls(MeasurementConfig(policy="adaptive")) is None
    assert fixed_stop(WarmupConfig(iterations=7)).reason == "7 calls asked for"


def test_the_width_ends_an_adaptive_measurement() -> None:
    bounds = MeasurementConfig(policy="adaptive", min_iterations=10, step=2, half_width=0.5)
    record = make_record()  # twenty measured calls, 4 % half a width
    assert measurement_stop(BenchmarkConfig(measurement=bounds), record).status == "converged"
    narrow = dataclasses.replace(bounds, half_width=0.001)
    assert measurement_stop(BenchmarkConfig(measurement=narrow), record) is None
    capped = dataclasses.replace(narrow, max_iterations=20)
    assert measurement_stop(BenchmarkConfig(measurement=capped), record).status == "not_converged"


# ---- in the runner -----------------------------------------------------------------------------------------------


def run_with(config: BenchmarkConfig, e2e_s):
    """A real run whose calls claim to have taken these times, the last of them from there on."""
    times = iter(e2e_s)
    with BenchmarkRunner() as runner:
        runner.setup_benchmark("tiny", config)
        original, last = runner.time_generate, 1.0

        def claimed(config, warmup):
            nonlocal last
            last = next(times, last)
            return (last, *original(config, warmup)[1:])

        runner.time_generate = claimed
        return runner.run_benchmark(config)


def test_an_auto_warm_up_ends_when_the_calls_are_level(tiny) -> None:
    config = tiny(warmup=WarmupConfig(policy="auto", window=4, min_iterations=1), measurement_iterations=4)
    record = run_with(config, [5.0, 1.6, 1.3, 1.1, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert len(record.calls("warmup")) == 7  # 1.1, 1.0, 1.0, 1.0 still fall
    assert record.warmup_status == "converged"
    assert record.warmup_stop.startswith("the last 4 calls are level")
    assert len(record.calls("measurement")) == 4
    assert record.measurement_status == "fixed"


def test_a_warm_up_that_does_not_converge_is_measured_all_the_same(tiny) -> None:
    config = tiny(warmup=WarmupConfig(policy="auto", window=4, max_iterations=6))
    record = run_with(config, [5.0 * 0.9**n for n in range(20)])
    assert (record.status, record.warmup_status) == ("ok", "not_converged")
    assert len(record.calls("warmup")) == 6
    assert len(record.calls("measurement")) == 2


def test_an_adaptive_measurement_ends_with_the_width(tiny) -> None:
    config = tiny(measurement=MeasurementConfig(policy="adaptive", min_iterations=6, step=2, max_iterations=30))
    wild, quiet = [1.3, 0.7, 1.2, 0.8, 1.1, 0.9], [1.0] * 30
    record = run_with(config, [5.0, 1.0, *wild, *quiet])
    assert record.measurement_status == "converged"
    assert 10 < len(record.calls("measurement")) < 30
    assert len(record.monitor.samples) == len(record.calls("measurement"))
    assert record.steadiness is not None


def test_a_fixed_run_says_so(tiny) -> None:
    record = run_with(tiny(warmup_iterations=3), [])
    assert (record.warmup_status, record.warmup_stop) == ("fixed", "3 calls asked for")
    assert (record.measurement_status, record.measurement_stop) == ("fixed", "2 calls asked for")
    assert record.steadiness.power == "too few calls"


def test_falling_times_are_not_level() -> None:
    record = warmed_up(*np.linspace(1.5, 1.0, 8))
    assert warmup_stop(AUTO, record, []) is None
