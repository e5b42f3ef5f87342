"""Test that text keys hold exactly the typed characters for every source of a value.

Sources: the command line, lists of choices, files, `params` and `settings` of a sweep, the space of a search, Python.
"""

from __future__ import annotations

import itertools
import pickle
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathElement
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from hydra.errors import OverrideParseException
from hydra.types import HydraContext, RunMode
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from bench.cli.composition.checked_config import to_config
from bench.cli.composition.conf_folder import conf_folder
from bench.cli.composition.config_loader import text_loader
from bench.cli.composition.text_keys import Kind, _declared, kind_of
from bench.cli.composition.text_overrides import parse, quoted, values_as_typed
from bench.cli.registration import register
from bench.compat.override_internals import in_quotes
from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, ModelConfig, SweepConfig, TrackingConfig
from bench.jobs.planning.plan import short_name
from bench.orchestration.loading.record_sources import _overrides
from bench.report.page.reproduce import command_of
from bench.results.file_names import OVERRIDES_NAME, file_name
from conftest import run_bench
from hydra_plugins.bench_sweeper.bench_sweeper import BenchSweeper, values_of
from hydra_plugins.bench_sweeper.composing import Composer
from hydra_plugins.bench_sweeper.optuna_sweeper import space_of

LOOK_ALIKE = (
    "1_0", "1e5", "0x1F", "0b1", "0o17", "1.0", "01", "017", "+5", ".5", "5.", "1e400", "inf", "-inf", "nan", "-0",
    "true", "True", "FALSE", "yes", "no", "on", "off", "null", "NULL", "~", "None", "2024-11-29", "12:30:45", "1:30",
    "2024_11_29", "12e4567", "48e12", "007", "1k", "5GB", "3s", "1e-3", "1E3", "1_0.5_0", ".inf", ".NaN", "9" * 400,
    "0.12345678901234567891", "١٢٣", "2024_11_29-a", "1-2",
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(LOOK_ALIKE),
    st.from_regex(r"[-+]?[0-9][0-9_]{0,6}(\.[0-9]{0,3})?([eE][-+]?[0-9]{1,4})?", fullmatch=True),
    st.from_regex(r"[0-9]{4}[-_][01][0-9][-_][0-3][0-9]", fullmatch=True),
    st.from_regex(r"[0-9]{1,2}(:[0-5][0-9]){1,2}", fullmatch=True),
    st.from_regex(r"[0-9]{1,3}(k|M|GB|s|ms|e)", fullmatch=True),
)
READABLE = TEXTS.filter(lambda text: text.isascii() and text != "~" and text.lower() != "null")
OURS = [*(key for key, kind in sorted(_declared().items()) if kind is Kind.TEXT and not key.startswith("hydra.")
          and not key.startswith("search.")), "tracking.tags.a", "tracking.tags.b.c"]  # fmt: skip
OF_HYDRA = ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name", "hydra.output_subdir"]
SWEPT = ["model.revision", "sweep.label", "tracking.tags.a", "compile.cache", "attention.implementation"]
FREE = ["sweep.label", "model.revision", "tracking.tags.a"]  # that take null


def examples(number: int) -> Any:
    return settings(
        max_examples=number,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),  # each example composes a config: finding a smaller one takes minutes
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("conf")
    (made / "experiment").mkdir()
    return made


@pytest.fixture(scope="module")
def loader(folder: Path) -> Iterator[Any]:
    """The loader of the command, over conf/ and a folder of a user's own."""
    Plugins.instance()  # registers choices once a process
    before = Singleton.get_state()
    setup_globals()
    register()
    GlobalHydra.instance().clear()
    search_path = create_config_search_path(str(conf_folder()))
    search_path.get_path().insert(-1, SearchPathElement("command-line", str(folder)))
    yield text_loader(search_path)
    Singleton.set_state(before)


@pytest.fixture(scope="module")
def master(loader: Any) -> Composer:
    """What composes the points of a sweep in which nothing else was typed."""
    return Composer(loader, composed(loader, mode=RunMode.MULTIRUN))


def composed(loader: Any, *typed: str, mode: RunMode = RunMode.RUN) -> DictConfig:
    return loader.load_configuration("config", list(typed), mode)


def held(config: DictConfig, key: str) -> Any:
    """What a key holds; `a.b` of tags is a mapping in a mapping, or a name with a dot."""
    return OmegaConf.select(config, key)


_numbers = itertools.count()


def experiment(folder: Path, content: str) -> str:
    name = f"file_{next(_numbers)}"
    (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}", encoding="utf-8")
    return f"experiment={name}"


def as_yaml(values: dict[str, str]) -> str:
    """Dotted keys as one file, each value plain, as one types it."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        inner = tree
        for each in sections:
            inner = inner.setdefault(each, {})
        inner[leaf] = value

    def lines(node: dict[str, Any], indent: str) -> Iterator[str]:
        for name, value in node.items():
            if isinstance(value, dict):
                yield f"{indent}{name}:"
                yield from lines(value, f"{indent}  ")
            else:
                yield f"{indent}{name}: {value}"

    return "\n".join(lines(tree, "")) + "\n"


def sweeper(loader: Any, *typed: str) -> tuple[BenchSweeper, DictConfig]:
    """A sweeper as Hydra sets it up for a command line, without its launcher."""
    master = composed(loader, *typed, mode=RunMode.MULTIRUN)
    plain = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
    made = BenchSweeper(params=plain["params"], settings=plain["settings"])
    made.config, made.hydra_context = master, HydraContext(config_loader=loader, callbacks=None)
    return made, master


def points(loader: Any, *typed: str) -> list[DictConfig]:
    """The composed points of a sweep."""
    made, master = sweeper(loader, *typed)
    composer = Composer(loader, master)
    arguments = list(master.hydra.overrides.task)
    return [composer.compose([f"{k}={v}" for k, v in point.items()]) for point in made._expand(arguments)]


# ---- every text key, every way in --------------------------------------------------------------------------------


def test_the_text_keys_are_those_of_the_config_and_of_hydra() -> None:
    assert {"device", "model.id", "model.revision", "compile.mode", "sweep.name", "search.objectives"} <= set(
        _declared()
    )
    assert {"hydra.run.dir", "hydra.sweep.dir", "hydra.job.name", "hydra.searchpath"} <= set(_declared())
    kinds = {kind_of(each) for each in ("model.seed", "warmup.max_s", "monitor.enabled", "hydra.job.chdir")}
    assert kinds == {Kind.OTHER}


def one_each(keys: list[str]) -> Any:
    """A text for each of the keys."""
    return st.lists(READABLE, min_size=len(keys), max_size=len(keys)).map(
        lambda texts: dict(zip(keys, texts, strict=True))
    )


@examples(6)
@given(values=one_each([*OURS, *OF_HYDRA]))
@example(values=dict.fromkeys([*OURS, *OF_HYDRA], "2024_11_29"))
@example(values=dict.fromkeys([*OURS, *OF_HYDRA], "12e4567"))
@example(values=dict.fromkeys([*OURS, *OF_HYDRA], "True"))
def test_texts_on_the_command_line_are_kept_as_typed(loader, values: dict[str, str]) -> None:
    config = composed(loader, *(f"{key}={text}" for key, text in values.items()))
    assert {key: held(config, key) for key in values} == values


@examples(6)
@given(values=one_each(OURS))
@example(values=dict.fromkeys(OURS, "2024_11_29"))
@example(values=dict.fromkeys(OURS, "off"))
@example(values=dict.fromkeys(OURS, "017"))
def test_texts_in_a_file_are_kept_as_typed(loader, folder: Path, values: dict[str, str]) -> None:
    config = composed(loader, experiment(folder, as_yaml(values)))
    assert {key: held(config, key) for key in values} == values


@pytest.mark.parametrize("text", ["~", "١٢٣"])
def test_texts_the_grammar_rejects_are_refused_unless_quoted(loader, text: str) -> None:
    keys = [*OURS, *OF_HYDRA]
    for key in FREE:
        with pytest.raises(OverrideParseException):
            composed(loader, f"{key}={text}")
    config = composed(loader, *(f"{key}={in_quotes(text)}" for key in keys))
    assert {key: held(config, key) for key in keys} == dict.fromkeys(keys, text)


def test_null_is_no_text_unless_it_is_quoted(loader, folder: Path) -> None:
    for text in ("null", "NULL"):
        config = composed(loader, *(f"{key}={text}" for key in FREE))
        assert [held(config, key) for key in FREE] == [None] * len(FREE)
        config = composed(loader, *(f"{key}={in_quotes(text)}" for key in FREE))
        assert [held(config, key) for key in FREE] == [text] * len(FREE)
    for text in ("null", "~", ""):
        config = composed(loader, experiment(folder, as_yaml(dict.fromkeys(FREE, text))))
        assert [held(config, key) for key in FREE] == [None] * len(FREE)
        config = composed(loader, experiment(folder, as_yaml(dict.fromkeys(FREE, f"'{text}'"))))
        assert [held(config, key) for key in FREE] == [text] * len(FREE)


@examples(3)
@given(text=READABLE, other=READABLE)
@example(text="1_0", other="10")
@example(text="inf", other="-inf")
@example(text="0x1F", other="0")
def test_texts_in_a_list_of_choices_are_kept_as_typed(loader, text: str, other: str) -> None:
    for form in (f"{text},{other}", f"choice({text},{other})", f"sort({text},{other})"):
        found = points(loader, f"sweep.label={form}", f"model.revision={text}")
        assert {each.sweep.label for each in found} == {text, other}, form
        assert {each.model.revision for each in found} == {text}


@examples(3)
@given(values=one_each(SWEPT))
@example(values=dict.fromkeys(SWEPT, "12e4567"))
@example(values=dict.fromkeys(SWEPT, "off"))
def test_texts_in_params_and_settings_of_a_sweep_are_kept_as_typed(
    loader, folder: Path, values: dict[str, str]
) -> None:
    params = "".join(f"      {key}: {text}\n" for key, text in values.items())
    (found,) = points(loader, experiment(folder, f"hydra:\n  sweeper:\n    params:\n{params}"))
    assert {key: held(found, key) for key in values} == values
    lines = [" ".join(f"{key}={text}" for key, text in values.items())]
    lines += [f"{key}='{text}'" for key, text in values.items()]
    text = "".join(f"      - {each}\n" for each in lines)
    all_at_once, *singly = points(loader, experiment(folder, f"hydra:\n  sweeper:\n    settings:\n{text}"))
    assert {key: held(all_at_once, key) for key in values} == values
    assert {key: held(each, key) for key, each in zip(values, singly, strict=True)} == values


@pytest.mark.parametrize("null", ["null", "~", ""])
def test_the_params_of_a_sweep_are_right_sides_of_overrides(loader, folder: Path, null: str) -> None:
    text = f"compile.mode: {null}\n      compile: off\n      monitor.enabled: off\n      workload.batch_size: 0x1F\n"
    lines = f"hydra:\n  sweeper:\n    params:\n      {text}      compile.options.x: 1e-3\n"
    (found,) = points(loader, experiment(folder, lines))
    assert (found.compile.mode, found.monitor.enabled, found.workload.batch_size) == (None, False, 31)
    assert found.compile.options.x == 0.001


def test_points_are_composed_as_the_commands_loader_does_it(loader) -> None:
    lines = ["tracking.tags.a=7", "sweep.label=1_0", "model.revision=12e4567", "sweep={name:1_0}"]
    typed = [f"{key}={value[0]}" for key, value in values_of(parse(lines)).items()]
    master = composed(loader, "sweep.name=2024_11_29", mode=RunMode.MULTIRUN)
    whole = loader.load_sweep_config(master, lines)
    fast = Composer(loader, master).compose(typed)
    assert fast == OmegaConf.masked_copy(whole, [each for each in whole if each != "hydra"])
    assert [str(each) for each in whole.hydra.overrides.task] == typed


def test_the_loader_travels_to_other_machines(loader) -> None:
    there = pickle.loads(pickle.dumps(loader))
    assert composed(there, "sweep.label=1_0").sweep.label == "1_0"


@examples(15)
@given(text=READABLE, other=READABLE)
@example(text="1_0", other="10")
def test_texts_in_the_space_of_a_search_are_kept_as_typed(master, text: str, other: str) -> None:
    composer, space = master, space_of(parse([f"model.revision={text},{other}", f"sweep.label={text}"]))
    values = space.shown().get("model.revision", [space.fixed.get("model.revision")])
    found = [
        composer.compose([f"model.revision={each}", f"sweep.label={space.fixed['sweep.label']}"]) for each in values
    ]
    assert [each.model.revision for each in found] == list(dict.fromkeys([text, other]))
    assert {each.sweep.label for each in found} == {text}
    assert text == other or all(space.holds({"model.revision": each}) for each in values)


@examples(60)
@given(text=TEXTS)
def test_quoting_does_not_change_quoted_values(text: str) -> None:
    line = f"sweep.label={in_quotes(text)}"
    assert quoted(line) == line
    assert quoted(quoted(f"sweep.label={text}")) == quoted(f"sweep.label={text}")


# ---- forms of overrides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("sweep.name=2024_11_29", "sweep.name='2024_11_29'"),
        ("+sweep.name=1_0", "+sweep.name='1_0'"),
        ("sweep={name: 1_0, repeats: 1_0}", "sweep={name: '1_0', repeats: 1_0}"),
        ("tracking.tags={a: 48e12, b: true, c: null, d: x}", "tracking.tags={a: '48e12', b: 'true', c: null, d: x}"),
        ("tracking.tags.n=7", "tracking.tags.n='7'"),
        ("search.objectives=[1_0, e2e_ms]", "search.objectives=['1_0', e2e_ms]"),
        ("sweep.label=tag(x, choice(1_0, b))", "sweep.label=tag(x, choice('1_0', b))"),
        ("sweep.label=sort(1_0, b, 3, reverse=true)", "sweep.label=sort('1_0', b, '3', reverse=true)"),
        ("experiment=2024_11_29", "experiment='2024_11_29'"),
        ("hydra/launcher=1_0", "hydra/launcher='1_0'"),
        ("hydra.launcher.partition=007_1", "hydra.launcher.partition=007_1"),
        ("hydra.launcher.partition=1_0", "hydra.launcher.partition='1_0'"),
        ("hydra.sweeper.params={model.revision: 1_0}", "hydra.sweeper.params={model.revision: '1_0'}"),
        ("+hydra.job.env_set.X=1e3", "+hydra.job.env_set.X='1e3'"),
    ],
)
def test_texts_the_grammar_would_misread_are_quoted(typed: str, line: str) -> None:
    assert quoted(typed) == line


@pytest.mark.parametrize(
    "typed",
    [
        "sweep.label=a,b", "sweep.label=sort(10,9)", "sweep.label=1,2", "sweep.label=1.5", "workload.batch_size=1_0", "warmup.max_s=1e2", "warmup=10",
        "compile.options.x=1e3", "compile.options.x=true", "sweep.label=null", "sweep.label=${sweep.seed}", "device=cuda:0",
        "sweep.label=range(1,3)", "model.seed=range(1.0,3.0)", "model=glob(t*)", "~tracking.tags", "sweep.label='1_0'", "x",
        "sweep.label=[1", "model.architecture={hidden_size: 64, rope_theta: 10000.0}",
    ],
)  # fmt: skip
def test_all_other_values_are_unchanged(typed: str) -> None:
    assert quoted(typed) == typed


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("compile.options.x=1e400", ["compile.options.x=1e400", "too large", "'compile.options.x=\"1e400\"'"]),
        ("+model.architecture.y=0.12345678901234567891", ["more digits", "type 0.12345678901234568"]),
        ("tracking.tags={1_0: a}", ["type tracking.tags.1_0=VALUE"]),
        ("compile.options={true: 1}", ["type compile.options.true=VALUE"]),
    ],
)
def test_texts_that_cannot_be_kept_are_refused_with_the_form_to_type(typed: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        quoted(typed)
    assert all(each in str(refused.value) for each in words), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_number_in_a_file_keeps_its_digits_or_is_refused(loader, folder: Path) -> None:
    good = experiment(folder, "compile: {options: {x: 0.1, y: 10000.0, z: 1e-05, n: 017}}\n")
    assert composed(loader, good).compile.options == {"x": 0.1, "y": 10000.0, "z": 1e-05, "n": 15}
    for text in ("0.12345678901234567891", "1e400"):
        with pytest.raises(ConfigError, match=r"compile\.options\.x="):
            composed(loader, experiment(folder, f"compile: {{options: {{x: {text}}}}}\n"))


def test_texts_of_a_group_file_and_of_an_alias_are_as_in_the_file(loader, folder: Path) -> None:
    (folder / "tracking").mkdir(exist_ok=True)
    text = "tags: &all {commit: 48e12, 2024_1: 1_0}\nexperiment: 1_0\n"
    (folder / "tracking/mine.yaml").write_text(text, encoding="utf-8")
    config = composed(loader, "tracking=mine")
    assert config.tracking.tags == {"commit": "48e12", "2024_1": "1_0"}
    assert config.tracking.experiment == "1_0"
    text = "sweep: &one {label: 1_0}\nmodel:\n  revision: 1e5\n  <<: {seed: 3}\ntracking: {tags: {<<: *one}}\n"
    config = composed(loader, experiment(folder, text))
    assert (config.sweep.label, config.model.revision, config.model.seed) == ("1_0", "1e5", 3)
    assert config.tracking.tags == {"label": "1_0"}


def test_a_choice_of_a_group_is_a_name_whatever_it_looks_like(loader, folder: Path) -> None:
    (folder / "experiment/2024_11_29.yaml").write_text("# @package _global_\nsweep: {repeats: 3}\n", encoding="utf-8")
    assert composed(loader, "experiment=2024_11_29").sweep.repeats == 3
    (folder / "experiment/1_1.yaml").write_text("# @package _global_\nsweep: {repeats: 5}\n", encoding="utf-8")
    found = points(loader, "experiment=2024_11_29,1_1")
    assert [each.sweep.repeats for each in found] == [3, 5]
    assert {each.sweep.repeats for each in points(loader, "experiment=glob(2024*)")} == {3}


def test_the_target_of_a_reference_is_a_text_in_a_tag(master) -> None:
    lines = ["tracking.tags.seed=${sweep.seed}", "tracking.tags.on=${monitor.enabled}", "tracking.tags.none=null"]
    lines.append(quoted("tracking.tags.a.b=7"))
    config = to_config(master.compose(lines), lines)
    assert config.tracking.tags == {"seed": "0", "on": "true", "a.b": "7"}


def test_settings_of_a_sweep_are_named_as_typed(loader) -> None:
    values = values_as_typed(parse(["model.revision=1_0,12e4567,x"])[0])
    assert [short_name({"model.revision": each}) for each in values] == ["revision=1_0", "12e4567", "x"]
    assert [file_name(short_name({"sweep.label": each})) for each in values[:1]] == ["label=1_0"]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        (ModelConfig, {"revision": 12e4567}),
        (SweepConfig, {"name": 20241129}),
        (SweepConfig, {"label": True}),
        (TrackingConfig, {"tags": {"commit": 48e12}}),
        (TrackingConfig, {"tags": {"a": {"n": 7}}}),
    ],
)
def test_a_number_for_a_text_key_is_refused_in_python(section: type, value: dict[str, Any]) -> None:
    name = section.__name__.removesuffix("Config").lower()
    with pytest.raises(ConfigError, match="a text stands in quotes") as refused:
        BenchmarkConfig(**{name: section(**value)})
    assert str(refused.value).startswith(f"{name}.{next(iter(value))}")
    assert "\n" not in str(refused.value)


# ---- the command that measures once more ---------------------------------------------------------------------------

ODD = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=200).filter(
    lambda text: "${" not in text
)


@examples(6)
@given(identity=ODD, revisions=st.lists(ODD, min_size=1, max_size=2, unique=True), tag=TEXTS)
@example(identity="a b $HOME 'c' \"d\" `e` \\ \\\\ #f, {g}: [h] =i", revisions=["1_0", "10"], tag="x")
@example(identity="two\nlines\n\n and a tab\t", revisions=[" x ", "12e4567"], tag="x")
@example(identity="long " * 60, revisions=["it's", '"'], tag="x")
@example(identity="- a: b", revisions=["null", "true"], tag="x")
def test_a_reports_command_measures_the_typed_values(loader, tmp_path_factory, identity, revisions, tag) -> None:
    typed = [f"model.id={in_quotes(identity)}", f"model.revision={','.join(map(in_quotes, revisions))}"]
    made, master = sweeper(loader, *typed, "compile.options.x=0.1", f"sweep.label={in_quotes(tag)}")
    expanded = made._expand(list(master.hydra.overrides.task))
    folder = tmp_path_factory.mktemp("job")
    (folder / ".hydra").mkdir()
    lines = [f"{key}={value}" for key, value in expanded[-1].items()]
    OmegaConf.save(OmegaConf.create(lines), folder / ".hydra" / OVERRIDES_NAME)  # as Hydra writes it
    swept = {"model.revision": [each["model.revision"] for each in expanded]} if len(revisions) > 1 else {}
    words = shlex.split(command_of(_overrides(folder) or [], swept))
    assert words[:3] == ["python", "-m", "bench"]
    again = points(loader, *(each for each in words[3:] if each != "-m"))
    assert [(each.model.id, each.model.revision, each.sweep.label, each.compile.options.x) for each in again] == [
        (identity, each, tag, 0.1) for each in revisions
    ]


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_shows_texts_as_typed(tmp_path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/1_0.yaml").write_text("# @package _global_\nsweep: {label: 1_1}\n", encoding="utf-8")
    typed = ["sweep.name=2024_11_29", "tracking.tags.commit=48e12", "hydra.run.dir=2024_11_29", "hydra.job.name=1_0"]
    done = run_bench("--cfg", "all", "--config-dir", "conf", "experiment=1_0", *typed, folder=tmp_path)
    config = yaml.safe_load(done.stdout)
    assert (config["sweep"]["name"], config["sweep"]["label"]) == ("2024_11_29", "1_1")
    assert config["tracking"]["tags"] == {"commit": "48e12"}
    assert (config["hydra"]["run"]["dir"], config["hydra"]["job"]["name"]) == ("2024_11_29", "1_0")


def test_a_refusal_shows_the_typed_value(tmp_path) -> None:
    done = run_bench("compile.cache=1_0", folder=tmp_path)
    assert done.stderr == "bench: compile.cache=1_0: allowed: fresh, shared\n"


@pytest.mark.slow
def test_a_sweep_keeps_its_typed_name_in_folder_record_and_plan(tmp_path) -> None:
    few = ["warmup.iterations=0", "measurement.iterations=1", "fidelity.reference=none", "tracking=off"]
    typed = ["sweep.name=2024_11_29", "sweep.label=1_0,10", "tracking.tags.commit=48e12"]
    done = run_bench("-m", *typed, *few, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "multirun/2024_11_29"
    requested = {}
    for path in folder.glob("*/record.json"):
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        requested[record["requested"]["sweep"]["label"]] = record
        kept = yaml.safe_load((path.parent / ".hydra/config.yaml").read_text(encoding="utf-8"))
        assert kept["sweep"] == record["requested"]["sweep"]
        assert record["requested"]["tracking"]["tags"] == {"commit": "48e12"}
        assert path.parent.name.partition("_")[2] == f"label={record['requested']['sweep']['label']}"
    assert set(requested) == {"1_0", "10"}
