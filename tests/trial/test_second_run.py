"""Check that a second run on the same set-up has a record that counts nothing of the run before.

Not covered: CUDA graphs, which only a GPU has.
"""

from __future__ import annotations

import logging
import os

import pytest

from bench.results.record import Record
from bench.trial.measure.runner import BenchmarkRunner


@pytest.fixture
def runner():
    with BenchmarkRunner(progress=lambda _, total: range(total)) as one:
        yield one


def test_another_config_is_refused_in_a_second_run_too(runner, tiny) -> None:
    config = tiny(measurement_iterations=1, gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    kept = runner.run_benchmark(config)
    with pytest.raises(RuntimeError, match=r"^measurement\.iterations=9: prepared was 1; [^\n]*$"):
        runner.run_benchmark(tiny(measurement_iterations=9, gpu_monitoring=False))
    assert runner.record is kept


def test_a_second_run_on_the_same_set_up_is_measured_for_itself(runner, tiny) -> None:
    config = tiny(warmup_iterations=2)
    runner.setup_benchmark("tiny", config)
    first = runner.run_benchmark(config)
    kept = first.to_dict()
    second = runner.run_benchmark(config)
    assert second is runner.record
    assert [each.index for each in second.iterations] == [0, 1, 2, 3, 4]
    assert [each.phase for each in second.iterations] == [each.phase for each in first.iterations]
    assert second.iterations[0].start_s < first.iterations[-1].start_s  # from its own beginning on
    assert (second.status, second.trial_id) == ("ok", first.trial_id)
    assert second.output.same_in_all_calls
    assert second.output.token_ids == first.output.token_ids
    assert len(second.monitor.samples) == 2
    assert second.observed.attention.prefill is not None
    assert second.observed.kv_cache == first.observed.kv_cache
    assert "load" in first.phases_s
    assert "load" not in second.phases_s
    assert first.to_dict() == kept


def test_evidence_of_one_run_is_not_taken_for_that_of_the_next(runner, tiny) -> None:
    config = tiny(gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    assert runner.run_benchmark(config).observed.attention.prefill is not None
    runner._inspect = lambda *_: None
    assert runner.run_benchmark(config).observed.attention.prefill is None


def test_only_the_first_run_has_a_cold_start(runner, tiny, caplog) -> None:
    config = tiny(gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    assert runner.run_benchmark(config).summary()["cold_s"] > 0
    with caplog.at_level(logging.INFO):
        second = runner.run_benchmark(config)
    assert second.warm_start
    assert second.summary()["cold_s"] is None
    assert "no cold start" in caplog.text
    runner.setup_benchmark("tiny", config)
    assert not runner.run_benchmark(config).warm_start


def test_a_run_after_calls_by_hand_has_no_cold_start(runner, tiny) -> None:
    config = tiny(gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    runner.time_generate(config, warmup=True)
    record = runner.run_benchmark(config)
    assert record.warm_start
    assert [each.index for each in record.iterations] == [0, 1, 2, 3]


def test_a_second_run_uses_its_own_compile_cache_after_another_runner(runner, tiny) -> None:
    config = tiny(gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    own = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    runner.run_benchmark(config)
    with BenchmarkRunner() as other:
        other.setup_benchmark("tiny", tiny(gpu_monitoring=False))
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] != own
    runner.run_benchmark(config)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == own


@pytest.mark.slow
@pytest.mark.compiled
def test_a_second_run_compiles_again_out_of_a_warm_cache(runner, tiny) -> None:
    config = tiny(device="cpu", compile_kwargs={"mode": "default"}, gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    first = runner.run_benchmark(config).observed.compile
    second = runner.run_benchmark(config).observed.compile
    assert (first.cache_state, second.cache_state) == ("cold", "warm")
    assert second.graphs == first.graphs > 0
    assert [(each.iteration, each.kind) for each in second.events] == [
        (each.iteration, each.kind) for each in first.events
    ]


def test_a_second_run_after_a_failure_begins_anew(runner, tiny) -> None:
    config = tiny(gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    model, original, calls = (
        runner._setup.request.loaded.model,
        runner._setup.request.loaded.model.generate,
        iter(range(100)),
    )

    def breaks(**keywords):
        if next(calls) == 2:
            raise RuntimeError("No available kernel. Aborting execution.")
        return original(**keywords)

    model.generate = breaks
    with pytest.raises(RuntimeError, match="after others had worked"):
        runner.run_benchmark(config)
    failed = runner.record
    second = runner.run_benchmark(config)
    assert (second.status, len(second.iterations), second.warm_start) == ("ok", 4, True)
    assert len(failed.iterations) == 2


def test_a_setting_that_cannot_run_is_skipped_in_every_run(runner, tiny) -> None:
    config = tiny(attn_implementation="flash_attention_2")
    runner.setup_benchmark("tiny", config)
    assert runner.run_benchmark(config) is None
    first = runner.record
    assert runner.run_benchmark(config) is None
    assert runner.record is not first
    assert runner.record.error == first.error
    assert runner.record.summary()["ranked"] is False


def test_a_closed_runner_is_to_be_set_up_again(runner, tiny) -> None:
    config = tiny(gpu_monitoring=False)
    runner.setup_benchmark("tiny", config)
    kept = runner.run_benchmark(config)
    runner.close()
    with pytest.raises(RuntimeError, match="call setup_benchmark first"):
        runner.run_benchmark(config)
    assert runner.record is kept


def test_a_record_that_was_given_is_filled_by_the_first_run(tiny) -> None:
    config = tiny(gpu_monitoring=False)
    given = Record(trial_id=config.trial_id(), started_at_s=1.0, requested=config.to_dict(), name="mine")
    with BenchmarkRunner(record=given, progress=lambda _, total: range(total or 0)) as runner:
        runner.setup_benchmark(config.model.id, config)
        first = runner.run_benchmark(config)
        calls = len(given.iterations)
        second = runner.run_benchmark(config)
    assert first.summary()["name"] == "mine"
    assert first.to_dict() == given.to_dict()
    assert (len(given.iterations), len(second.iterations), second.name) == (calls, calls, "mine")
