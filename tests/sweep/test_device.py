"""What kernel and driver tell of a job from outside: counters in their documented form, and NVML's answers and errors."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import fake_nvml
from bench.sweep import device
from bench.sweep.device import TOLERANCE_BYTES, oom_kills, used_bytes, wait_until_free

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
    """Ask with files of this kernel instead of the real ones."""

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


def test_version_2_counts_in_the_groups_events(kills) -> None:
    own = "0::/user.slice/session-3.scope\n"
    assert kills(own, {"user.slice/session-3.scope/memory.events": V2.format(4)}, VMSTAT.format(9)) == 4


def test_version_1_counts_in_the_groups_oom_control(kills) -> None:
    own = "9:name=systemd:/\n4:memory:/jobs/17\n1:cpu,cpuacct:/elsewhere\n0::/\n"
    files = {"memory/jobs/17/memory.oom_control": V1.format(2), "memory/memory.oom_control": V1.format(8)}
    assert kills(own, files, VMSTAT.format(9)) == 2


def test_a_controller_that_is_mounted_with_others_is_found(kills) -> None:
    files = {"memory/a/memory.oom_control": V1.format(3)}
    assert kills("5:cpuset,memory:/a\n", files, VMSTAT.format(9)) == 3


def test_a_group_with_a_colon_in_its_name_is_found(kills) -> None:
    assert kills("0::/a:b\n", {"a:b/memory.events": V2.format(6)}, VMSTAT.format(9)) == 6


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        ("4:memory:/docker/0123abcd\n", "memory/memory.oom_control", V1.format(2)),
        ("0::/docker/0123abcd\n", "memory.events", V2.format(2)),
    ],
)
def test_in_a_container_that_sees_the_hosts_path_of_its_group_its_own_part_of_the_tree_counts(
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
def test_where_the_group_does_not_count_the_machines_own_count_is_taken(kills, own, files) -> None:
    assert kills(own, files, VMSTAT.format(9)) == 9


def test_where_nothing_counts_nothing_is_claimed(kills) -> None:
    assert kills(None, {}, None) == 0
    assert kills(None, {}, "nr_free_pages 123\n") == 0


def test_this_machine_answers() -> None:
    assert oom_kills() >= 0


# ---- memory of the GPUs --------------------------------------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch):
    """Two cards; `used` is what is in use on each, a list of answers whose last one stays, or an error."""
    monkeypatch.setattr(device, "pynvml", fake_nvml)
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
    assert fake_nvml._state["initialised"] == 0  # each look was closed again


def errors() -> list[str]:
    return [name.removeprefix("NVMLError_") for name in vars(fake_nvml) if name.startswith("NVMLError_")]


def test_each_card_has_its_use_by_its_uuid(nvml) -> None:
    assert used_bytes() == {ONE: GIB, TWO: 2 * GIB}


@pytest.mark.parametrize("name", errors())
@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_where_nvml_does_not_work_nothing_is_known(nvml, function: str, name: str) -> None:
    fake_nvml.settings["raises"] = {function: name}
    assert used_bytes() is None
    assert wait_until_free(None) is None


def test_without_a_card_nothing_is_known(nvml) -> None:
    fake_nvml.settings["gpus"] = []
    assert used_bytes() is None


@pytest.mark.parametrize("name", ["GpuIsLost", "NoPermission", "NotSupported", "ResetRequired"])
def test_a_card_that_does_not_answer_hides_no_other(nvml, name: str) -> None:
    nvml[ONE] = [getattr(fake_nvml, f"NVMLError_{name}")]
    assert used_bytes() == {TWO: 2 * GIB}
    nvml[TWO] = nvml[ONE]
    assert used_bytes() is None


def test_a_shutdown_that_fails_costs_nothing(nvml) -> None:
    fake_nvml.settings["raises"] = {"nvmlShutdown": "Uninitialized"}
    assert used_bytes() == {ONE: GIB, TWO: 2 * GIB}
    fake_nvml._state["initialised"] = 0


def test_memory_that_is_free_is_not_waited_for(nvml) -> None:
    waited_s, left = wait_until_free(used_bytes())
    assert waited_s < device.FREE_POLL_S
    assert left == 0


def test_memory_that_comes_free_after_three_looks_is_waited_for(nvml) -> None:
    before = used_bytes()
    nvml[TWO] = [70 * GIB, 30 * GIB, 3 * GIB, 2 * GIB]
    waited_s, left = wait_until_free(before)
    assert 3 * device.FREE_POLL_S <= waited_s < device.FREE_WAIT_S / 2
    assert left == 0
    assert nvml[TWO] == [2 * GIB]  # looked four times


def test_memory_that_never_comes_free_is_waited_for_within_bounds_and_told(nvml) -> None:
    before = used_bytes()
    nvml[ONE], nvml[TWO] = [3 * GIB], [6 * GIB]
    start = time.monotonic()
    waited_s, left = wait_until_free(before, limit_s=0.3)
    assert 0.3 <= waited_s <= time.monotonic() - start < 2
    assert left == 4 * GIB  # of the card that has the most more


def test_the_limit_is_a_matter_of_seconds() -> None:
    assert 1 <= device.FREE_WAIT_S <= 30


def test_what_a_driver_keeps_is_not_waited_for(nvml) -> None:
    before = used_bytes()
    nvml[ONE] = [GIB + TOLERANCE_BYTES]
    assert wait_until_free(before)[1] == 0
    nvml[ONE] = [GIB + TOLERANCE_BYTES + 1]
    assert wait_until_free(before, limit_s=0.0) == (pytest.approx(0, abs=1), TOLERANCE_BYTES + 1)


def test_less_in_use_than_before_is_free(nvml) -> None:
    before = used_bytes()
    nvml[ONE], nvml[TWO] = [0], [0]
    assert wait_until_free(before)[1] == 0


def test_a_driver_that_is_lost_meanwhile_ends_the_wait(nvml) -> None:
    before = used_bytes()
    nvml[ONE] = nvml[TWO] = [50 * GIB, 50 * GIB, fake_nvml.NVMLError_GpuIsLost]
    start = time.monotonic()
    assert wait_until_free(before, limit_s=30) is None
    assert time.monotonic() - start < 5


def test_a_card_that_is_lost_meanwhile_is_not_waited_for(nvml) -> None:
    before = used_bytes()
    nvml[ONE] = [50 * GIB, fake_nvml.NVMLError_GpuIsLost]
    waited_s, left = wait_until_free(before)
    assert (waited_s < 2, left) == (True, 0)


def test_cards_that_appear_meanwhile_are_nobodys_debt(nvml) -> None:
    before = used_bytes()
    fake_nvml.settings["gpus"] = [*fake_nvml.DEFAULTS["gpus"], {"uuid": "GPU-new", "name": "NVIDIA Fake"}]
    nvml["GPU-new"] = [70 * GIB]
    assert wait_until_free(before)[1] == 0


def test_the_real_library_answers_without_a_driver_or_with_one() -> None:
    used = used_bytes()
    assert used is None or all(value >= 0 for value in used.values())
    if not Path("/dev/nvidiactl").exists():
        assert used is None
