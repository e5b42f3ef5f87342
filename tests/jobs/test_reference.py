"""Test that there is one reference per model, workload and dtype, made by the first job that needs it."""

from __future__ import annotations

import threading

import pytest

from bench.config.schema import AttentionConfig, BenchmarkConfig, GenerationConfig, ModelConfig
from bench.jobs import reference as module
from bench.jobs.job import new_record, run_job
from bench.jobs.reference import ensure_reference, reference_config
from bench.results.file_names import REFERENCE_NAME, REFERENCES
from bench.results.record import Record


def ensure(config, folder):
    return ensure_reference(config, folder, "sweep", lambda *event: None)


@pytest.fixture
def jobs(monkeypatch):
    """Count the reference jobs, and end each one as given instead of running it."""
    made = []

    def run(config, record, folder, on_event):
        made.append(config)
        record.status = run.status
        if run.status == "ok":
            (folder / REFERENCE_NAME).write_bytes(b"")
        else:
            record.fail(run.status, "OutOfMemoryError", "no room")
        record.write(folder)
        return record

    run.status = "ok"
    monkeypatch.setattr(module, "run_job", run)
    made.append(run)
    return made


def test_settings_that_differ_only_in_speed_share_a_reference(tiny, tmp_path, jobs) -> None:
    settings = [
        tiny(),
        tiny(attn_implementation="eager"),
        tiny(attention=AttentionConfig(sdpa_backend="math")),
        tiny(compile_kwargs={"mode": "max-autotune"}),
        tiny(generation=GenerationConfig(kv_cache="static")),
        tiny(warmup_iterations=9, measurement_iterations=30),
    ]
    files = {ensure(each, tmp_path).file for each in settings}
    assert len(files) == 1
    assert len(jobs) == 2  # the fixture's function, and one job


def test_another_workload_dtype_or_model_has_its_own_reference(tiny, tmp_path, jobs, tiny_model) -> None:
    other = ModelConfig(**{**tiny_model, "seed": 1})
    settings = [tiny(), tiny(batch_size=2), tiny(sequence_length=17), tiny(dtype="bfloat16")]
    settings.append(tiny())
    settings[-1].model = other
    assert len({ensure(each, tmp_path).file for each in settings}) == 5


def test_the_reference_is_the_plainest_setting(tiny) -> None:
    plain = reference_config(tiny(attn_implementation="flex_attention", compile_kwargs={"mode": "default"}))
    assert (plain.attention.implementation, plain.compile.mode) == ("eager", None)
    assert (plain.generation.kv_cache, plain.monitor.enabled) == ("dynamic", False)
    assert plain.workload == tiny().workload


def test_a_failed_reference_is_a_reason_and_is_not_made_again(tiny, tmp_path, jobs) -> None:
    jobs[0].status = "oom"
    found = [ensure(tiny(), tmp_path) for _ in range(2)]
    assert [each.file for each in found] == [None, None]
    assert {each.reason for each in found} == {"the reference run ended oom: no room"}
    assert len(jobs) == 2


def test_an_interrupted_reference_is_made_again(tiny, tmp_path, jobs) -> None:
    jobs[0].status = "interrupted"
    assert ensure(tiny(), tmp_path).file is None
    jobs[0].status = "ok"
    assert ensure(tiny(), tmp_path).file is not None


def test_simultaneous_jobs_wait_for_one_reference(tiny, tmp_path, jobs) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(ensure(tiny(), tmp_path))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({each.file for each in found}) == 1
    assert len([each for each in found if each.made]) == 1


def test_an_edited_checkpoint_has_another_reference(tmp_path, jobs) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"before")
    config = BenchmarkConfig(model=ModelConfig(id=str(checkpoint)))
    first = ensure(config, tmp_path)
    assert ensure(config, tmp_path).file == first.file
    (checkpoint / "model.safetensors").write_bytes(b"afterwards")
    assert ensure(config, tmp_path).file != first.file


def test_a_real_reference_is_a_separate_job_that_is_not_counted(tiny, tmp_path) -> None:
    config = tiny(num_tokens_to_generate=6)
    found = ensure(config, tmp_path)
    assert found.file.parent.parent == tmp_path / REFERENCES
    record = Record.read(found.file.parent)
    assert (record.kind, record.status, record.iterations) == ("reference", "ok", [])
    assert record.observed.attention.prefill.families == ["eager"]

    job = tmp_path / "job"
    job.mkdir()
    trial = run_job(config, new_record(config), job, lambda *event: None, found.file)
    assert (trial.status, trial.fidelity.agrees) == ("ok", True)
    assert trial.fidelity.positions == 6
    assert trial.output.token_ids == record.output.token_ids


def test_without_a_reference_no_output_is_compared(tiny, tmp_path) -> None:
    config = tiny()
    assert run_job(config, new_record(config), tmp_path, lambda *event: None).fidelity is None


def test_a_broken_reference_file_is_a_reason_and_loses_no_measurement(tiny, tmp_path) -> None:
    (tmp_path / "broken").write_bytes(b"nonsense")
    config = tiny()
    record = run_job(config, new_record(config), tmp_path, lambda *event: None, tmp_path / "broken")
    assert (record.status, record.fidelity.agrees) == ("ok", None)
    assert record.fidelity.reason.startswith("the comparison failed: ")
