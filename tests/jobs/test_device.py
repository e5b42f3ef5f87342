"""Read a job's state from outside: kernel counters in their documented format, NVML's answers and errors."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import fake_nvml
from bench.config.schema import BenchmarkConfig, ModelConfig
from bench.host import gpus
from bench.jobs import job
from bench.jobs.process import device, neighbours
from bench.jobs.process.child import Ended
from bench.jobs.process.device import TOLERANCE_BYTES, cards_of, oom_kills, used_bytes, wait_until_free
from factories import make_record

GIB = 1 << 30
ONE, TWO = "GPU-11111111-aaaa", "GPU-22222222-bbbb"

# ---- the kernel's OOM killer ---------------------------------------------------------------------------------------

# Linux, Documentation/admin-guide/cgroup-v1/memory.rst, section 10
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
# Linux, Documentation/admin-guide/cgroup-v2.rst, memory.events
V2 = "low 0\nhigh 7\nmax 3\noom 5\noom_kill {}\noom_group_kill 0\n"
VMSTAT = "nr_free_pages 123\npgfault 456\noom_kill {}\nnr_unstable 0\n"


@pytest.fixture
def kills(tmp_path):
    """Count kills with these kernel files instead of the real ones."""

    def ask(own: str | None, files: dict[str, str], vmstat: str | None = None) -> int:
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
        for name, text in (("own", own), ("vmstat", vmstat)):
            if text is not None:
                (tmp_path / name).write_text(text, encoding="ascii")
        return oom_kills(tmp_path / "cgroup", tmp_path / "own", tmp_path / "vmstat")

    return ask


def test_version_2_counts_kills_in_memory_events(kills) -> None:
    own = "0::/user.slice/session-3.scope\n"
    assert kills(own, {"user.slice/session-3.scope/memory.events": V2.format(4)}, VMSTAT.format(9)) == 4


def test_version_1_counts_kills_in_oom_control(kills) -> None:
    own = "9:name=systemd:/\n4:memory:/jobs/17\n1:cpu,cpuacct:/elsewhere\n0::/\n"
    files = {"memory/jobs/17/memory.oom_control": V1.format(2), "memory/memory.oom_control": V1.format(8)}
    assert kills(own, files, VMSTAT.format(9)) == 2


def test_a_controller_mounted_together_with_others_is_found(kills) -> None:
    files = {"memory/a/memory.oom_control": V1.format(3)}
    assert kills("5:cpuset,memory:/a\n", files, VMSTAT.format(9)) == 3


def test_a_group_name_may_contain_a_colon(kills) -> None:
    assert kills("0::/a:b\n", {"a:b/memory.events": V2.format(6)}, VMSTAT.format(9)) == 6


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        ("4:memory:/docker/0123abcd\n", "memory/memory.oom_control", V1.format(2)),
        ("0::/docker/0123abcd\n", "memory.events", V2.format(2)),
    ],
)
def test_a_container_that_sees_the_hosts_group_path_counts_its_own_subtree(
    kills, own: str, file: str, text: str
) -> None:
    assert kills(own, {file: text}, VMSTAT.format(9)) == 2


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {}),  # the root group of version 2 has no events
        ("1:cpu:/\n", {}),  # no memory controller
        (None, {}),  # no control groups
        ("no line of this form\n", {}),
        ("4:memory:/a\n", {"memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}),  # before Linux 4.13
        ("0::/a\n", {"a/memory.events": "not a counter\n"}),
    ],
)
def test_without_a_group_counter_the_machines_counter_is_used(kills, own, files) -> None:
    assert kills(own, files, VMSTAT.format(9)) == 9


def test_without_any_counter_no_kill_is_reported(kills) -> None:
    assert kills(None, {}, None) == 0
    assert kills(None, {}, "nr_free_pages 123\n") == 0


def test_the_counters_of_this_machine_can_be_read() -> None:
    files = [each for each in device._group_files(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")) if each.exists()]
    lines = [line for file in [*files, Path("/proc/vmstat")] for line in file.read_text(encoding="ascii").splitlines()]
    told = [int(line.split()[1]) for line in lines if line.split()[0] == "oom_kill"]
    if not told:
        pytest.skip("this kernel counts no OOM kills")
    assert oom_kills() in range(told[0], told[0] + 5)  # another process of the group may be killed meanwhile


# ---- memory of the GPUs --------------------------------------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch):
    """Fake NVML with two cards; `used` is per card a list of answers, the last one repeated, or an error."""
    for module in (device, gpus):
        monkeypatch.setattr(module, "pynvml", fake_nvml)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(neighbours, "_torch_has_no_cuda", lambda: False)
    monkeypatch.setattr(fake_nvml, "settings", fake_nvml.DEFAULTS | {"raises": {}})
    monkeypatch.setitem(fake_nvml._state, "initialised", 0)
    used: dict[str, list[int | type[Exception]]] = {ONE: [GIB], TWO: [2 * GIB]}

    def memory(card: str):
        fake_nvml._check("nvmlDeviceGetMemoryInfo")
        answers = used[card]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not isinstance(answer, int):
            raise answer
        return fake_nvml._Fields(total=80 * GIB, free=80 * GIB - answer, used=answer)

    monkeypatch.setattr(fake_nvml, "nvmlDeviceGetMemoryInfo", memory)
    yield used
    assert fake_nvml._state["initialised"] == 0  # each query was shut down again


def errors() -> list[str]:
    return [name.removeprefix("NVMLError_") for name in vars(fake_nvml) if name.startswith("NVMLError_")]


def test_memory_use_is_keyed_by_the_cards_uuid(nvml) -> None:
    assert used_bytes() == {ONE: GIB, TWO: 2 * GIB}


@pytest.mark.parametrize("name", errors())
@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_without_nvml_memory_use_is_unknown(nvml, function: str, name: str) -> None:
    fake_nvml.settings["raises"] = {function: name}
    assert used_bytes() is None
    assert wait_until_free(None) is None


def test_without_cards_memory_use_is_unknown(nvml) -> None:
    fake_nvml.settings["gpus"] = []
    assert used_bytes() is None


@pytest.mark.parametrize("name", ["GpuIsLost", "NoPermission", "NotSupported", "ResetRequired"])
def test_a_failing_card_does_not_hide_the_others(nvml, name: str) -> None:
    nvml[ONE] = [getattr(fake_nvml, f"NVMLError_{name}")]
    assert used_bytes() == {TWO: 2 * GIB}
    nvml[TWO] = nvml[ONE]
    assert used_bytes() is None


def test_a_failing_nvml_shutdown_is_ignored(nvml) -> None:
    fake_nvml.settings["raises"] = {"nvmlShutdown": "Uninitialized"}
    assert used_bytes() == {ONE: GIB, TWO: 2 * GIB}
    fake_nvml._state["initialised"] = 0


def test_free_memory_causes_no_wait(nvml) -> None:
    waited_s, left = wait_until_free(used_bytes())
    assert waited_s < device.FREE_POLL_S
    assert left == 0


def test_the_wait_ends_once_memory_is_free_after_three_queries(nvml) -> None:
    before = used_bytes()
    nvml[TWO] = [70 * GIB, 30 * GIB, 3 * GIB, 2 * GIB]
    waited_s, left = wait_until_free(before)
    assert 3 * device.FREE_POLL_S <= waited_s < device.FREE_WAIT_S / 2
    assert left == 0
    assert nvml[TWO] == [2 * GIB]  # queried four times


def test_memory_that_never_becomes_free_ends_the_wait_and_is_reported(nvml) -> None:
    before = used_bytes()
    nvml[ONE], nvml[TWO] = [3 * GIB], [6 * GIB]
    start = time.monotonic()
    waited_s, left = wait_until_free(before, limit_s=0.3)
    assert 0.3 <= waited_s <= time.monotonic() - start < 2
    assert left == 4 * GIB  # of the card that has the most more


def test_the_wait_is_limited_to_seconds() -> None:
    assert 1 <= device.FREE_WAIT_S <= 30


# ---- the cards of one job ------------------------------------------------------------------------------------------

MIG = "MIG-33333333-cccc"
PLAIN = {"mig": {}}  # neither card is partitioned
MIXED = {
    "mig": {},
    "gpus": [{"uuid": ONE, "name": "NVIDIA Slow"}, {"uuid": TWO, "name": "NVIDIA Fast"}],
}
SPLIT = {"model": ModelConfig(id="m", tp_size=2)}


@pytest.mark.parametrize(
    ("machine", "visible", "order", "config", "expected"),
    [
        (PLAIN, None, None, {"device": "cpu"}, []),
        (PLAIN, None, None, {"device": "cuda"}, [ONE]),
        (PLAIN, None, None, {"device": "auto"}, [ONE]),
        (PLAIN, None, None, {"device": "cuda:1"}, [TWO]),
        (PLAIN, "1", None, {"device": "cuda"}, [TWO]),
        (PLAIN, "1,0", None, {"device": "cuda:1"}, [ONE]),
        (PLAIN, TWO, None, {"device": "cuda:0"}, [TWO]),
        (PLAIN, "GPU-2222", None, {"device": "cuda"}, [TWO]),
        (PLAIN, "", None, {"device": "cuda"}, []),  # CUDA sees none
        (PLAIN, "0", None, {"device": "cuda:1"}, []),
        (PLAIN, "7", None, {"device": "cuda"}, None),
        (PLAIN, "GPU-", None, {"device": "cuda"}, None),  # either of them
        (PLAIN, None, None, SPLIT, [ONE, TWO]),
        (PLAIN, "1,0", None, SPLIT, [TWO, ONE]),
        (PLAIN, "1", None, SPLIT, [TWO]),
        (MIXED, None, None, {"device": "cuda"}, None),  # the faster one, as CUDA judges
        (MIXED, None, "FASTEST_FIRST", {"device": "cuda"}, None),
        (MIXED, None, "PCI_BUS_ID", {"device": "cuda:1"}, [TWO]),
        (MIXED, TWO, None, {"device": "cuda"}, [TWO]),
        ({}, None, None, {"device": "cuda:0"}, [ONE]),
        ({}, None, None, {"device": "cuda:1"}, None),  # an instance of the partitioned card
        ({}, MIG, None, {"device": "cuda"}, [MIG]),
        ({"gpus": []}, None, None, {"device": "auto"}, []),
    ],
)
def test_the_cards_of_a_job_are_those_visible_to_cuda(  # noqa: PLR0917 - a table's columns
    nvml, monkeypatch, machine, visible, order, config, expected
) -> None:
    fake_nvml.settings.update(machine)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cards_of(BenchmarkConfig(**config)) == expected


def test_memory_in_use_on_another_card_causes_no_wait(nvml) -> None:
    fake_nvml.settings.update(PLAIN)
    before = used_bytes(cards_of(BenchmarkConfig(device="cuda:0")))
    assert before == {ONE: GIB}
    nvml[TWO] = [22 * GIB]
    waited_s, left = wait_until_free(before)
    assert (waited_s < 1, left) == (True, 0)


def test_a_mig_instance_counts_only_its_own_memory(nvml, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG)
    nvml[MIG] = [GIB, 5 * GIB, GIB]
    before = used_bytes(cards_of(BenchmarkConfig(device="cuda")))
    assert before == {MIG: GIB}
    nvml[TWO] = [60 * GIB]  # the whole card, with the other instances
    assert wait_until_free(before)[1] == 0
    assert nvml[MIG] == [GIB]


def test_each_card_of_a_split_model_counts(nvml) -> None:
    fake_nvml.settings.update(PLAIN)
    before = used_bytes(cards_of(BenchmarkConfig(**SPLIT)))
    nvml[TWO] = [6 * GIB]
    assert wait_until_free(before, limit_s=0.1)[1] == 4 * GIB


@pytest.mark.parametrize(("machine", "expected"), [(PLAIN, (0.0, 0)), (MIXED, None)])
def test_a_record_omits_cards_that_cannot_be_identified(  # noqa: PLR0917 - fixtures
    tiny, tmp_path, nvml, monkeypatch, machine, expected
) -> None:
    fake_nvml.settings.update(machine)
    nvml[TWO] = [GIB, 20 * GIB]

    class Child:
        ended = Ended(exit_code=0)

        def __init__(self, **_: object) -> None:
            """Start nothing."""

        def run(self, *_: object) -> None:
            make_record().write(tmp_path)

    monkeypatch.setattr(job, "Child", Child)
    config = tiny(device="cuda")
    record = job.run_job(config, job.new_record(config), tmp_path, lambda *_: None)
    if expected is None:
        assert record.end is None
        assert "wait" not in record.phases_s
    else:
        assert record.phases_s["wait"] < 1
        assert (record.end.device_left_bytes if record.end else 0) == 0


def test_memory_that_the_driver_holds_causes_no_wait(nvml) -> None:
    before = used_bytes()
    nvml[ONE] = [GIB + TOLERANCE_BYTES]
    assert wait_until_free(before)[1] == 0
    nvml[ONE] = [GIB + TOLERANCE_BYTES + 1]
    assert wait_until_free(before, limit_s=0.0) == (pytest.approx(0, abs=1), TOLERANCE_BYTES + 1)


def test_less_memory_in_use_than_before_counts_as_free(nvml) -> None:
    before = used_bytes()
    nvml[ONE], nvml[TWO] = [0], [0]
    assert wait_until_free(before)[1] == 0


def test_losing_the_driver_ends_the_wait(nvml) -> None:
    before = used_bytes()
    nvml[ONE] = nvml[TWO] = [50 * GIB, 50 * GIB, fake_nvml.NVMLError_GpuIsLost]
    start = time.monotonic()
    assert wait_until_free(before, limit_s=30) is None
    assert time.monotonic() - start < 5


def test_a_card_lost_during_the_wait_causes_no_wait(nvml) -> None:
    before = used_bytes()
    nvml[ONE] = [50 * GIB, fake_nvml.NVMLError_GpuIsLost]
    waited_s, left = wait_until_free(before)
    assert (waited_s < 2, left) == (True, 0)


def test_cards_that_appear_during_the_wait_are_ignored(nvml) -> None:
    before = used_bytes()
    fake_nvml.settings["gpus"] = [*fake_nvml.DEFAULTS["gpus"], {"uuid": "GPU-new", "name": "NVIDIA Fake"}]
    nvml["GPU-new"] = [70 * GIB]
    assert wait_until_free(before)[1] == 0


def test_the_real_nvml_library_answers_with_or_without_a_driver() -> None:
    used = used_bytes()
    assert used is None or all(value >= 0 for value in used.values())
    if not Path("/dev/nvidiactl").exists():
        assert used is None
