"""With each private name of Hydra and OmegaConf gone, a command does the same, slower, or refuses in one line."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from bench.cli.composition.text_overrides import quoted, values_as_typed, written
from bench.compat import hydra_internals, omegaconf_internals, override_internals
from bench.compat.private_name import MISSING, PrivateName, entries
from hydra_plugins.bench_sweeper import composing
from refusals import Answer, answer

MODULES = (hydra_internals, omegaconf_internals, override_internals)
ENTRIES = {name: each for module in MODULES for name, each in entries(module).items()}
# Without which there is no sweep: Hydra's sweepers get their values from it.
NEEDED = ("PARSER",)
# What a single run, or a refusal, has to do with.
OF_SINGLE = ("COMMAND", "FLAGS", "GRAMMAR", "LOADER", "LOAD_FILE", "LOAD_WHOLE", "PARSE", "PARSER", "SOURCES")
OF_REFUSAL = ("COMMAND", "FLAGS", "LOADER", "SOURCES")
# Names that Hydra itself reads elsewhere, so that they can really be taken away.
TAKEN_FROM_HYDRA = ("CONTEXT", "DEFAULTS", "FILE_SOURCE", "FLAGS", "INPUT", "LISTENER", "REPOSITORY", "TOKENS")
FILE = """
# @package _global_
sweep: {label: 2024_11_29}
tracking: {tags: {commit: 48e12, count: 017}}
compile: {options: {epilogue_fusion: true}}
"""
SWEEP = ("-m", "experiment=mine", "model=smollm2-135m", "attention=eager,sdpa", "workload.batch_size=range(1,2)", "sweep.name=1_0",
         "model.revision=1e5,main", "tracking.tags.a='1e5'", "compile=off")  # fmt: skip
SINGLE = (
    "experiment=mine",
    "model=smollm2-135m",
    "attention=eager",
    "sweep.name=null",
    "model.revision=1_000",
    "hydra.run.dir=out",
)


def command(folder: Path, *typed: str) -> Answer:
    (folder / "conf/experiment").mkdir(parents=True, exist_ok=True)
    (folder / "conf/experiment/mine.yaml").write_text(FILE.lstrip(), encoding="utf-8")
    return answer(folder, "--config-dir", "conf", *typed)


def points(found: Answer) -> list[tuple[Any, ...]]:
    assert found.status == 0, found.err
    return [(each.overrides, each.swept, each.config.to_dict(), each.config.trial_id()) for each in found.points]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the commands' results with all private names present."""
    folder = tmp_path_factory.mktemp("right")
    return {"sweep": points(command(folder, *SWEEP)), "single": command(folder, *SINGLE).config}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes entries away."""

    def take(*gone: PrivateName) -> None:
        get, of = PrivateName.get, PrivateName.of
        monkeypatch.setattr(PrivateName, "get", lambda self: MISSING if self in gone else get(self))
        monkeypatch.setattr(PrivateName, "of", lambda self, owner: MISSING if self in gone else of(self, owner))

    return take


def test_the_commands_have_the_typed_values(right) -> None:
    """Otherwise the tests below would compare two wrong results."""
    config = right["sweep"][0][2]
    assert (config["sweep"]["label"], config["sweep"]["name"]) == ("2024_11_29", "1_0")
    assert config["tracking"]["tags"] == {"commit": "48e12", "count": "017", "a": "1e5"}
    assert {each[2]["model"]["revision"] for each in right["sweep"]} == {"1e5", "main"}
    assert len({each[3] for each in right["sweep"]}) == len(right["sweep"]) == 4


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - set(NEEDED)))
def test_a_sweep_is_the_same_without_a_private_name(name: str, right, without, tmp_path) -> None:
    without(ENTRIES[name])
    found = command(tmp_path, *SWEEP)
    assert (points(found), found.err) == (right["sweep"], "")


@pytest.mark.parametrize("name", OF_SINGLE)
def test_a_single_run_is_the_same_without_a_private_name(name: str, right, without, tmp_path) -> None:
    without(ENTRIES[name])
    found = command(tmp_path, *SINGLE)
    assert (found.config, found.err) == (right["single"], "")
    assert found.folder == tmp_path / "out"


@pytest.mark.parametrize("name", OF_REFUSAL)
def test_a_user_error_is_one_line_without_a_private_name(name: str, without, tmp_path) -> None:
    without(ENTRIES[name])
    assert "workload.batch_size=many: must be a whole number" in command(tmp_path, "workload.batch_size=many").line
    assert "workload.batch_size=0: must be" in command(tmp_path, "-m", "workload.batch_size=1,0").line


@pytest.mark.parametrize("name", TAKEN_FROM_HYDRA)
def test_a_sweep_is_the_same_on_a_hydra_without_a_private_name(name: str, right, monkeypatch, tmp_path) -> None:
    module, _, attribute = ENTRIES[name].where.partition(":")
    monkeypatch.delattr(importlib.import_module(module), attribute)
    assert points(command(tmp_path, *SWEEP)) == right["sweep"]


def test_without_the_parser_a_sweep_is_refused_in_a_line_that_names_the_versions(without, tmp_path) -> None:
    without(override_internals.PARSER)
    line = command(tmp_path, *SWEEP).line
    assert "OverridesParser" in line
    assert "hydra-core 1.3.2 to 1.4.0rc3" in line


@pytest.mark.parametrize("method", ["_apply_overrides_to_config", "_compose_config_from_defaults_list"])
def test_a_step_with_other_arguments_is_left_to_hydra(method: str, right, monkeypatch, tmp_path) -> None:
    loader = hydra_internals.LOADER.get()
    step = getattr(loader, method)
    is_static = isinstance(loader.__dict__[method], staticmethod)

    def renamed(*things: Any, **named: Any) -> Any:
        return step(*things, **named)

    monkeypatch.setattr(loader, method, staticmethod(renamed) if is_static else renamed)
    made = []
    monkeypatch.setattr(composing, "Loading", lambda *given: made.append(given))
    assert points(command(tmp_path, *SWEEP)) == right["sweep"]
    assert made == []


def test_a_step_with_another_result_is_detected_at_the_first_point(right, monkeypatch, tmp_path) -> None:
    apply = hydra_internals.Steps.apply

    def otherwise(self: Any, overrides: list[Any], config: Any) -> None:
        apply(self, overrides, config)
        OmegaConf.update(config, "workload.batch_size", 77)

    monkeypatch.setattr(hydra_internals.Steps, "apply", otherwise)
    assert points(command(tmp_path, *SWEEP)) == right["sweep"]


def test_a_step_that_fails_is_left_to_hydra(right, monkeypatch, tmp_path) -> None:
    def fail(*_: Any) -> None:
        raise AttributeError("no such attribute in this version")

    monkeypatch.setattr(hydra_internals.Steps, "defaults", fail)
    assert points(command(tmp_path, *SWEEP)) == right["sweep"]


@pytest.mark.parametrize("name", ["GRAMMAR", "LEXER"])
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("sweep.name=2024_11_29", "sweep.name='2024_11_29'"),
        ("sweep.label=1_0,inf,a,TRUE,1.0,1", "sweep.label='1_0',inf,a,'TRUE',1.0,1"),
        ("tracking.tags.a=5", "tracking.tags.a='5'"),
        ("model.revision=v1_0", "model.revision=v1_0"),
        ("workload.batch_size=1_0", "workload.batch_size=1_0"),
        ("sweep.name='1_0'", "sweep.name='1_0'"),
        ("sweep.label=choice(a,'1_0')", "sweep.label=choice(a,'1_0')"),
    ],
)
def test_without_the_grammar_texts_are_quoted_by_their_characters(name: str, typed: str, line: str, without) -> None:
    assert quoted(typed) == line
    without(ENTRIES[name])
    assert quoted(typed) == line


@pytest.mark.parametrize("typed", ["sweep.label=choice(a,1_0)", "tracking.tags={commit: 48e12}", "sweep.label=[1_0]"])
def test_without_the_grammar_values_changed_in_a_structure_are_refused(typed, without, tmp_path) -> None:
    without(override_internals.GRAMMAR)
    line = command(tmp_path, "-m", "attention=eager,sdpa", typed).line
    assert typed.partition("=")[0] in line
    assert "put quotes around it" in line


@pytest.mark.parametrize("typed", ["a=1,b,'1',null,true", "a=[1,'2'],{b:'3',c:null}", "a=str(1),x y,'it is'"])
def test_written_values_are_read_back_unchanged(typed: str, without) -> None:
    def read(lines: Any) -> list[Any]:
        return [override_internals.parse([f"a={each}"])[0].value() for each in lines]

    right = read(values_as_typed(override_internals.parse([typed])[0]))
    without(override_internals.AS_TEXT)
    assert read(values_as_typed(override_internals.parse([typed])[0])) == right
    assert written("1_0") == "'1_0'"


@pytest.mark.parametrize("text", ["", "a", "it's", "\\", "a\\", "\\'", "\\\\'\"", "a\\b", '"', " "])
@pytest.mark.parametrize("mark", ["'", '"'])
def test_a_quoted_text_is_read_back_unchanged(text: str, mark: str) -> None:
    (found,) = override_internals.parse([f"a={override_internals.in_quotes(text, mark)}"])
    assert found.value() == text


@pytest.mark.parametrize("is_there", [True, False])
def test_an_exception_of_a_job_is_shown_without_hydras_lines(is_there: bool, without, capsys) -> None:
    failed, done = JobReturn(), JobReturn()
    failed.overrides = []
    failed.status, failed.return_value = JobStatus.FAILED, ValueError("x")
    done.status, done.return_value = JobStatus.COMPLETED, 3
    if not is_there:
        without(hydra_internals.RETURNED)
    assert (str(hydra_internals.returned(failed)), hydra_internals.returned(done)) == ("x", 3)
    assert capsys.readouterr().err == ""
