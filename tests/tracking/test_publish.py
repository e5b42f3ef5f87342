"""What MLflow shows of a record, read back from a real database."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from bench.analysis.trials.summary import summarize
from bench.config.schema import ModelConfig, SweepConfig, TrackingConfig
from bench.results.palette import COLOURS, colour
from bench.results.record import (
    STATUSES,
    CompileObserved,
    Failure,
    Fidelity,
    Memory,
    MemoryUse,
    Neighbours,
    Record,
    Steadiness,
)
from bench.results.sweep_file import SweepInfo
from bench.tracking.runs.description import describe, roomy
from bench.tracking.runs.sweep_run import begin_sweep, end_sweep
from bench.tracking.runs.trial_run import colour_of, publish, run_name
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Point, Store
from factories import (
    BATCH_SIZE,
    COMPILE_EXCESS_S,
    MEDIAN_E2E_S,
    NEW_TOKENS,
    STARTED_AT_S,
    make_config,
    make_evidence,
    make_iterations,
    make_record,
)

HEADLINE = ["e2e_ms", "ttft_ms", "itl_ms", "tpot_ms", "tok_per_s", "decode_tps", "cold_s", "peak_mib"]
PROVEN = ["mbu_pct", "j_per_tok", "fidelity"]

_sweeps = itertools.count(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(None, "bench", tmp_path_factory.mktemp("store"))


@pytest.fixture
def sweep_id() -> str:
    """A sweep of the test's own: all of them share one database."""
    return f"sweep-{next(_sweeps)}"


def begin(store: Store, sweep_id: str, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "name": "night",
        "swept": {"compile.mode": ["default", "max-autotune"]},
        "settings": ["default", "max-autotune"],
        "baseline": None,
        "started_at_s": STARTED_AT_S,
    }
    return begin_sweep(store, SweepInfo(sweep_id=sweep_id, **arguments | changes), tags={"who": "me"})


def published(store: Store, record: Record, folder: Path, **arguments: Any) -> Any:
    run_id = publish(store, record, folder, **{"parent_run_id": None, "tags": {}} | arguments)
    return store.client.get_run(run_id)


def runs_of(store: Store, sweep_id: str) -> list[Any]:
    return store.client.search_runs([store.experiment_id], f"tags.sweep_id = '{sweep_id}'")


@pytest.fixture(scope="module")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of an ok record, for the tests that only look at it."""
    return published(store, make_record(sweep_id="looked-at"), tmp_path_factory.mktemp("job"), tags={"who": "me"})


# ---- metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_headline_latencies_are_the_medians_in_milliseconds(run):
    metrics = run.data.metrics
    assert [metrics[name] for name in ("e2e_ms", "ttft_ms", "itl_ms", "tpot_ms")] == [948.0, 100.0, 209.5, 209.5]


@pytest.mark.contract
def test_headline_rates_cold_start_and_peak_have_four_digits(run):
    metrics = run.data.metrics
    assert [metrics[name] for name in ("tok_per_s", "decode_tps", "cold_s", "peak_mib")] == [10.55, 9.547, 5.0, 512.0]


def test_headline_names_fit_the_columns_of_the_ui(run):
    assert {name for name in run.data.metrics if "/" not in name} == set(HEADLINE)
    assert max(len(name) for name in [*HEADLINE, *PROVEN]) <= 12


@pytest.mark.contract
def test_what_a_record_proves_is_in_the_headline_and_in_groups(store, sweep_id, tmp_path):
    run = published(store, make_record(sweep_id=sweep_id, **make_evidence()), tmp_path)
    metrics = run.data.metrics
    # 20 calls of 3 J for 2 × 5 tokens each
    assert [metrics[name] for name in PROVEN] == [50.0, 0.3, 1.0]
    assert metrics["fidelity/kl_mean_nats"] == pytest.approx(1e-9)
    assert metrics["fidelity/agrees"] == 1.0
    assert metrics["roofline/prefill_mfu"] == pytest.approx(0.25)
    assert metrics["roofline/bandwidth_bytes_per_s"] == pytest.approx(2e12)
    assert metrics["energy/total_j"] == pytest.approx(60.0)
    assert "decode attention: flash_attention" in run.data.tags["mlflow.note.content"]
    assert "output same as the eager reference" in run.data.tags["mlflow.note.content"]


def test_an_output_that_differs_is_marked_in_metric_tag_and_note(store, sweep_id, tmp_path):
    wrong = Fidelity(reference="eager", agrees=False, reason="kl_mean_nats 0.5 exceeds 1e-05 (float32)")
    run = published(store, make_record(sweep_id=sweep_id, fidelity=wrong), tmp_path)
    assert run.data.metrics["fidelity"] == 0.0
    assert run.info.run_name == "tiny ≠"
    assert run.data.tags["fidelity_reason"] == wrong.reason
    assert "**DIFFERS from** the eager reference" in run.data.tags["mlflow.note.content"]


def test_an_output_that_was_not_compared_has_no_fidelity(store, sweep_id, tmp_path):
    unknown = Fidelity(reference="eager", reason="no room")
    run = published(store, make_record(sweep_id=sweep_id, fidelity=unknown), tmp_path)
    assert "fidelity" not in run.data.metrics


def test_memory_is_told_stretch_by_stretch(run):
    metrics = run.data.metrics
    assert metrics["memory/after_load_host_rss_bytes"] == 2**28
    assert metrics["memory/measurement_peak_host_rss_bytes"] == 512 * 2**20


def test_jobs_beside_it_are_a_tag_and_in_the_note_and_none_are_nothing(store, sweep_id, tmp_path):
    beside = Neighbours(at_start=1, came=2, waited_s=0.0)
    run = published(store, make_record(sweep_id=sweep_id, neighbours=beside), tmp_path)
    assert run.data.tags["neighbours"] == "3"
    assert "beside it on the host: 3" in run.data.tags["mlflow.note.content"]
    alone = dataclasses.replace(beside, at_start=0, came=0, unknown="/x: Permission denied")
    run = published(store, make_record(sweep_id=sweep_id, repeat=2, neighbours=alone), tmp_path)
    assert "neighbours" not in run.data.tags
    assert run.data.tags["neighbours_unknown"] == "/x: Permission denied"


def test_how_the_compile_cache_was_met_is_a_tag(run):
    assert run.data.tags["compile_cache"] == "cold"


def test_groups_hold_full_precision(run):
    assert run.data.metrics["latency/output_tokens_per_s"] == pytest.approx(BATCH_SIZE * NEW_TOKENS * 20 / 18.96)
    assert run.data.metrics["latency/e2e_median_s"] == pytest.approx(MEDIAN_E2E_S, rel=1e-12)


def test_the_compile_group_tells_excess_and_counters(run):
    metrics = run.data.metrics
    assert metrics["compile/excess_s"] == pytest.approx(COMPILE_EXCESS_S)
    assert [metrics[f"compile/{name}"] for name in ("graphs", "compile_s", "cache_misses")] == [1, 3.0, 2]


def test_a_quantile_that_too_few_calls_support_is_left_out(run):
    assert "latency/e2e_p90_s" not in run.data.metrics
    assert run.data.metrics["latency/e2e_maximum_s"] == pytest.approx(0.986)


def test_phases_are_a_group_and_publish_s_is_that_of_this_attempt(store: Store, tmp_path: Path) -> None:
    phases_s = {"start": 0.123456789, "load": 2.0, "fidelity": 0.5, "publish": 9.0}
    record = make_record(sweep_id="parts", phases_s=phases_s, ended_at_s=STARTED_AT_S + 10.0)
    metrics = published(store, record, tmp_path).data.metrics
    assert metrics.pop("phases/publish_s") == record.phases_s["publish"] != 9.0
    assert {name: value for name, value in metrics.items() if name.startswith("phases/")} == pytest.approx(
        {"phases/start_s": 0.123456789, "phases/load_s": 2.0, "phases/evidence_s": 0.5, "phases/other_s": 7.376543211},
        rel=1e-6,
    )
    assert metrics["phases/start_s"] == 0.123456789


@pytest.mark.contract
def test_every_call_but_the_validation_call_is_a_step_warmup_included(store, run):
    history = store.client.get_metric_history(run.info.run_id, "per_iter/e2e_ms")
    assert [each.step for each in history] == list(range(1, 26))
    assert [each.value for each in history[:2]] == pytest.approx([1348.0, 1148.0])


def test_no_curve_shows_nothing(run):
    curves = {name.removeprefix("per_iter/") for name in run.data.metrics if name.startswith("per_iter/")}
    assert curves == {"e2e_ms", "ttft_ms", "tpot_ms", "itl_ms", "decode_tps"}


def test_steps_carry_the_time_at_which_the_call_started(store, run):
    history = store.client.get_metric_history(run.info.run_id, "per_iter/ttft_ms")
    started = [round((STARTED_AT_S + call.start_s) * 1000) for call in make_iterations()[1:]]
    assert [each.timestamp for each in history] == started


def test_the_rate_of_a_step_counts_the_whole_batch(store, run):
    first_measured = store.client.get_metric_history(run.info.run_id, "per_iter/decode_tps")[5]
    assert first_measured.value == pytest.approx(BATCH_SIZE * (NEW_TOKENS - 1) / 0.8)


@pytest.mark.contract
def test_more_points_than_one_request_may_hold_are_all_logged(store, sweep_id, tmp_path):
    run = published(store, make_record(sweep_id=sweep_id, iterations=make_iterations(200)), tmp_path)
    for name in ("e2e_ms", "ttft_ms", "itl_ms", "tpot_ms", "decode_tps"):
        assert len(store.client.get_metric_history(run.info.run_id, f"per_iter/{name}")) == 205


def test_more_params_and_tags_than_one_request_may_hold_are_all_logged(store, run):
    many = {f"many.{number}": str(number) for number in range(250)}
    store.log(run.info.run_id, params=many, tags=many, points=[Point("once", 1.0, 0)])
    data = store.client.get_run(run.info.run_id).data
    assert many.items() <= data.params.items()
    assert many.items() <= data.tags.items()
    assert len(store.client.get_metric_history(run.info.run_id, "once")) == 1


@pytest.mark.contract
def test_unknown_and_infinite_values_are_left_out(store, sweep_id, tmp_path):
    observed = make_record().observed
    assert observed is not None
    observed = dataclasses.replace(observed, compile=CompileObserved(compile_s=math.inf))
    record = make_record(sweep_id=sweep_id, memory=Memory(), iterations=make_iterations(1), observed=observed)
    metrics = published(store, record, tmp_path).data.metrics
    assert {"peak_mib", "memory/peak_bytes", "latency/e2e_sd_s", "compile/compile_s"}.isdisjoint(metrics)
    assert metrics["compile/graphs"] == 0  # known, and known to be 0


# ---- params and tags ---------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_params_are_the_dotted_config_keys_with_values_as_typed(run):
    params = run.data.params
    assert params["compile.mode"] == "default"
    assert params["workload.batch_size"] == "2"
    assert params["compile.fullgraph"] == "false"
    assert params["attention.sdpa_backend"] == "null"
    assert params["device"] == "auto"


def test_params_hold_every_key_of_the_config(run):
    assert set(make_config().flat()) <= set(run.data.params)


def test_a_mapping_is_json_and_cut_where_mlflow_would_refuse_it(store, sweep_id, tmp_path):
    architecture = {"model_type": "llama", "notes": "x" * 7000}
    model = ModelConfig(id="random", weights="random", architecture=architecture)
    record = make_record(sweep_id=sweep_id, requested=make_config(model=model).to_dict())
    value = published(store, record, tmp_path).data.params["model.architecture"]
    assert value.startswith('{"model_type": "llama", "notes": "xxx')
    assert len(value) == 6000


def test_credentials_in_the_address_are_not_published(store, sweep_id, tmp_path):
    config = make_config(tracking=TrackingConfig(uri="http://me:secret@host:5000"))
    run = published(store, make_record(sweep_id=sweep_id, requested=config.to_dict()), tmp_path)
    assert run.data.params["tracking.uri"] == "http://host:5000"


def test_tags_identify_the_trial(run):
    tags = run.data.tags
    expected = {
        "kind": "trial",
        "sweep_id": "looked-at",
        "trial_id": make_record().trial_id,
        "repeat": "1",
        "status": "ok",
        "who": "me",
    }
    assert expected.items() <= tags.items()
    assert {"error", "stage"}.isdisjoint(tags)


def test_a_users_tag_cannot_hide_what_a_run_is(store, sweep_id, tmp_path):
    run = published(store, make_record(sweep_id=sweep_id), tmp_path, tags={"kind": "mine", "status": "great"})
    assert (run.data.tags["kind"], run.data.tags["status"]) == ("trial", "ok")


def test_the_note_tells_what_ran_and_how_wide_the_interval_is(run):
    note = run.data.tags["mlflow.note.content"]
    assert "attention sdpa, compile default, cache StaticCache" in note
    assert "median 0.948 s of 20 calls, 95 % interval 0.91 to 0.986 s" in note


def test_the_note_begins_with_the_figures_as_a_table(run):
    status, empty, names, line, values, after, *_ = run.data.tags["mlflow.note.content"].splitlines()
    assert (status, empty, after) == ("**ok**", "", "")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (names, values)]
    assert cells[0] == ["e2e_ms", "ttft_ms", "itl_ms", "tok_per_s", "cold_s", "peak_mib"]
    assert cells[1] == ["948", "100", "209.5", "10.55", "5", "512"]
    assert line == "| " + " | ".join(["---:"] * 6) + " |"


def test_the_note_of_what_is_not_ok_has_no_table(store, sweep_id, tmp_path):
    run = published(store, make_record(sweep_id=sweep_id, status="oom"), tmp_path)
    assert "|" not in run.data.tags["mlflow.note.content"]


def test_a_large_figure_has_no_exponent():
    record = make_record(memory=Memory(measurement_peak=MemoryUse(host_rss_bytes=123_456 * 2**20)))
    assert "123500" in describe(record, summarize(record))


def test_the_note_is_a_file_among_the_artifacts(store, run):
    text = Path(store.client.download_artifacts(run.info.run_id, "summary.md")).read_text(encoding="utf-8")
    assert text == run.data.tags["mlflow.note.content"].replace("\u00a0", "") + "\n"


def test_only_the_space_between_columns_changes_in_a_description():
    written = "a | b\n\n| name | E2E ms |\n| --- | ---: |\n| a \\| b | 1 |"
    shown = "a | b\n\n| name\u00a0 | \u00a0E2E ms |\n| --- | ---: |\n| a \\| b\u00a0 | \u00a01 |"
    assert roomy(written) == shown


def test_all_names_are_in_the_letters_that_mlflow_allows(run):
    for name in run.data.metrics:
        _validate_metric_name(name)
    for name in run.data.params:
        _validate_param_name(name)
    for name in run.data.tags:
        _validate_tag_name(name)


# ---- runs --------------------------------------------------------------------------------------------------------


def test_a_run_lasts_as_long_as_its_job(run):
    assert run.info.start_time == STARTED_AT_S * 1000
    assert run.info.end_time == round((make_record().ended_at_s or 0) * 1000)


def test_publishing_twice_gives_one_run_with_the_same_steps(store, sweep_id, tmp_path):
    record = make_record(sweep_id=sweep_id)
    first = published(store, record, tmp_path)
    second = published(store, record, tmp_path)
    assert first.info.run_id == second.info.run_id
    assert len(runs_of(store, sweep_id)) == 1
    assert len(store.client.get_metric_history(first.info.run_id, "per_iter/e2e_ms")) == 25
    assert len(store.client.get_metric_history(first.info.run_id, "e2e_ms")) == 1


def test_each_repeat_is_a_run(store, sweep_id, tmp_path):
    for repeat in (1, 2):
        published(store, make_record(sweep_id=sweep_id, repeat=repeat), tmp_path)
    assert len(runs_of(store, sweep_id)) == 2


def test_a_single_run_measured_again_is_another_run(store, tmp_path):
    first = published(store, make_record(started_at_s=1.0), tmp_path)
    again = published(store, make_record(started_at_s=1.0), tmp_path)
    later = published(store, make_record(started_at_s=2.0), tmp_path)
    assert first.info.run_id == again.info.run_id != later.info.run_id


def test_a_sweeps_name_may_hold_a_quote(store, tmp_path):
    record = make_record(sweep_id="tonight's")
    assert published(store, record, tmp_path).info.run_id == published(store, record, tmp_path).info.run_id


def test_a_trial_is_nested_in_its_sweep(store, sweep_id, tmp_path):
    parent = begin(store, sweep_id)
    run = published(store, make_record(sweep_id=sweep_id), tmp_path, parent_run_id=parent)
    assert run.data.tags["mlflow.parentRunId"] == parent


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("ok", "FINISHED"),
        ("skipped", "FINISHED"),
        ("failed", "FAILED"),
        ("oom", "FAILED"),
        ("timeout", "FAILED"),
        ("crashed", "FAILED"),
        ("interrupted", "KILLED"),
    ],
)
def test_a_run_ends_as_its_job_did(store, sweep_id, tmp_path, status, end):
    run = published(store, make_record(sweep_id=sweep_id, status=status, iterations=[]), tmp_path)
    assert run.info.status == end


def test_a_job_that_failed_before_any_call_tells_where_and_why(store, sweep_id, tmp_path):
    error = Failure(type="OSError", message="no such model " + "x" * 6000)
    record = make_record(
        sweep_id=sweep_id, status="failed", stage="load", error=error, observed=None, iterations=[], ended_at_s=None
    )
    run = published(store, record, tmp_path)
    assert run.data.tags["stage"] == "load"
    assert run.data.tags["error"].startswith("OSError: no such model xxx")
    assert len(run.data.tags["error"]) == 5000
    assert run.data.tags["mlflow.note.content"].startswith("**failed** in load")


def test_a_job_that_is_not_ok_keeps_its_figures_but_has_no_headline(store, sweep_id, tmp_path):
    metrics = published(store, make_record(sweep_id=sweep_id, status="timeout"), tmp_path).data.metrics
    assert set(HEADLINE).isdisjoint(metrics)
    assert metrics["latency/e2e_median_s"] == pytest.approx(MEDIAN_E2E_S)


def test_a_request_of_another_form_is_published_as_it_is(store, sweep_id, tmp_path):
    requested = {"workload": None, "+odd@key": [1, 2], "model": {"id": 5}}
    run = published(store, make_record(sweep_id=sweep_id, requested=requested), tmp_path)
    assert run.data.params == {"workload": "null", "_odd_key": "[1, 2]", "model.id": "5"}


def test_the_files_of_a_job_are_artifacts_as_far_as_they_exist(store, sweep_id, tmp_path):
    record = make_record(sweep_id=sweep_id)
    record.write(tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").touch()
    (tmp_path / "worker.log").touch()
    (tmp_path / "notes.txt").touch()
    run = published(store, record, tmp_path)
    client = store.client
    made = {"calls.json", "summary.md"}
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {
        "record.json",
        "worker.log",
        ".hydra",
        *made,
    }
    assert [each.path for each in client.list_artifacts(run.info.run_id, ".hydra")] == [".hydra/config.yaml"]


def test_the_record_among_the_artifacts_can_be_read_back(store, sweep_id, tmp_path):
    record = make_record(sweep_id=sweep_id)
    record.write(tmp_path)
    run = published(store, record, tmp_path)
    published_s = record.phases_s.pop("publish")  # known once the file is there
    assert Record.read(Path(store.client.download_artifacts(run.info.run_id, "record.json"))) == record
    assert run.data.metrics["phases/publish_s"] == published_s > 0


def test_a_run_whose_logging_fails_is_not_left_running(store, sweep_id, tmp_path):
    record = make_record(sweep_id=sweep_id)
    run_id = publish(store, record, tmp_path, parent_run_id=None, tags={})
    with pytest.raises(TrackingError, match="cannot log to a run"):  # MLflow lets no param change
        publish(store, dataclasses.replace(record, requested={"device": "cuda"}), tmp_path, parent_run_id=None, tags={})
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_a_run_is_named_by_its_swept_values_or_its_model():
    assert run_name(make_record(name="compile.mode=default")) == "compile.mode=default"
    assert run_name(make_record()) == "tiny"


def test_the_names_of_a_sweeps_runs_are_short_and_tell_what_its_values_leave_open():
    swept = {"model.id": "org/tiny", "workload.batch_size": "2"}
    record = make_record(sweep_id="s", name="org/tiny batch_size=2", swept=swept)
    known = SweepInfo(sweep_id="s", name="s", swept={each: [value] for each, value in swept.items()}, started_at_s=0.0)
    assert run_name(record, known) == "tiny b2"
    others = dataclasses.replace(known, swept=known.swept | {"model.id": ["org/tiny", "my/tiny"]})
    assert run_name(record, others) == "org/tiny b2"


# ---- colours -----------------------------------------------------------------------------------------------------


def test_the_repeats_of_a_setting_share_its_colour_and_other_settings_have_others(store, sweep_id, tmp_path):
    known = SweepInfo(sweep_id=sweep_id, name="s", settings=["off", "default"], started_at_s=0.0)
    names = [("default", 1), ("off", 1), ("default", 2)]
    runs = [
        published(store, make_record(sweep_id=sweep_id, name=name, repeat=repeat, trial_id=name), tmp_path, sweep=known)
        for name, repeat in names
    ]
    assert [run.data.tags["mlflow.runColor"] for run in runs] == [colour(1), colour(0), colour(1)]


def test_without_a_sweep_a_run_has_the_first_colour(run):
    assert run.data.tags["mlflow.runColor"] == colour(0)


def test_a_setting_that_its_sweep_does_not_list_keeps_a_colour_of_its_own():
    known = SweepInfo(sweep_id="s", name="s", settings=["off"], started_at_s=0.0)
    found = [colour_of(make_record(name="new", trial_id=each), known) for each in ("a", "a", "b")]
    assert found[0] == found[1] != found[2]
    assert set(found).isdisjoint(COLOURS)


def test_where_there_are_repeats_every_name_says_which():
    requested = make_config(sweep=SweepConfig(repeats=3)).to_dict()
    names = [run_name(make_record(name="off", requested=requested, repeat=repeat)) for repeat in (1, 2)]
    assert names == ["off r1", "off r2"]


# ---- sweeps ------------------------------------------------------------------------------------------------------


def test_a_sweeps_run_tells_what_it_sweeps(store, sweep_id):
    run = store.client.get_run(begin(store, sweep_id))
    assert run.info.run_name == "night"
    assert {"kind": "sweep", "sweep_id": sweep_id, "who": "me"}.items() <= run.data.tags.items()
    assert run.data.params == {"compile.mode": "default,max-autotune"}
    assert "- `compile.mode`: `default`, `max-autotune`" in run.data.tags["mlflow.note.content"]


def test_beginning_a_sweep_twice_gives_one_run(store, sweep_id):
    assert begin(store, sweep_id) == begin(store, sweep_id)
    assert len(runs_of(store, sweep_id)) == 1


def test_swept_keys_may_hold_letters_that_mlflow_does_not_allow(store, sweep_id):
    run = store.client.get_run(begin(store, sweep_id, swept={"+compile@compile": ["off"]}))
    assert run.data.params == {"_compile_compile": "off"}


def test_a_sweep_is_running_until_it_is_ended(store, sweep_id):
    run_id = begin(store, sweep_id)
    assert store.client.get_run(run_id).info.status == "RUNNING"
    end_sweep(store, run_id, statuses=["ok"], ended_at_s=STARTED_AT_S + 60, interrupted=False)
    assert store.client.get_run(run_id).info.end_time == (STARTED_AT_S + 60) * 1000


@pytest.mark.parametrize(
    ("statuses", "interrupted", "ends"),
    [
        (["ok", "skipped"], False, ("FINISHED", "ok")),
        (["ok", "oom"], False, ("FAILED", "failed")),
        (["ok"], True, ("KILLED", "interrupted")),
    ],
)
def test_a_sweep_ends_as_its_jobs_did(store, sweep_id, statuses, interrupted, ends):
    run_id = begin(store, sweep_id)
    end_sweep(store, run_id, statuses=statuses, ended_at_s=STARTED_AT_S + 1, interrupted=interrupted)
    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["status"]) == ends


def test_a_sweeps_tags_count_its_jobs_by_status(store, sweep_id):
    run_id = begin(store, sweep_id)
    end_sweep(store, run_id, statuses=["ok", "ok", "crashed"], ended_at_s=STARTED_AT_S + 1, interrupted=False)
    tags = store.client.get_run(run_id).data.tags
    counts = {f"n_{status}": "0" for status in STATUSES} | {"n_jobs": "3", "n_ok": "2", "n_crashed": "1"}
    assert counts.items() <= tags.items()


# ---- steadiness and warm-up --------------------------------------------------------------------------------------


def judged(steady: bool | None, **changes: Any) -> Steadiness:
    return Steadiness(**{"steady": steady, "flags": [], "shape": "flat", "power": "enough"} | changes)


@pytest.mark.parametrize(
    ("seen", "published_as"),
    [
        (judged(True), (1.0, "steady")),
        (judged(False, flags=["changepoint", "trend"]), (0.0, "unsteady")),
        (judged(None, power="too noisy to tell"), (None, "too noisy to tell")),
    ],
)
def test_steadiness_is_a_headline_metric_and_a_tag(store, tmp_path, sweep_id, seen, published_as):
    run = published(store, make_record(sweep_id=sweep_id, steadiness=seen), tmp_path)
    assert (run.data.metrics.get("steady"), run.data.tags["steadiness"]) == published_as
    assert run.data.tags["steady_flags"] == (", ".join(seen.flags) or "none")
    assert run.data.tags["steady_shape"] == "flat"


def test_how_the_warm_up_ended_is_in_the_tags(store, tmp_path, sweep_id):
    record = make_record(sweep_id=sweep_id, warmup_status="converged", warmup_stop="the last 8 calls are level")
    run = published(store, record, tmp_path)
    assert run.data.tags["warmup_status"] == "converged"
    assert run.data.tags["warmup_stop"] == "the last 8 calls are level"
    assert run.data.metrics["warmup/converged"] == 1
    assert run.data.metrics["e2e_ms"] == pytest.approx(948)


def test_the_sweeps_run_names_its_settings_and_their_baseline(store, sweep_id):
    tags = store.client.get_run(begin(store, sweep_id, baseline="default")).data.tags
    assert json.loads(tags["settings"]) == ["default", "max-autotune"]
    assert tags["baseline"] == "default"


def test_steps_have_the_time_of_their_calls_and_not_that_of_the_start_of_the_process(store, tmp_path, sweep_id):
    record = make_record(sweep_id=sweep_id, started_at_s=1000.0)
    record.phases_s |= {"start": 2.5, "import": 7.5}
    run = published(store, record, tmp_path)
    history = store.client.get_metric_history(run.info.run_id, "per_iter/e2e_ms")
    times_s = {each.step: each.timestamp / 1000 for each in history}
    assert times_s == pytest.approx({call.index: 1010.0 + call.start_s for call in record.iterations[1:]}, abs=0.001)


def test_a_text_that_no_database_takes_loses_a_character_and_not_the_record(store, tmp_path, sweep_id):
    failure = Failure(type="RuntimeError", message="before\0after \ud800")
    run = published(store, make_record(sweep_id=sweep_id, status="failed", error=failure), tmp_path)
    assert run.data.tags["error"] == "RuntimeError: before\ufffdafter ?"


def test_values_are_sent_in_requests_that_mlflow_takes(store, run, monkeypatch):
    sizes = []
    log_batch = store.client.log_batch

    def counted(run_id, metrics, params, tags):
        sizes.append(sum(len(json.dumps(each.value)) for each in (*params, *tags)))
        log_batch(run_id, metrics, params, tags)

    monkeypatch.setattr(store.client, "log_batch", counted)
    texts = {f"long {number}": "名" * 6000 for number in range(60)}  # more than two million bytes of JSON
    store.log(run.info.run_id, params=texts, tags=texts)
    assert max(sizes) < 600_000
    assert store.client.get_run(run.info.run_id).data.params["long 59"] == "名" * 6000


def test_a_very_long_name_of_a_run_is_cut_to_what_every_database_takes(store):
    run_id = store.create_run("x" * 300, 0.0, {})
    assert store.client.get_run(run_id).info.run_name == "x" * 250
