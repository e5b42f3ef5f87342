"""What the record says of the machine: complete, harmless, and never in the job's way."""

import json
import os
import platform
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

import bench
from bench.trial import environment
from bench.trial.environment import cpu_limit_cores, describe_environment, git_state, memory_limit_bytes, variables


def test_it_names_versions_machine_and_threads():
    found = describe_environment("cpu")
    assert found["versions"]["bench"] == bench.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"] == torch.__version__
    assert set(environment.PACKAGES) < set(found["versions"])
    assert found["hostname"] == platform.node()
    assert found["cpu"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]["torch_threads"] == torch.get_num_threads()
    assert found["cpu"]["model"]
    assert found["memory"]["total_bytes"] == psutil.virtual_memory().total
    assert found["gpu"] is None


def test_it_holds_plain_values_that_json_gives_back():
    found = describe_environment("cpu")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_takes_less_than_three_tenths_of_a_second():
    def seconds():
        began = time.perf_counter()
        describe_environment("cpu")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.3


def test_mlflow_is_not_imported_for_its_version():
    program = (
        "import sys; from bench.trial.environment import describe_environment as describe; "
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
        (torch, "get_num_threads"),
        (environment, "cpu_model"),
        (environment, "memory_limit_bytes"),
        (environment, "git_state"),
    ]:
        monkeypatch.setattr(owner, name, fail)
    found = describe_environment("cuda:0")  # there is none here
    assert found["platform"] is None
    assert found["memory"] == {"total_bytes": None, "limit_bytes": None}
    assert found["cpu"]["torch_threads"] is None
    assert found["gpu"] is None
    assert found["git"] is None


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    versions = describe_environment("cpu")["versions"]
    assert versions["numpy"]
    assert versions["no-such-package"] is None


def test_a_gpu_is_named_with_uuid_driver_and_cuda(monkeypatch):
    properties = SimpleNamespace(name="NVIDIA Fake", total_memory=8 << 30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(environment, "gpu_uuid_of", lambda index: f"GPU-{index}")
    monkeypatch.setattr(environment, "driver_version", lambda: "999.1")
    assert describe_environment("cuda:1")["gpu"] == {
        "name": "NVIDIA Fake",
        "uuid": "GPU-1",
        "memory_bytes": 8 << 30,
        "compute_capability": "9.0",
        "driver": "999.1",
        "cuda": "13.0",
    }
    assert describe_environment("cuda")["gpu"]["uuid"] == "GPU-3"


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


def test_a_password_inside_an_address_never_appears():
    assert variables({"TORCHINDUCTOR_CACHE_HOST": "redis://me:hunter2@host:1/0"}) == {}
    assert variables({"TORCHINDUCTOR_CACHE_HOST": "redis://host:1/0"}) != {}


def test_the_compile_cache_that_bench_sets_for_each_job_is_not_the_user_s_environment():
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


@pytest.mark.parametrize("text", ["processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n", "cpu\t\t: Fast CPU @ 3 GHz\n"])
def test_the_processors_name_is_read_on_several_architectures(tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    assert environment.cpu_model(tmp_path / "cpuinfo") == "Fast CPU @ 3 GHz"


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


def test_a_machine_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_environment("cpu")["git"] is None
