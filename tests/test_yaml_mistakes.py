"""Test errors in a user's YAML file: one line with the file, the key, the value and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import run_bench
from refusals import Answer, answer, refused

FILE = "my conf/experiment/mine.yaml"
GLOBAL = "# @package _global_\n"
SWEEP = GLOBAL + "hydra:\n  sweeper:\n"


def write(folder: Path, text: str | bytes, name: str = FILE) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def typed(folder: Path, text: str | bytes, *flags: str) -> Answer:
    write(folder, text)
    return answer(folder, *flags, "--config-dir", "my conf", "experiment=mine")


# What the file holds → parts of the line, which begins with the file's name. {n} is a line of it.
MISTAKES = [
    # The form of the file.
    (GLOBAL + "workload:\n\tbatch_size: 2\n", ":3:1: ", "a tab", "use spaces"),
    (GLOBAL + "workload:\n  prompt_file: 'abc\n", ":3:16: ", "not closed", "close it"),
    (GLOBAL + "workload:\n  batch_size: 1\n  batch_size: 2\n", ":4:3: ", "batch_size", "keep one"),
    (GLOBAL + "tracking:\n  experiment: @nightly\n", ":3:15: ", "cannot begin with @", "in quotes"),
    (GLOBAL + "tracking:\n  tags: {a: 1\n", ":3:", "close"),
    (GLOBAL + "model:\n  id: *tiny\n", ":3:7: ", "*tiny", "in quotes"),
    (GLOBAL + "model:\n  id: !tiny x\n", ":3:7: ", "!tiny", "in quotes"),
    (GLOBAL + "workload:\n  batch_size: 1\n---\nworkload:\n", ":4:1: ", "second document", "keep one"),
    (GLOBAL + "sweep:\n  baseline: compile: off\n", ":3:", "colon", "in quotes"),
    ((GLOBAL + "# größer\nworkload:\n").encode("latin-1"), ":2: ", "UTF-8", "save the file"),
    ((GLOBAL + "workload:\n").encode("utf-16"), ":1: ", "UTF-8", "save the file"),
    ("", ":1: ", "is empty", "# @package _global_"),
    ("workload:\n  batch_size: 2\n", ":1: ", "first line", "# @package _global_"),
    ("# @package _globl_\nworkload:\n  batch_size: 2\n", ":1: ", "_globl_", "write # @package _global_"),
    ("# @package\nworkload:\n  batch_size: 2\n", ":1: ", "write # @package _global_"),
    (GLOBAL + "- a\n- b\n", ":2: ", "is a list", "KEY: VALUE"),
    (GLOBAL + "hello\n", ":2: ", "is a text", "KEY: VALUE"),
    # Keys.
    (GLOBAL + "workload:\n  batchsize: 2\n", ":3: workload.batchsize=2: ", "did you mean workload.batch_size?"),
    (GLOBAL + "workload.batch_size: 2\n", ":2: workload.batch_size=2: ", "nested", "workload:", "batch_size: 2"),
    (GLOBAL + "params:\n  workload.batch_size: 1,2\n", ":2: params: ", "hydra.sweeper.params"),
    (GLOBAL + "settings:\n  - compile=off\n", ":2: settings: ", "hydra.sweeper.settings"),
    (GLOBAL + "sweeper:\n  params: {compile: default}\n", ":2: sweeper: ", "hydra.sweeper"),
    (GLOBAL + "hydra:\n  swep: {}\n", ":3: hydra.swep: ", "did you mean hydra.sweep?"),
    (GLOBAL + "workload:\n  1: 2\n", ":3: workload.1=2: ", "no such key"),
    # Sections and values.
    (GLOBAL + "compile: off\n", ":2: compile=off: ", "- override /compile: off"),
    (GLOBAL + "workload:\n", ":2: workload=null: ", "empty", "leave it out"),
    (GLOBAL + "workload: 3\n", ":2: workload=3: ", "keys below it"),
    (GLOBAL + "workload: [1]\n", ":2: workload=[1]: ", "keys below it"),
    (GLOBAL + "workload:\n  batch_size 2\n", "batch_size 2: ", "keys below it"),
    (GLOBAL + "workload:\n  batch_size: many\n", ":3: workload.batch_size=many: ", "must be a whole number"),
    (GLOBAL + "workload:\n  batch_size: [1, 2]\n", ":3: workload.batch_size=[1, 2]: ", "hydra.sweeper.params",
     "workload.batch_size: 1,2"),
    (GLOBAL + "workload:\n  batch_size: null\n", ":3: workload.batch_size=null: ", "default (1)"),
    (GLOBAL + "workload:\n  batch_size: 0\n", ":3: workload.batch_size=0: ", "must be at least 1"),
    (GLOBAL + "monitor:\n  enabled: maybe\n", ":3: monitor.enabled=maybe: ", "true or false"),
    (GLOBAL + "sweep:\n  name: a/b\n", ":3: sweep.name=a/b: ", "letters"),
    (GLOBAL + "attention:\n  sdpa_backend: math\n  implementation: eager\n", ":3: attention.sdpa_backend=math: ",
     "attention.implementation=sdpa"),
    (GLOBAL + "model:\n  dtype: float31\n", ":3: model.dtype=float31: ", "allowed: ", "float32"),
    (GLOBAL + "workload:\n  batch_size: ${nope}\n", ":3: workload.batch_size: ", "${nope} refers to no key"),
    (GLOBAL + "model:\n  id: ${oc.env:NOT_SET_HERE}\n", ":3: model.id: ", "NOT_SET_HERE is not set",
     "${oc.env:NOT_SET_HERE,DEFAULT}"),
    (GLOBAL + "model:\n  id: ${model.revision}\n  revision: ${model.id}\n", ":3: model.id: ", "refers to itself"),
    (GLOBAL + "model:\n  id: ${foo:bar}\n", ":3: model.id: ", "no resolver foo", "${oc.env:NAME}"),
    (GLOBAL + "model:\n  id: ${foo\n", ":3: ", "${foo", "write ${KEY}"),
    # Defaults lists.
    (GLOBAL + "defaults:\n  - override /compile: nope\n", ":3: compile=nope: ", "no such choice", "max-autotune"),
    (GLOBAL + "defaults:\n  - /compile: default\n", ":3: - /compile: default: ", "- override /compile: default"),
    (GLOBAL + "defaults:\n  - compile: default\n", ":3: - compile: default: ", "- override /compile: default"),
    (GLOBAL + "defaults:\n  - override /atention: eager\n", ":3: ", "did you mean attention?"),
    (GLOBAL + "defaults:\n  compile: off\n", ":3: defaults=", "must be a list"),
    (GLOBAL + "defaults: compile\n", ":2: defaults=compile: ", "must be a list"),
    (GLOBAL + "defaults:\n  - override /compile: [off, default]\n", ":3: ", "one choice", "compile: off,default"),
    (GLOBAL + "defaults:\n  - override /hydra/sweeper: basic\n", ":3: ", "/hydra/sweeper: basic", "type"),
    # What a sweep varies.
    (SWEEP + "    params: compile=off,default\n", ":4: hydra.sweeper.params=", "keys with their values"),
    (SWEEP + "    params:\n", ":4: hydra.sweeper.params=null: ", "leave it out"),
    (SWEEP + "    params:\n      - compile=off\n", "hydra.sweeper.params=", "keys with their values"),
    (SWEEP + "    settings: compile=off\n", ":4: hydra.sweeper.settings=compile=off: ", "list of lines"),
]  # fmt: skip
OF_A_SWEEP = [
    (SWEEP + "    settings:\n      - compile: off\n", ":5: ", "- compile=off"),
    (SWEEP + "    params:\n      workload.btch: 1,2\n", ":5: workload.btch=1,2: ", "did you mean workload.batch_size?"),
    (SWEEP + "    params:\n      workload.batch_size: 0,2\n", ":5: workload.batch_size=0: ", "must be at least 1"),
    (SWEEP + "    params:\n      workload.batch_size: []\n", "workload.batch_size=[]: ", "leave it out"),
    (SWEEP + "    params:\n      compile: off,nope\n", ":5: compile=nope: ", "no such choice"),
    (SWEEP + "    params:\n      workload.batch_size: range(3,1)\n", ":5: ", "range(3,1): ", "range(START,STOP,STEP)"),
    (SWEEP + "    settings:\n      - compile=off\n      - attention=eager compile\n", ":6: compile: ", "compile=VALUE"),
    (SWEEP + "    settings:\n      - compile=off 'x\n", ":5: ", "quote", "close it"),
    (SWEEP + "    settings:\n      - ~tracking\n", ":5: ~tracking: ", "tracking=off"),
    (SWEEP + "    settings:\n      - attention=eagr\n", ":5: attention=eagr: ", "did you mean eager?"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda number: str(MISTAKES[number][-1]))
def test_a_mistake_in_a_file_is_one_line_with_its_place_and_remedy(tmp_path, number: int) -> None:
    text, *parts = MISTAKES[number]
    flags = ("-m",) if number % 2 else ()  # both ways of composing, in turns
    line = typed(tmp_path, text, *flags).line
    assert line.startswith(f"{FILE}:")
    for part in parts:
        assert part in line
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / FILE, *(tmp_path / FILE).parents][:3])


@pytest.mark.parametrize("mistake", OF_A_SWEEP, ids=lambda each: str(each[-1]))
def test_a_mistake_in_a_files_sweep_is_one_line_with_its_place_and_remedy(tmp_path, mistake) -> None:
    text, *parts = mistake
    line = typed(tmp_path, text, "-m").line
    for part in parts:
        assert part in line
    assert line.startswith(f"{FILE}:") or "[]" in line


def test_a_file_of_another_folder_is_named_by_a_path_that_can_be_typed(tmp_path) -> None:
    write(tmp_path, GLOBAL + "workload:\n  batch_size: 0\n", "shared/experiment/mine.yaml")
    start = tmp_path / "start"
    start.mkdir()
    for folder in ("../shared", f"{tmp_path}/shared"):
        line = refused(start, "--config-dir", folder, "experiment=mine")
        assert line.startswith("../shared/experiment/mine.yaml:3: workload.batch_size=0: ")
    line = refused(start, f"hydra.searchpath=[file://{tmp_path}/shared]", "experiment=mine")
    assert line.startswith("../shared/experiment/mine.yaml:3: workload.batch_size=0: ")


def test_a_group_of_the_users_own_is_named_too(tmp_path) -> None:
    write(tmp_path, "batch_size: 0\n", "c/workload/mine.yaml")
    assert refused(tmp_path, "-cd", "c", "workload=mine").startswith("c/workload/mine.yaml:1: workload.batch_size=0: ")
    write(tmp_path, "btch_size: 1\n", "c/workload/mine.yaml")
    assert refused(tmp_path, "-cd", "c", "workload=mine").startswith("c/workload/mine.yaml:1: workload.btch_size=1: ")


def test_the_file_that_is_named_is_the_one_whose_value_is_wrong(tmp_path) -> None:
    write(
        tmp_path,
        GLOBAL + "defaults:\n  - override /workload: mine\nworkload:\n  batch_size: 0\n",
        "c/experiment/e.yaml",
    )
    write(tmp_path, "batch_size: 4\nsequence_length: 0\n", "c/workload/mine.yaml")
    assert refused(tmp_path, "-cd", "c", "experiment=e").startswith("c/experiment/e.yaml:5: workload.batch_size=0: ")
    line = refused(tmp_path, "-cd", "c", "experiment=e", "workload.batch_size=2")
    assert line.startswith("c/workload/mine.yaml:2: workload.sequence_length=0: ")


def test_a_wrong_value_on_the_command_line_names_no_file(tmp_path) -> None:
    write(tmp_path, GLOBAL + "workload:\n  batch_size: 4\n")
    line = refused(tmp_path, "--config-dir", "my conf", "experiment=mine", "workload.batch_size=0")
    assert line == "workload.batch_size=0: must be at least 1"


def test_a_file_with_the_other_ending_is_named(tmp_path) -> None:
    write(tmp_path, GLOBAL, "c/experiment/mine.yml")
    line = refused(tmp_path, "-cd", "c", "experiment=mine")
    assert "c/experiment/mine.yml ends in .yml" in line
    assert "rename" in line


# ---- what a file says, and is done -------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["off", "'off'", '"off"'])
def test_a_choice_named_off_can_be_chosen_without_quotes(tmp_path, choice: str) -> None:
    defaults = f"defaults:\n  - override /compile: {choice}\n  - override /tracking: {choice}\n"
    config = typed(tmp_path, GLOBAL + defaults).config
    assert (config.compile.mode, config.tracking.enabled) == (None, False)


@pytest.mark.parametrize("choice", ["on", "yes", "no", "2024", "1e3"])
def test_a_users_choice_that_yaml_reads_as_another_type_is_selected_by_name(tmp_path, choice: str) -> None:
    write(tmp_path, "batch_size: 7\n", f"my conf/workload/{choice}.yaml")
    assert typed(tmp_path, GLOBAL + f"defaults:\n  - override /workload: {choice}\n").config.workload.batch_size == 7


@pytest.mark.parametrize(
    ("params", "swept"),
    [
        ("compile: off", [("compile=off",)]),
        ("compile: off,default", [("compile=off",), ("compile=default",)]),
        ("compile: [off, default]", [("compile=off",), ("compile=default",)]),
        ("tracking: off", [("tracking=off",)]),
        ("workload.batch_size: [1, 2]", [("workload.batch_size=1",), ("workload.batch_size=2",)]),
        ("workload: {batch_size: [1, 2]}", [("workload.batch_size=1",), ("workload.batch_size=2",)]),
        ("monitor.enabled: [true, off]", [("monitor.enabled=True",), ("monitor.enabled=off",)]),
        ("compile.mode: null", [("compile.mode=null",)]),
        ("compile.mode: [null, default]", [("compile.mode=null",), ("compile.mode=default",)]),
    ],
)  # fmt: skip
def test_the_sweep_of_a_file_has_its_listed_values(tmp_path, params: str, swept: list[tuple[str, ...]]) -> None:
    points = typed(tmp_path, SWEEP + f"    params:\n      {params}\n", "-m").points
    assert [point.overrides[:-1] for point in points] == swept


def test_a_list_of_texts_holds_one_value_each_whatever_their_characters(tmp_path) -> None:
    texts = ["a,b", "c # d", "e=f", "it's", "é中🙂", 'x"y', "z"]
    params = "".join(f"        - {each!r}\n" if "'" not in each else f'        - "{each}"\n' for each in texts)
    points = typed(tmp_path, SWEEP + f"    params:\n      tracking.tags.note:\n{params}", "-m").points
    assert [point.config.tracking.tags["note"] for point in points] == texts


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path) -> None:
    text = b"\xef\xbb\xbf" + (GLOBAL + "workload:\n  batch_size: 3\n").encode()
    assert typed(tmp_path, text).config.workload.batch_size == 3


def test_an_experiment_without_a_sweep_is_a_single_run(tmp_path) -> None:
    assert typed(tmp_path, GLOBAL + "workload:\n  batch_size: 3\n").config.workload.batch_size == 3


@pytest.mark.parametrize("body", ["params: {model.seed: '1,2'}", "settings: [model.seed=1]"])
def test_an_experiment_that_is_a_sweep_needs_m(tmp_path, body: str) -> None:
    line = typed(tmp_path, SWEEP + f"    {body}\n").line
    assert line.startswith("experiment=mine: is a sweep (my conf/experiment/mine.yaml:4")
    assert line.endswith("; add -m")
    assert not (tmp_path / "outputs").exists()


def test_the_config_of_a_sweep_can_be_shown(tmp_path) -> None:
    assert answer(tmp_path, "--cfg", "job", "experiment=aa").status == 0


def test_a_traceback_is_shown_on_request(tmp_path) -> None:
    write(tmp_path, GLOBAL + "workload:\n  batch_size: 0\n")
    done = run_bench("-cd", "my conf", "experiment=mine", folder=tmp_path, HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr or done.returncode == 2
