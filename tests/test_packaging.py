"""Test that the wheel contains the config files and the plugin and runs outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the checkout as a wheel with packages of the `test` extra; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (built,) = folder.glob("bench-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of an environment with the wheel and this environment's other packages."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    # A .pth file adds a folder but does not read the .pth files in it, such as that of an editable bench.
    (site_packages,) = folder.glob("lib/python*/site-packages")
    theirs = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join(theirs), encoding="utf-8")
    return folder / "bin"


def run(*command: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_wheel_holds_the_package_the_plugin_and_every_config_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"bench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    # The page's template and what goes into it, and the tested versions, are read beside the code.
    kinds = ("*.py", "*.j2", "*.css", "*.js", "*.json")
    sources = {path.relative_to(ROOT / "src").as_posix() for kind in kinds for path in (ROOT / "src").rglob(kind)}
    assert {"bench/report/page/templates/page.html.j2", "bench/orchestration/tested_versions.json"} <= sources
    expected = conf | sources | {"bench/conf/config.yaml", "bench/cli/application.py", "bench/py.typed"}
    assert expected - names == set()


def test_the_wheel_contains_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"bench", "hydra_plugins"}


def test_the_wheel_contains_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert "Apache License" in archive.read(name).decode()


def test_the_installed_wheel_runs_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import bench, hydra_plugins.bench_sweeper as plugin; print(bench.__file__); print(plugin.__file__)"
    for path in run(installed / "python", "-c", code, folder=tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)


def test_the_installed_command_composes_a_config(installed: Path, tmp_path: Path) -> None:
    printed = run(installed / "bench", "--cfg", "job", folder=tmp_path)
    assert "num_tokens_to_generate:" in printed
    assert "implementation: sdpa" in printed


def test_the_installed_module_lists_its_keys(installed: Path, tmp_path: Path) -> None:
    printed = run(installed / "python", "-m", "bench", "--help", folder=tmp_path)
    assert "warmup.iterations=5" in printed
    assert "random-llama-3.1-8b" in printed


def test_printing_the_help_leaves_no_files(installed: Path, tmp_path: Path) -> None:
    run(installed / "bench", "--help", folder=tmp_path)
    run(installed / "bench", "--cfg", "job", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
