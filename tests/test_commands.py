"""Test `bench compare` and the other subcommands: their modules, imports and names in messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.help import DOES
from bench.cli.subcommands import Parser
from bench.host import command_line
from bench.host.command_line import COMMANDS, CommandError, as_typed, name_of, note_start, program, to_type
from conftest import ROOT, run_bench, user_environment
from refusals import answer, refused
from sweeps import EAGER, SDPA, jobs, sweep

MODULE, SCRIPT = "/x/bench/__main__.py", "/x/bin/bench"


@pytest.fixture(autouse=True)
def _as_if_just_started(monkeypatch) -> None:
    monkeypatch.setattr(command_line, "_typed", [])
    monkeypatch.setattr(command_line, "_word", [])
    monkeypatch.delenv(command_line.STARTED_AS, raising=False)


@pytest.mark.parametrize("word", COMMANDS)
def test_a_subcommand_runs_its_module(tmp_path, word: str) -> None:
    done = run_bench(word, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m bench {word} ")
    assert COMMANDS[word] not in done.stdout


def test_every_command_is_in_the_help() -> None:
    assert list(DOES) == list(COMMANDS)


def test_bench_compare_is_the_comparison(tmp_path) -> None:
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER, "sdpa": SDPA}), settings=["eager", "sdpa"])
    done = run_bench("compare", str(folder), "--fail-if-slower", "3%", folder=tmp_path)
    alone = subprocess.run(
        [sys.executable, "-m", "bench.compare", str(folder), "--fail-if-slower", "3%"],
        cwd=tmp_path, env=user_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert "faster" in done.stdout


def test_an_error_names_the_typed_form_of_the_command(tmp_path) -> None:
    done = run_bench("compare", "multirun/nowhere", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bench compare: multirun/nowhere: no such file or folder")
    missing = run_bench("report", folder=tmp_path)
    assert missing.stderr.endswith("the following arguments are required: SOURCE; see python -m bench report --help\n")


# Python itself prints the loaded modules when the process ends, whatever the command does.
LOADED = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv = ["/x/bin/bench", *sys.argv[1:]]
from bench.__main__ import main
main()
"""


@pytest.mark.parametrize("word", [each for each in COMMANDS if each != "calibrate"])
def test_a_subcommand_answers_without_loading_hydra_or_torch(tmp_path, word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, word, "--help"],
        cwd=tmp_path, env=user_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    heavy = {"hydra", "omegaconf", "torch", "transformers", "mlflow", "numpy", "scipy", "pandas", "matplotlib"}
    assert heavy & set(done.stderr.split()) == set()


def test_a_comparison_loads_neither_hydra_nor_torch_nor_mlflow(tmp_path) -> None:
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER, "sdpa": SDPA}), settings=["eager", "sdpa"])
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "compare", str(folder)],
        cwd=tmp_path, env=user_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {"hydra", "torch", "transformers", "mlflow", "matplotlib"} & set(done.stderr.split()) == set()


def test_a_folder_named_like_a_subcommand_has_no_effect(tmp_path) -> None:
    sweep(tmp_path / "compare", jobs({"eager": EAGER, "sdpa": SDPA}), settings=["eager", "sdpa"])
    (tmp_path / "report.py").write_text("raise SystemExit('the wrong module')", encoding="utf-8")
    done = run_bench("compare", "compare", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "faster" in done.stdout


def test_an_override_is_not_taken_for_a_subcommand(tmp_path) -> None:
    assert note_start(MODULE, ["compare=multirun/a"]) is None
    assert note_start(MODULE, ["-m", "compare"]) is None
    assert refused(tmp_path, "compare=multirun/a").startswith("compare=multirun/a: no such key")
    assert answer(tmp_path, "compile=off").config is not None


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["-m", "compare"], "compare: is no key=value; a command stands first: bench compare"),
        (["comapre", "multirun/a"], "comapre: is no key=value; a command stands first: bench compare"),
        (["reprot"], "reprot: is no key=value; a command stands first: bench report"),
        (["compile"], "compile: has no value; type compile=VALUE"),
    ],
)
def test_a_misspelt_subcommand_is_distinguished_from_an_override(tmp_path, typed: list[str], line: str) -> None:
    assert refused(tmp_path, *typed) == line


def test_suggested_commands_have_the_form_in_which_bench_was_started(monkeypatch) -> None:
    assert (program(), to_type("sync")) == (["python", "-m", "bench"], ["python", "-m", "bench.tracking.sync"])
    note_start(SCRIPT, ["attention=sdpa"])
    assert (program(), to_type("sync")) == (["bench"], ["bench", "sync"])
    note_start(MODULE, [])
    assert (program(), to_type("report")) == (["python", "-m", "bench"], ["python", "-m", "bench.report"])
    monkeypatch.setenv(command_line.STARTED_AS, "../scripts/run")
    note_start(MODULE, [])
    assert (program(), to_type("report")) == (["../scripts/run"], ["../scripts/run", "report"])


def test_only_the_typed_command_has_another_name() -> None:
    assert (as_typed("compare"), name_of("compare")) == ("python -m bench.compare", "bench.compare")
    note_start(SCRIPT, ["compare", "a"])
    assert (as_typed("compare"), name_of("compare")) == ("bench compare", "bench compare")
    assert (as_typed("report"), name_of("report")) == ("python -m bench.report", "bench.report")


def test_examples_in_the_help_have_the_typed_form() -> None:
    note_start(SCRIPT, ["ui"])
    parser = Parser("ui", epilog="try:\n  python -m bench.tracking.ui --port 1\n")
    assert "python -m" not in parser.format_help()
    with pytest.raises(CommandError, match="see bench ui --help"):
        parser.parse_args(["--nonsense"])


@pytest.mark.slow
def test_scripts_run_accepts_subcommands_and_names_itself_in_messages(tmp_path) -> None:
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER, "sdpa": SDPA}), settings=["eager", "sdpa"])
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/run", checkout / "scripts/run")
    # Replaces the part that creates an environment: one exists already.
    (checkout / "scripts/_environment").write_text(
        f"set_up_environment() {{ python={sys.executable}; }}\n", encoding="utf-8"
    )
    run = Path(os.path.relpath(checkout / "scripts/run", tmp_path))
    done = subprocess.run(
        [run, "compare", folder.name], cwd=tmp_path, env=user_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "faster" in done.stdout
    help_text = subprocess.run(
        [run, "compare", "--help"], cwd=tmp_path, env=user_environment(), capture_output=True, text=True, check=True
    ).stdout
    assert help_text.startswith(f"usage: {run} compare ")
