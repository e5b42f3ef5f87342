"""Test the help page, the list of keys, the output of `--info` and shell completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from bench.cli.help import EVERYDAY, keys_text
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, walk
from conftest import run_bench

pytestmark = pytest.mark.contract

SCREEN = (100, 45)  # columns, lines
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the output of `bench --help`."""
    done = run_bench("--help", folder=tmp_path_factory.mktemp("help"))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_help_fits_on_one_screen(page: str) -> None:
    lines = page.splitlines()
    assert max(cell_len(line) for line in lines) <= SCREEN[0]
    assert len(lines) <= SCREEN[1]


def test_the_help_names_every_group_with_its_choices_and_the_default(page: str) -> None:
    text = " ".join(page.split())
    for group in (
        "model llama-3.1-8b, llama-3.2-1b, random-llama-3.1-8b, smollm2-135m, [tiny]",
        "attention eager, flash2, flex, [sdpa]",
        "compile default, max-autotune, max-autotune-no-cudagraphs, [off], reduce-overhead",
        "workload chat, long, [short]",
        "warmup auto, [fixed]",
        "measurement adaptive, [fixed]",
        "tracking [mlflow], off",
        "experiment aa, attention_x_compile, level0, level1, level2, level3, level4, observer_effect, sdpa_backends, "
        "warmup_curve, warmup_policies",
        "hydra/sweeper [bench], optuna",
        "hydra/launcher [basic], ray, submitit_local, submitit_slurm",
    ):
        assert f" {group} " in text


def test_the_help_refers_to_further_help(page: str) -> None:
    keys = sum(1 for _ in walk(BenchmarkConfig))
    for told in (f"All {keys} keys: bench --keys", 'eval "$(bench -sc install=bash)"', "Exit status: 0 ", "130 Ctrl-C"):
        assert told in page
    assert [path for path in EVERYDAY if f"\n  {path}=" not in page] == []


def test_the_users_own_groups_and_choices_are_in_the_help(tmp_path) -> None:
    for path in ("conf/attention/mine.yaml", "conf/house/style.yaml"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("{}", encoding="utf-8")
    text = " ".join(run_bench("--config-dir", "conf", "--help", folder=tmp_path).stdout.split())
    assert " attention eager, flash2, flex, mine, [sdpa] " in text
    assert " house style " in text


def test_the_list_of_keys_has_every_key_with_its_default(tmp_path) -> None:
    done = run_bench("--keys", folder=tmp_path)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    for path, value, rule, _ in walk(BenchmarkConfig):
        default = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        (line,) = [each for each in lines if each.startswith(f"  {path}=")]
        assert line.split(" ", 3)[2] == f"{path}={default}".split(" ", 1)[0]
        assert rule.doc.split()[0] in line
    assert max(map(cell_len, lines)) <= SCREEN[0]


def test_the_values_that_a_key_allows_are_listed() -> None:
    assert "[auto, float32, bfloat16, float16]" in keys_text(["model"])


def test_sections_can_be_selected() -> None:
    text = keys_text(["warmup", "device"])
    assert {line.strip().partition("=")[0].partition(".")[0] for line in text.splitlines() if "=" in line} == {
        "warmup",
        "device",
    }


def test_an_unknown_section_is_refused_with_the_nearest_one(tmp_path) -> None:
    done = run_bench("--keys", "warmp", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bench: --keys=warmp: no such section; did you mean warmup?\n"
    with pytest.raises(ConfigError, match="--keys=zzz: no such section; known: device, model, attention"):
        keys_text(["zzz"])


@pytest.mark.parametrize("what", INFO)
def test_hydras_info_output_has_no_traceback(tmp_path, what: str) -> None:
    ours = ["experiment=aa", "compile=default", "hydra/launcher=submitit_slurm", "hydra/sweeper=optuna"]
    done = run_bench("--info", what, *ours, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"plugins": "bench_sweeper", "searchpath": "schema"}.get(what, "compile") in done.stdout
    assert list(tmp_path.iterdir()) == []


# ---- completion --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment whose PATH has the installed command, a file `bench`."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "bench"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m bench \"$@\"\n", encoding="utf-8")
    command.chmod(0o755)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def completed(line: str, shell: dict[str, str], folder: Path) -> list[str]:
    """Return bash's completions of a line; fail if the terminal shows any other output."""
    script = (
        'eval "$(bench -sc install=bash)"\n'
        "COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        '[[ $1 == *" " ]] && COMP_CWORD=$((COMP_CWORD + 1))\n'
        'hydra_bash_completion; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], cwd=folder, env=shell, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("bench att", ["attention.", "attention="]),
        ("bench attention=", ["attention=eager", "attention=flash2", "attention=flex", "attention=sdpa"]),
        ("bench compile=default warmup.iter", ["warmup.iterations="]),
        ("bench -m attention=eager,sdpa hydra/launcher=sub", ["hydra/launcher=submitit_local",
                                                              "hydra/launcher=submitit_slurm"]),
        ("bench -m hydra/sweeper=optuna search.tri", ["search.trials="]),
        ("bench hydra/sw", ["hydra/sweeper="]),
        ("bench compile=defualt compile.mo", []),
        ("bench --nonsense comp", []),
    ],
)  # fmt: skip
def test_bash_completes_groups_choices_and_keys(tmp_path, shell, line: str, offered: list[str]) -> None:
    assert completed(line, shell, tmp_path) == offered


def test_the_completion_that_the_module_installs_is_for_the_command(tmp_path) -> None:
    assert run_bench("-sc", "install=bash", folder=tmp_path).stdout.endswith("-F hydra_bash_completion bench\n")
