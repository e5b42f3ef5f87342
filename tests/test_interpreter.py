"""Test that only Python's path entry for the current folder is removed, here and in engines' processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bench.host import import_path
from bench.host.import_path import SAFE_PATH, is_command, leave_current_folder


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Set up a fresh process in a separate folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(import_path, "_is_left", [])
    monkeypatch.setattr(import_path.sys, "path", [str(tmp_path), str(tmp_path), "/site"])
    monkeypatch.setenv(SAFE_PATH, "")
    return str(tmp_path)


@pytest.mark.skipif(sys.flags.safe_path, reason="this interpreter has added nothing")
def test_only_pythons_own_entry_is_removed_however_often_it_is_called(command) -> None:
    leave_current_folder()
    leave_current_folder()
    assert sys.path == [command, "/site"]
    assert os.environ[SAFE_PATH] == "1"


@pytest.mark.skipif(sys.flags.safe_path, reason="this interpreter has added nothing")
def test_the_folder_of_a_script_is_kept(command, tmp_path, monkeypatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    leave_current_folder()
    assert sys.path[0] == command


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["python", "-m", "bench", "a=1", "-m"], True),
        (["python", "-mbench", "a=1", "-m"], True),
        (["python", "-X", "dev", "-Bm", "bench.report", "a=1", "-m"], True),
        (["python", "-m", "benchmark", "a=1", "-m"], False),
        (["python", "-m", "pytest", "bench", "-m"], False),
        (["python", "-mtool", "bench", "-m"], False),
    ],
)
def test_a_command_is_identified_by_the_module_that_is_run(monkeypatch, typed: list[str], found: bool) -> None:
    monkeypatch.setattr(import_path.sys, "orig_argv", typed)
    monkeypatch.setattr(import_path.sys, "argv", ["-m", *typed[-2:]])
    assert is_command() is found


def test_a_running_program_is_no_command(monkeypatch) -> None:
    monkeypatch.setattr(import_path.sys, "orig_argv", ["python", "-m", "bench"])
    for argv in (["/x/bench/__main__.py"], ["-c"], [""], []):
        monkeypatch.setattr(import_path.sys, "argv", argv)
        assert not is_command()


def test_submitit_jobs_start_without_the_current_folder_in_their_path(tmp_path) -> None:
    pytest.importorskip("submitit")
    from hydra_plugins.bench_launchers.slurm import LocalLauncher

    launcher = LocalLauncher(submitit_folder=str(tmp_path), timeout_min=5)
    launcher.config = OmegaConf.create({"hydra": {"launcher": {"timeout_min": 5}}})
    executor = launcher._executor()._executor
    assert executor._submitit_command_str.startswith(f"{sys.executable} -P -u -m submitit")


def test_ray_adds_all_but_the_current_folder_to_its_workers_path(tmp_path, monkeypatch) -> None:
    pytest.importorskip("ray")
    from hydra_plugins.bench_launchers.ray_internals import config_without_current_folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    config = config_without_current_folder()
    config._py_driver_sys_path.extend(["/scripts", str(Path.cwd())])
    assert list(config._get_proto_job_config().py_driver_sys_path) == ["/scripts"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = config_without_current_folder()
    config._py_driver_sys_path.extend([str(Path.cwd())])
    assert list(config._get_proto_job_config().py_driver_sys_path) == [str(tmp_path)]
