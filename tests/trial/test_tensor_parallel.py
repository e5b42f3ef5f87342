"""Check that a split model generates the same tokens, that its ranks end together, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import transformers

import faults
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, GenerationConfig, IsolationConfig, ModelConfig
from bench.jobs import job as sweep_job
from bench.jobs.job import new_record, run_job
from bench.jobs.reference import reference_config
from bench.results.record import Energy, Memory, MemoryUse, Output, ProcessEnd, Rank, Record
from bench.trial.evidence.after_measurement import rate
from bench.trial.evidence.fidelity import ENOUGH_STEPS
from bench.trial.measure.call import make_call
from bench.trial.measure.request import Request
from bench.trial.measure.runner import BenchmarkRunner
from bench.trial.model.loading import draft, load
from bench.trial.parallel import launch, tensor_parallel
from bench.trial.parallel.group import RankCommand, gather_ranks, lost_contact
from bench.trial.parallel.launch import Job, RankExit, complete_record
from bench.trial.unsupported import NotHonouredError
from conftest import run_bench
from factories import make_record

CPU = torch.device("cpu")
GLOO_LOST = "RuntimeError: [/w/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"


@pytest.fixture
def split(tiny):
    """Make a config of the tiny model, split over two processes on the CPU."""

    def make(**keywords: object) -> BenchmarkConfig:
        config = tiny(device="cpu", **keywords)
        config.model.tp_size = 2
        return config

    return make


def pids_of(folder: Path) -> dict[int, int]:
    """Rank → its process, as the log has them."""
    text = (folder / "worker.log").read_text(encoding="utf-8")
    return {int(rank): int(pid) for rank, pid in re.findall(r"^rank (\d+) of \d+: process (\d+)", text, re.MULTILINE)}


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def run(config: BenchmarkConfig, folder: Path, on_event=lambda *_: None) -> Record:
    """The job's record, once no rank of it is left."""
    record = run_job(config, new_record(config, name="split"), folder, on_event)
    pids = pids_of(folder)
    assert sorted(pids) == [0, 1]
    assert not any(is_running(pid) for pid in pids.values())
    assert Record.read(folder) == record
    return record


# ---- real ranks -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_generate_exactly_the_tokens_of_one(tmp_path) -> None:
    found = []
    short = ["device=cpu", "tracking=off", "warmup.iterations=1", "measurement.iterations=3"]
    for name, more in (("one", []), ("two", ["model.tp_size=2", "fidelity.reference=eager"])):
        (tmp_path / name).mkdir()
        done = run_bench(*short, *more, folder=tmp_path / name)
        (path,) = (tmp_path / name).glob("outputs/*/record.json")
        found.append(Record.read(path))
        if name == "two" and found[1].status == "failed" and "transformers" in str(found[1].error.detail):
            pytest.skip(f"transformers {transformers.__version__} cannot split here: {found[1].error.message}")
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = found
    assert (two.status, two.error, two.end) == ("ok", None, None)
    assert two.output.token_ids == one.output.token_ids
    assert len({token for row in two.output.token_ids for token in row}) > 10  # no token that is always right
    assert (two.fidelity.agrees, two.fidelity.positions) == (True, ENOUGH_STEPS)  # the other rank stopped there too
    assert len(two.iterations) == 5
    assert [(each.rank, each.device) for each in two.ranks] == [(0, "cpu"), (1, "cpu")]
    peaks = [each.memory.peak_bytes for each in two.ranks]
    assert min(peaks) > 2**20
    assert two.peak_bytes == sum(peaks)
    seen = two.observed
    assert (seen.tp_size, one.observed.tp_size) == (2, None)
    assert (seen.parameters, seen.parameter_bytes) == (one.observed.parameters, one.observed.parameter_bytes)
    assert 0.99 * seen.parameters < seen.sharded_parameters < seen.parameters  # all but the norms
    assert seen.rank_parameter_bytes < 0.51 * seen.parameter_bytes
    assert 2 * two.memory.kv_cache_bytes == one.memory.kv_cache_bytes
    assert two.memory.kv_cache_computed_bytes == two.memory.kv_cache_bytes
    assert two.roofline.decode_mbu is None
    assert "2 ranks" in two.roofline.reason


@pytest.mark.slow
def test_a_checkpoint_is_read_in_slices_and_every_use_of_the_model_is_mirrored(split, tiny, tmp_path) -> None:
    folder = tmp_path / "checkpoint"
    whole = load(tiny(device="cpu"))
    whole.model.save_pretrained(folder)
    whole.tokenizer.save_pretrained(folder)
    config = split(batch_size=2, generation=GenerationConfig(kv_cache="static"))
    config.model.id, config.model.weights, config.model.architecture = str(folder), "pretrained", None
    config.profile.num_tokens = 2
    (tmp_path / "job").mkdir()
    record = run(config, tmp_path / "job")
    assert (record.status, record.error) == ("ok", None)
    assert record.observed.attention.error is None
    assert (tmp_path / "job/trace.json.gz").is_file()
    request = Request.prepare(tiny(device="cpu", batch_size=2), whole)
    with torch.inference_mode():
        tokens = request.generate()
    assert record.output.token_ids == tokens[:, 16:].tolist()


@pytest.mark.slow
@pytest.mark.compiled
def test_a_split_model_compiles(split, tmp_path) -> None:
    record = run(split(compile_kwargs={"mode": "default"}), tmp_path)
    assert (record.status, record.error) == ("ok", None)
    assert record.observed.compile.graphs == 1
    assert record.observed.compile.graph_breaks == {}


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGSEGV), (1, signal.SIGKILL)])
def test_a_rank_that_dies_ends_the_job_and_is_named(split, tmp_path, rank: int, number: int) -> None:
    def kill(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("measurement", 1):
            os.kill(pids_of(tmp_path)[rank], number)

    record = run(split(measurement_iterations=100_000), tmp_path, kill)
    name = signal.Signals(number).name
    assert (record.status, record.stage, record.error.type) == ("crashed", "measurement", "Signal")
    assert record.error.message.startswith(f"rank {rank} ended with {name} in measurement")
    assert record.end.signal == name
    assert "process" in record.error.detail  # the log's end


@pytest.mark.slow
def test_the_deadline_ends_all_ranks(split, tmp_path) -> None:
    record = run(split(measurement_iterations=100_000, isolation=IsolationConfig(timeout_s=20)), tmp_path)
    assert record.status == "timeout"
    assert record.error.message.startswith("isolation.timeout_s=20: not finished in")


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks_and_keeps_what_was_measured(split, tmp_path) -> None:
    def interrupt(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("measurement", 2):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(split(measurement_iterations=100_000), tmp_path, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    record = Record.read(tmp_path)
    assert (record.status, record.error.type) == ("interrupted", "KeyboardInterrupt")
    assert not any(is_running(pid) for pid in pids_of(tmp_path).values())


@pytest.mark.slow
def test_what_one_rank_raises_is_the_end_of_all(tmp_path) -> None:
    fates = {
        "allocation": ("oom", "rank 1: "),
        "plain_exception": ("failed", "rank 1: planted failure"),
        "sys_exit": ("crashed", "rank 1: sys.exit(3) was called"),
        "os_exit": ("crashed", "rank 1 ended with exit status 7 in "),
    }
    model = faults.make_model(tmp_path / "model")
    with (model / "modeling_faulty.py").open("a", encoding="utf-8") as file:
        for fault in fates:
            file.write(f"\n\ndef {fault}_in_rank_1():\n    if os.environ.get('RANK') == '1':\n        {fault}()\n")
    faults.plant(model, {size: (f"{fault}_in_rank_1", 2) for size, fault in enumerate(fates, 1)})
    split = ["model.tp_size=2", "device=cpu", "tracking=off"]
    done = run_bench("-m", *faults.arguments(model), *split, "workload.batch_size=1,2,3,4", folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    records = {path.parent: Record.read(path) for path in tmp_path.glob("multirun/*/*/record.json")}
    found = {each.requested["workload"]["batch_size"]: each for each in records.values()}
    for size, (status, message) in enumerate(fates.values(), 1):
        assert found[size].status == status
        assert found[size].error.message.startswith(message)
    assert not any(is_running(pid) for folder in records for pid in pids_of(folder).values())


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": {"tp_size": "mine"}}, "model.tp_size=mine: must be a number from 2, auto (one per GPU) or null"),
        ({"model": {"tp_size": "2"}}, "model.tp_size=2: must be a number from 2, auto (one per GPU) or null"),
        ({"model": {"tp_size": 2.5}}, "model.tp_size=2.5: must be int or str or null"),
        ({"model": {"tp_size": 1}}, "model.tp_size=1: must be at least 2"),
        ({"model": {"tp_size": "auto"}}, "model.tp_size=auto: there is no GPU to count with device=cpu; type a number"),
        ({"device": "cuda:1"}, "device=cuda:1: names one GPU, and model.tp_size needs several"),
        ({"model": {"weights": "pretrained", "architecture": None, "gguf_file": "a.gguf"}}, "model.gguf_file=a.gguf: "),
        ({"generation": {"continuous_batching": True}}, "generation.continuous_batching=true: "),
        ({"isolation": {"mode": "none"}}, "isolation.mode=none: model.tp_size starts processes"),
    ],
)
def test_what_goes_with_no_split_model_is_refused(split, changes: dict, complaint: str) -> None:
    plain = split().to_dict()
    for section, values in changes.items():
        plain[section] = {**plain[section], **values} if isinstance(values, dict) else values
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        BenchmarkConfig.from_dict(plain)


def sized(**sizes: object) -> ModelConfig:
    few = {"vocab_size": 258, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3, "pad_token_id": 0}
    architecture = {"model_type": "llama", **few, **heads, **sizes}
    return ModelConfig(id="x", weights="random", architecture=architecture, tp_size=3)


def test_heads_that_cannot_be_dealt_out_are_refused() -> None:
    model = sized()
    assert draft(model, CPU).rows == 258
    model.tp_size = 2
    with pytest.raises(ConfigError, match=r"model.tp_size=2: must divide the model's num_key_value_heads=3"):
        draft(model, CPU)
    model.tp_size = 4
    with pytest.raises(ConfigError, match=r"model.tp_size=4: must divide the model's num_attention_heads=6"):
        draft(model, CPU)


def test_an_architecture_without_a_plan_is_refused() -> None:
    model = ModelConfig(id="x", weights="random", tp_size=2)
    model.architecture = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 258}
    model.architecture |= {"bos_token_id": 1, "eos_token_id": 1}
    with pytest.raises(ConfigError, match=r"model.tp_size=2: transformers .* has no plan for GPT2LMHeadModel"):
        draft(model, CPU)


@pytest.mark.parametrize(
    ("present", "asked", "complaint"),
    [
        (2, 3, r"model.tp_size=3: this job sees 2 CUDA GPU\(s\)"),
        (1, "auto", "model.tp_size=auto: needs two GPUs or more"),
    ],
)
def test_more_ranks_than_gpus_are_refused(monkeypatch, present: int, asked: int | str, complaint: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    with pytest.raises(ConfigError, match=complaint):
        tensor_parallel.rank_count(ModelConfig(tp_size=asked), torch.device("cuda", 0))


def test_auto_is_one_rank_for_each_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert tensor_parallel.rank_count(ModelConfig(tp_size="auto"), torch.device("cuda", 0)) == 4
    with pytest.raises(ConfigError, match=r"model.tp_size=auto: there is no GPU to count"):
        tensor_parallel.rank_count(ModelConfig(tp_size="auto"), CPU)


def test_a_runner_by_itself_refuses(split) -> None:
    with BenchmarkRunner() as runner, pytest.raises(ConfigError, match=r"model.tp_size=2: takes several processes"):
        runner.setup_benchmark("tiny", split())


def test_a_model_that_was_not_split_is_not_what_was_asked_for(split, tiny, monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(NotHonouredError, match="no weight of LlamaForCausalLM is split over 2 ranks"):
        tensor_parallel.observe(split(), load(tiny(device="cpu")).model)


# ---- rank 0 and the others ------------------------------------------------------------------------------------------


class FakeGroup:
    """Notes what rank 0 announces; the others answer as told."""

    def __init__(self, *answers: object) -> None:
        self.commands: list[RankCommand] = []
        self.notes: list[str] = []
        self._answers = answers

    def announce(self, command: RankCommand) -> None:
        self.commands.append(command)
        self.notes.append("announced")

    def gather(self, mine: object) -> list:
        return [mine, *self._answers]


def test_a_call_is_announced_before_the_clock_is_read(tiny) -> None:
    group = FakeGroup()
    config = tiny(device="cpu")
    request = dataclasses.replace(Request.prepare(config, load(config)), group=group)
    make_call(request, lambda: group.notes.append("clock") or time.perf_counter())
    assert group.notes[:2] == ["announced", "clock"]
    assert group.notes.count("announced") == 1


def line(rank: int, device: str, joules: list, peak: int = 1) -> Rank:
    use = MemoryUse(device_reserved_bytes=peak) if device.startswith("cuda") else MemoryUse(host_rss_bytes=peak)
    memory = Memory(measurement_peak=use)
    return Rank(rank=rank, device=device, device_name="one", memory=memory, joules=joules)


def measured_record(**changes: object) -> Record:
    output = Output(shape=[1, 3], token_ids=[[1, 2]], text="", same_in_all_calls=True)
    return make_record(output=output, memory=Memory(measurement_peak=MemoryUse(device_reserved_bytes=7)), **changes)


def test_energy_is_the_sum_over_gpus(monkeypatch) -> None:
    monkeypatch.setattr("bench.trial.hardware.memory.device_name", str)
    record = measured_record(energy=Energy(source="nvml", joules=[1.0, 2.0, None]))
    group = FakeGroup((line(1, "cuda:1", [10.0, None, 30.0], peak=9), [[1, 2]]))
    gather_ranks(group, record, torch.device("cuda", 0))
    assert record.energy.joules == [11.0, None, None]
    assert [each.joules for each in record.ranks] == [[1.0, 2.0, None], [10.0, None, 30.0]]
    assert record.peak_bytes == 9  # of the fullest GPU
    assert record.memory.peak_bytes == 7  # of rank 0


def test_the_energy_counter_of_a_host_counts_once() -> None:
    record = measured_record(energy=Energy(source="rapl", joules=[5.0]))
    gather_ranks(FakeGroup((line(1, "cpu", []), [[1, 2]])), record, CPU)
    assert record.energy.joules == [5.0]
    assert [each.joules for each in record.ranks] == [[], []]


def test_ranks_that_generate_different_tokens_are_not_honoured() -> None:
    with pytest.raises(NotHonouredError, match="rank 1 generated other tokens than rank 0"):
        gather_ranks(FakeGroup((line(1, "cpu", []), [[1, 3]])), measured_record(), CPU)


def test_a_split_model_has_its_costs_but_no_share_of_one_device() -> None:
    record = make_record()
    record.observed = dataclasses.replace(record.observed, tp_size=4)
    assert "4 ranks" in rate(record, SimpleNamespace()).reason


def test_the_reference_is_split_as_well(split) -> None:
    plain = reference_config(split(attn_implementation="sdpa"))
    assert (plain.model.tp_size, plain.attention.implementation) == (2, "eager")


# ---- how it came to an end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "died", "status", "message"),
    [
        ({0: RankExit(status="ok"), 1: RankExit(status="ok")}, {}, "interrupted", None),
        ({0: RankExit(status="skipped")}, {0: 1}, "interrupted", None),  # what rank 0 wrote stands
        ({0: RankExit(status="failed"), 1: RankExit(status="lost")}, {0: 1}, "interrupted", None),
        ({0: RankExit(status="lost")}, {1: -9}, "crashed", "rank 1 ended with SIGKILL in warmup"),
        ({0: RankExit(status="failed")}, {1: -11}, "crashed", "rank 1 ended with SIGSEGV in warmup"),
        ({}, {0: -9}, "crashed", "rank 0 ended with SIGKILL in warmup"),
        ({}, {0: 7}, "crashed", "rank 0 ended with exit status 7 in warmup"),
        ({0: RankExit(status="lost")}, {1: 7}, "crashed", "rank 1 ended with exit status 7 in warmup"),
        ({1: RankExit(status="oom", type="MemoryError", message="none")}, {1: 1}, "oom", "rank 1: none"),
        (
            {0: RankExit(status="failed"), 1: RankExit(status="failed", type="ValueError", message="too")},
            {0: 1},
            "interrupted",
            None,
        ),
        (
            {0: RankExit(status="lost"), 1: RankExit(status="lost")},
            {1: 1},
            "crashed",
            "a rank ended without an error message in warmup",
        ),
    ],
)
def test_the_rank_at_fault_is_named(tmp_path, words: dict, died: dict, status: str, message: str | None) -> None:
    record = make_record(status="interrupted", iterations=[], error=None)
    job = Job(record=record, folder=tmp_path, compile_cache=tmp_path, reference=None, began_s=0.0, pipe=None)
    job.scratch.mkdir()
    (job.scratch / "stage").write_text("warmup", encoding="utf-8")
    for rank, word in words.items():
        (job.scratch / f"rank{rank}.json").write_text(json.dumps(dataclasses.asdict(word)), encoding="utf-8")
    complete_record(job, died)
    assert record.status == status
    if message is None:
        assert record.error is None
        assert not (tmp_path / "record.json").exists()
    else:
        assert record.error.message.startswith(message)
        assert Record.read(tmp_path) == record


def test_a_rank_that_the_kernel_killed_for_memory_is_oom(tmp_path) -> None:
    record = make_record(end=ProcessEnd(signal="SIGKILL"))
    record.fail("crashed", "Signal", "rank 1 ended with SIGKILL in load")
    end = sweep_job._with_rank(record, ProcessEnd(strays=["x (1)"]), tmp_path, killed_for_memory=True)
    assert (record.status, end.oom_killed, end.signal, end.strays) == ("oom", True, "SIGKILL", ["x (1)"])
    assert record.error.message.startswith("rank 1 ended with SIGKILL in load; the kernel's OOM killer")


def test_a_lost_connection_is_told_from_other_errors() -> None:
    assert lost_contact(GLOO_LOST)
    assert not lost_contact("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert not lost_contact("RuntimeError: planted failure")


def test_signals_have_their_names() -> None:
    assert launch._signal_name(9) == "SIGKILL"
    assert launch._signal_name(40) == "signal 40"
