"""Test errors on the command line: one line with the argument, the error and what to type instead.

Errors in YAML files: tests/test_yaml_mistakes.py. Errors found by the check before the start:
tests/jobs/test_preflight.py.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cli import compare, report, sync, ui
from bench.cli.composition.quoting import quoted_form, readable
from bench.config.rules import ConfigError
from bench.host.home_folder import expanded
from bench.trial.model.prompts import read_text
from conftest import run_bench
from refusals import answer, refused

# What is typed → parts of the line.
MISTAKES: list[tuple[list[str], list[str]]] = [
    # The form of an override.
    (["workload.batch_size"], ["workload.batch_size: has no value", "workload.batch_size=VALUE"]),
    (["workload.batch_size:2"], ["workload.batch_size:2: ", "type workload.batch_size=2"]),
    (["workload.batch_size 2"], ["workload.batch_size 2: ", "type workload.batch_size=2"]),
    (["workload.batch_size==2"], ["workload.batch_size==2: ", "= stands twice", "type workload.batch_size=2"]),
    (["workload.batch_size", "=", "2"], ["space stands before", "type workload.batch_size=2"]),
    (["workload.batch_size", "=2"], ["space stands before", "type workload.batch_size=2"]),
    (["workload.batch_size=", "2"], ["space stands behind", "type workload.batch_size=2"]),
    (["workload.batch_size =2"], ["space stands before", "type workload.batch_size=2"]),
    (["workload.batch_size="], ["workload.batch_size=: ", "must be a whole number"]),
    (["=2"], ["=2: has no key", "KEY=2"]),
    (["help"], ["help: is no key=value", "bench --help"]),
    (["--workload.batch_size=2"], ["no dashes", "workload.batch_size=2"]),
    (["workload.batch_size=2 warmup.iterations=1"], ["two overrides in one argument", "quotes off"]),
    (["batch_size"], ["batch_size: no such key", "did you mean workload.batch_size?"]),
    (["gr\u00f6\u00dfe=1"], ["gr\u00f6\u00dfe=1: no such key"]),
    (["workload..batch_size=1"], ["workload..batch_size=1: ", "did you mean workload.batch_size?"]),
    (["x" * 3000 + "=1"], ["xxx", "no such key"]),
    (["+workload.batch_size=2"], ["+workload.batch_size=2: ", "type workload.batch_size=2"]),
    (["+model=tiny"], ["+model=tiny: ", "type model=tiny"]),
    (["model@foo=tiny"], ["model@foo=tiny: ", "did you mean model?"]),
    # Values of another type, or against a rule.
    (["workload.batch_size=two"], ["workload.batch_size=two: must be a whole number"]),
    (["workload.batch_size=1.5"], ["workload.batch_size=1.5: must be a whole number"]),
    (["workload.batch_size=#3"], ["workload.batch_size=#3: must be a whole number"]),
    (["workload.batch_size=null"], ["workload.batch_size=null: needs a value", "leave it out"]),
    (["workload.batch_size=-1"], ["workload.batch_size=-1: must be at least 1"]),
    (["workload.batch_size=99999999999999999999999"], ["workload.batch_size=", "63 bits"]),
    (["warmup.max_s=nan"], ["warmup.max_s=nan: must be a finite number"]),
    (["monitor.enabled=maybe"], ["monitor.enabled=maybe: must be true or false"]),
    (["device=gpu"], ["device=gpu: must be auto, cpu, cuda or cuda:N"]),
    (["tracking.uri=mlruns"], ["tracking.uri=mlruns: must be an address", "sqlite:///FILE"]),
    (["search.storage=x.db"], ["search.storage=x.db: must be an address"]),
    (["search.objectives=e2e"], ["search.objectives=e2e: allowed: e2e_ms, ", "did you mean e2e_ms?"]),
    (["tracking.tags=x"], ["tracking.tags=x: ", "type tracking.tags.NAME=VALUE"]),
    (["sweep.name=a/b"], ["sweep.name=a/b: must be 100 letters"]),
    (["sweep.name=" + "x" * 101], ["must be 100 letters"]),
    (["warmup=10"], ["warmup=10: warmup is a section", "bench --keys warmup"]),
    # Choices.
    (["compile=Off"], ["compile=Off: no such choice", "did you mean off?"]),
    (["compile=false"], ["compile=false: no such choice", "did you mean off?"]),
    (["tracking=null"], ["tracking=null: no such choice", "off is a choice of it"]),
    (["tracking=none"], ["tracking=none: no such choice", "did you mean off?"]),
    (["attention="], ["attention=: no such choice", "eager"]),
    (["attention=[eager,sdpa]"], ["attention=[eager,sdpa]: is a list", "-m attention=eager,sdpa"]),
    (["experiment=nope"], ["experiment=nope: no such choice", "level0"]),
    (["experiment=null"], ["experiment=null: ", "leave it out"]),
    (["experiment=aa"], ["experiment=aa: is a sweep", "aa.yaml:9", "add -m"]),
    (["experiment=level0"], ["experiment=level0: is a sweep", "level0.yaml:7", "add -m"]),
    (["hydra/sweeper=basic"], ["hydra/sweeper=basic: plans and resumes nothing", "leave it out"]),
    (["-m", "hydra/sweeper=basic", "model.seed=1,2"], ["hydra/sweeper=basic: plans and resumes nothing"]),
    (["hydra/sweeper=optuna"], ["hydra/sweeper=optuna: is for sweeps", "add -m"]),
    (["hydra/launcher=ray"], ["hydra/launcher=ray: is for sweeps", "add -m"]),
    # Deleting.
    (["~tracking"], ["~tracking: a section cannot be deleted", "tracking=off"]),
    (["~compile"], ["~compile: a section cannot be deleted", "compile=off"]),
    (["~compile=off"], ["~compile=off: a section cannot be deleted", "compile=off"]),
    (["~model"], ["~model: a section cannot be deleted", "leave it out"]),
    (["~workload"], ["~workload: a section cannot be deleted"]),
    (["~sweep"], ["~sweep: a section cannot be deleted"]),
    (["~experiment"], ["~experiment: a group cannot be deleted"]),
    (["~tracking.uri"], ["~tracking.uri: a key cannot be deleted", "tracking.uri=null is its default"]),
    (["~workload.batch_size"], ["workload.batch_size=1 is its default"]),
    (["~hydra.sweep.dir"], ["~hydra.sweep.dir: ", "hydra.sweep.dir=VALUE"]),
    (["-m", "model.seed=1,2", "~tracking"], ["~tracking: a section cannot be deleted"]),
    # Several values, and functions of them.
    (["workload.batch_size=1,2"], ["workload.batch_size=1,2: several values make a sweep; add -m"]),
    (["tracking.tags.note=a,b"], ["add -m", "'tracking.tags.note=\"a,b\"'"]),
    (["workload.batch_size=range(1,3)"], ["workload.batch_size=range(1,3): several values", "add -m"]),
    (["-m", "workload.batch_size=range(a)"], ["range(a): range takes numbers: range(START,STOP)"]),
    (["-m", "workload.batch_size=range(3,1)"], ["range(3,1): gives no values", "range(START,STOP,STEP)"]),
    (["-m", "workload.batch_size=range(1,2,0)"], ["range(1,2,0): gives no values", "STEP is not 0"]),
    (["-m", "workload.batch_size=interval(1,3)"], ["interval(1,3): ", "hydra/sweeper=optuna"]),
    (["-m", "workload.batch_size=choice()"], ["choice(): choice takes one value at least"]),
    (["-m", "workload.batch_size=twice(1)"], ["twice(1): ", "functions here: range"]),
    (["-m", "attention=glob(z*)"], ["attention=glob(z*): gives no values", "no choice of attention matches"]),
    (["-m", "workload.batch_size=1,"], ["workload.batch_size=1,: ", "type workload.batch_size=1"]),
    (["-m", "workload.batch_size=1,,2"], ["type workload.batch_size=1,2"]),
    (["-m", "hydra.run.dir=a,b"], ["hydra.run.dir=a,b: ", "cannot be swept"]),
    (["-m", "hydra/sweeper=optuna", "workload.batch_size=range(3,1)"], ["range(3,1): gives no values"]),
    (["-m", "hydra.sweeper.settings=[compile]"], ["compile: has no value", "compile=VALUE"]),
    # Brackets, references.
    (["search.objectives=[e2e_ms"], ["search.objectives=[e2e_ms: ", 'close it with "]"']),
    (["model.architecture={a:b"], ['close it with "}"']),
    (["workload.batch_size=${nope}"], ["workload.batch_size=${nope}: ", "refers to no key"]),
    (["workload.batch_size=${workload.batch_size}"], ["refers to itself"]),
    (["model.id=${oc.env:NOT_SET_HERE}"], ["model.id=${oc.env:NOT_SET_HERE}: ", "NOT_SET_HERE is not set"]),
    (["model.id=${foo:a}"], ["model.id=${foo:a}: there is no resolver foo"]),
    (["tracking.tags.note=${a"], ["tracking.tags.note=${a: a reference is not closed"]),
    # Flags.
    (["-c", "everything"], ["--cfg/-c", "'everything'", "job"]),
    (["--config-name", "other"], ["--config-name other: ", "leave the flag out"]),
    (["--config-name", "experiment/aa"], ["--config-name experiment/aa: ", "type experiment=aa"]),
    (["--config-dir", "nope"], ["--config-dir nope: no such folder"]),
    (["-cd", "nope"], ["nope: no such folder"]),
    (["--config-path", "nope"], ["--config-path nope: no such folder"]),
    (["--package", "model"], ["--package model: ", "add --cfg job"]),
    (["--cfg", "job", "--package", "modl"], ["--package modl: ", "did you mean model?"]),
    (["-m", "--cfg", "job"], ["-m and --cfg", "only one"]),
    (["hydra.searchpath=[file:///nope]"], ["hydra.searchpath=[file:///nope]: no such folder"]),
    (["hydra.searchpath=/nope"], ["hydra.searchpath=/nope: must be a list"]),
    (["hydra.job.env_copy=[NOT_SET_HERE]"], ["hydra.job.env_copy", "NOT_SET_HERE is not set"]),
    # Files.
    (["workload.prompt_file=nope.txt"], ["workload.prompt_file=nope.txt: no such file"]),
    (["workload.prompt_file=folder"], ["workload.prompt_file=folder: is a folder"]),
    (["workload.prompt_file=pipe"], ["workload.prompt_file=pipe: is no regular file"]),
    (["workload.prompt_file="], ["workload.prompt_file=: is empty"]),
    (["workload.prompt_file=" + "x" * 300], ["File name too long"]),
    (["-m", "workload.prompt_file=text,nope"], ["workload.prompt_file=nope: no such file"]),
    (["hydra.run.dir=text"], ["hydra.run.dir=text: text is a file; name a folder"]),
    (["hydra.run.dir=text/below"], ["hydra.run.dir=text/below: text is a file"]),
    (["-m", "model.seed=1,2", "hydra.sweep.dir=text"], ["hydra.sweep.dir=text: text is a file"]),
    (["hydra.run.dir=" + "x" * 300], ["hydra.run.dir=xxx", "File name too long"]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up the current folder with a text file, a folder and a pipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("Once upon a time.", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(("arguments", "parts"), MISTAKES, ids=lambda each: " ".join(each)[:60])
def test_a_mistake_is_one_line_with_the_argument_and_the_remedy(folder, arguments, parts) -> None:
    line = refused(folder, *arguments)
    for part in parts:
        assert part in line
    assert "LexerNoViableAlt" not in line
    assert "mismatched input" not in line


@pytest.mark.parametrize(
    "arguments",
    [["workload.batch_size==2"], ["~tracking"], ["workload.batch_size=${nope}"], ["--config-dir", "nope"],
     ["tracking.tags.note=a(b"], ["+model=tiny"], ["compile=false"], ["device=gpu"], ["workload.prompt_file=folder"]],
    ids=" ".join,
)  # fmt: skip
def test_a_mistake_in_a_sweep_is_one_line_too(folder, arguments) -> None:
    assert arguments[-1] in refused(folder, "-m", "model.seed=1,2", *arguments)


# ---- characters --------------------------------------------------------------------------------------------------

CHARACTERS = "~#&!;<>^`é中🙂=%@|\\?*+"


@pytest.mark.parametrize("text", ["{0}", "a{0}b", "a {0} b"])
def test_a_text_keeps_each_typed_character(tmp_path, text: str) -> None:
    # A backslash before a space is the grammar's escape of the space, and = after = is refused.
    values = [text.format(each) for each in CHARACTERS if text.format(each) not in ("=", "a \\ b")]
    typed = [f"tracking.tags.t{number}={value}" for number, value in enumerate(values)]
    config = answer(tmp_path, *typed, "sweep.baseline=compile=off").config
    assert list(config.tracking.tags.values()) == values
    assert config.sweep.baseline == "compile=off"


def test_several_texts_with_such_characters_are_swept(tmp_path) -> None:
    points = answer(tmp_path, "-m", "tracking.tags.note=#1,é,plain").points
    assert [point.config.tracking.tags["note"] for point in points] == ["#1", "é", "plain"]


@pytest.mark.parametrize("value", ["(a", "a)", "[a", "a]", "{a", "a}", 'a"b', "it's", "f(x)", "a(b # c)", "a, b", "'"])
def test_the_form_that_a_refusal_prints_gives_the_value_when_a_shell_reads_it(tmp_path, value: str) -> None:
    line = refused(tmp_path, f"tracking.tags.note={value}")
    form = line[line.index("'tracking.tags.note=") :]
    show = shlex.quote(sys.executable) + " -c 'import sys; print(len(sys.argv), sys.argv[1])' "
    read = subprocess.run(["sh", "-c", show + form], capture_output=True, text=True, check=True).stdout.rstrip("\n")
    count, _, argument = read.partition(" ")
    assert count == "2"
    assert answer(tmp_path, argument).config.tracking.tags["note"] == value


@given(value=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_the_quoted_form_of_any_text_is_one_word_that_holds_it(value: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    form = quoted_form("tracking.tags.note", value)
    if form is None:
        assert "${" in value or not value.isprintable()
        return
    (argument,) = shlex.split(form)
    assert OverridesParser.create().parse_overrides([argument])[0].value() == value


@pytest.mark.parametrize(
    "argument",
    ["workload.batch_size=1,2", "attention=eager,sdpa", "tracking.tags.a='b # c'", "search.objectives=[e2e_ms]",
     "model.id=${oc.env:HOME}", "tracking.tags.note=choice(a,b)", "model.id=org/name", "-m", "--config-dir=~"],
)  # fmt: skip
def test_values_that_hydra_can_read_are_unchanged(argument: str) -> None:
    assert readable(argument) == argument


# ---- home folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a home folder with a text file."""
    path = tmp_path / "my home"
    path.mkdir()
    (path / "prompt.txt").write_text("Once upon a time.", encoding="utf-8")
    monkeypatch.setenv("HOME", str(path))
    return path


def test_a_home_folder_is_expanded_only_at_the_start_of_a_path(home) -> None:
    assert expanded("~") == str(home)
    assert expanded("~/a/") == f"{home}/a/"
    assert expanded("sqlite:///~/x.db") == f"sqlite:///{home}/x.db"
    assert expanded("~root/x") == f"{os.path.expanduser('~root')}/x"  # noqa: PTH111
    for text in ("a/~/b", "a~", "~nobody-of-this-name/x", "org/model", "sqlite:///x.db", "http://~/x", ""):
        assert expanded(text) == text


def test_a_prompt_file_in_the_home_folder_is_found_and_the_request_is_kept(tmp_path, home) -> None:
    config = answer(tmp_path, "workload.prompt_file=~/prompt.txt").config
    assert config.workload.prompt_file == "~/prompt.txt"
    assert read_text(config.workload) == "Once upon a time."
    here = answer(tmp_path, f"workload.prompt_file={home}/prompt.txt").config
    assert config.trial_id() == here.trial_id()


def test_several_prompt_files_in_the_home_folder_are_swept(tmp_path, home) -> None:
    (home / "other.txt").write_text("Another.", encoding="utf-8")
    points = answer(tmp_path, "-m", "workload.prompt_file=~/prompt.txt,~/other.txt").points
    assert [point.config.workload.prompt_file for point in points] == ["~/prompt.txt", "~/other.txt"]


@pytest.mark.usefixtures("home")
def test_a_prompt_file_missing_in_the_home_folder_is_refused_as_typed(tmp_path) -> None:
    assert refused(tmp_path, "workload.prompt_file=~/nope.txt").startswith(
        "workload.prompt_file=~/nope.txt: no such file"
    )


@pytest.mark.parametrize("from_file", [False, True])
def test_an_output_folder_below_the_home_folder_is_found(tmp_path, home, from_file: bool) -> None:
    start = tmp_path / "start"
    (start / "c/experiment").mkdir(parents=True)
    arguments = ["hydra.run.dir=~/runs/one"]
    if from_file:
        text = "# @package _global_\nhydra:\n  run: {dir: ~/runs/one}\n"
        (start / "c/experiment/mine.yaml").write_text(text, encoding="utf-8")
        arguments = ["--config-dir", "c", "experiment=mine"]
    assert answer(start, *arguments).folder == home / "runs/one"
    assert sorted(each.name for each in start.iterdir()) == ["c"]


def test_a_folder_of_configs_below_the_home_folder_is_found(tmp_path, home) -> None:
    (home / "c/workload").mkdir(parents=True)
    (home / "c/workload/mine.yaml").write_text("batch_size: 7\n", encoding="utf-8")
    assert answer(tmp_path, "--config-dir=~/c", "workload=mine").config.workload.batch_size == 7


def test_a_database_below_the_home_folder_is_found(tmp_path, home) -> None:
    from bench.tracking.store.opening import absolute_uri

    assert absolute_uri("sqlite:///~/x.db", tmp_path) == f"sqlite:///{home}/x.db"


def test_a_model_below_the_home_folder_is_found_there(home) -> None:
    from bench.config.schema import ModelConfig
    from bench.trial.model.source import check_path, source

    (home / "m").mkdir()
    (home / "m/config.json").write_text("{}", encoding="utf-8")
    check_path(ModelConfig(id="~/m"))
    assert source(ModelConfig(id="~/m"))["pretrained_model_name_or_path"] == str(home / "m")
    with pytest.raises(ConfigError, match=r"model\.id=~/n: there is no such folder: .*/my home/n"):
        check_path(ModelConfig(id="~/n"))
    with pytest.raises(ConfigError, match="~nobody-here names no home folder"):
        check_path(ModelConfig(id="~nobody-here/n"))


# ---- prompts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n', "JSON lines"),
        ("p.jsonl", '\n\n{"prompt": "a"}\n\n{"prompt": "b"}', "JSON lines"),
        ("p.jsonl", '"a"\n"b"\n', "JSON lines"),
        ("p.txt", '{"prompt": "a"}\n{"prompt": "b"}\n', "JSON lines"),
        ("p", '{"prompt": "a"}', "JSON lines"),
        ("p.json", '["a", "b"]', "JSON"),
        ("p.json", '{\n "prompts": ["a"]\n}\n', "JSON"),
        ("p.txt", '[\n{"prompt": "a"}\n]\n', "JSON"),
    ],
)
def test_prompts_of_another_format_are_refused_as_text(tiny: Callable, tmp_path, name, text, kind) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    config = tiny()
    config.workload.prompt_file = str(file)
    with pytest.raises(ConfigError, match=rf"holds {kind}, .* plain text"):
        read_text(config.workload)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "A set is written {1, 2}.\n{not json}\n"),
        ("p.txt", '{"an": "object"}\nand then text.\n'),
        ("p.txt", "12\n13\n"),
        ("p.txt", "[1] A footnote.\n[2] Another.\n"),
        ("p.txt", "[1]"),
        ("p.txt", '"Yes," she said.'),
        ("p.json", "No JSON at all, whatever its name."),
        ("p.py", "{'a': 1}\n"),
    ],
)
def test_a_text_with_braces_remains_a_text(tiny: Callable, tmp_path, name, text) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    config = tiny()
    config.workload.prompt_file = str(file)
    assert read_text(config.workload) == text


@pytest.mark.slow
def test_json_lines_as_a_prompt_start_nothing(tmp_path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n', encoding="utf-8")
    done = run_bench("workload.prompt_file=p.jsonl", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("bench: workload.prompt_file=p.jsonl: holds JSON lines")
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


# ---- the other commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "arguments", "parts"),
    [
        (compare.main, [], ["SOURCE", "--help"]),
        (compare.main, ["nope/x"], ["nope/x: no such file or folder"]),
        (compare.main, ["a/x", "--fail-if-slower", "much"], ["--fail-if-slower", "much"]),
        (compare.main, ["a/x", "--metric", "speed"], ["--metric", "speed", "e2e"]),
        (compare.main, ["a/x", "--bogus"], ["--bogus"]),
        (report.main, [], ["SOURCE", "--help"]),
        (report.main, ["nope/x"], ["nope/x: no such file or folder"]),
        (report.main, ["nope/x", "--format", "pdf"], ["--format", "pdf", "csv"]),
        (report.main, ["folder"], ["folder: holds no record.json"]),
        (sync.main, [], ["DIR", "--help"]),
        (sync.main, ["nope"], ["nope: no such folder"]),
        (sync.main, ["folder"], ["folder", "record.json"]),
        (sync.main, ["folder", "--bogus"], ["--bogus", "--help"]),
        (ui.main, ["nope"], ["nope: no such folder"]),
        (ui.main, ["folder"], ["folder", "name the folder"]),
        (ui.main, ["--port", "many"], ["--port", "many", "--help"]),
        (ui.main, ["--bogus"], ["--bogus", "--help"]),
    ],
)  # fmt: skip
def test_a_mistake_in_another_command_is_one_line(folder, capsys, main, arguments, parts) -> None:
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    for part in parts:
        assert part in err
    assert sorted(folder.rglob("*")) == before


def test_a_report_can_be_written_below_the_home_folder(tmp_path, home, monkeypatch, capsys) -> None:
    from factories import make_record

    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    make_record().write(tmp_path / "job")
    assert report.main(["job", "--format", "csv", "--output=~/report/rows.csv"]) == 0
    assert (home / "report/rows.csv").is_file()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["job", "my home"]
    assert capsys.readouterr().err == ""
