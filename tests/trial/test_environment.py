"""Check that the environment is recorded completely, without secrets, and without failing the job."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bench
import fake_nvml
from bench.host import gpus, machine
from bench.trial.hardware import environment, monitor, sampler
from bench.trial.hardware.environment import (
    clock_settings,
    cpu_limit_cores,
    describe_environment,
    git_state,
    gpu_settings,
    memory_limit_bytes,
    numa_nodes,
    other_processes,
    transparent_hugepages,
    variables,
)
from bench.trial.measure.trial import note_sources
from factories import make_record

FIRST, SECOND, INSTANCE = "GPU-11111111-aaaa", "GPU-22222222-bbbb", "MIG-33333333-cccc"


@pytest.fixture
def nvml(monkeypatch):
    """NVML with two cards, on the machine itself and not in a container; its settings can be changed."""
    for module in (environment, gpus, monitor, sampler):
        monkeypatch.setattr(module, "pynvml", fake_nvml)
    monkeypatch.setattr(fake_nvml, "settings", dict(fake_nvml.DEFAULTS))
    monkeypatch.setattr(fake_nvml, "_state", {"initialised": 0, "answers": 0, "energy_readings": 0})
    monkeypatch.setattr(environment, "FIRST_PID_NAMESPACE", Path("/proc/self/ns/pid").stat().st_ino)
    return fake_nvml


@pytest.fixture
def two_gpus(monkeypatch, nvml):
    """A torch that sees both cards."""
    properties = SimpleNamespace(name="NVIDIA Fake", total_memory=8 << 30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(environment, "gpu_uuid_of", lambda index: (FIRST, SECOND)[index])
    monkeypatch.setattr(environment, "driver_version", lambda: "999.1")
    return nvml


def test_the_environment_names_versions_machine_and_threads():
    found = describe_environment("cpu")
    assert found["versions"]["bench"] == bench.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"] in (torch.__version__, torch.__version__.partition("+")[0])  # wheels differ
    assert set(machine.PACKAGES) < set(found["versions"])
    assert found["hostname"] == platform.node()
    assert found["cpu"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]["torch_threads"] == torch.get_num_threads()
    assert found["cpu"]["model"]
    assert found["cpu"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["memory"]["total_bytes"] == psutil.virtual_memory().total
    assert len(found["load_average"]) == 3
    assert found["gpu"] is None


def test_the_environment_holds_plain_values_that_json_gives_back():
    found = describe_environment("cpu")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_environment_is_described_in_less_than_three_tenths_of_a_second():
    def seconds():
        began = time.perf_counter()
        describe_environment("cpu")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.3


def test_mlflow_is_not_imported_for_its_version():
    program = (
        "import sys; from bench.trial.hardware.environment import describe_environment as describe; "
        "print(describe('cpu')['versions']['mlflow'], 'mlflow' in sys.modules, 'transformers' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    version, *loaded = ended.stdout.split()
    assert version[0].isdigit()
    assert loaded == ["False", "False"]


def test_probes_that_fail_are_none_and_never_an_error(monkeypatch):
    def fail(*_, **__):
        raise OSError("not here")

    for owner, name in [
        (platform, "platform"),
        (platform, "node"),
        (psutil, "virtual_memory"),
        (psutil, "cpu_count"),
        (os, "sched_getaffinity"),
        (os, "getloadavg"),
        (torch, "get_num_threads"),
        (torch.cuda, "get_device_properties"),
        (environment, "cpu_model"),
        (environment, "memory_limit_bytes"),
        (environment, "git_state"),
        (environment, "numa_nodes"),
        (environment, "transparent_hugepages"),
    ]:
        monkeypatch.setattr(owner, name, fail)
    found = describe_environment("cuda:0")
    assert found["platform"] is None
    assert found["memory"] == {"total_bytes": None, "limit_bytes": None, "transparent_hugepages": None}
    assert found["load_average"] is None
    assert found["cpu"]["torch_threads"] is None
    assert found["gpu"] is None
    assert found["git"] is None


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package"))
    versions = describe_environment("cpu")["versions"]
    assert versions["numpy"]
    assert versions["no-such-package"] is None


def test_versions_are_those_that_importlib_tells(monkeypatch):
    import importlib.metadata

    installed = sorted({each.name for each in importlib.metadata.distributions()})
    monkeypatch.setattr(machine, "PACKAGES", tuple(installed))
    versions = describe_environment("cpu")["versions"]
    assert len(installed) > 20
    assert {each: versions[each] for each in installed} == {
        each: importlib.metadata.version(each) for each in installed
    }


# ---- GPU -------------------------------------------------------------------------------------------------------------


def test_a_gpu_is_described_with_its_settings_and_the_others_that_are_visible(two_gpus):
    two_gpus.settings["processes"] = {FIRST: [[os.getpid(), 1], [7, 1], [8, None]]}
    assert describe_environment("cuda:0")["gpu"] == {
        "name": "NVIDIA Fake",
        "uuid": FIRST,
        "memory_bytes": 8 << 30,
        "compute_capability": "9.0",
        "driver": "999.1",
        "cuda": "13.0",
        "cudnn": 91002,
        "power_limit_w": 350.0,
        "default_power_limit_w": 700.0,
        "persistence_mode": True,
        "compute_mode": "exclusive_process",
        "mig_mode": False,
        "ecc_mode": True,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 2619,
        "application_sm_clock_mhz": 1500,
        "application_memory_clock_mhz": 2600,
        "other_processes": 2,
        "others_visible": [{"name": "NVIDIA Fake", "uuid": SECOND}],
    }
    assert two_gpus._state["initialised"] == 0


def test_cuda_without_a_number_is_the_current_gpu(two_gpus):
    assert describe_environment("cuda")["gpu"]["uuid"] == SECOND


@pytest.mark.parametrize("error", ["NotSupported", "NoPermission", "FunctionNotFound", "GpuIsLost", "Uninitialized"])
def test_what_a_gpu_does_not_tell_is_none_and_the_rest_is_there(two_gpus, error):
    two_gpus.settings["raises"] = dict.fromkeys(
        ["nvmlDeviceGetEccMode", "nvmlDeviceGetApplicationsClock", "nvmlDeviceGetComputeRunningProcesses"], error
    )
    found = describe_environment("cuda:0")["gpu"]
    unknown = {"ecc_mode", "application_sm_clock_mhz", "application_memory_clock_mhz", "other_processes"}
    assert {name for name, value in found.items() if value is None} == unknown


def test_a_function_that_pynvml_no_longer_has_costs_its_field_only(two_gpus, monkeypatch):
    monkeypatch.delattr(two_gpus, "nvmlDeviceGetApplicationsClock")
    found = gpu_settings(FIRST)
    assert found["application_sm_clock_mhz"] is None
    assert found["max_sm_clock_mhz"] == 1980


@pytest.mark.parametrize("error", ["LibraryNotFound", "DriverNotLoaded", "LibRmVersionMismatch"])
def test_without_nvml_the_gpu_is_described_by_torch(two_gpus, error):
    known = set(gpu_settings(FIRST))
    two_gpus.settings["raises"] = {"nvmlInit": error}
    found = describe_environment("cuda:0")["gpu"]
    assert (found["name"], found["cuda"], found["uuid"]) == ("NVIDIA Fake", "13.0", FIRST)
    assert {name: found[name] for name in known} == dict.fromkeys(known)


def test_a_gpu_without_a_uuid_is_not_asked_for_another_one_s_settings(nvml):
    assert set(gpu_settings(None).values()) == {None}
    assert gpu_settings(None).keys() == gpu_settings(FIRST).keys()


@pytest.mark.parametrize("uuid", [INSTANCE, "GPU-33333333-cccc"])
def test_a_mig_instance_has_its_cards_settings_and_its_own_processes(nvml, uuid):
    """CUDA names an instance without saying that it is one."""
    nvml.settings["processes"] = {SECOND: [[7, 1], [8, 1]], INSTANCE: [[7, 1]]}
    found = gpu_settings(uuid)
    assert (found["mig_mode"], found["power_limit_w"], found["other_processes"]) == (True, 350.0, 1)


def test_in_a_container_the_other_processes_are_unknown(nvml, monkeypatch):
    nvml.nvmlInit()
    assert other_processes(FIRST) == 0
    monkeypatch.setattr(environment, "FIRST_PID_NAMESPACE", 1)
    assert other_processes(FIRST) is None


def test_the_driver_s_version_is_asked_of_nvml_where_the_kernel_hides_it(nvml, monkeypatch):
    monkeypatch.setattr(environment, "_text", lambda path: None)
    assert environment.driver_version() == "999.1"


# ---- variables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "TORCHINDUCTOR_REMOTE_TOKEN",
        "TRITON_API_KEY",
        "TORCH_COMPILE_SECRET",
        "OPENBLAS_PASSWORD",
        "MKL_Passwd",
        "TRITON_AUTH",
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "TOKENIZERS_PARALLELISM_TOKEN",
        "MY_CUDA_VISIBLE_DEVICES",
        "HOME",
    ],
)
def test_a_secret_never_appears(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2")
    assert "hunter2" not in json.dumps(describe_environment("cpu"))


WORDS = st.sampled_from(["Token", "KEY", "secret", "PASSWORD", "Passwd", "credentials", "auth", "COOKIE", "bearer"])
LETTERS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", max_size=12)
PLAIN = st.text("abcdefghijklmnopqrstuvwxyz0123456789/._,-", max_size=20)


@st.composite
def listed_names(draw):
    name = draw(st.sampled_from(machine.VARIABLES))
    return name[:-1] + draw(LETTERS) if name.endswith("*") else name


@given(name=listed_names(), word=WORDS, position=st.integers(0, 40), value=PLAIN)
def test_a_listed_name_that_speaks_of_a_secret_is_left_out(name, word, position, value):
    name = name[:position] + word + name[position:]
    assert variables({name: value}) == {}


@given(
    name=listed_names(),
    before=PLAIN,
    after=PLAIN,
    secret=st.sampled_from(
        [
            "redis://me:hunter2@host:1/0",
            "redis://:hunter2@host",
            "redis://me:hunter/2@host",
            "me:hunter2@host",
            "https://host/?api_key=hunter2",
            "https://host/?a=1&access_token=hunter2",
            "--password=hunter2",
            "--password hunter2",
            "Authorization: hunter2",
            " hf_hunter2hunter2",
            ":ghp_hunter2hunter2",
            "/sk-hunter2hunter2",
        ]
    ),
)
def test_a_secret_inside_a_listed_variable_never_appears(name, before, after, secret):
    assert "hunter" not in json.dumps(variables({name: before + secret + after}))


def test_an_address_without_a_secret_is_kept():
    assert variables({"TORCHINDUCTOR_REDIS_URL": "redis://host:1/0"}) != {}


def test_the_compile_cache_that_bench_sets_is_not_recorded_as_the_users():
    assert variables({"TORCHINDUCTOR_CACHE_DIR": "cache", "TRITON_CACHE_DIR": "cache"}) == {}


def test_what_changes_results_is_kept_and_the_rest_is_not():
    kept = {
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_FREEZING": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "TORCH_COMPILE_DEBUG": "1",
        "TRITON_INTERPRET": "1",
        "NVIDIA_TF32_OVERRIDE": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "CUDNN_LOGLEVEL_DBG": "3",
        "TORCH_CUDNN_V8_API_DISABLED": "1",
        "TORCH_BLAS_PREFER_CUBLASLT": "1",
        "LD_LIBRARY_PATH": "/usr/local/cuda-13.0/lib64:/opt/cudnn-9.10/lib",
        "CXX": "clang++-18",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.cpu.x86_shstk=on",
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "LD_PRELOAD": "libjemalloc.so",
    }
    assert variables(kept | {"HOME": "/", "USER": "me", "HF_HOME": "/", "OMPI_RANK": "0"}) == kept


# ---- limits ----------------------------------------------------------------------------------------------------------


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_limit_of_nested_groups_counts_in_version_2(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/outer/inner\n")
    root = tmp_path / "fs"
    write(root / "outer/inner/memory.max", "max\n")
    write(root / "outer/inner/cpu.max", "400000 100000\n")
    write(root / "outer/memory.max", "1073741824\n")
    write(root / "outer/cpu.max", "150000 100000\n")
    assert memory_limit_bytes(root, own) == 1 << 30
    assert cpu_limit_cores(root, own) == 1.5


def test_limits_of_version_1_are_found_from_outside_and_inside_a_container(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n")
    root = tmp_path / "fs"
    write(root / "memory/memory.limit_in_bytes", "2147483648\n")  # inside, the container's own group is the top
    write(root / "cpu/docker/abc/cpu.cfs_quota_us", "250000\n")
    write(root / "cpu/docker/abc/cpu.cfs_period_us", "100000\n")
    assert memory_limit_bytes(root, own) == 2 << 30
    assert cpu_limit_cores(root, own) == 2.5


def test_no_limit_is_none(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/\n1:cpu:/\n0::/\n")
    root = tmp_path / "fs"
    write(root / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(root / "cpu/cpu.cfs_quota_us", "-1\n")
    write(root / "cpu/cpu.cfs_period_us", "100000\n")
    write(root / "memory.max", "max\n")
    assert memory_limit_bytes(root, own) is None
    assert cpu_limit_cores(root, own) is None


# ---- processor and commit --------------------------------------------------------------------------------------------


def test_the_clock_s_settings_are_those_of_the_core_that_is_used(tmp_path):
    for core, most in ((0, 9_000_000), (4, 3_700_500)):
        write(tmp_path / f"cpu{core}/cpufreq/scaling_driver", "amd-pstate-epp\n")
        write(tmp_path / f"cpu{core}/cpufreq/scaling_governor", "powersave\n")
        write(tmp_path / f"cpu{core}/cpufreq/energy_performance_preference", "balance_performance\n")
        write(tmp_path / f"cpu{core}/cpufreq/scaling_min_freq", "400000\n")
        write(tmp_path / f"cpu{core}/cpufreq/scaling_max_freq", f"{most}\n")
    write(tmp_path / "cpufreq/boost", "1\n")
    assert clock_settings(tmp_path, 4) == {
        "clock_driver": "amd-pstate-epp",
        "governor": "powersave",
        "energy_preference": "balance_performance",
        "boost": True,
        "min_clock_mhz": 400.0,
        "max_clock_mhz": 3700.5,
    }


@pytest.mark.parametrize(
    ("file", "text", "boost"),
    [("cpufreq/boost", "0", False), ("intel_pstate/no_turbo", "0", True), ("intel_pstate/no_turbo", "1", False)],
)
def test_boost_is_read_from_either_driver(tmp_path, file, text, boost):
    write(tmp_path / file, f"{text}\n")
    assert clock_settings(tmp_path, 0)["boost"] is boost


def test_a_machine_that_hides_its_clocks_has_no_clock_settings(tmp_path):
    assert set(clock_settings(tmp_path).values()) == {None}


@pytest.mark.parametrize(("online", "count"), [("0\n", 1), ("0-1\n", 2), ("0-3,8,10-11\n", 7)])
def test_numa_nodes_are_counted_in_the_kernels_notation(tmp_path, online, count):
    write(tmp_path / "online", online)
    assert numa_nodes(tmp_path / "online") == count


def test_of_the_hugepage_settings_the_chosen_one_is_recorded(tmp_path):
    write(tmp_path / "enabled", "always [madvise] never\n")
    assert transparent_hugepages(tmp_path / "enabled") == "madvise"


@pytest.mark.parametrize("text", ["processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n", "cpu\t\t: Fast CPU @ 3 GHz\n"])
def test_the_processors_name_is_read_on_several_architectures(tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_model(tmp_path / "cpuinfo") == "Fast CPU @ 3 GHz"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, and a function that runs git in it."""
    for name in [each for each in os.environ if each.startswith("GIT_")]:
        monkeypatch.delenv(name)
    settings = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]

    def git(*arguments):
        return subprocess.run(
            ["git", *settings, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    return git


def test_the_commit_is_recorded_and_whether_tracked_files_differ(tmp_path, repository):
    commit = repository("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "untracked").write_text("results")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_a_repository_without_a_commit_has_none(tmp_path, repository):
    repository("checkout", "--orphan", "new")
    assert git_state(tmp_path)["commit"] is None


def test_a_folder_outside_of_a_repository_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None


def test_the_commit_is_that_of_bench_s_own_checkout_wherever_the_command_was_typed(tmp_path, repository, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = git_state(Path(bench.__file__).parent)
    assert own is None or own["commit"] != repository("rev-parse", "HEAD")
    assert describe_environment("cpu")["git"] == own


def test_a_record_is_recognised_by_what_was_imported_and_not_by_what_was_foreseen():
    record = make_record()
    record.fingerprint = {"torch": "2.13.0", "torch source": "/gone/torch (PYTHONPATH)"}
    note_sources(record)
    assert record.fingerprint == {"torch": "2.13.0"}
    assert record.environment["sources"]["torch"]["folder"] == str(Path(torch.__file__).parent)
    assert record.environment["sources"]["torch"]["version"] == torch.__version__


def test_an_installed_bench_has_no_commit_whatever_repository_it_lies_in(repository, monkeypatch):
    monkeypatch.setattr(environment, "imported", lambda: {"bench": {"came_from": "installed", "folder": "."}})
    assert describe_environment("cpu")["git"] is None


def test_a_machine_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_environment("cpu")["git"] is None
