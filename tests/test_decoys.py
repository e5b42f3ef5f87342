"""Test that no process of a command imports anything from the folder where the command is typed."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import bench
import decoys
from bench.results.record import Record
from conftest import ROOT, run_bench
from sweeps import EAGER, SDPA, jobs, sweep

FEW = (
    *("model=tiny", "warmup.iterations=1", "measurement.iterations=2", "workload.sequence_length=16"),
    *("workload.num_tokens_to_generate=4", "device=cpu"),
)
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture
def marks(tmp_path) -> Path:
    """Return the folder in which decoys record their import."""
    return tmp_path / "marks"


@pytest.fixture
def folder(tmp_path, marks) -> Path:
    """Create a start folder full of decoys, with a space in its name."""
    return decoys.plant(tmp_path / "my project", marks)


def typed(*command: str, folder: Path, timeout_s: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user types it in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "MLFLOW_", "PYTHON"))}
    return subprocess.run(
        [*command], cwd=folder, env=kept | variables, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def records(folder: Path) -> list[Record]:
    paths = [*folder.glob("outputs/*/record.json"), *folder.glob("multirun/*/*/record.json")]
    return [Record.read(path) for path in sorted(paths)]


def test_a_run_imports_nothing_from_the_folder_where_it_is_typed(folder, marks) -> None:
    done = run_bench(*FEW, folder=folder)
    assert decoys.imported(marks) == []
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = records(folder)
    sources = record.environment["sources"]
    assert {"torch", "transformers", "numpy", "tokenizers"} <= set(sources)
    assert {each["came_from"] for name, each in sources.items() if name != "bench"} == {"installed"}
    assert all(each["version"] in (None, each["installed_version"]) for each in sources.values())
    assert "imported:" not in done.stdout


def test_the_bench_command_runs_its_own_code_whatever_checkout_it_is_typed_in(tmp_path, marks) -> None:
    folder = decoys.plant(tmp_path / "other/src", marks, "bench")
    done = typed(str(Path(sys.executable).with_name("bench")), *FEW, "tracking=off", folder=folder)
    assert decoys.imported(marks) == []
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = records(folder)
    assert record.environment["sources"]["bench"]["folder"] == str(Path(bench.__file__).parent)


@pytest.mark.slow
def test_ranks_of_a_split_model_import_nothing_from_the_start_folder(folder, marks) -> None:
    done = run_bench(*FEW, "model.tp_size=2", "tracking=off", folder=folder)
    assert decoys.imported(marks) == []
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=submitit_local",),
        ("hydra/launcher=ray", "hydra.launcher.num_gpus=0", "+hydra.launcher.init.num_cpus=1"),
        ("hydra/sweeper=optuna", "search.trials=2"),
    ],
    ids=["submitit", "ray", "search"],
)
def test_a_sweep_imports_nothing_from_the_start_folder(folder, marks, launcher: tuple[str, ...]) -> None:
    pytest.importorskip(launcher[0].rpartition("=")[2].partition("_")[0])
    done = run_bench("-m", *FEW, "attention=eager,sdpa", *launcher, folder=folder, **NO_TOKEN)
    assert decoys.imported(marks) == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.status for each in records(folder)] == ["ok", "ok"]


# ---- the small commands --------------------------------------------------------------------------------------------


def entries() -> list[str]:
    """Return bench's own modules that `python -m` can run."""
    found = []
    for path in (ROOT / "src/bench").rglob("*.py"):
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return sorted(found)


def test_the_entries_are_found() -> None:
    assert {"bench", "bench.compare", "bench.report", "bench.tracking.sync", "bench.trial.hardware.sampler"} <= set(
        entries()
    )


@pytest.mark.parametrize("entry", entries())
def test_no_command_imports_from_the_folder_where_it_is_typed(folder, marks, entry: str) -> None:
    done = typed(sys.executable, "-m", entry, "--help", folder=folder)
    assert decoys.imported(marks) == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["bench.compare", "multirun/night"], 0),
        (["bench.report", "multirun/night", "--format", "csv"], 0),
        (["bench.tracking.sync", "multirun/night", "--tracking-uri", "sqlite:///mlflow.db"], 0),
        (["bench.tracking.ui"], 2),
        (["bench.analysis.calibrate", "--trials", "3"], 0),
        (["bench", "--cfg", "job"], 0),
        (["bench", "-m", "attention=eager,sdpa", "sweep.dry_run=true"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_complete_subcommand_imports_nothing_from_the_start_folder(
    folder, marks, arguments: list[str], status: int
) -> None:
    if "multirun/night" in arguments:
        sweep(folder / "multirun/night", jobs({"eager": EAGER, "sdpa": SDPA}))
    done = typed(sys.executable, "-m", *arguments, folder=folder)
    assert decoys.imported(marks) == []
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", [["-mbench.report"], ["-Bm", "bench.report"], ["-E", "-m", "bench.report"]])
def test_other_spellings_of_an_option_import_nothing_from_the_start_folder(folder, marks, form: list[str]) -> None:
    sweep(folder / "multirun/night", jobs({"eager": EAGER, "sdpa": SDPA}))
    done = typed(sys.executable, *form, "multirun/night", folder=folder)
    assert decoys.imported(marks) == []
    assert done.returncode == 0, done.stderr


# ---- the user's choices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["-P"]])
def test_a_folder_in_pythonpath_counts_even_if_it_is_the_current_one(folder, marks, flags: list[str]) -> None:
    sweep(folder / "multirun/night", jobs({"eager": EAGER, "sdpa": SDPA}))
    typed(sys.executable, *flags, "-m", "bench.report", "multirun/night", folder=folder, PYTHONPATH=str(folder))
    assert decoys.imported(marks) != []


LIBRARY = """
import os, sys
from bench import BenchmarkConfig
import helper
print(helper.__file__, os.environ.get("PYTHONSAFEPATH"))
"""


@pytest.mark.parametrize("command", [["tool.py"], ["-m", "tool"], ["-m", "tools"], ["-c", LIBRARY]])
def test_a_program_that_uses_bench_keeps_its_own_path(tmp_path, command: list[str]) -> None:
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "tool.py").write_text(LIBRARY)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/__init__.py").write_text("import bench")  # while sys.argv[0] is "-m"
    (tmp_path / "tools/__main__.py").write_text(LIBRARY)
    done = typed(sys.executable, *command, folder=tmp_path)
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/helper\.py None\n", done.stdout), done.stderr


# ---- another copy of a library -------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path) -> Path:
    """Create a folder with a copy of tokenizers that states another version."""
    import shutil

    import tokenizers

    place = tmp_path / "patched"
    shutil.copytree(
        Path(tokenizers.__file__).parent, place / "tokenizers", ignore=shutil.ignore_patterns("__pycache__")
    )
    with (place / "tokenizers/__init__.py").open("a", encoding="utf-8") as file:
        file.write('\n__version__ = "9.9"\n')
    return place


def test_a_copy_in_pythonpath_is_shown_in_record_table_and_mlflow(copied, tmp_path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    done = run_bench(*FEW, folder=start, PYTHONPATH=str(copied))
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = records(start)
    told = record.environment["sources"]["tokenizers"]
    assert (told["version"], told["folder"], told["came_from"]) == ("9.9", str(copied / "tokenizers"), "PYTHONPATH")
    assert told["installed_version"] == record.environment["versions"]["tokenizers"] != "9.9"
    assert "tokenizers source" in record.fingerprint
    words = f"tokenizers 9.9 from {copied}/tokenizers"
    assert words in " ".join(done.stdout.split())
    with sqlite3.connect(start / "mlflow.db") as database:
        tags = dict(database.execute("select key, value from tags where key like 'source.%'"))
    assert tags["source.tokenizers"].startswith(words.partition(" ")[2])
    assert "source.torch" not in tags


@pytest.mark.slow
def test_a_sweep_is_not_resumed_with_another_copy_of_a_library(copied, tmp_path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    command = ("-m", *FEW, "attention=eager,sdpa", "sweep.name=night", "tracking=off")
    assert run_bench(*command, folder=start).returncode == 0
    again = run_bench(*command, "sweep.resume=true", folder=start, PYTHONPATH=str(copied))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 of 2 jobs are done" in again.stdout
    assert f"tokenizers source – → {copied}/tokenizers" in again.stdout
    assert "Libraries that are not as pip installed them" in (start / "multirun/night/report.md").read_text()
    same = run_bench(*command, "sweep.resume=true", folder=start, PYTHONPATH=str(copied))
    assert "2 of 2 jobs are done" in same.stdout
