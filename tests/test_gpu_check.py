"""Test the GPU check without a GPU: the command, its exit status, and its checks on records as from a GPU."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import factories
import fake_nvml
from bench.results.record import (
    AttentionObserved,
    CompileEvent,
    CompileObserved,
    DeviceRates,
    Energy,
    Fidelity,
    Iteration,
    Memory,
    MemoryUse,
    Monitor,
    MonitorSample,
    PhaseEvidence,
    Roofline,
)
from bench.trial.hardware import sampler

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.append(str(SCRIPTS))
jobs, running, checks, nvml, printing, command = (
    importlib.import_module(f"gpu_check.{name}")
    for name in ("jobs", "running", "checks", "nvml", "printing", "__main__")
)

UUID = "GPU-11111111-aaaa"
GIB = 2**30
TARGET = dataclasses.replace(jobs.GPU, calls=4, warm_up=2)
JOB = {each.name: each for each in jobs.JOBS}


def run_script(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user does, with this Python and no GPU."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}
    return subprocess.run(
        [SCRIPTS / "gpu-check", *arguments],
        cwd=folder,
        env=environment | {"BENCH_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# ---- the command ----------------------------------------------------------------------------------------------------


def test_without_a_gpu_it_is_skipped_and_no_failure(tmp_path) -> None:
    done = run_script(folder=tmp_path)
    assert (done.returncode, "skipped" in done.stdout) == (0, True), done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert json.loads((tmp_path / "gpu-check.json").read_text())["status"] == "skipped"


@pytest.mark.slow
def test_a_rehearsal_runs_without_hydra_and_mlflow(tmp_path) -> None:
    for name in ("hydra", "omegaconf", "mlflow"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('there is none here')")
    only = r"^(sdpa|sdpa cudnn|sdpa, profiled|continuous batching ×4)$"
    done = run_script(
        "--rehearse", "--budget-s", "300", "--only", only, "--keep", "jobs", folder=tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stdout.startswith("REHEARSAL ON THE CPU")
    assert done.stdout.endswith("nothing about a GPU is shown\n")
    content = json.loads((tmp_path / "gpu-check.json").read_text())
    assert (content["status"], content["note"][:9]) == ("passed", "REHEARSAL")
    assert {each["name"]: each["status"] for each in content["jobs"]} == {
        "sdpa": "ok",
        "sdpa cudnn": "skipped",
        "continuous batching ×4": "ok",
        "sdpa, profiled": "ok",
    }
    first = content["jobs"][0]
    assert first["observed"]["attention"]["decode"]["families"] == ["flash_attention"]
    assert first["fidelity"]["agrees"] is True
    assert first["summary"]["e2e_s"]["n"] == len(first["e2e_s"]["measurement"]) == 3
    assert first["monitor"]["source"] == "psutil"
    assert min(first["monitor"]["samples"]) >= 1
    assert content["environment"]["versions"]["torch"] == content["found"]["torch"]
    verdicts = {each["name"]: each["verdict"] for each in content["checks"]}
    assert verdicts["the requested attention ran"] == verdicts["profile and snapshot can be read"] == "pass"
    assert verdicts["CUDA graphs are replayed"] == verdicts["NVML itself"] == "unknown"
    assert len(list((tmp_path / "jobs").glob("*/record.json"))) == 4


def test_a_check_without_ok_jobs_fails(tmp_path) -> None:
    done = run_script("--rehearse", "--budget-s", "1", "--only", "^(sdpa|eager)$", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "not reached: sdpa, eager\n" in done.stdout
    assert "no job is ok" in done.stdout


def test_a_python_that_lacks_packages_is_named_and_nothing_is_installed(tmp_path) -> None:
    fake = tmp_path / "python"
    # Finds torch, and nothing else of what is asked for: the second question names more than it.
    fake.write_text('#!/bin/sh\n[ "$#" = 4 ] && exit 0\nprintf "pynvml tqdm"\nexit 1\n')
    fake.chmod(0o755)
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    for name in ("gpu-check", "_environment"):
        (checkout / "scripts" / name).write_bytes((SCRIPTS / name).read_bytes())
    done = subprocess.run(
        ["bash", checkout / "scripts/gpu-check"],
        env=os.environ | {"BENCH_PYTHON": str(fake)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{fake} has torch and lacks pynvml tqdm" in done.stderr
    assert not (checkout / ".venv").exists()


# ---- which jobs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [jobs.GPU, jobs.REHEARSED], ids=["gpu", "rehearsal"])
def test_every_job_is_a_different_setting(target) -> None:
    settings = [jobs.setting(job, target, 9.0) for job in jobs.jobs_for(target)]
    assert {each.isolation.timeout_s for each in settings} == {9.0}
    defining = {json.dumps([each.trial_id(), each.profile.num_tokens]) for each in settings}
    assert len(defining) == len(settings)


def test_the_seed_example_comes_first() -> None:
    config = jobs.setting(jobs.JOBS[0], jobs.GPU, 9.0)
    assert (config.attention.implementation, config.compile.mode) == ("flex_attention", "default")
    assert config.model.dtype == "bfloat16"


# ---- the time -------------------------------------------------------------------------------------------------------


@pytest.fixture
def now():
    """Return a clock that the test advances."""
    return [0.0]


@pytest.fixture
def ran(monkeypatch, now):
    """Run jobs of (name, kind, seconds); one that takes None crashes."""

    def run(budget_s: float, *wanted: tuple[str, str, float | None]):
        takes = {name: seconds for name, _, seconds in wanted}

        def run_one(job, kind, target, clock, folder):
            if takes[job.name] is None:
                raise OSError("no process")
            now[0] += takes[job.name]
            record = factories.make_record()
            return running.Outcome(job=job, record=record, took_s=takes[job.name])

        monkeypatch.setattr(running, "run_one", run_one)
        monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
        clock = running.Clock(budget_s, lambda: now[0])
        listed = [jobs.Job(name=name, kind=kind) for name, kind, _ in wanted]
        return {each.job.name: each for each in running.run_all(listed, TARGET, clock, Path("nowhere"))}

    return run


def test_a_job_that_no_longer_fits_is_not_reached_and_a_cheaper_one_still_is(ran) -> None:
    outcomes = ran(100, ("a", "compiled", 50.0), ("b", "compiled", 50.0), ("c", "plain", 9.0), ("d", "plain", 9.0))
    assert [each.status for each in outcomes.values()] == ["ok", "not reached", "ok", "ok"]
    assert outcomes["b"].reason == "no time was left for it"


def test_measured_durations_of_a_job_type_replace_the_estimate(ran) -> None:
    assert running.EXPECTED_S["plain"] == 20
    quick = ran(40, *[(name, "plain", 4.0) for name in "abcdefgh"])
    assert [each.status for each in quick.values()].count("ok") == 8  # the last begins with 12 s left


def test_a_job_that_cannot_start_does_not_affect_the_others(ran) -> None:
    outcomes = ran(100, ("a", "plain", None), ("b", "plain", 4.0))
    assert [each.status for each in outcomes.values()] == ["crashed", "ok"]
    assert outcomes["a"].reason == "OSError: no process"


def test_no_job_may_take_longer_than_the_remaining_time(now) -> None:
    clock = running.Clock(200, lambda: now[0])
    assert clock.timeout_s("autotuned") == 200
    assert clock.timeout_s("plain") == running.LIMIT_S["plain"]
    now[0] = 170
    assert clock.timeout_s("compiled") == 30


def test_a_job_cut_off_by_the_time_limit_has_not_failed() -> None:
    record = factories.make_record(status="timeout")
    job = JOB["sdpa"]
    assert running.Outcome(job=job, record=record, cut_off=True).status == "not reached"
    assert running.Outcome(job=job, record=record, cut_off=False).status == "timeout"


# ---- artifacts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path) -> Path:
    with gzip.open(tmp_path / "trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [{"cat": "cpu_op"}, {"cat": "kernel"}]}, file)
    (tmp_path / "operators.txt").write_text("aten::mm  12 us")
    snapshot = {"segments": [{"address": 1}], "device_traces": [[{"action": "alloc"}]]}
    (tmp_path / "memory_snapshot.pickle").write_bytes(pickle.dumps(snapshot))
    return tmp_path


def inspected(folder: Path) -> dict[str, str]:
    return running.inspect_artifacts(folder, jobs.setting(JOB["sdpa, profiled"], jobs.GPU, 9.0))


def test_readable_artifacts_pass(artifacts) -> None:
    assert inspected(artifacts) == {"trace.json.gz": "", "operators.txt": "", "memory_snapshot.pickle": ""}


def test_each_broken_artifact_is_named_with_its_error(artifacts) -> None:
    with gzip.open(artifacts / "trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [{"cat": "cpu_op"}]}, file)
    (artifacts / "operators.txt").unlink()
    (artifacts / "memory_snapshot.pickle").write_bytes(pickle.dumps({"segments": [], "device_traces": [[]]}))
    found = inspected(artifacts)
    assert found["trace.json.gz"] == "it holds no kernel of the GPU"
    assert found["operators.txt"].startswith("FileNotFoundError")
    assert found["memory_snapshot.pickle"] == "it holds no segment"


# ---- the checks -----------------------------------------------------------------------------------------------------


def calls() -> list[Iteration]:
    """Build one validation call, two warm-up calls and four measured ones of half a second and five tokens."""
    phases = ["validation", "warmup", "warmup", *["measurement"] * 4]
    times = [0.1, 0.2, 0.3, 0.4, 0.5]
    return [
        Iteration(
            index=index, phase=phase, start_s=float(index), e2e_s=0.5, token_times_s=times, graphs=0, compile_s=0.0
        )
        for index, phase in enumerate(phases)
    ]


def phase(families: list[str], *, launches: int = 0, steps: int = 2) -> PhaseEvidence:
    return PhaseEvidence(
        steps=steps,
        duration_s=0.1,
        families=families,
        operators=[],
        attention_share=0.2,
        compiled_regions=0,
        cudagraph_launches=launches,
    )


def gpu_record(job, **changes):
    """Build a correct record of such a job on a GPU; `observed__…` changes a field of `observed`."""
    graphs = job.mode in jobs.CUDAGRAPH_MODES
    own = "flex_attention" if job.attention == "flex_attention" else job.backend or "flash_attention"
    right = {
        "device": "cuda:0",
        "dtype": "bfloat16",
        "parameter_bytes": 2 * GIB,
        "attention": AttentionObserved(
            implementation=job.attention,
            allowed_backends=[],
            prefill=phase([own], steps=1),
            decode=phase([own], launches=2 if graphs else 0),
        ),
        "compile": CompileObserved(
            graphs=int(job.mode is not None),
            cache_misses=int(job.mode is not None),
            events=[CompileEvent(iteration=1, kind="cudagraph_record")] if graphs else [],
        ),
    }
    changed = {name.removeprefix("observed__"): each for name, each in changes.items() if name.startswith("observed__")}
    observed = dataclasses.replace(factories.make_record().observed, **right | changed)
    used = MemoryUse(device_allocated_bytes=3 * GIB, device_reserved_bytes=4 * GIB, device_process_bytes=5 * GIB)
    sample = MonitorSample(time_s=0.0, memory_used_bytes=6 * GIB)
    rates = DeviceRates(
        bandwidth_bytes_per_s=3e12, matmul_flops_per_s=7e14, dtype="bfloat16", fingerprint="f", measured_at_s=0.0
    )
    fields = {
        "iterations": calls(),
        "observed": observed,
        "memory": Memory(measurement_peak=used, kv_cache_bytes=1000, kv_cache_computed_bytes=1000),
        "monitor": Monitor(source="nvml", interval_s=0.1, samples=[[sample, sample]] * 4),
        "energy": Energy(source="nvml", joules=[150.0] * 4),  # 300 W
        "roofline": Roofline(rates=rates, prefill_mfu=0.4, decode_mbu=0.3),
        "fidelity": Fidelity(reference="eager", agrees=True, kl_mean_nats=1e-4),
        "environment": {"gpu": {"uuid": UUID}},
    }
    return factories.make_record(
        **fields | {name: each for name, each in changes.items() if not name.startswith("observed__")}
    )


GPU_FOUND = nvml.Gpu(
    uuid=UUID, power_limit_w=700.0, memory_bandwidth_bytes_per_s=3.35e12, fields=["power_w"], energy_j=30.0
)


def verdicts(name: str, gpu=GPU_FOUND, more=(), **changes) -> dict[str, str]:
    """Map each question to the answer for one job whose record is correct except for the changes."""
    job = JOB[name]
    outcome = running.Outcome(job=job, record=gpu_record(job, **changes), took_s=9.0)
    run = checks.Run(outcomes=[outcome, *more], target=TARGET, gpu=gpu)
    return {each.name: each.verdict for each in checks.judged(run)}


@pytest.mark.parametrize("name", ["sdpa", "sdpa default", "sdpa reduce-overhead", "flex default", "sdpa cudnn"])
def test_a_correct_run_fails_no_check(name) -> None:
    found = verdicts(name)
    assert "fail" not in found.values(), found
    assert found["energy and mean power"] == found["memory peaks enclose each other"] == "pass"
    assert found["CUDA graphs are replayed"] == ("pass" if name == "sdpa reduce-overhead" else "unknown")


ATTENTION = AttentionObserved(implementation="sdpa", allowed_backends=[])
RIGHT = MemoryUse(device_allocated_bytes=3 * GIB, device_reserved_bytes=4 * GIB, device_process_bytes=5 * GIB)
WRONG = [
    (
        "sdpa reduce-overhead",
        {"observed__attention": dataclasses.replace(ATTENTION, prefill=phase(["math"]), decode=phase(["math"]))},
        "CUDA graphs are replayed",
    ),
    (
        "sdpa default",
        {"observed__attention": dataclasses.replace(ATTENTION, prefill=phase(["math"]), decode=phase(["math"], launches=2))},
        "CUDA graphs are replayed",
    ),
    (
        "sdpa reduce-overhead",
        {
            "observed__compile": CompileObserved(
                graphs=1, cache_misses=1, events=[CompileEvent(iteration=i, kind="cudagraph_record") for i in (3, 5)]
            )
        },
        "CUDA graphs are not recorded again",
    ),
    (
        "sdpa flash",
        {"observed__attention": dataclasses.replace(ATTENTION, prefill=phase(["math"]), decode=phase(["math"]))},
        "the requested attention ran",
    ),
    ("sdpa default", {"observed__compile": CompileObserved(graphs=1, cache_hits=2)}, "compiled as asked, not while measured"),
    ("sdpa", {"observed__dtype": "float32"}, "device, dtype and calls are as asked"),
    ("sdpa", {"memory": Memory(measurement_peak=dataclasses.replace(RIGHT, device_allocated_bytes=GIB))}, "memory peaks enclose each other"),
    ("sdpa", {"memory": Memory(measurement_peak=dataclasses.replace(RIGHT, device_process_bytes=GIB))}, "memory peaks enclose each other"),
    ("sdpa", {"memory": Memory(kv_cache_bytes=999, kv_cache_computed_bytes=1000)}, "KV cache has the computed bytes"),
    ("sdpa", {"monitor": Monitor(source="nvml", interval_s=0.1, samples=[[]] * 4)}, "the monitor has samples in each call"),
    ("sdpa", {"environment": {"gpu": {"uuid": "GPU-22222222-bbbb"}}}, "the watched GPU is the job's"),
    (
        "sdpa",
        {"monitor": Monitor(source="nvml", interval_s=0.1, samples=[[MonitorSample(time_s=0.0, memory_used_bytes=GIB)]] * 4)},
        "the watched GPU is the job's",
    ),
    ("sdpa", {"energy": Energy(source="nvml", joules=[500.0] * 4)}, "energy and mean power"),  # 1000 W
    ("sdpa", {"energy": Energy(source="nvml", joules=[5.0] * 4)}, "energy and mean power"),  # 10 W
    ("sdpa", {"energy": Energy(source=None, reason="NVML does not tell")}, "energy and mean power"),
    ("sdpa", {"roofline": Roofline(rates=None, prefill_mfu=0.4, reason="busy")}, "MFU of prefill, MBU of decoding in %"),
    ("sdpa", {"fidelity": Fidelity(reference="eager", agrees=False, reason="KL")}, "outputs agree with the reference"),
    ("sdpa", {"status": "failed"}, "jobs are ok, or skipped where they may be"),
    ("sdpa", {"status": "skipped"}, "jobs are ok, or skipped where they may be"),
    ("flex default", {"status": "failed"}, "the seed example runs"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "question"), WRONG)
def test_each_error_fails_its_check(name, changes, question) -> None:
    assert verdicts(name, **changes)[question] == "fail"
    assert verdicts(name)[question] != "fail"


def test_bandwidth_beyond_the_memory_s_clock_is_wrong() -> None:
    slow = dataclasses.replace(GPU_FOUND, memory_bandwidth_bytes_per_s=1e12)
    assert verdicts("sdpa", gpu=slow)["measured rates are this device's"] == "fail"


def test_a_container_that_hides_the_process_memory_fails_no_check() -> None:
    hidden = dataclasses.replace(RIGHT, device_process_bytes=None)
    found = verdicts("sdpa", memory=Memory(measurement_peak=hidden, kv_cache_bytes=1, kv_cache_computed_bytes=1))
    assert found["memory peaks enclose each other"] == "pass"


def test_a_machine_may_lack_flash_attn_but_not_sdpa() -> None:
    question = "jobs are ok, or skipped where they may be"
    skipped = [
        running.Outcome(job=JOB[name], record=factories.make_record(status="skipped"))
        for name in ("flash_attention_2", "sdpa math")
    ]
    assert verdicts("sdpa", more=skipped[:1])[question] == "pass"
    assert verdicts("sdpa", more=skipped)[question] == "fail"


def test_the_second_job_of_a_setting_must_find_the_first_one_s_code() -> None:
    job = JOB["sdpa default, no monitor"]
    question = "compiled as asked, not while measured"
    cold = running.Outcome(job=job, record=gpu_record(job, monitor=None))
    compiled = CompileObserved(graphs=1, cache_hits=2)
    warm = running.Outcome(job=job, record=gpu_record(job, monitor=None, observed__compile=compiled))
    assert verdicts("sdpa default", more=[cold])[question] == "fail"
    assert verdicts("sdpa default", more=[warm])[question] == "pass"


def test_a_monitor_that_slows_a_setting_down_by_much_is_found() -> None:
    job = JOB["sdpa, no monitor"]
    question = "monitor on, against off"
    for factor, verdict in ((1.0, "pass"), (0.9, "unknown"), (0.5, "fail")):
        alone = [dataclasses.replace(each, e2e_s=0.5 * factor) for each in calls()]
        other = running.Outcome(job=job, record=gpu_record(job, monitor=None, iterations=alone))
        assert verdicts("sdpa", more=[other])[question] == verdict


def test_a_check_that_raises_fails_only_itself(monkeypatch) -> None:
    def broken(run, judge):
        raise KeyError("unforeseen")

    monkeypatch.setitem(checks.CHECKS, "NVML itself", broken)
    found = verdicts("sdpa")
    assert (found["NVML itself"], found["energy and mean power"]) == ("fail", "pass")


def test_tables_and_checks_fit_100_columns_and_name_every_job() -> None:
    outcomes = [running.Outcome(job=job, record=gpu_record(job)) for job in jobs.JOBS]
    outcomes[1] = running.Outcome(job=jobs.JOBS[1], problem="x" * 500)
    outcomes[-1] = running.Outcome(job=jobs.JOBS[-1])
    run = checks.Run(outcomes=outcomes, target=TARGET, gpu=GPU_FOUND)
    lines = [*printing.tables(outcomes), *checks.check_lines(checks.judged(run))]
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert all(job.name in text for job in jobs.JOBS)
    assert f"not reached: {jobs.JOBS[-1].name}" in text


# ---- as if there were a GPU -----------------------------------------------------------------------------------------


@pytest.fixture
def on_a_gpu(monkeypatch, tmp_path):
    """Run the command where torch finds a GPU and each job leaves the record that is given."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, str(tmp_path))  # so that what the command sets is undone
    found = {"torch": "2.11.0", "transformers": "5.17.0", "cuda": "13.0"}
    gpu = {"name": "NVIDIA Fake", "uuid": UUID.removeprefix("GPU-"), "memory_bytes": 80 * GIB}
    monkeypatch.setattr(command, "probe", lambda: {**found, "gpus": [gpu]})
    monkeypatch.setattr(command, "start_fork_server", lambda: None)
    monkeypatch.setattr(command, "ask_nvml", lambda uuid: dataclasses.replace(GPU_FOUND, uuid=uuid, driver="999.1"))
    monkeypatch.setattr(command, "GPU", TARGET)

    def run(job: str, record=None, error: type[BaseException] | None = None) -> tuple[int, dict]:
        def run_all(wanted, *_):
            for each in wanted:
                yield running.Outcome(job=each, record=record or gpu_record(each), took_s=9.0)
            if error is not None:
                raise error

        monkeypatch.setattr(command, "run_all", run_all)
        file = tmp_path / "gpu.json"
        status = command.main(["--only", f"^{job}$", "--json", str(file)])
        return status, json.loads(file.read_text())

    return run


def test_on_a_gpu_the_command_passes_if_no_check_fails(on_a_gpu, capsys) -> None:
    status, content = on_a_gpu("sdpa")
    printed = capsys.readouterr().out
    assert (status, content["status"], content["note"]) == (0, "passed", None)
    assert content["gpu"]["uuid"] == UUID
    assert printed.startswith("NVIDIA Fake, driver 999.1\n")
    assert "REHEARSAL" not in printed


def test_on_a_gpu_one_failed_check_is_the_exit_status(on_a_gpu, capsys) -> None:
    status, content = on_a_gpu("sdpa", gpu_record(JOB["sdpa"], energy=Energy(source="nvml", joules=[500.0] * 4)))
    assert (status, content["status"]) == (1, "failed")
    assert "fail     energy and mean power" in capsys.readouterr().out
    assert [each["name"] for each in content["checks"] if each["verdict"] == "fail"] == ["energy and mean power"]


def test_ctrl_c_keeps_finished_measurements(on_a_gpu) -> None:
    status, content = on_a_gpu("sdpa", error=KeyboardInterrupt)
    assert (status, content["status"], len(content["jobs"])) == (130, "interrupted", 1)


def test_a_torch_import_error_is_not_a_skip(monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "PROBE", "raise OSError('libcudart.so: cannot open')")
    assert command.main([]) == 2
    assert "OSError: libcudart.so: cannot open" in capsys.readouterr().err


# ---- NVML -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_fake_nvml(monkeypatch):
    for module in (nvml, sampler):
        monkeypatch.setattr(module, "pynvml", fake_nvml)
    monkeypatch.setattr(fake_nvml, "settings", dict(fake_nvml.DEFAULTS))
    monkeypatch.setattr(fake_nvml, "_state", {"initialised": 0, "answers": 0, "energy_readings": 0})
    monkeypatch.setattr(nvml, "IDLE_S", 0.0)
    return fake_nvml


def test_nvml_is_queried_for_every_value_of_the_monitor(with_fake_nvml, monkeypatch) -> None:
    bus = lambda card: 5120  # noqa: E731
    monkeypatch.setattr(with_fake_nvml, "nvmlDeviceGetMemoryBusWidth", bus, raising=False)
    gpu = nvml.ask_nvml(UUID)
    assert (gpu.error, gpu.unanswered, gpu.uuid, gpu.power_limit_w) == (None, [], UUID, 350.0)
    assert gpu.energy_j == pytest.approx(12.5)
    assert gpu.memory_bandwidth_bytes_per_s == pytest.approx(3.352e12, rel=1e-3)  # of an H100 SXM


def test_values_nvml_refuses_are_unknown_and_missing_functions_are_named(with_fake_nvml) -> None:
    with_fake_nvml.settings["raises"] = {"nvmlDeviceGetPowerUsage": "NotSupported", "nvmlInit": None}
    gpu = nvml.ask_nvml(UUID)
    assert (gpu.unanswered, gpu.memory_bandwidth_bytes_per_s) == (["power_w"], None)
    with_fake_nvml.settings["raises"] = {"nvmlInit": "LibraryNotFound"}
    assert nvml.ask_nvml(UUID).error == "NVMLError_LibraryNotFound: NVML Shared Library Not Found"
    assert nvml.ask_nvml(None).error == "torch tells no UUID"
