"""The layout: imports point one way, no two files import each other, and each library is imported in its package only.

Every import statement counts: inside functions, under TYPE_CHECKING, and calls of `import_module` with a literal name.
Not covered: names put together at run time; `bench.jobs` names the worker that way, on purpose.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import bench

SRC = Path(__file__).parents[1] / "src"
MOST_FILES = 12  # in one folder

# package: the packages that it may import. Every package may import itself.
MAY_IMPORT = {
    "host": set(),
    "compat": set(),
    "config": {"host"},
    "results": {"config", "host"},
    "analysis": {"config", "host", "results"},
    "trial": {"analysis", "compat", "config", "host", "results"},
    "jobs": {"config", "host", "results"},
    "tracking": {"analysis", "compat", "config", "host", "results"},
    "report": {"analysis", "config", "host", "results"},
    "orchestration": {"analysis", "compat", "config", "host", "jobs", "report", "results", "tracking"},
    "cli": {"analysis", "compat", "config", "host", "jobs", "orchestration", "report", "results", "tracking"},
    "hydra_plugins": {"cli", "compat", "config", "host", "jobs", "orchestration", "results"},
    # The package's own names are loaded when they are first used.
    "bench": {"config", "host", "orchestration", "results", "trial"},
    "__main__": {"cli", "host", "jobs", "report"},
}
# Modules that only `python -m` runs, one per subcommand: each hands over to its namesake in bench.cli.
MODULE_FORMS = {"analysis.calibrate", "compare", "compare.__main__", "report.__main__", "tracking.sync", "tracking.ui"}
MAY_IMPORT |= {each: {"cli"} for each in MODULE_FORMS}
# library: the packages that may import it.
ONLY_IN = {
    "torch": {"trial"},
    "transformers": {"trial"},
    "mlflow": {"tracking"},
    "matplotlib": {"report"},
    "optuna": {"orchestration"},
    "hydra": {"cli", "compat", "hydra_plugins"},
    "omegaconf": {"cli", "compat", "hydra_plugins"},
    "numpy": {"analysis", "trial", "report"},
    "scipy": {"analysis", "trial", "report"},
    "jinja2": {"report"},
    "pandas": {"orchestration"},
}


def wrong_imports(src: Path) -> list[str]:
    """Return the violations of the rules below `src`, one line each: file, line, importer and imported."""
    wrong = []
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        package = package_of(".".join(parts))
        where = path.relative_to(src).as_posix()
        if package not in MAY_IMPORT:
            wrong.append(f"{where}: {package} is no package that tests/test_imports.py knows")
            continue
        for line, name in imported_names(ast.parse(path.read_text(encoding="utf-8")), parts[:-1]):
            target = package_of(name)
            library = name.partition(".")[0]
            if target is None:
                allowed = package in ONLY_IN.get(library, {package})
            else:
                allowed = target == package or target in MAY_IMPORT[package]
            if not allowed:
                wrong.append(f"{where}:{line}: {package} may not import {target or library}")
    return wrong


def package_of(name: str) -> str | None:
    """Return the package of a dotted name, None if it is not ours."""
    top, *rest = name.split(".")
    if top == "hydra_plugins":
        return top
    if top != "bench":
        return None
    if not rest or rest[0] in ("__init__", "__version__"):
        return "bench"
    if ".".join(rest) in MODULE_FORMS:
        return ".".join(rest)
    # What the package lends out under its own name counts as the package that it comes from.
    return bench._HOMES.get(rest[0], f"bench.{rest[0]}").split(".")[1]


def imported_names(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Return each import of a module in `package` as line and absolute dotted name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else ()
                start = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name
            case ast.Attribute(value=ast.Name(id="bench"), attr=name):
                yield node.lineno, f"bench.{name}"


def cycles(src: Path) -> list[str]:
    """Files that import each other, directly or through others: each group on one line."""
    files = {
        ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__"): path
        for path in src.rglob("*.py")
    }

    @cache
    def imported_by(module: str) -> frozenset[str]:
        package = files[module].relative_to(src).parts[:-1]
        found = set()
        for _, name in imported_names(ast.parse(files[module].read_text(encoding="utf-8")), package):
            home = name
            while home and home not in files:
                home = home.rpartition(".")[0]
            found |= {home} - {"", module}
        return frozenset(found)

    @cache
    def reached_from(module: str) -> frozenset[str]:
        reached: set[str] = set()
        waiting = list(imported_by(module))
        while waiting:
            each = waiting.pop()
            if each not in reached:
                reached.add(each)
                waiting += imported_by(each)
        return frozenset(reached)

    groups = {
        frozenset({module, *(each for each in reached_from(module) if module in reached_from(each))})
        for module in files
        if module in reached_from(module)
    }
    return sorted(", ".join(sorted(group)) for group in groups)


def test_imports_point_one_way() -> None:
    assert wrong_imports(SRC) == []


def test_no_two_files_import_each_other() -> None:
    assert cycles(SRC) == []


def test_a_cycle_is_found(tmp_path: Path) -> None:
    for name, line in (
        ("a", "from bench import b"),
        ("b", "import bench.c"),
        ("c", "def f():\n    from . import a"),
        ("d", "from bench import a"),
    ):
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / f"bench/{name}.py").write_text(line, encoding="utf-8")
    assert cycles(tmp_path) == ["bench.a, bench.b, bench.c"]


def test_every_package_of_the_rules_exists() -> None:
    """A rule about a renamed package would apply to nothing."""
    packages = {package_of(".".join(path.relative_to(SRC).with_suffix("").parts)) for path in SRC.rglob("*.py")}
    assert packages == set(MAY_IMPORT)


def test_no_module_is_outside_the_packages() -> None:
    assert {path.name for path in (SRC / "bench").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_folder_holds_more_than_a_dozen_files() -> None:
    files = Counter(path.parent for path in SRC.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {folder.relative_to(SRC).as_posix(): number for folder, number in files.items() if number > MOST_FILES} == {}


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("bench/config/a.py", "import bench.results.record", "config may not import results"),
        ("bench/host/a.py", "from bench.config.schema import BenchmarkConfig", "host may not import config"),
        ("bench/host/a.py", "from bench import BenchmarkConfig", "host may not import config"),
        ("bench/host/a.py", "from .. import config", "host may not import config"),
        ("bench/jobs/job.py", "def f():\n    from bench.trial.worker import main", "jobs may not import trial"),
        ("bench/jobs/job.py", "from ..trial import worker", "jobs may not import trial"),
        ("bench/jobs/__init__.py", "from .. import report", "jobs may not import report"),
        ("bench/jobs/job.py", "importlib.import_module('bench.trial.worker')", "jobs may not import trial"),
        ("bench/jobs/job.py", "import bench", "jobs may not import bench"),
        ("bench/trial/a.py", "import bench\nbench.cli.main()", "trial may not import cli"),
        ("bench/trial/a.py", "import bench", "trial may not import bench"),
        ("bench/analysis/a.py", "if TYPE_CHECKING:\n    import bench.report.rows", "analysis may not import report"),
        ("bench/report/a.py", "try:\n    import torch\nexcept ImportError: ...", "report may not import torch"),
        ("bench/report/a.py", "from bench.cli import report", "report may not import cli"),
        ("bench/tracking/a.py", "from bench.report import rows", "tracking may not import report"),
        ("bench/trial/a.py", "from mlflow import log_metric", "trial may not import mlflow"),
        ("bench/jobs/a.py", "from omegaconf import DictConfig", "jobs may not import omegaconf"),
        ("bench/cli/a.py", "import numpy.linalg", "cli may not import numpy"),
        ("bench/cli/a.py", "import hydra_plugins.bench_sweeper", "cli may not import hydra_plugins"),
        ("hydra_plugins/bench_sweeper/a.py", "from bench.trial import worker", "hydra_plugins may not import trial"),
        ("bench/utils.py", "import os", "utils is no package that tests/test_imports.py knows"),
    ],
)
def test_a_wrong_import_is_found(path: str, line: str, complaint: str, tmp_path: Path) -> None:
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(line, encoding="utf-8")
    assert complaint in [each.partition(": ")[2] for each in wrong_imports(tmp_path)]


def test_right_imports_pass(tmp_path: Path) -> None:
    (tmp_path / "bench/trial").mkdir(parents=True)
    (tmp_path / "bench/trial/worker.py").write_text(
        "import torch.nn\nfrom ..results import record\nfrom . import model\nfrom bench.host import __version__",
        encoding="utf-8",
    )
    assert wrong_imports(tmp_path) == []


def test_the_command_line_starts_without_heavy_libraries(tmp_path: Path) -> None:
    code = "import bench, bench.cli.application, bench.jobs.job, bench.jobs.planning.plan, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "mlflow", "numpy", "scipy", "pandas", "matplotlib"}
    assert heavy & set(done.stdout.split()) == set()
