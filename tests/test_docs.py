"""Check README.md and docs/: the program accepts every command, and every link has a target.

A command is a line of a block marked `sh`, a `run:` of a workflow, or code in the text that begins with one of our
programs; code in the text that consists of overrides is taken as `bench -m OVERRIDES`. Each has a kind here, and one of
no known kind fails, so that none is skipped unnoticed.

Not covered: addresses on other machines, and the text's claims about outputs.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from bench.cli.composition.checked_config import to_config
from bench.cli.composition.conf_folder import conf_folder
from bench.cli.composition.quoting import readable
from bench.cli.registration import register
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig
from bench.host.command_line import COMMANDS as WORDS
from bench.jobs.planning.plan import Point, check_size, make_plan
from conftest import ROOT, run_bench
from hydra_plugins.bench_sweeper.bench_sweeper import product, values_of, varying
from hydra_plugins.bench_sweeper.composing import Composer

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TASKS = ("compare-attention-kernels", "choose-a-compile-mode", "how-much-warm-up", "regression-gate-in-ci")

# Placeholders for the reader's own values, and the values used instead.
PLACEHOLDERS = {
    "NAME": "night",
    "FOLDER": "night",
    "SWEEP_ID": "night-1a2b3c",
    "URL": "http://127.0.0.1:5000",
    "URI": "sqlite:///mlflow.db",
    "N": "2",
    "postgresql://…": "postgresql://127.0.0.1/study",
    "…": "",
}
# Programs that are not run, and why.
NOT_RUN = {
    "pip": "installs",
    ".venv/bin/pip": "installs",
    "python3": "makes an environment",
    "createdb": "needs a PostgreSQL",
    "export": "sets variables of a shell",
    "eval": "changes the shell",
}
MODULES = ("bench.compare", "bench.report", "bench.tracking.sync", "bench.analysis.calibrate")
SCRIPTS = {  # and what they run
    "scripts/overhead": "overhead_bench",
    "scripts/plan-scale": "scripts/plan_scale.py",
    "scripts/gpu-check": "scripts/gpu_check",
    "scripts/pictures": "scripts/pictures.py",
    "scripts/test-versions": "versions",
    "scripts/ui": "bench.tracking.ui",
}
# A fragment of a command line must contain this.
NEEDS = {
    "compile.cache": "compile=default",
    "hydra.launcher.exclusive": "hydra/launcher=submitit_slurm",
    "sweep.resume": "sweep.name=night",
}
PROGRAMS = ("scripts/", "python -m bench", "python -m mlflow", "mlflow ", ".venv/bin/", ".ci/")
# Of programs, not what is typed.
NAMES = ("bench", "python -m bench", *(f"python -m {each}" for each in MODULES), *(f"bench {each}" for each in WORDS))
MANY = 100  # points of a sweep: of more, so many are composed
OVERRIDE = re.compile(r"[~+]{0,2}[a-z][a-z0-9_]*([./@][a-z0-9_-]+)*=\S+")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?:(?<!`)`|<code>)([^`<\n]+(?:\n[^`<\n]+)?)(?:`(?!`)|</code>)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LANGUAGES = {"sh", "text", "python", "yaml", "ini"}


@dataclass(frozen=True)
class Command:
    """A command line on a page, and its arguments with placeholders replaced."""

    page: str
    text: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


# ---- reading the pages -------------------------------------------------------------------------------------------


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def command(page: Path, text: str) -> Command:
    filled = text
    for name, value in PLACEHOLDERS.items():
        word = rf"\b{name}\b" if name.isupper() else re.escape(name)
        filled = re.sub(word, lambda _, value=value: value, filled)
    words = shlex.split(filled, comments=True)
    until = next((at for at, word in enumerate(words) if word in (">", ">>", "|")), len(words))
    return Command(page.name, text.strip(), tuple(words[:until]))


def in_blocks(page: Path) -> list[Command]:
    """Return the lines of blocks marked `sh` and the `run:` lines of workflows."""
    lines = [line for body in blocks(page, "sh") for line in body.replace("\\\n", " ").splitlines()]
    for body in blocks(page, "yaml"):
        lines += list(runs(yaml.safe_load(body)))
    return [each for each in (command(page, line) for line in lines) if each.words]


def runs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from value.splitlines() if key == "run" else runs(value)
    elif isinstance(node, list):
        for each in node:
            yield from runs(each)


def in_text(page: Path) -> list[Command]:
    """Return code in the text that is a command or overrides for one."""
    found = []
    for code in CODE.findall(prose(page)):
        text = " ".join(code.split())
        words = text.split()
        if text in NAMES or is_file_name(text):
            continue
        if words[0] == "bench" or text.startswith(PROGRAMS):
            found.append(command(page, text))
        elif all(OVERRIDE.fullmatch(word.strip("'")) for word in words):
            needed = {need for start, need in NEEDS.items() if any(word.startswith(start) for word in words)}
            given = {word.partition("=")[0] for word in words}
            added = [each for each in sorted(needed) if each.partition("=")[0] not in given]
            found.append(command(page, " ".join(["bench -m", *added, text])))
    return found


def is_file_name(text: str) -> bool:
    """Return whether it is a file of the checkout that is not run."""
    path = ROOT / text
    return " " not in text and path.is_file() and not os.access(path, os.X_OK)


def kind_of(words: tuple[str, ...]) -> str | None:
    """Return the kind of a command, None if unknown."""
    first, rest = words[0], words[1:]
    is_module = first in ("python", ".venv/bin/python") and rest[:1] == ("-m",)
    if word_of(words) is not None or (is_module and rest[1] in MODULES):
        return "module"
    if is_module:
        return {"bench": "bench", "mlflow": "mlflow"}.get(rest[1])
    if first in ("bench", "scripts/run", ".venv/bin/bench"):
        return "bench"
    if first in SCRIPTS:
        return "script"
    if first in NOT_RUN:
        return "not run"
    return {"scripts/test": "tests", ".ci/run": "tests", "mlflow": "mlflow"}.get(first)


COMMANDS = {(each.text, each.page): each for page in PAGES for each in [*in_blocks(page), *in_text(page)]}.values()


def of_kind(kind: str) -> list[Command]:
    """Return each command of a kind once."""
    return list({each.words: each for each in COMMANDS if kind_of(each.words) == kind}.values())


def word_of(words: tuple[str, ...]) -> str | None:
    """Return the subcommand of `bench`, typed in any form, None if there is none."""
    programs = [("bench",), ("scripts/run",), (".venv/bin/bench",), ("python", "-m", "bench")]
    behind = [words[len(each) :] for each in programs if words[: len(each)] == each]
    return next((each[0] for each in behind if each and each[0] in WORDS), None)


def arguments_of(each: Command) -> list[str]:
    """Return the arguments of the program."""
    if (word := word_of(each.words)) is not None:
        return list(each.words[each.words.index(word) + 1 :])
    skipped = 3 if each.words[1:2] == ("-m",) and each.words[0].endswith("python") else 1
    return list(each.words[skipped:])


# ---- the pages as text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_marked_with_its_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    marked = FENCE.findall(text)
    assert text.count("\n```") == 2 * len(marked)
    assert {name for name, _ in marked} <= LANGUAGES
    indented = [line for line in prose(page).splitlines() if re.match(r" {4,}\S", line)]
    assert indented == []  # a block without a mark


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_an_existing_target(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_file(), target
        assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_links_to_every_page() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall(prose(ROOT / "README.md"))}
    assert {f"docs/{page.name}" for page in PAGES[1:]} - linked == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_a_page_begins_with_its_question_and_ends_with_pitfalls(page: Path) -> None:
    _title, question = prose(page).strip().split("\n\n")[:2]
    assert "?" in question
    assert re.findall(r"^## (.+)$", prose(page), re.MULTILINE)[-1] == "Pitfalls"


def test_every_picture_is_shown_and_small() -> None:
    shown = {Path(target).name for page in PAGES for target in LINK.findall(prose(page)) if target.endswith(".png")}
    pictures = {path.name: path.stat().st_size for path in (ROOT / "docs/images").glob("*")}
    assert shown == set(pictures)
    assert [name for name, size in pictures.items() if size > 300_000] == []


def test_python_on_the_pages_imports_existing_names() -> None:
    import bench

    for page in PAGES:
        for body in blocks(page, "python"):
            for node in ast.walk(ast.parse(body)):
                if isinstance(node, ast.ImportFrom) and node.module == "bench":
                    assert {each.name for each in node.names} <= set(bench.__all__)
                elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "bench":
                    assert node.attr in bench.__all__


def test_files_on_the_pages_can_be_read() -> None:
    for page in PAGES:
        for body in blocks(page, "ini"):
            assert configparser.ConfigParser(interpolation=None).read_string(body) is None
        for body in blocks(page, "yaml"):
            assert isinstance(yaml.safe_load(body), dict)


# ---- the commands ------------------------------------------------------------------------------------------------


def test_every_command_is_of_a_known_kind() -> None:
    assert [str(each) for each in COMMANDS if kind_of(each.words) is None] == []


def test_every_placeholder_is_known() -> None:
    for each in COMMANDS:
        if kind_of(each.words) != "not run":
            words = [word for word in each.words if re.search(r"(?<![\w$])[A-Z]{3,}(?![\w.])", word) or "…" in word]
            assert words == [], each


def test_every_rule_about_commands_is_used() -> None:
    """A rule that no page needs any more would hide an error."""
    texts = [each.text for each in COMMANDS]
    assert [name for name in PLACEHOLDERS if not any(name in text for text in texts)] == []
    assert [start for start in NEEDS if not any(start in text for text in texts)] == []
    assert set(NOT_RUN) - {each.words[0] for each in COMMANDS} == set()


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoaderImpl]:
    """Hydra's loader over conf/."""
    Plugins.instance()  # registers choices once a process
    before = Singleton.get_state()
    setup_globals()
    register()
    GlobalHydra.instance().clear()
    yield ConfigLoaderImpl(create_config_search_path(str(conf_folder())))
    Singleton.set_state(before)


class Checked:
    """Sweeps as they are before their first job: expanded, composed, checked and planned."""

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self.loader = loader
        self.masters: dict[tuple[str, ...], tuple[Any, Composer]] = {}
        self.configs: dict[tuple[tuple[str, ...], tuple[str, ...]], BenchmarkConfig] = {}

    def check(self, typed: list[str]) -> None:
        """Raise what is wrong with a command line. Of a sweep with very many points, so manieth are composed."""
        typed = [readable(each) for each in typed]  # as the command does
        of_hydra = tuple(each for each in typed if each.startswith("hydra"))
        of_all = (*of_hydra, *(each for each in typed if each.startswith("experiment=")))
        points = self.points(of_all, [each for each in typed if each not in of_hydra])
        swept = varying(points)
        made = [
            Point(
                overrides=overrides,
                swept={key: value for key, value in point.items() if key in swept},
                config=self.config(of_all, overrides),
            )
            for point in points[:: 1 + len(points) // MANY]
            for overrides in [tuple(f"{key}={value}" for key, value in point.items())]
        ]
        check_size(len(points), made[0].config.sweep.max_jobs)
        make_plan(made, made[0].config.sweep, "docs-1")

    def master(self, of_all: tuple[str, ...]) -> tuple[Any, Composer]:
        """Return the common config of a sweep's points and their composer."""
        if of_all not in self.masters:
            master = self.loader.load_configuration("config", list(of_all), RunMode.MULTIRUN)
            self.masters[of_all] = (master, Composer(self.loader, master))
        return self.masters[of_all]

    def points(self, of_all: tuple[str, ...], typed: list[str]) -> list[dict[str, str]]:
        """Return a sweep's points; an interval gives its two ends."""
        sweeper = self.master(of_all)[0].hydra.sweeper
        combined = [f"{key}={value}" for key, value in sweeper.params.items()]
        parser = OverridesParser.create(config_loader=self.loader)
        found = []
        for line in sweeper.settings or [""]:
            parsed = parser.parse_overrides([*shlex.split(line), *combined, *typed])
            intervals = {
                each.get_key_element(): each.value() for each in parsed if isinstance(each.value(), IntervalSweep)
            }
            assert not intervals or "hydra/sweeper=optuna" in of_all
            values = values_of([each for each in parsed if each.get_key_element() not in intervals])
            found += product(values | {key: [str(each.start), str(each.end)] for key, each in intervals.items()})
        return found

    def config(self, of_all: tuple[str, ...], overrides: tuple[str, ...]) -> BenchmarkConfig:
        """Return one point's config."""
        key = (of_all, overrides)
        if key not in self.configs:
            self.configs[key] = to_config(self.master(of_all)[1].compose(overrides), overrides)
        return self.configs[key]


def test_every_command_of_bench_composes(loader) -> None:
    checked = Checked(loader)
    for each in of_kind("bench"):
        arguments = arguments_of(each)
        if "--keys" in arguments:
            assert set(arguments) - {"--keys"} <= set(BenchmarkConfig.__dataclass_fields__), each
            continue
        try:
            overrides = get_args_parser().parse_args(arguments).overrides  # flags are those that Hydra has
            checked.check([readable(override) for override in overrides])
        except Exception as error:
            raise AssertionError(f"{each}: {error}") from error


@pytest.mark.parametrize(
    "wrong",
    ["attention=egaer", "workload.batch_sise=1,2", "compile=off,default sweep.baseline=max-autotune",
     "hydra/launcher=submitit_slurm hydra.launcher.partiton=gpu", "workload.batch_size=range(1,2000)"],
)  # fmt: skip
def test_an_error_in_a_command_is_found(loader, wrong: str) -> None:
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)):
        Checked(loader).check(wrong.split())


class Parsed(BaseException):
    """Raised when a command line was accepted."""


WITH_OPTIONS = [each for each in of_kind("script") if len(each.words) > 1]  # loading the others takes seconds


@pytest.mark.parametrize("each", [*of_kind("module"), *WITH_OPTIONS], ids=str)
def test_other_commands_are_accepted_by_their_own_parsers(each: Command, monkeypatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [each.words[0], *arguments_of(each)])
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    if (word := word_of(each.words)) is not None:
        what = WORDS[word]
    else:
        what = each.words[2] if kind_of(each.words) == "module" else SCRIPTS[each.words[0]]
    run = runpy.run_path if what.startswith("scripts/") else runpy.run_module
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed):
        run(what, run_name="__main__")


def test_commands_of_mlflow_are_accepted_by_its_parser() -> None:
    from mlflow.cli import cli as group

    for each in of_kind("mlflow"):
        name, *arguments = arguments_of(each)
        group.commands[name].make_context(name, arguments)


def test_scripts_and_test_files_exist() -> None:
    for each in [*of_kind("tests"), *of_kind("script")]:
        assert os.access(ROOT / each.words[0], os.X_OK), each
        assert subprocess.run(["bash", "-n", ROOT / each.words[0]], check=False).returncode == 0
        paths = [word for word in each.words[1:] if word.startswith("tests/")]
        assert [path for path in paths if not (ROOT / path).exists()] == [], each


# ---- for real ----------------------------------------------------------------------------------------------------

# Each command in a process forked from one that has loaded what all of them need.
DRY_RUNS = """
import json, os, sys, tempfile
import bench.orchestration.sweep, bench.report.terminal.dry_run_table
from bench.cli import application
from hydra.core.plugins import Plugins
Plugins.instance()
results = []
for arguments in json.load(sys.stdin):
    out = tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        os.dup2(out.fileno(), 1), os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
        folder = tempfile.mkdtemp(dir=".")
        os.chdir(folder)
        sys.argv = ["bench", *arguments]
        try:
            application.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status if not os.listdir() else 99)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out.seek(0)
    results.append([status, out.read().decode()])
json.dump(results, sys.stderr)
"""


@pytest.mark.slow
def test_every_command_of_bench_makes_a_dry_run(tmp_path) -> None:
    """The real command prints its plan and leaves no files. Single settings run as a sweep of one."""
    lines = []
    commands = of_kind("bench")
    for each in commands:
        arguments = arguments_of(each)
        if {"--help", "--hydra-help", "--cfg", "--keys"} & set(arguments):
            lines.append(arguments)
        else:
            overrides = get_args_parser().parse_args(arguments).overrides
            lines.append(["-m", *overrides, "sweep.dry_run=true", "tracking=off"])
    done = subprocess.run(
        [sys.executable, "-c", DRY_RUNS],
        input=json.dumps(lines),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(done.stderr.splitlines()[-1])
    failed = [f"{each}: {out}" for each, (status, out) in zip(commands, results, strict=True) if status != 0]
    assert failed == []


FEW = (
    "warmup.iterations=1", "measurement.iterations=3", "workload.sequence_length=16",
    "workload.num_tokens_to_generate=4", "sweep.repeats=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("name", TASKS)
def test_the_first_block_of_a_task_runs_from_the_sweep_to_its_end(name: str, tmp_path) -> None:
    """With fewer calls and one process a setting there are no verdicts: a gate may end with 3, inconclusive."""
    page = ROOT / f"docs/{name}.md"
    first = blocks(page, "sh")[0].replace("\\\n", " ").splitlines()
    lines = [each for each in (command(page, line) for line in first) if each.words]
    assert [kind_of(each.words) for each in lines].count("module") >= 1
    for each in lines:
        if kind_of(each.words) == "bench":
            done = run_bench(*arguments_of(each), *FEW, folder=tmp_path)
        else:
            word = word_of(each.words)
            words = each.words[1:] if word is None else ("-m", "bench", word, *arguments_of(each))
            done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        expected = 3 if "--fail-if-inconclusive" in each.words else 0
        assert done.returncode == expected, f"{each}\n{done.stdout}\n{done.stderr}"
        assert done.stdout
