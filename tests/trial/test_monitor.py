"""Check the hardware monitor with its real process, on the CPU and with a fake NVML."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.host import gpus
from bench.results.record import Energy, Monitor, MonitorSample
from bench.trial.hardware import monitor as monitor_module
from bench.trial.hardware import sampler
from bench.trial.hardware.monitor import HardwareMonitor, gpu_uuid_of, process_bytes_of
from bench.trial.hardware.sampler import nvml_meter, rapl_meter

TESTS = Path(__file__).parents[1]
FIRST, SECOND, INSTANCE = "GPU-11111111-aaaa", "GPU-22222222-bbbb", "MIG-33333333-cccc"


@pytest.fixture
def fake_gpu(tmp_path, monkeypatch):
    """Gives the sampling process a pynvml with these settings."""

    def use(**settings):
        (tmp_path / "pynvml.py").write_text((TESTS / "fake_nvml.py").read_text())
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("FAKE_NVML", json.dumps(settings))

    return use


@pytest.fixture
def fake_nvml(monkeypatch):
    """Gives this process a pynvml whose settings can be changed, and a torch without CUDA."""
    monkeypatch.syspath_prepend(TESTS)
    import fake_nvml

    for module in (gpus, monitor_module):
        monkeypatch.setattr(module, "pynvml", fake_nvml)
    monkeypatch.setattr(sampler, "pynvml", fake_nvml)
    monkeypatch.setattr(sampler, "LOST", (fake_nvml.NVMLError_GpuIsLost,))
    monkeypatch.setattr(fake_nvml, "settings", dict(fake_nvml.DEFAULTS))
    monkeypatch.setattr(fake_nvml, "_state", {"initialised": 0, "answers": 0, "energy_readings": 0})
    monkeypatch.setattr(monitor_module, "_uuid_from_torch", lambda _: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return fake_nvml


def start(device="cpu", interval_s=0.02, gpu_uuid=None):
    return HardwareMonitor.start_process(device, interval_s, gpu_uuid, os.getpid())


def sample_call(monitor, seconds=0.0):
    """The samples of a call that takes this long."""
    monitor.begin()
    began = time.perf_counter()
    time.sleep(seconds)
    return monitor.end(began)


class Silent:
    """A probe of a device that tells nothing."""

    source = "fake"

    def prime(self):
        pass

    def read(self):
        return {}


def has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


# ---- a call's samples ------------------------------------------------------------------------------------------------


def test_even_the_shortest_call_has_two_samples():
    with start(interval_s=5) as monitor:
        samples = sample_call(monitor)
    assert monitor.error is None
    assert len(samples) == 2
    assert samples[0].time_s < samples[1].time_s


def test_a_longer_call_has_a_sample_every_interval_between_its_ends():
    with start(interval_s=0.05) as monitor:
        samples = sample_call(monitor, 0.5)
    times = [each.time_s for each in samples]
    assert times == sorted(times)
    assert -0.3 < times[0] < 0.3
    assert 0.5 <= times[-1] < 2
    assert 4 <= len(times) <= (times[-1] - times[0]) / 0.05 + 3


def test_nothing_is_sampled_before_begin_and_after_end():
    with start(interval_s=0.005) as monitor:
        time.sleep(0.1)
        assert monitor.end(0.0) == []  # nothing had begun
        assert monitor.error is None
        first = sample_call(monitor, 0.03)
        time.sleep(0.1)
        began = time.perf_counter()
        monitor.begin()
        second = monitor.end(0.0)
    assert len(first) >= 2
    assert all(each.time_s >= began for each in second)


def test_a_call_that_was_never_ended_leaves_nothing_to_the_next():
    with start(interval_s=0.01) as monitor:
        monitor.begin()  # this call raised
        time.sleep(0.1)
        began = time.perf_counter()
        samples = sample_call(monitor)
    assert samples
    assert all(began + each.time_s >= began for each in samples[1:])
    assert len(samples) <= (samples[-1].time_s - samples[0].time_s) / 0.01 + 3


def test_the_cpu_tells_load_and_memory_of_the_job_and_leaves_a_gpus_fields_unknown():
    with start(interval_s=0.05) as monitor:
        monitor.begin()
        began = time.perf_counter()
        while time.perf_counter() < began + 0.2:
            pass
        first, *rest = monitor.end(began)
    assert first.utilization_percent is None  # since when?
    known = [each.utilization_percent for each in rest if each.utilization_percent is not None]
    assert known
    assert 0 < max(known) <= 100
    resident = psutil.Process().memory_info().rss
    assert resident / 2 < rest[-1].memory_used_bytes < resident * 2
    assert rest[-1].power_w is None
    assert rest[-1].throttle_bits is None


def test_the_record_gets_source_interval_samples_and_error():
    with start(interval_s=0.05) as monitor:
        calls = [sample_call(monitor), sample_call(monitor)]
        summary = monitor.summary(calls)
    assert summary == Monitor(source="psutil", interval_s=0.05, samples=calls, error=None)


def test_load_is_unknown_and_not_zero_while_the_kernel_has_not_counted(monkeypatch):
    probe = sampler.CpuProbe(os.getpid(), 0.1)
    monkeypatch.setattr(sampler, "_cpu_ticks", lambda: probe._ticks)
    assert "utilization_percent" not in probe.read()


def test_a_core_clock_that_is_slow_to_read_is_left_out(monkeypatch):
    monkeypatch.setattr(sampler, "_core_clock_mhz", lambda: time.sleep(0.01) or 2000.0)
    assert "sm_clock_mhz" in sampler.CpuProbe(os.getpid(), 10).read()
    assert "sm_clock_mhz" not in sampler.CpuProbe(os.getpid(), 0.1).read()


def test_samples_that_were_missed_are_not_made_up_for(monkeypatch):
    clock = iter([0.0, 0.0, 3.7, 3.7, 3.8])
    monkeypatch.setattr(sampler.time, "perf_counter", lambda: next(clock))

    series = sampler.Sampler(Silent(), sampler.Meter(source=None, reason="none here"), 1.0)
    series.start()  # at 0
    series.tick()  # at 3.7, three are due
    assert [each["time_s"] for each in series._samples] == [0.0, 3.7]
    assert series.wait_s() == pytest.approx(0.2)  # the next at 4, as planned


# ---- the process -----------------------------------------------------------------------------------------------------


def test_a_killed_process_costs_the_samples_and_not_the_job():
    with start() as monitor:
        before = sample_call(monitor)
        os.kill(monitor._process.pid, signal.SIGKILL)
        calls = [before, sample_call(monitor), sample_call(monitor)]
    assert monitor.error == "the monitor's process ended by signal 9"
    assert [len(each) for each in calls] == [len(before), 0, 0]
    assert monitor.summary(calls).error == monitor.error


def test_a_process_that_hangs_is_given_up_and_killed(monkeypatch):
    monkeypatch.setattr(monitor_module, "REPLY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(monitor_module, "EXIT_TIMEOUT_S", 0.2)
    with start() as monitor:
        pid = monitor._process.pid
        os.kill(pid, signal.SIGSTOP)
        assert sample_call(monitor) == []
        assert monitor.error == "the monitor's process did not answer within 0.2 s"
        assert has_ended(pid)


@pytest.mark.parametrize(
    ("program", "timeout_s", "error"),
    [
        ("raise SystemExit(3)", 30.0, "the monitor's process ended with status 3"),
        ("print('hello')", 30.0, "the monitor's process wrote b'hello\\n'"),
        ("import time; time.sleep(60)", 0.5, "the monitor's process did not answer within 0.5 s"),
    ],
)
def test_a_process_that_never_becomes_ready_is_an_error_in_the_record(monkeypatch, program, timeout_s, error):
    monkeypatch.setattr(monitor_module, "_COMMAND", (sys.executable, "-S", "-c", program))
    monkeypatch.setattr(monitor_module, "READY_TIMEOUT_S", timeout_s)
    monkeypatch.setattr(monitor_module, "EXIT_TIMEOUT_S", 0.5)
    with start() as monitor:
        assert monitor.error == error
        assert sample_call(monitor) == []


def test_a_program_that_cannot_be_started_is_an_error_in_the_record(monkeypatch):
    monkeypatch.setattr(monitor_module, "_COMMAND", ("/nowhere/python",))
    with start() as monitor:
        assert "No such file" in monitor.error
        assert sample_call(monitor) == []


def test_closing_ends_the_process_and_may_be_repeated():
    monitor = start()
    pid = monitor._process.pid
    monitor.begin()
    monitor.close()
    assert has_ended(pid)
    monitor.close()
    assert monitor.error is None
    assert sample_call(monitor) == []


def test_ctrl_c_is_left_to_the_parent():
    with start() as monitor:
        os.kill(monitor._process.pid, signal.SIGINT)
        assert len(sample_call(monitor, 0.1)) >= 2
        assert monitor.error is None


JOB = """
import os, sys, time
from bench.trial.hardware.monitor import HardwareMonitor
monitor = HardwareMonitor.start_process("cpu", 0.05, None, os.getpid())
held = os.fork() if sys.argv[1] == "forks" else 0
if held or sys.argv[1] == "plain":
    monitor.begin()
    print(monitor._process.pid, held, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("job", ["plain", "forks"])
def test_the_process_ends_when_the_job_is_killed(job):
    """Also when a process that the job forked still holds the pipe."""
    with subprocess.Popen([sys.executable, "-c", JOB, job], stdout=subprocess.PIPE, text=True) as parent:
        pid, held = map(int, parent.stdout.readline().split())
        try:
            assert not has_ended(pid)
            parent.kill()
            parent.wait()
            assert wait_until(lambda: has_ended(pid))
        finally:
            if held:
                os.kill(held, signal.SIGKILL)


def test_the_process_sleeps_between_calls_and_between_samples():
    with start(interval_s=0.1) as monitor:
        process = psutil.Process(monitor._process.pid)
        before = sum(process.cpu_times()[:2])
        time.sleep(0.5)
        sample_call(monitor, 0.5)
        used = sum(process.cpu_times()[:2]) - before
    assert used <= 0.1  # spinning would have been a second


def test_the_process_loads_neither_torch_nor_the_package():
    program = f"import runpy, sys; runpy.run_path({sampler.__file__!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout
    assert {each.partition(".")[0] for each in loaded.split()}.isdisjoint({"torch", "numpy", "bench", "transformers"})


def test_no_module_in_the_current_folder_or_its_own_is_imported(tmp_path, monkeypatch):
    (tmp_path / "psutil.py").write_text("raise SystemExit(7)")
    (tmp_path / "sampler.py").write_text(Path(sampler.__file__).read_text())
    monkeypatch.setattr(monitor_module, "_COMMAND", (*monitor_module._COMMAND[:-1], str(tmp_path / "sampler.py")))
    monkeypatch.chdir(tmp_path)
    with start() as monitor:
        assert monitor.error is None


def test_the_sampler_runs_as_a_module_too():
    command = [sys.executable, "-m", "bench.trial.hardware.sampler", "--pid", str(os.getpid()), "--interval", "0.1"]
    ended = subprocess.run(command, input="start\nstop\n", capture_output=True, text=True, check=True)
    ready, series = map(json.loads, ended.stdout.splitlines())
    assert (ready["ready"], ready["source"]) == (True, "psutil")
    assert len(series["samples"]) == 2


# ---- a GPU -----------------------------------------------------------------------------------------------------------


def test_what_nvml_tells_arrives_in_the_units_of_the_record(fake_gpu):
    fake_gpu()
    with start("cuda:0", gpu_uuid=FIRST) as monitor:
        samples = sample_call(monitor)
        assert monitor.summary([samples]).source == "nvml"
    assert monitor.error is None
    assert dataclasses.replace(samples[0], time_s=0.0) == MonitorSample(
        time_s=0.0,
        utilization_percent=87.0,
        memory_used_bytes=4 << 30,
        sm_clock_mhz=1755.0,
        memory_clock_mhz=2619.0,
        power_w=312.5,
        temperature_c=61.0,
        throttle_bits=4,
    )


@pytest.mark.parametrize("error", ["NotSupported", "NoPermission", "Uninitialized", "FunctionNotFound"])
def test_what_the_gpu_does_not_tell_is_none_and_the_rest_is_there(fake_gpu, error):
    fake_gpu(raises={"nvmlDeviceGetPowerUsage": error})
    with start("cuda", gpu_uuid=FIRST) as monitor:
        samples = sample_call(monitor)
    assert monitor.error is None
    assert samples[1].power_w is None
    assert samples[1].utilization_percent == 87
    assert samples[1].throttle_bits == 4


def test_a_field_that_fails_later_is_none_from_then_on(fake_nvml):
    fake_nvml.nvmlInit()
    probe = sampler.GpuProbe(FIRST)
    assert probe.read()["power_w"] == 312.5
    fake_nvml.settings["raises"] = {"nvmlDeviceGetPowerUsage": "NotSupported"}
    assert "power_w" not in probe.read()
    fake_nvml.settings["raises"] = {}
    assert "power_w" not in probe.read()


def test_old_and_new_names_of_nvmls_functions_both_work(fake_gpu):
    fake_gpu(
        missing=["nvmlDeviceGetCurrentClocksEventReasons"], raises={"nvmlDeviceGetTemperature": "FunctionNotFound"}
    )
    with start("cuda", gpu_uuid=FIRST) as monitor:
        sample = sample_call(monitor)[0]
    assert (sample.throttle_bits, sample.temperature_c) == (0x20, 62.0)


def test_a_lost_gpu_is_an_error_and_what_came_before_is_kept(fake_gpu):
    # Seven fields and the energy: asked once when it starts, once at begin, and then it goes.
    fake_gpu(lost_after=8 + 8 + 3)
    with start("cuda", interval_s=5, gpu_uuid=FIRST) as monitor:
        assert len(sample_call(monitor)) == 1
        assert monitor.error == "GPU is lost"
        assert sample_call(monitor) == []
        assert monitor.energy() == Energy(source="nvml", joules=[12.5, None], reason="GPU is lost")


def test_a_gpu_that_tells_nothing_is_an_error_in_the_record(fake_gpu):
    queries = [
        "UtilizationRates", "MemoryInfo", "ClockInfo", "PowerUsage", "Temperature", "TemperatureV",
        "CurrentClocksEventReasons", "CurrentClocksThrottleReasons",
    ]  # fmt: skip
    fake_gpu(raises={f"nvmlDeviceGet{each}": "NoPermission" for each in queries})
    with start("cuda", gpu_uuid=FIRST) as monitor:
        assert monitor.error == "NVML reports nothing about this GPU"
        assert sample_call(monitor) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("LibraryNotFound", "NVML Shared Library Not Found"),
        ("DriverNotLoaded", "Driver Not Loaded"),
        ("LibRmVersionMismatch", "RM has detected an NVML/RM version mismatch."),  # a driver updated, not reloaded
    ],
)
def test_a_machine_without_nvml_is_an_error_in_the_record(fake_gpu, error, message):
    fake_gpu(raises={"nvmlInit": error})
    with start("cuda", gpu_uuid=FIRST) as monitor:
        assert monitor.error == message
        assert sample_call(monitor) == []
        assert monitor.energy() == Energy(source=None, joules=[None], reason=message)


def test_a_cuda_device_without_a_uuid_is_an_error_and_not_another_device():
    with start("cuda:1") as monitor:
        assert monitor.error == "NVML knows no GPU that is cuda:1"
        assert monitor.summary([[]]) == Monitor(source="nvml", interval_s=0.02, samples=[[]], error=monitor.error)


@pytest.mark.parametrize("uuid", [INSTANCE, "GPU-33333333-cccc"])
def test_a_mig_instance_has_its_own_memory_the_cards_clocks_and_no_power(fake_gpu, uuid):
    """CUDA names an instance without saying that it is one."""
    fake_gpu()
    with start("cuda", gpu_uuid=uuid) as monitor:
        sample = sample_call(monitor)[0]
    assert (sample.memory_used_bytes, sample.sm_clock_mhz, sample.temperature_c) == (1 << 30, 1755.0, 61.0)
    assert (sample.power_w, sample.utilization_percent) == (None, None)


# ---- energy ----------------------------------------------------------------------------------------------------------


def rapl_tree(root, **microjoules):
    """The folders of RAPL domains: name → what its counter says, which may be text."""
    for index, (name, energy) in enumerate(microjoules.items()):
        folder = root / f"intel-rapl:{index}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(name.replace("_", "-") + "\n")
        (folder / "max_energy_range_uj").write_text("65532610987\n")
        (folder / "energy_uj").write_text(f"{energy}\n")
    return root


def set_counter(root, index, microjoules):
    (root / f"intel-rapl:{index}" / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def start_below(monkeypatch):
    """Starts a monitor whose process looks for the energy counters of the CPU below this folder."""

    def start_there(root):
        monkeypatch.setattr(monitor_module, "_COMMAND", (*monitor_module._COMMAND, "--powercap", str(root)))
        return start(interval_s=5)

    return start_there


def test_each_call_has_the_joules_between_its_start_and_its_stop(fake_gpu):
    fake_gpu(energy_steps_mj=[1000, 2500, 400_000, 1500])  # since the start; in call, between calls, in call
    with start("cuda", interval_s=5, gpu_uuid=FIRST) as monitor:
        sample_call(monitor)
        sample_call(monitor)
        assert monitor.energy() == Energy(source="nvml", joules=[2.5, 1.5])


def test_the_packages_of_the_cpu_count_together_and_each_begins_anew_by_itself(tmp_path):
    root = rapl_tree(tmp_path, package_0=1_000_000, package_1=65_532_000_000)
    meter = rapl_meter(root)
    meter.start()
    set_counter(root, 0, 4_000_000)  # 3 J on
    set_counter(root, 1, 1_389_013)  # 0.610987 J up to the end of its range and 1.389013 J beyond
    assert meter.stop() == pytest.approx(5.0)
    assert (meter.source, meter.reason) == ("rapl", None)


def test_only_whole_packages_are_counted(tmp_path):
    root = rapl_tree(tmp_path, package_0=0, core=0, dram=0, psys=0, package_0_die_0=0)
    meter = rapl_meter(root)
    meter.start()
    for index in range(5):
        set_counter(root, index, 10 ** (6 + index))
    assert meter.stop() == 1.0


def test_psys_is_no_substitute_for_packages(tmp_path):
    meter = rapl_meter(rapl_tree(tmp_path, psys=0))
    assert meter.source is None
    assert meter.reason == f"no package's energy counter below {tmp_path} (virtual machines have none)"


def test_a_machine_without_counters_has_no_energy_and_says_why(tmp_path, start_below):
    with start_below(tmp_path / "powercap") as monitor:
        assert len(sample_call(monitor)) == 2
        assert monitor.error is None
        energy = monitor.energy()
    assert (energy.source, energy.joules) == (None, [None])
    assert "virtual machines have none" in energy.reason


def test_counters_for_root_only_name_the_remedy(tmp_path, monkeypatch):
    root = rapl_tree(tmp_path, package_0=0)
    read = Path.read_text

    def refuse(path, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", refuse)  # chmod would not stop root
    meter = rapl_meter(root)
    assert meter.source is None
    assert meter.reason.endswith(f"sudo chmod a+r {root}/intel-rapl:*/energy_uj")
    assert "\n" not in meter.reason


def test_counters_that_a_container_hides_are_a_reason(tmp_path):
    (tmp_path / "intel-rapl:0").symlink_to(tmp_path / "hidden")
    meter = rapl_meter(tmp_path)
    assert meter.source is None
    assert "cannot be read (containers hide them)" in meter.reason


def test_a_counter_that_fails_later_costs_the_energy_from_then_on_and_no_samples(tmp_path, start_below):
    root = rapl_tree(tmp_path, package_0=0)
    with start_below(root) as monitor:
        sample_call(monitor)
        set_counter(root, 0, "what?")
        assert len(sample_call(monitor)) == 2
        set_counter(root, 0, 9)
        assert len(sample_call(monitor)) == 2
        assert monitor.error is None
        energy = monitor.energy()
    assert (energy.source, energy.joules) == ("rapl", [0.0, None, None])
    assert energy.reason.startswith("the energy counter can no longer be read: invalid literal")


def test_a_call_long_enough_for_a_counter_to_begin_anew_twice_is_followed(tmp_path, monkeypatch):
    root = rapl_tree(tmp_path, package_0=0)
    now_s = 0.0
    monkeypatch.setattr(sampler.time, "perf_counter", lambda: now_s)
    series = sampler.Sampler(Silent(), rapl_meter(root), 1.0)
    series.start()
    # 40 kJ every 30 s, in a counter that holds 65.5: after 120 s it has begun anew twice.
    for now_s in (30.0, 60.0, 90.0, 120.0):
        set_counter(root, 0, int(now_s / 30 * 40e9) % 65_532_610_987)
        series.tick()
    assert series.stop()["joules"] == pytest.approx(160e3)


def test_the_counter_is_read_at_the_ends_of_a_short_call_only():
    readings = []
    meter = sampler.Meter(source="fake", read_j=lambda: readings.append(1) or (float(len(readings)),), ranges_j=(0.0,))
    meter.start()
    meter.keep_up()
    meter.keep_up()
    assert meter.stop() == 1.0
    assert len(readings) == 2


def test_a_counter_that_goes_back_is_unknown_and_not_negative(fake_nvml):
    fake_nvml.settings["energy_steps_mj"] = [-5]
    fake_nvml.nvmlInit()
    meter = nvml_meter(FIRST, None)
    meter.start()
    assert meter.stop() is None
    assert meter.reason == "the energy counter went back"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("NotSupported", "this GPU has no energy counter (Not Supported; GPUs have one since Volta)"),
        ("NoPermission", "NVML does not report the energy: Insufficient Permissions"),
        ("FunctionNotFound", "NVML does not report the energy: Function Not Found"),
    ],
)
def test_a_gpu_that_does_not_tell_its_energy_is_monitored_all_the_same(fake_gpu, error, reason):
    fake_gpu(raises={"nvmlDeviceGetTotalEnergyConsumption": error})
    with start("cuda", gpu_uuid=FIRST) as monitor:
        assert sample_call(monitor)[0].power_w == 312.5
        assert monitor.error is None
        assert monitor.energy() == Energy(source=None, joules=[None], reason=reason)


def test_the_energy_of_the_whole_card_is_not_put_down_to_a_mig_instance(fake_gpu):
    fake_gpu()
    with start("cuda", gpu_uuid=INSTANCE) as monitor:
        sample_call(monitor)
        energy = monitor.energy()
    assert (energy.source, energy.joules) == (None, [None])
    assert energy.reason == "a MIG instance has no energy counter: NVML's is that of the whole card"


def test_calls_after_the_monitor_has_failed_have_no_energy_and_the_reason(fake_gpu):
    fake_gpu()
    with start("cuda", gpu_uuid=FIRST) as monitor:
        sample_call(monitor)
        os.kill(monitor._process.pid, signal.SIGKILL)
        sample_call(monitor)
        sample_call(monitor)
        energy = monitor.energy()
    assert energy == Energy(source="nvml", joules=[12.5, None, None], reason="the monitor's process ended by signal 9")


def test_each_begin_with_its_end_has_one_value(fake_gpu):
    fake_gpu()
    with start("cuda", interval_s=5, gpu_uuid=FIRST) as monitor:
        monitor.end(0.0)  # nothing had begun
        monitor.begin()  # this call was never ended
        sample_call(monitor)
        sample_call(monitor)
        monitor.end(0.0)  # was over already
        assert monitor.energy().joules == [12.5, 12.5]


# ---- which GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "index", "uuid"),
    [
        (None, 0, FIRST),
        (None, 1, SECOND),
        (None, 2, None),
        ("1", 0, SECOND),
        ("1,0", 1, FIRST),
        ("0", 1, None),
        ("", 0, None),
        ("0,-1,1", 1, None),
        (SECOND, 0, SECOND),
        ("GPU-2", 0, SECOND),
        ("GPU-", 0, None),
        ("GPU-9", 0, None),
        (f"0, {SECOND}", 1, SECOND),
        (INSTANCE, 0, INSTANCE),
        (f"{INSTANCE},MIG-44444444-dddd", 1, "MIG-44444444-dddd"),
        ("MIG-GPU-22222222-bbbb/1/0", 0, "MIG-GPU-22222222-bbbb/1/0"),
    ],
)
def test_the_gpu_is_the_one_that_cuda_was_given(monkeypatch, fake_nvml, visible, index, uuid):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_uuid_of(index) == uuid
    assert fake_nvml._state["initialised"] == 0


def test_torch_knows_best_which_gpu_it_uses(monkeypatch, fake_nvml):
    monkeypatch.setattr(monitor_module, "_uuid_from_torch", lambda index: f"GPU-of-torch-{index}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpu_uuid_of(1) == "GPU-of-torch-1"


def test_gpus_that_differ_are_told_apart_by_number_only_in_the_order_of_the_bus(monkeypatch, fake_nvml):
    fake_nvml.settings["gpus"] = [{"uuid": FIRST, "name": "slow"}, {"uuid": SECOND, "name": "fast"}]
    assert gpu_uuid_of(0) is None
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu_uuid_of(0) == FIRST


def test_without_nvml_there_is_no_uuid(fake_nvml):
    fake_nvml.settings["raises"] = {"nvmlInit": "LibraryNotFound"}
    assert gpu_uuid_of(0) is None


def test_torchs_uuid_gets_the_prefix_that_nvml_wants(monkeypatch):
    import torch

    class Properties:
        uuid = "11111111-aaaa"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    assert monitor_module._uuid_from_torch(0) == FIRST
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: object())
    assert monitor_module._uuid_from_torch(0) is None


# ---- this process's memory -------------------------------------------------------------------------------------------


def test_the_memory_of_this_process_is_told_among_others(fake_nvml):
    fake_nvml.settings["processes"] = {FIRST: [[1, 5 << 30], [os.getpid(), 3 << 30]], SECOND: [[os.getpid(), 1]]}
    assert process_bytes_of(0) == 3 << 30
    assert fake_nvml._state["initialised"] == 0


@pytest.mark.parametrize(
    "processes",
    [[], [[1, 5 << 30]], [[os.getpid(), None]]],
    ids=["no process", "only others", "a figure that is not available"],
)
def test_memory_that_nvml_does_not_tell_is_unknown(fake_nvml, processes):
    fake_nvml.settings["processes"] = {FIRST: processes}
    assert process_bytes_of(0) is None


@pytest.mark.parametrize("error", ["NotSupported", "NoPermission", "GpuIsLost", "FunctionNotFound"])
def test_an_error_of_nvml_costs_the_figure_only(fake_nvml, error):
    """The last one as pynvml hands it on: as an exception that is no NVMLError."""
    fake_nvml.settings["processes"] = {FIRST: [[os.getpid(), 3 << 30]]}
    fake_nvml.settings["raises"] = {"nvmlDeviceGetComputeRunningProcesses": error}
    assert process_bytes_of(0) is None
    fake_nvml.settings["raises"] = {"nvmlInit": "LibRmVersionMismatch"}
    assert process_bytes_of(0) is None
    assert fake_nvml._state["initialised"] == 0


@pytest.mark.parametrize("uuid", [INSTANCE, "GPU-33333333-cccc"])
def test_on_a_mig_instance_it_is_the_memory_held_there(monkeypatch, fake_nvml, uuid):
    monkeypatch.setattr(monitor_module, "_uuid_from_torch", lambda _: uuid)
    fake_nvml.settings["processes"] = {INSTANCE: [[os.getpid(), 2 << 30]], SECOND: [[os.getpid(), 9 << 30]]}
    assert process_bytes_of(0) == 2 << 30


# ---- a real GPU ------------------------------------------------------------------------------------------------------


def real_gpus():
    """The UUIDs of this machine's GPUs."""
    import pynvml

    try:
        with monitor_module.nvml():
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return [pynvml.nvmlDeviceGetUUID(each) for each in handles]
    except pynvml.NVMLError:
        return []


@pytest.mark.skipif(not real_gpus(), reason="NVML finds no GPU")
def test_a_real_gpu_tells_what_it_does_and_takes():
    with start("cuda", interval_s=0.05, gpu_uuid=real_gpus()[0]) as monitor:
        samples = sample_call(monitor, 1.0)
        energy = monitor.energy()
        assert monitor.error is None
    assert samples[-1].memory_used_bytes > 0
    assert samples[-1].sm_clock_mhz > 0
    assert energy.reason or 1 < energy.joules[0] < 2000  # of an idle or a busy card, in about a second


# ---- the fake --------------------------------------------------------------------------------------------------------


def test_the_fake_has_only_names_that_the_real_nvml_has(fake_nvml):
    import pynvml

    names = [each for each in dir(fake_nvml) if each.lower().startswith("nvml")]
    assert len(names) > 30
    assert [each for each in names if not hasattr(pynvml, each)] == []
    constants = [each for each in names if isinstance(getattr(fake_nvml, each), int)]
    assert {each: getattr(pynvml, each) for each in constants} == {each: getattr(fake_nvml, each) for each in constants}


def test_every_field_that_the_gpu_is_asked_for_is_a_field_of_the_record():
    fields = {each.name for each in dataclasses.fields(MonitorSample)}
    assert set(sampler._queries(None, None)) == fields - {"time_s"}
