"""Imports point one way, and each room has only the libraries it may have.

Every import statement counts: inside functions, under TYPE_CHECKING, and calls of `import_module` with a literal name.
Not covered: names put together at run time; `bench.sweep` names the worker that way, on purpose.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench

SRC = Path(__file__).parents[1] / "src"

# room: the rooms that it may import. Every room may import itself.
MAY_IMPORT = {
    "bench": {
        "config",
        "frame",
        "interpreter",
        "record",
        "rules",
        "trial",
    },  # the package's own names, loaded when they are touched
    "rules": set(),
    "config": {"mlflow_names", "rules", "user_path"},
    "user_path": set(),
    "mlflow_names": set(),
    "plain": set(),
    "compat": set(),
    "files": set(),
    "cache_folder": set(),
    "start_folder": set(),
    "secrets": set(),
    "git": set(),
    "libraries": {"git"},
    "machine": set(),
    "tested_versions": {"machine"},
    "gpus": set(),
    "home": {"rules"},
    "palette": set(),
    "decimals": set(),
    "typed": {"compat", "config", "decimals", "rules"},
    "record": {"files", "plain", "secrets"},
    "baseline": {"rules"},
    "sweep": {
        "baseline",
        "cache_folder",
        "config",
        "decimals",
        "files",
        "gpus",
        "home",
        "libraries",
        "machine",
        "plain",
        "record",
        "rules",
        "secrets",
        "user_path",
    },
    "trial": {
        "compat",
        "analysis",
        "bench",
        "cache_folder",
        "config",
        "files",
        "git",
        "gpus",
        "home",
        "libraries",
        "machine",
        "record",
        "rules",
        "secrets",
        "user_path",
    },
    "analysis": {"baseline", "command", "libraries", "record"},
    "tracking": {
        "compat",
        "analysis",
        "command",
        "files",
        "home",
        "mlflow_names",
        "palette",
        "record",
        "secrets",
        "user_path",
    },
    "report": {"analysis", "files", "opening", "palette", "record"},
    "opening": set(),
    "command": {"rules"},
    "sources": {"command", "record", "tracking"},
    "compare": {"analysis", "command", "report", "rules", "sources", "user_path"},
    "reporting": {"command", "files", "report", "rules", "secrets", "sources", "user_path"},
    "report.__main__": {"reporting"},
    "frame": {"report", "sources"},
    "quoting": {"compat", "config"},
    "config_files": {"compat", "user_path"},
    "config_places": {"config_files"},
    "config_mistakes": {"config", "config_files", "config_places", "rules"},
    "override_checks": {"config", "rules"},
    "override_mistakes": {"command", "config", "config_mistakes", "override_checks", "quoting", "rules"},
    "wording": {
        "config",
        "config_files",
        "config_mistakes",
        "config_places",
        "override_checks",
        "override_mistakes",
        "quoting",
        "rules",
    },
    "manual": {"command", "config", "rules"},
    "composed": {"files", "secrets"},
    "conductor": {
        "compat",
        "analysis",
        "command",
        "config",
        "files",
        "record",
        "report",
        "rules",
        "secrets",
        "sweep",
        "tested_versions",
        "tracking",
        "user_path",
    },
    "cli": {
        "compat",
        "composed",
        "conductor",
        "config",
        "config_files",
        "config_places",
        "manual",
        "opening",
        "override_checks",
        "quoting",
        "rules",
        "secrets",
        "start_folder",
        "sweep",
        "typed",
        "user_path",
        "wording",
    },
    # Which small command is run is told by a table of `command`, and imported by that name.
    "__main__": {"cli", "command", "interpreter", "opening", "sweep"},
    "hydra_plugins": {
        "compat",
        "cli",
        "composed",
        "conductor",
        "files",
        "interpreter",
        "override_checks",
        "quoting",
        "rules",
        "start_folder",
        "sweep",
        "typed",
        "wording",
    },
    "interpreter": set(),
}
# library: the rooms that may import it.
ONLY_IN = {
    "torch": {"trial"},
    "transformers": {"trial"},
    "mlflow": {"tracking"},
    "matplotlib": {"report"},
    "optuna": {"conductor"},
    "hydra": {"cli", "compat", "config_files", "override_checks", "quoting", "typed", "wording", "hydra_plugins"},
    "omegaconf": {"cli", "compat", "composed", "config_files", "typed", "wording", "hydra_plugins"},
    "numpy": {"analysis", "trial", "report"},
    "scipy": {"analysis", "trial", "report"},
    "jinja2": {"report"},
    "pandas": {"frame"},
}


def wrong_imports(src: Path) -> list[str]:
    """What breaks the rules below `src`, one line each: file, line, what imports what."""
    wrong = []
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        room = room_of(".".join(parts))
        where = path.relative_to(src).as_posix()
        if room not in MAY_IMPORT:
            wrong.append(f"{where}: {room} is no room that tests/test_imports.py knows")
            continue
        for line, name in imported_names(ast.parse(path.read_text(encoding="utf-8")), parts[:-1]):
            target = room_of(name)
            library = name.partition(".")[0]
            if target is None:
                allowed = room in ONLY_IN.get(library, {room})
            else:
                allowed = target == room or target in MAY_IMPORT[room]
            if not allowed:
                wrong.append(f"{where}:{line}: {room} may not import {target or library}")
    return wrong


def room_of(name: str) -> str | None:
    """The room of a dotted name; None for what is not ours."""
    package, *rest = name.split(".")
    if package == "hydra_plugins":
        return package
    if package != "bench":
        return None
    if not rest or rest[0] in ("__init__", "__version__"):
        return "bench"
    if rest[1:] == ["__main__"]:
        # The door of `python -m bench.ROOM` is a room of its own: it calls the command, which imports the room, so a
        # room that might import its command would close a circle.
        return ".".join(rest)
    # What the package lends out under its own name counts as the room that it comes from.
    return bench._HOMES.get(rest[0], f"bench.{rest[0]}").split(".")[1]


def imported_names(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Each import of a module in `package`, as line and absolute dotted name."""
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


def test_imports_point_one_way() -> None:
    assert wrong_imports(SRC) == []


def test_every_room_is_there() -> None:
    """A rule about a room that was renamed would hold for nothing."""
    rooms = {room_of(".".join(path.relative_to(SRC).with_suffix("").parts)) for path in SRC.rglob("*.py")}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("bench/config.py", "import bench.record", "config may not import record"),
        ("bench/record.py", "from bench.config import BenchmarkConfig", "record may not import config"),
        ("bench/record.py", "from bench import BenchmarkConfig", "record may not import config"),
        ("bench/record.py", "from . import config", "record may not import config"),
        ("bench/sweep/job.py", "def f():\n    from bench.trial.worker import main", "sweep may not import trial"),
        ("bench/sweep/job.py", "from ..trial import worker", "sweep may not import trial"),
        ("bench/sweep/__init__.py", "from .. import report", "sweep may not import report"),
        ("bench/sweep/job.py", "importlib.import_module('bench.trial.worker')", "sweep may not import trial"),
        ("bench/sweep/job.py", "import bench", "sweep may not import bench"),
        ("bench/trial/a.py", "import bench\nbench.cli.main()", "trial may not import cli"),
        ("bench/analysis/a.py", "if TYPE_CHECKING:\n    import bench.report.table", "analysis may not import report"),
        ("bench/report/a.py", "try:\n    import torch\nexcept ImportError: ...", "report may not import torch"),
        ("bench/trial/a.py", "from mlflow import log_metric", "trial may not import mlflow"),
        ("bench/sweep/a.py", "from omegaconf import DictConfig", "sweep may not import omegaconf"),
        ("bench/cli.py", "import numpy.linalg", "cli may not import numpy"),
        ("bench/cli.py", "import hydra_plugins.bench_sweeper", "cli may not import hydra_plugins"),
        ("hydra_plugins/bench_sweeper/a.py", "from bench.trial import worker", "hydra_plugins may not import trial"),
        ("bench/utils.py", "import os", "utils is no room that tests/test_imports.py knows"),
    ],
)
def test_a_wrong_import_is_found(path: str, line: str, complaint: str, tmp_path: Path) -> None:
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(line, encoding="utf-8")
    assert [each.partition(": ")[2] for each in wrong_imports(tmp_path)] == [complaint]


def test_right_imports_pass(tmp_path: Path) -> None:
    (tmp_path / "bench/trial").mkdir(parents=True)
    (tmp_path / "bench/trial/worker.py").write_text(
        "import torch.nn\nimport bench\nfrom bench import __version__\nfrom ..record import Record\nfrom . import model\n"
        "print(bench.__version__)",
        encoding="utf-8",
    )
    assert wrong_imports(tmp_path) == []


def test_the_command_line_starts_without_heavy_libraries(tmp_path: Path) -> None:
    code = "import bench, bench.cli, bench.sweep.job, bench.sweep.plan, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "mlflow", "numpy", "scipy", "pandas", "matplotlib"}
    assert heavy & set(done.stdout.split()) == set()
