"""Check that points are composed as Hydra's own `load_sweep_config` does, including errors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathElement
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from bench.cli.composition.conf_folder import conf_folder
from bench.cli.composition.config_loader import text_loader
from bench.cli.hydra_command import HydraCommand
from bench.cli.registration import register
from bench.compat import hydra_internals
from hydra_plugins.bench_sweeper.composing import Composer, JobLoader

EXPERIMENT = """
# @package _global_
defaults:
  - override /compile: max-autotune
  - override /model: mine
workload: {batch_size: 7}
hydra: {sweeper: {params: {warmup.iterations: "1,2"}}}
"""
MODEL = """
id: ${oc.env:BENCH_TEST_MODEL,some/model}
weights: pretrained
seed: ${sweep.seed}
"""
FILES = {
    "model/mine.yaml": MODEL,
    "model/two.yaml": "defaults: [tiny]\nseed: 2\n",
    "compile/choice.yaml": "defaults:\n  - ${warmup}_of_compile\n",
    "compile/fixed_of_compile.yaml": "mode: default\n",
    "compile/auto_of_compile.yaml": "mode: max-autotune\n",
    "warmup/elsewhere.yaml": "# @package measurement\niterations: 3\n",
    "warmup/by_name.yaml": "# @package tracking.tags._name_\niterations: 3\n",
    "experiment/mine.yaml": EXPERIMENT,
    "experiment/by_name.yaml": "# @package _global_\nsweep: {name: a}\nmodel: {seed: 3}\n",
    "experiment/of_hydra.yaml": "# @package _global_\ntracking: {tags: {job: '${hydra.job.num}'}}\n",
    "experiment/odd.yaml": "# @package _global_\nworkload: {batch: 3}\n",
    "experiment/wrong.yaml": "# @package _global_\nworkload: {batch_size: many}\n",
    "experiment/linked.yaml": "# @package _global_\ntracking: {tags: ${compile.options}}\n",
    "experiment/broken.yaml": "# @package _global_\ndefaults:\n  - override /model: nowhere\n",
}


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigLoaderImpl]:
    """Return Hydra's loader over conf/ and some user files."""
    Plugins.instance()  # registers choices once a process
    before = Singleton.get_state()
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.lstrip(), encoding="utf-8")
    setup_globals()
    register()
    GlobalHydra.instance().clear()
    search_path = create_config_search_path(str(conf_folder()))
    search_path.get_path().insert(-1, SearchPathElement("command-line", str(folder)))  # Hydra's schemas stay last
    yield ConfigLoaderImpl(search_path)
    Singleton.set_state(before)


def master_of(loader: ConfigLoaderImpl, *typed: str) -> DictConfig:
    """Return the config of the whole sweep."""
    return loader.load_configuration("config", list(typed), RunMode.MULTIRUN)


def outcome(compose: Any, overrides: list[str]) -> tuple[Any, ...]:
    """Describe a result completely (values, references, types and flags), or an error."""
    try:
        config = compose(overrides)
    except Exception as error:  # noqa: BLE001 - whatever it is, both must raise it
        causes = {(type(each), str(each)) for each in (error.__cause__, error.__context__) if each is not None}
        return ("error", type(error), str(error), getattr(error, "options", None), causes)
    nodes = {str(name): described(config._get_node(name)) for name in config if name != "hydra"}
    # Copying it changes no value, but it changes the type information of the nodes.
    config = OmegaConf.masked_copy(config, list(nodes))
    try:
        resolved = repr(OmegaConf.to_container(config, resolve=True))
    except Exception as error:  # noqa: BLE001
        resolved = f"{type(error)} {error}"
    return ("config", repr(OmegaConf.to_container(config, resolve=False)), resolved, nodes)


def described(config: Any, where: str = "") -> list[str]:
    """Return type, flags and annotations of every node."""
    found = [f"{where} {type(config).__name__} {config._metadata}"]
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_interpolation():
        for name in config:
            found += described(config._get_node(name), f"{where}.{name}")
    return found


def check(loader: ConfigLoaderImpl, master: DictConfig, points: list[list[str]]) -> None:
    """Check that both ways give the same for these points, in this order and twice."""
    composer = Composer(loader, master)
    expected = [outcome(lambda lines: loader.load_sweep_config(master, lines), each) for each in points]
    for _ in range(2):
        for point, right in zip(points, expected, strict=True):
            assert outcome(composer.compose, point) == right, point
    assert composer.is_quick  # no result differed, and no step failed


VALUES = [
    [],
    ["workload.batch_size=3"],
    ["workload.batch_size=3", "workload.batch_size=4"],
    ["workload.batch_size=many"],
    ["workload.batch_size=1.5"],
    ["workload.batch_size=null"],
    ["workload.batch=3"],
    ["workload=3"],
    ["workload={batch_size:3}"],
    ["workload={batch:3}"],
    ["nothing=3"],
    ["nothing.at.all=3"],
    ["+nothing.at.all=3"],
    ["+workload.batch_size=3"],
    ["++workload.batch_size=3"],
    ["++workload.new=3"],
    ["device=cpu", "model.dtype=bfloat16"],
    ["device=[cpu]"],
    ["~workload.batch_size"],
    ["~workload.batch_size=1"],
    ["~workload.batch_size=2"],
    ["~workload.prompt_file"],
    ["~device"],
    ["~sweep"],
    ["~nowhere"],
    ["compile.options={triton.cudagraphs:true}", "compile.options.max_autotune=true"],
    ["+compile.options.triton.cudagraphs=true"],
    ["compile.options={a:{b:[1,2,{c:null}]}}"],
    ["model.architecture.hidden_size=8"],
    ["+model.architecture.new=8"],
    ["tracking.tags.who='me, myself'", 'tracking.tags.when="it\'s"'],
    ["search.objectives=[a,b]"],
    ["++search.objectives=[a]"],
    ["sweep.name=x", "sweep.repeats=3"],
    ["workload@other.batch_size=3"],
    ["workload.batch_size@other=3"],
    ["a/b=3"],
    ["workload.batch_size=1,2"],
    ["workload.batch_size=range(1,3)"],
    ["workload.batch_size=int('3')"],
    ["workload.batch_size"],
    ["workload.batch_size="],
    ["=3"],
    ["workload.batch_size=(3"],
]
GROUPS = [
    ["attention=eager"],
    ["attention=flex", "compile=default"],
    ["attention=eager", "attention=flex"],
    ["attention=nothing"],
    ["attention=null"],
    ["attention=3"],
    ["attention=[eager,flex]"],
    ["attention={implementation:eager}"],
    ["+attention=eager"],
    ["++attention=eager"],
    ["+attention@other=eager"],
    ["attention@other=eager"],
    ["+attention@tracking.tags=eager"],
    ["~attention"],
    ["~attention=sdpa"],
    ["~attention=eager"],
    ["~experiment"],
    ["model=smollm2-135m", "workload=long"],
    ["model=random-llama-3.1-8b"],
    ["model=mine"],
    ["model=two"],
    ["model=two", "model.seed=3"],
    ["model=???"],
    ["compile=choice"],
    ["compile=choice", "warmup=auto"],
    ["compile=off", "warmup=auto"],
    ["warmup=elsewhere"],
    ["warmup=by_name"],
    ["warmup=elsewhere", "measurement=adaptive"],
    ["experiment=level1"],
    ["experiment=aa", "sweep.label=a"],
    ["experiment=mine"],
    ["experiment=mine", "compile=off"],
    ["experiment=mine", "model=tiny"],
    ["experiment=by_name", "model=mine"],
    ["experiment=by_name", "model=tiny"],
    ["experiment=odd"],
    ["experiment=wrong"],
    ["experiment=linked"],
    ["experiment=linked", "tracking.tags.a=1"],
    ["experiment=broken"],
    ["experiment=[aa,level1]"],
    ["experiment=of_hydra"],
    ["tracking=off", "tracking.uri=http://here"],
    ["hydra/launcher=basic"],
    ["hydra/launcher=nothing"],
    ["hydra/job_logging=default", "attention=eager"],
    ["workload/short=3"],
]
REFERENCES = [
    ["workload.batch_size=${sweep.repeats}", "sweep.repeats=5"],
    ["workload.batch_size=${sweep.seed}", "~workload.batch_size=0"],
    ["workload.batch_size=${nowhere}"],
    ["workload.prompt_file=${oc.env:HOME}/x"],
    ["workload.prompt_file=${oc.env:NOT_SET_ANYWHERE}"],
    ["workload.prompt_file='${hydra:runtime.cwd}/x'"],
    ["workload.prompt_file='${hydra.runtime.cwd}/x'"],
    ["tracking.tags.job=${hydra:job.num}", "attention=eager"],
    ["tracking.tags.job=${hydra.job.num}", "~tracking.tags.job=0"],
    ["tracking.tags.job=$\\{sweep.seed\\}"],
    ["+linked=${workload}", "+linked.batch_size=9"],
    ["+linked=${workload}", "linked.batch_size=9", "attention=eager"],
    ["tracking.tags=${compile.options}", "compile.options.a=1", "tracking.tags.b=2"],
    ["tracking.tags.a='$5 and \\${escaped}'"],
    ["model=mine", "sweep.seed=9"],
    ["hydra.job.name=other"],
    ["hydra.sweep.dir=x", "workload.batch_size=3"],
    ["hydra.nothing=3"],
    ["+hydra.nothing=3"],
    ["~hydra.job.name"],
    ["~hydra"],
    ["hydra.searchpath=[file:///nowhere]"],
]


def job_outcome(compose: Any, overrides: list[str]) -> tuple[Any, ...]:
    """Return the files that Hydra writes for a job and the full description of its config, or of an error."""
    try:
        config = compose(overrides)
    except Exception as error:  # noqa: BLE001 - whatever it is, both must raise it
        return ("error", type(error), str(error))
    of_hydra = OmegaConf.masked_copy(config, "hydra")
    of_the_job = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    files = [OmegaConf.to_yaml(each) for each in (of_the_job, of_hydra, config.hydra.overrides.task)]
    return ("config", files, described(copy.deepcopy(config)), OmegaConf.get_cache(config))  # a job is run on a copy


PLACE = ["hydra.sweep.dir='/some/where'", "hydra.sweep.subdir='3-a=b'", "+hydra.job.env_set.BENCH_X='{\"a\": 1}'"]


@pytest.mark.parametrize("points", [VALUES[::4], GROUPS[::3], REFERENCES[::2]], ids=["values", "groups", "references"])
@pytest.mark.parametrize("typed", [[], ["hydra.job.env_copy=[HOME]", "hydra/job_logging=default", "sweep.name=all"]])
@pytest.mark.filterwarnings("ignore:provider=hydra.searchpath")
def test_a_jobs_config_and_files_equal_hydras(loader, points: list[list[str]], typed) -> None:
    master = master_of(loader, *typed)
    jobs = JobLoader(loader, Composer(loader, master))
    for point in [*points, *points[:3]]:
        overrides = [*point, *PLACE]
        right = job_outcome(lambda lines: loader.load_sweep_config(master, lines), overrides)
        assert job_outcome(lambda lines: jobs.load_sweep_config(master, lines), overrides) == right, point


@pytest.mark.contract
@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
@pytest.mark.parametrize(
    "typed", [[], ["attention=eager", "workload.batch_size=3", "hydra.job.name=x"], ["model=nowhere"], ["nothing=3"]]
)
def test_a_command_line_is_composed_once_and_as_hydra_composes_it(loader, monkeypatch, typed, mode) -> None:
    asked = [*typed, f"hydra.mode={mode.name}"]
    right = job_outcome(lambda lines: Hydra("bench", loader).compose_config("config", lines, mode), asked)[:2]
    calls = []
    ours = text_loader(loader.get_search_path())
    load = ours._load_configuration_impl
    monkeypatch.setattr(
        ours, "_load_configuration_impl", lambda *args, **named: calls.append(1) or load(*args, **named)
    )
    monkeypatch.setattr(HydraCommand, "is_sweep", mode is RunMode.MULTIRUN)
    command = hydra_internals.command_class(HydraCommand)("bench", ours)
    assert command.get_mode("config", typed) is None
    assert job_outcome(lambda lines: command.compose_config("config", lines, mode), asked)[:2] == right
    assert len(calls) == 1


@pytest.mark.contract
def test_a_command_line_without_a_composed_config_is_left_to_hydra(loader) -> None:
    command = hydra_internals.command_class(HydraCommand)("bench", loader)
    assert command.get_mode("config", ["workload.batch_size=3"]) is None
    assert command.compose_config("config", ["workload.batch_size=4"], RunMode.RUN).workload.batch_size == 4


@pytest.mark.contract
def test_a_job_may_change_its_config(loader) -> None:
    composer = Composer(loader, master_of(loader))
    composer.compose_job(PLACE).hydra.job.num = 3
    composer.compose_job(PLACE).workload.batch_size = 3
    again = composer.compose_job(PLACE)
    assert (OmegaConf.is_missing(again.hydra.job, "num"), again.workload.batch_size) == (True, 1)


@pytest.mark.contract
@pytest.mark.parametrize("points", [VALUES, GROUPS, REFERENCES], ids=["values", "groups", "references"])
@pytest.mark.filterwarnings("ignore:provider=hydra.searchpath")
def test_composed_configs_equal_hydras(loader, points: list[list[str]]) -> None:
    check(loader, master_of(loader), points)


@pytest.mark.contract
def test_hydra_overrides_of_the_command_line_apply(loader) -> None:
    typed = ["hydra.job.name=x", "hydra/job_logging=default", "sweep.name=all"]
    check(loader, master_of(loader, *typed), [["sweep.name=all"], *VALUES[:4], *GROUPS[:4], *REFERENCES[-6:]])


@pytest.mark.contract
def test_hydras_resolver_uses_the_running_job(loader) -> None:
    master = master_of(loader)
    HydraConfig.instance().set_config(master)
    point = ["workload.prompt_file='${hydra:runtime.cwd}/x'"]
    check(loader, master, [point])
    assert Composer(loader, master).compose(point).workload.prompt_file == f"{Path.cwd()}/x"


def test_the_product_of_groups_composes_few_sections(loader) -> None:
    master = master_of(loader)
    points = [
        [f"attention={attention}", f"compile={compiled}", f"warmup={warmup}", f"model={model}"]
        for attention in ("eager", "flex")
        for compiled in ("off", "default", "choice")
        for warmup in ("fixed", "auto", "elsewhere")
        for model in ("tiny", "two", "mine")
    ]
    check(loader, master, points)
    composer = Composer(loader, master)
    first, second = (composer.compose([f"attention={each}", "compile=off"]) for each in ("eager", "flex"))
    assert first.compile is second.compile
    assert (first.attention.implementation, second.attention.implementation) == ("eager", "flex_attention")


@pytest.mark.contract
def test_values_of_one_point_do_not_affect_the_next(loader) -> None:
    composer = Composer(loader, master_of(loader))
    first = composer.compose(["workload.batch_size=3", "+compile.options.a=1"])
    second = composer.compose([])
    assert (first.workload.batch_size, second.workload.batch_size) == (3, 1)
    assert (first.compile.options, second.compile.options) == ({"a": 1}, {})


PIECES = sorted({line for point in [*VALUES, *GROUPS, *REFERENCES] for line in point if "searchpath" not in line})


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(points=st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_mixture_of_overrides_composes_as_in_hydra(loader, points: list[list[str]]) -> None:
    check(loader, master_of(loader), points)
