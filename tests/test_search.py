"""Test a search: overrides become a space, results go to the study, and a real search finds the best setting."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

import refusals
import timed_model
from bench.analysis.objectives import objectives_of, pareto_front
from bench.analysis.trials.headline import headline
from bench.analysis.trials.summary import summarize
from bench.config.rules import ConfigError
from bench.config.schema import (
    OBJECTIVES,
    BenchmarkConfig,
    CompileConfig,
    ProfileConfig,
    SearchConfig,
    SweepConfig,
    TrackingConfig,
)
from bench.jobs.launcher_return import Returned
from bench.jobs.planning.plan import Plan, Point
from bench.jobs.planning.search_space import Choice, Range, Space
from bench.orchestration.search import search as search_module
from bench.orchestration.search.search import search
from bench.orchestration.search.study import Study, StudyError, _address
from bench.results.record import Failure, Fidelity, Record
from bench.results.sweep_file import SweepFile
from conftest import ROOT, run_bench
from factories import MEDIAN_E2E_S, PEAK_MIB, make_config, make_iteration, make_record
from hydra_plugins.bench_sweeper.optuna_sweeper import space_of
from refusals import refused
from started import default_signals

GRID = Space(
    fixed={},
    parameters=(
        Choice(key="attention", values=("eager", "sdpa")),
        Choice(key="workload.batch_size", values=("1", "2", "4")),
        Choice(key="workload.sequence_length", values=("8", "16", "24", "32")),
    ),
)
SMALL = Space(fixed={}, parameters=GRID.parameters[:2])  # six settings
MINIMIZE = {"e2e_ms": "minimize"}


def parsed(*overrides: str) -> Space:
    return space_of(OverridesParser.create().parse_overrides(list(overrides)))


# ---- the space ---------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_keys_with_one_value_are_fixed_and_keys_with_several_are_free() -> None:
    space = parsed(
        "attention=eager,sdpa", "warmup.iterations=3", "workload.batch_size=range(1,9,4)", "model.seed=choice(1)"
    )
    assert space.fixed == {"warmup.iterations": "3", "model.seed": "1"}
    assert space.shown() == {"attention": ["eager", "sdpa"], "workload.batch_size": ["1", "5"]}
    assert space.size() == 4


@pytest.mark.contract
@pytest.mark.parametrize(
    ("override", "parameter"),
    [
        ("a=x,y,x", Choice(key="a", values=("x", "y"))),
        ("a=null,1", Choice(key="a", values=("null", "1"))),
        ("a=shuffle(x,y,z)", Choice(key="a", values=("x", "y", "z"))),
        ("a='x y',z", Choice(key="a", values=("'x y'", "z"))),
        ("+a.b=1,2", Choice(key="+a.b", values=("1", "2"))),
        ("a=range(1,9,4)", Range(key="a", low=1, high=5, step=4, is_int=True)),
        ("a=range(9,1,-4)", Range(key="a", low=5, high=9, step=4, is_int=True)),
        ("a=range(0.5,2,0.5)", Range(key="a", low=0.5, high=1.5, step=0.5, is_int=False)),
        ("a=interval(0,1)", Range(key="a", low=0, high=1, step=None, is_int=False)),
        ("a=int(interval(1,8))", Range(key="a", low=1, high=8, step=1, is_int=True)),
        ("a=tag(log,interval(1,8))", Range(key="a", low=1, high=8, step=None, is_int=False, is_log=True)),
    ],
)  # fmt: skip
def test_each_kind_of_sweep_is_a_kind_of_parameter(override: str, parameter: Choice | Range) -> None:
    assert parsed(override).parameters == (parameter,)


@pytest.mark.contract
def test_the_last_of_two_overrides_of_a_key_counts() -> None:
    assert parsed("a=1,2", "a=3") == Space(fixed={"a": "3"}, parameters=())
    assert parsed("a=3", "a=1,2").size() == 2


@pytest.mark.contract
@pytest.mark.parametrize("override", ["a=interval(2,1)", "a=tag(log,interval(0,1))"])
def test_an_interval_without_numbers_is_refused(override: str) -> None:
    with pytest.raises(HydraException, match="needs a lower and a higher bound"):
        parsed(override)


@pytest.mark.contract
def test_values_are_written_as_typed() -> None:
    (steps,) = parsed("a=range(0.1,0.6,0.1)").parameters
    assert steps.shown() == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    (between,) = parsed("a=interval(0,1)").parameters
    assert between.written(0.123456789) == "0.123457"
    assert between.shown() == ["0.0..1.0"]


@pytest.mark.contract
def test_a_space_knows_its_own_values() -> None:
    space = parsed("a=x,y", "b=range(1,9,4)", "c=interval(0,1)")
    assert space.size() is None
    assert space.holds({"a": "x", "b": "5", "c": "0.3"})
    assert not space.holds({"a": "z", "b": "5", "c": "0.3"})
    assert not space.holds({"a": "x", "b": "4", "c": "0.3"})
    assert not space.holds({"a": "x", "b": "5", "c": "1.5"})
    assert not space.holds({"a": "x", "b": "5"})


@pytest.mark.contract
def test_the_examples_hold_each_value() -> None:
    examples = list(GRID.examples())
    assert len(examples) == 4
    for each in GRID.parameters:
        assert {example[each.key] for example in examples} == set(each.shown())


# ---- objectives --------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_each_objective_is_a_headline_metric() -> None:
    record = make_record()
    assert set(OBJECTIVES) < set(headline(record, summarize(record)))


@pytest.mark.contract
def test_the_values_are_those_of_the_headline_in_full_precision() -> None:
    values = objectives_of(make_record(), ["peak_mib", "e2e_ms"])
    assert values == {"peak_mib": PEAK_MIB, "e2e_ms": pytest.approx(MEDIAN_E2E_S * 1e3, rel=1e-12)}


@pytest.mark.contract
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "skipped", "error": Failure(type="Skipped", message="needs a GPU")}, "skipped: needs a GPU"),
        ({"status": "oom", "error": Failure(type="E", message="no\nmore")}, "oom: no more"),
        ({"status": "crashed", "stage": "load"}, "crashed: ended in load"),
        ({"fidelity": Fidelity(reference="eager", agrees=False, reason="KL")}, "output differs: KL"),
        ({"warmup_status": "not_converged", "warmup_stop": "50 calls"}, "not warm: 50 calls"),
    ],
)
def test_an_ineligible_job_has_a_reason_instead_of_values(changes: dict[str, Any], reason: str) -> None:
    assert objectives_of(make_record(**changes), ["e2e_ms"]) == reason


@pytest.mark.contract
def test_a_figure_missing_in_the_job_is_a_reason() -> None:
    assert objectives_of(make_record(), ["e2e_ms", "j_per_tok"]) == "no value: this job cannot tell j_per_tok"


@pytest.mark.contract
def test_an_output_that_could_not_be_compared_has_values() -> None:
    fidelity = Fidelity(reference="eager", agrees=None, reason="no reference")
    assert isinstance(objectives_of(make_record(fidelity=fidelity), ["e2e_ms"]), dict)


@pytest.mark.contract
def test_the_front_contains_the_undominated_trials() -> None:
    draw = random.Random(1)
    points = [(draw.randrange(6), draw.randrange(6)) for _ in range(60)]
    expected = [
        n for n, (a, b) in enumerate(points) if not any((c <= a and d > b) or (c < a and d >= b) for c, d in points)
    ]
    assert pareto_front(points, ["minimize", "maximize"]) == expected
    assert pareto_front([(3.0,), (1.0,), (1.0,)], ["minimize"]) == [1, 2]
    assert pareto_front([], ["minimize"]) == []


@pytest.mark.contract
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"objectives": ["e2e"]}, r"search.objectives=e2e: allowed: e2e_ms, .*; did you mean e2e_ms\?"),
        ({"objectives": ["steady"]}, "search.objectives=steady: allowed: "),
        ({"objectives": ["e2e_ms", "e2e_ms"]}, r"search.objectives=\[e2e_ms,e2e_ms\]: names e2e_ms twice"),
        ({"objectives": []}, "search.objectives=.*: name one at least"),
        ({"directions": ["minimise"]}, r"search.directions=minimise: allowed: .*; did you mean minimize\?"),
        ({"directions": ["minimize", "maximize"]}, "must be one for each of the 1 search.objectives: e2e_ms"),
        ({"objectives": "e2e"}, r"search.objectives=e2e: allowed: e2e_ms, .*; did you mean e2e_ms\?"),
        ({"objectives": None}, r"search.objectives=null: must be a word, or a list of words: \[A,B\]"),
        ({"objectives": [1]}, r"search.objectives=\[1\]: must be a word, or a list of words: \[A,B\]"),
        ({"objectives": {"e2e_ms": 1}}, "search.objectives=.*: must be a word, or a list of words"),
        ({"directions": "minimise"}, r"search.directions=minimise: allowed: .*; did you mean minimize\?"),
    ],
)
def test_invalid_objectives_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        BenchmarkConfig(search=SearchConfig(**settings))


@pytest.mark.contract
def test_directions_follow_from_the_name_or_are_given() -> None:
    assert SearchConfig(objectives=["peak_mib", "tok_per_s"]).goals() == {
        "peak_mib": "minimize",
        "tok_per_s": "maximize",
    }
    assert SearchConfig(directions=["maximize"]).goals() == {"e2e_ms": "maximize"}


@pytest.mark.contract
def test_one_objective_may_be_a_plain_word_anywhere(tmp_path) -> None:
    assert SearchConfig(objectives="tok_per_s").goals() == {"tok_per_s": "maximize"}  # type: ignore[arg-type]
    assert SearchConfig(objectives="peak_mib", directions="maximize").goals() == {"peak_mib": "maximize"}  # type: ignore[arg-type]
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\nsearch:\n  objectives: peak_mib\n  directions: maximize\n", encoding="utf-8"
    )
    for typed, goals in (
        (["search.objectives=tok_per_s"], {"tok_per_s": "maximize"}),
        (["search.objectives=[tok_per_s]"], {"tok_per_s": "maximize"}),
        (["search.objectives=[tok_per_s,peak_mib]"], {"tok_per_s": "maximize", "peak_mib": "minimize"}),
        (["search.objectives=e2e_ms", "search.directions=maximize"], {"e2e_ms": "maximize"}),
        (["--config-dir", "conf", "experiment=mine"], {"peak_mib": "maximize"}),
        (["--config-dir", "conf", "experiment=mine", "search.objectives=e2e_ms"], {"e2e_ms": "maximize"}),
    ):
        assert refusals.answer(tmp_path, *typed).config.search.goals() == goals, typed


@pytest.mark.contract
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["search.objectives=e2e"], "search.objectives=e2e: allowed: e2e_ms, "),
        (["search.objectives=null"], "search.objectives=null: "),
        (["search.objectives={a:1}"], "search.objectives="),
        (["search.objectives=[e2e_ms,[tok_per_s]]"], "search.objectives="),
    ],
)
def test_a_wrong_objective_is_one_line(tmp_path, typed: list[str], line: str) -> None:
    assert refused(tmp_path, *typed).startswith(line)


def test_another_error_beside_a_plain_word_in_a_file_is_reported(tmp_path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\nsearch:\n  objectives: peak_mib\n  trails: 3\n", encoding="utf-8"
    )
    line = refused(tmp_path, "--config-dir", "conf", "experiment=mine")
    assert "search.trails=3: no such key" in line
    assert "objectives" not in line


# ---- the study ---------------------------------------------------------------------------------------------------


def study(space: Space = GRID, storage: str | None = None, **keywords: Any) -> Study:
    return Study(**{"space": space, "goals": MINIMIZE, "storage": storage, "name": "s", "seed": 0, **keywords})


def trials_until(
    answer: dict[str, str], cost: Callable[[dict[str, str]], float], seed: int, space: Space = GRID
) -> int:
    """Return how many settings are asked for until the best one."""
    asking = study(space, seed=seed)
    for number in itertools.count(1):
        trial = asking.ask()
        assert trial is not None
        if trial.values == answer:
            return number
        asking.tell(trial.number, {"e2e_ms": cost(trial.values)})
    raise AssertionError


def rate_below(limit: int, *, interaction: float, seeds: int) -> float:
    """Return the share of searches that find the best of 24 in fewer trials, over all its positions."""
    found = []
    for answer in itertools.product(*(each.shown() for each in GRID.parameters)):
        best = dict(zip([each.key for each in GRID.parameters], answer, strict=True))
        for seed in range(seeds):
            draw = random.Random(f"{answer} {seed}")
            effects = {(key, value): 0.0 if value == best[key] else draw.uniform(0.1, 1.0)
                       for key, value in ((each.key, value) for each in GRID.parameters for value in each.shown())}  # fmt: skip
            mixed = {point: draw.uniform(0, interaction)
                     for point in itertools.product(*(each.shown() for each in GRID.parameters))}  # fmt: skip

            def cost(values: dict[str, str], effects=effects, mixed=mixed, draw=draw, best=best) -> float:
                own = sum(effects[each] for each in values.items())
                if values != best:
                    own += mixed[tuple(values.values())]
                return (1 + own) * draw.gauss(1, 0.02)

            found.append(trials_until(best, cost, seed) < limit)
    return sum(found) / len(found)


def test_the_best_of_24_is_found_in_fewer_than_15_trials_wherever_it_is() -> None:
    """Additive times with 2 % noise; drawn at random without repeats it would be 14 of 24, which is 58 %."""
    assert rate_below(15, interaction=0.0, seeds=5) >= 0.95


@pytest.mark.contract
def test_an_exhausted_space_ends_the_search_with_each_setting_asked_once() -> None:
    asking = study()
    seen = []
    while (trial := asking.ask()) is not None:
        seen.append(tuple(trial.values.values()))
        asking.tell(trial.number, {"e2e_ms": 1.0} if len(seen) % 5 else "failed: planted")
    assert sorted(seen) == sorted(itertools.product(*(each.shown() for each in GRID.parameters)))


@pytest.mark.contract
@pytest.mark.parametrize(
    "override", ["a=range(0.1,1.2,0.1)", "a=int(interval(1,11))", "a=tag(log,int(interval(1,11)))"]
)
def test_a_range_is_searched_without_repeats(override: str) -> None:
    space = parsed(override)
    asking = study(space)
    seen = []
    while (trial := asking.ask()) is not None:
        seen.append(trial.values["a"])
        asking.tell(trial.number, {"e2e_ms": float(trial.values["a"])})
    assert len(seen) == len(set(seen)) == 11
    assert set(seen) == set(space.parameters[0].shown())


@pytest.mark.contract
def test_an_interval_has_no_end() -> None:
    asking = study(parsed("a=interval(0,1)", "b=x,y"))
    for _ in range(15):
        trial = asking.ask()
        assert trial is not None
        asking.tell(trial.number, {"e2e_ms": float(trial.values["a"])})
    assert len({trial.values["a"] for trial in asking.trials()}) == 15


@pytest.mark.contract
def test_settings_requested_concurrently_differ() -> None:
    asking = study(parallel=8)
    for _ in range(3):
        batch = [asking.ask() for _ in range(8)]
        for trial in batch:
            asking.tell(trial.number, {"e2e_ms": float(trial.number)})
    assert asking.ask() is None
    assert len({tuple(trial.values.values()) for trial in asking.trials()}) == 24


def test_a_returned_setting_is_asked_again_first(tmp_path) -> None:
    asking = study(storage=f"sqlite:///{tmp_path}/s.db")
    first = asking.ask()
    asking.give_back(first.number, "killed")
    assert asking.waiting() == [first.values]
    again = study(storage=f"sqlite:///{tmp_path}/s.db")
    assert again.ask().values == first.values
    assert again.ask().values != first.values


@pytest.mark.contract
def test_several_objectives_may_be_pruned_too() -> None:
    asking = study(goals={"e2e_ms": "minimize", "tok_per_s": "maximize"})
    for number in range(12):
        trial = asking.ask()
        asking.tell(trial.number, "failed: x" if number % 3 == 0 else {"e2e_ms": number, "tok_per_s": number})
    assert [trial.outcome for trial in asking.trials()][:2] == ["failed: x", {"e2e_ms": 1, "tok_per_s": 1}]


def test_a_study_of_another_space_or_other_objectives_is_not_resumed(tmp_path) -> None:
    storage = f"sqlite:///{tmp_path}/s.db"
    study(parsed("a=x,y"), storage)
    study(parsed("a=y,x"), storage)
    with pytest.raises(StudyError, match=r"its study has other space \(a=x,y\)"):
        study(parsed("a=x,z"), storage)
    with pytest.raises(StudyError, match=r"its study has other objectives \(e2e_ms minimize\)"):
        study(parsed("a=x,y"), storage, goals={"tok_per_s": "maximize"})


@pytest.mark.contract
@pytest.mark.parametrize(
    "storage", ["sqlite:////nowhere/at/all.db", "nosuch://localhost/x", "postgresql://me:hunter22@localhost:1/x"]
)
def test_a_database_that_cannot_be_opened_is_one_line_without_its_password(storage: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(storage=storage)
    assert "\n" not in str(caught.value)
    assert "hunter22" not in str(caught.value)


@pytest.mark.contract
def test_postgresql_is_reached_with_the_installed_driver(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _address("postgresql://host/x") == "postgresql+psycopg2://host/x"
    assert _address("postgresql+pg8000://host/x") == "postgresql+pg8000://host/x"
    assert _address("sqlite:////x.db") == "sqlite:////x.db"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert _address("postgresql://host/x") == "postgresql://host/x"


@pytest.mark.contract
def test_only_one_module_imports_optuna() -> None:
    users = [path.name for path in (ROOT / "src").rglob("*.py") if "import optuna" in path.read_text(encoding="utf-8")]
    assert users == ["study.py"]


# ---- a whole search, without jobs ------------------------------------------------------------------------------------


def compose(values: Mapping[str, str], **keywords: Any) -> Point:
    config = make_config(
        attn_implementation=values.get("attention", "eager"),
        batch_size=int(values.get("workload.batch_size", 1)),
        sequence_length=int(values.get("workload.sequence_length", 8)),
        compile_kwargs=None,
    )
    config.compile = CompileConfig(fullgraph=values.get("compile.fullgraph") == "true")
    config.tracking = TrackingConfig(enabled=False)
    for name, value in keywords.items():
        setattr(config, name, value)
    config.check()
    return Point(overrides=tuple(f"{key}={value}" for key, value in values.items()), swept=dict(values), config=config)


class Launcher:
    """A launcher that writes records instead of running jobs; a setting's time follows from its numbers."""

    def __init__(self, folder: Path, fates: Mapping[str, str] | None = None) -> None:
        self.folder, self.fates, self.ran = folder, dict(fates or {}), []

    def __call__(self, plan: Plan, assignments: Mapping[int, Any], on_return: Any) -> None:
        for job, point in zip(plan.jobs, plan.points, strict=True):
            fate = self.fates.get(job.name, "ok")
            if fate == "interrupt":
                raise KeyboardInterrupt
            self.ran.append(job.name)
            if fate == "lost":
                continue
            on_file = {each.folder for each in SweepFile.read(self.folder).jobs}
            assert job.folder in on_file
            workload = point.config.workload
            call = make_iteration(0, "measurement", ttft_s=workload.batch_size / 10 + workload.sequence_length / 100)
            record = make_record(
                trial_id=job.trial_id,
                name=job.name,
                swept=job.swept,
                requested=point.config.to_dict(),
                iterations=[call],
            )
            if fate != "ok":
                record.fail(fate, "Planted", "planted")
            (self.folder / job.folder).mkdir(parents=True)
            record.write(self.folder / job.folder)
            on_return(job.number, Returned(status=record.status))


def run(tmp_path: Path, launcher: Launcher | None = None, space: Space = GRID, **keywords: Any) -> tuple[int, Launcher]:
    folder = tmp_path / "multirun/s"
    launcher = launcher or Launcher(folder)
    config = {"sweep": SweepConfig(name="s", resume=folder.exists()), "search": SearchConfig(trials=6), **keywords}
    status = search(space, lambda values: compose(values, **config), folder=folder, launch=launcher, is_local=False)
    return status, launcher


def found(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "multirun/s/search.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch) -> None:
    monkeypatch.setattr(search_module, "current_environment", lambda *, is_local: {})


@pytest.mark.contract
def test_as_many_jobs_run_as_trials_were_requested(tmp_path, capsys) -> None:
    status, launcher = run(tmp_path)
    assert (status, len(launcher.ran), len(set(launcher.ran))) == (0, 6, 6)
    assert found(tmp_path)["jobs"] == len(found(tmp_path)["trials"]) == 6
    text = capsys.readouterr().out
    assert "Best of 6 trials, e2e_ms minimized" in text
    assert "descriptive, one process each: not a verdict" in text


def test_more_trials_continue_the_search(tmp_path, capsys) -> None:
    _, first = run(tmp_path)
    _, second = run(tmp_path, search=SearchConfig(trials=10))
    assert len(second.ran) == 4
    assert not set(first.ran) & set(second.ran)
    assert "6 of 10 jobs are done" in capsys.readouterr().out
    _, third = run(tmp_path, search=SearchConfig(trials=10))
    assert third.ran == []


@pytest.mark.contract
def test_a_lost_study_is_rebuilt_from_the_records(tmp_path) -> None:
    _, first = run(tmp_path)
    (tmp_path / "multirun/s/search.db").unlink()
    _, second = run(tmp_path, search=SearchConfig(trials=9))
    assert len(second.ran) == 3
    assert not set(first.ran) & set(second.ran)
    assert len(found(tmp_path)["trials"]) == 9


def test_an_exhausted_space_ends_the_search(tmp_path, capsys) -> None:
    status, launcher = run(tmp_path, space=SMALL, search=SearchConfig(trials=100, parallel=4))
    assert (status, len(launcher.ran)) == (0, 6)
    assert "the search ends: all 6 settings of the space are measured or refused" in capsys.readouterr().out
    (best,) = found(tmp_path)["front"][:1]
    assert best["swept"]["workload.batch_size"] == "1"


def test_another_spelling_of_a_setting_is_no_second_job(tmp_path) -> None:
    space = Space(
        fixed={},
        parameters=(
            Choice(key="compile.fullgraph", values=("true", "false")),  # not compiled: it means nothing
            Choice(key="workload.batch_size", values=("1", "2", "4")),
        ),
    )
    status, launcher = run(tmp_path, space=space, search=SearchConfig(trials=20))
    assert (status, len(launcher.ran)) == (0, 3)


def test_a_search_over_an_interval_without_effect_ends_too(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(search_module, "IDLE", 10)
    space = Space(fixed={}, parameters=(Range(key="warmup.max_s", low=1, high=2, step=None, is_int=False),))
    status, launcher = run(tmp_path, space=space)
    assert (status, len(launcher.ran)) == (0, 1)
    assert "10 settings in a row were known" in capsys.readouterr().out


@pytest.mark.contract
def test_a_failed_job_is_pruned_and_the_search_continues(tmp_path) -> None:
    fates = {"eager batch_size=2": "crashed", "sdpa batch_size=2": "crashed", "sdpa batch_size=1": "skipped"}
    fates["sdpa batch_size=4"] = "lost"
    launcher = Launcher(tmp_path / "multirun/s", fates)
    status, _ = run(tmp_path, launcher, space=SMALL, search=SearchConfig(trials=6))
    assert (status, len(launcher.ran)) == (1, 6)
    assert found(tmp_path)["pruned"] == {"crashed": 2, "skipped": 1, "no record": 1}
    assert found(tmp_path)["jobs"] == 6


def test_a_setting_that_the_rules_refuse_is_pruned_with_the_reason(tmp_path) -> None:
    def picky(values: dict[str, str]) -> Point:
        if values["attention"] == "sdpa" and values["workload.batch_size"] == "4":
            raise ConfigError("attention", "sdpa", "not with four")
        return compose(values, sweep=SweepConfig(name="s"), search=SearchConfig(trials=24))

    folder = tmp_path / "multirun/s"
    launcher = Launcher(folder)
    assert search(SMALL, picky, folder=folder, launch=launcher, is_local=False) == 0
    assert len(launcher.ran) == 5
    assert found(tmp_path)["pruned"] == {"refused": 1}
    assert found(tmp_path)["refused"] == ["refused: attention=sdpa: not with four"]


def test_a_value_that_never_works_is_a_user_error(tmp_path) -> None:
    def picky(values: dict[str, str]) -> Point:
        if values["attention"] == "sdpa":
            raise ConfigError("attention", "sdpa", "no such thing")
        return compose(values)

    with pytest.raises(ConfigError, match="no such thing"):
        search(GRID, picky, folder=tmp_path / "s", launch=Launcher(tmp_path), is_local=False)
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_failure_fails_the_job_and_the_search_continues(tmp_path, capsys) -> None:
    class Failing(Launcher):
        def __call__(self, plan: Plan, assignments: Mapping[int, Any], on_return: Any) -> None:
            if len(self.ran) == 2 and "failed" not in self.fates:
                self.fates["failed"] = "once"
                raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
            super().__call__(plan, assignments, on_return)

    status, launcher = run(tmp_path, Failing(tmp_path / "multirun/s"))
    assert (status, len(launcher.ran)) == (1, 5)
    statuses = sorted(Record.read(path).status for path in tmp_path.glob("multirun/s/*/record.json"))
    assert statuses == ["failed", *["ok"] * 5]
    assert "ulimit -u" in capsys.readouterr().out


def test_a_temporarily_unwritable_plan_fails_no_job(tmp_path, capsys, monkeypatch) -> None:
    real, tries = SweepFile.write, []

    def write(self: SweepFile, folder: Path) -> None:
        tries.append(folder)
        if len(tries) == 3:  # the first two are made before the first job
            raise OSError(errno.EMFILE, "Too many open files")
        real(self, folder)

    class Unchecked(Launcher):
        def __call__(self, plan: Plan, assignments: Mapping[int, Any], on_return: Any) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(SweepFile, "read", lambda _: SweepFile(**{**vars(real_file), "jobs": plan.jobs}))
                super().__call__(plan, assignments, on_return)

    real_file = SweepFile(sweep_id="s", name="s", started_at_s=0.0, launched_at_s=0.0, settings=[], jobs=[])
    monkeypatch.setattr(SweepFile, "write", write)
    status, launcher = run(tmp_path, Unchecked(tmp_path / "multirun/s"))
    assert (status, len(launcher.ran)) == (0, 6)
    assert "sweep.json lacks the jobs to come: Too many open files" in capsys.readouterr().out


def test_a_search_resumed_with_further_outputs_is_refused(tmp_path) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"of the jobs that are done 6 would have to run again \(no profile\)"):
        run(tmp_path, profile=ProfileConfig(num_tokens=2), search=SearchConfig(trials=8))
    assert len(list(tmp_path.glob("multirun/s/*/record.json"))) == 6


def test_an_interruption_between_jobs_keeps_finished_jobs(tmp_path, capsys) -> None:
    fates = {"sdpa batch_size=1": "interrupt"}
    before = Launcher(tmp_path / "multirun/s", fates)
    status, _ = run(tmp_path, before, space=SMALL)
    assert status == 130
    assert "Resume: python -m bench" in capsys.readouterr().out
    status, after = run(tmp_path, space=SMALL)
    assert (status, after.ran[0]) == (0, "sdpa batch_size=1")
    assert len([*before.ran, *after.ran]) == len({*before.ran, *after.ran}) == 6


def test_other_fixed_overrides_are_not_mixed_with_a_search(tmp_path) -> None:
    run(tmp_path)
    workload = dataclasses.replace(compose({}).config.workload, num_tokens_to_generate=9)

    def other(values: dict[str, str]) -> Point:
        config = {"sweep": SweepConfig(name="s", resume=True), "search": SearchConfig(trials=8)}
        size = int(values["workload.batch_size"])
        length = int(values["workload.sequence_length"])
        return compose(
            values, **config, workload=dataclasses.replace(workload, batch_size=size, sequence_length=length)
        )

    with pytest.raises(ConfigError, match="what is fixed differs from what this search measured"):
        search(GRID, other, folder=tmp_path / "multirun/s", launch=Launcher(tmp_path), is_local=False)


def test_another_environment_ends_a_search(tmp_path, monkeypatch) -> None:
    run(tmp_path)
    monkeypatch.setattr(search_module, "current_environment", lambda *, is_local: {"torch": "9"})
    with pytest.raises(ConfigError, match=r"the environment has changed \(torch .*start another sweep.name"):
        run(tmp_path)


def test_a_search_that_loses_its_database_stops_with_its_results(tmp_path, capsys) -> None:
    folder = tmp_path / "multirun/s"
    launcher = Launcher(folder)

    def spoil(*launched: Any) -> None:
        launcher(*launched)
        if len(launcher.ran) == 3:
            (folder / "search.db").write_text("no database " * 1000, encoding="utf-8")

    status, _ = run(tmp_path, spoil)
    assert status == 1
    text = capsys.readouterr().out
    assert f"Stopped: sqlite:///{folder}/search.db takes no more: " in text
    assert "Resume: " in text
    (folder / "search.db").unlink()
    assert run(tmp_path)[0] == 0
    assert len(found(tmp_path)["trials"]) == 6


def test_a_missing_optuna_is_one_line(tmp_path) -> None:
    (tmp_path / "optuna.py").write_text("raise ImportError('No module named optuna')", encoding="utf-8")
    done = run_bench(
        "-m", "hydra/sweeper=optuna", "attention=eager,sdpa", folder=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}"
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("bench: hydra/sweeper=optuna: needs the extra `optuna`")
    assert done.stderr.count("\n") == 1


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["attention=sdpa"], "hydra/sweeper=optuna: has nothing to choose from: "),
        (["attention=eager,sdqa"], "attention=sdqa: no such choice; allowed: "),
        (["workload.batch_size=1,0"], "workload.batch_size=0: must be at least 1"),
        (["attention=eager,sdpa", "search.objectives=[e2e]"], "search.objectives=e2e: allowed: "),
        (["attention=eager,sdpa", "sweep.repeats=2"], "sweep.repeats=2: a search measures each setting once"),
        (["attention=eager,sdpa", "sweep.baseline=eager"], "sweep.baseline=eager: a search compares with none"),
        (["search.seed=1,2"], "search.seed=1,2: is one for the whole search"),
        (["search.objectives=tok_per_s,peak_mib"], "search.objectives=tok_per_s,peak_mib: with commas alone it is a key "
         "to search; several of them are a list: 'search.objectives=[tok_per_s,peak_mib]'"),
        (["experiment=level1"], "hydra.sweeper.settings="),
        (["attention=eager,sdpa", "search.trials=2000"], "sweep.max_jobs=1000: this sweep has 2000 jobs"),
        (["attention=eager,sdpa", "search.storage=postgresql://me:hunter22@localhost/x"],
         "search.storage=postgresql://localhost/x: holds a user's secret"),
        (["attention=eager,sdpa", "sweep.resume=true"], "sweep.resume=true: needs the name of the sweep"),
    ],
)  # fmt: skip
def test_a_user_error_is_one_line_and_leaves_nothing(tmp_path, arguments: list[str], line: str) -> None:
    done = run_bench("-m", "hydra/sweeper=optuna", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stdout + done.stderr
    assert done.stderr.startswith(f"bench: {line}")
    assert "hunter22" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_space_and_creates_nothing(tmp_path) -> None:
    done = run_bench(
        "-m", "hydra/sweeper=optuna", "attention=eager,sdpa", "workload.batch_size=range(1,5)", "search.trials=5",
        "search.objectives=[tok_per_s,peak_mib]", "sweep.dry_run=true", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Search for tok_per_s (maximize), peak_mib (minimize)" in done.stdout
    assert "workload.batch_size: 1, 2, 3, 4" in done.stdout
    assert "8 settings, 5 jobs at most: 0 done, 5 to run, 1 at once" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_file_is_a_space(tmp_path) -> None:
    done = run_bench(
        "-m", "hydra/sweeper=optuna", "experiment=attention_x_compile", "sweep.dry_run=true", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "compile: off, default, reduce-overhead, max-autotune" in done.stdout
    assert "16 settings" in done.stdout


# ---- the command, with real jobs ---------------------------------------------------------------------------------


def records(folder: Path) -> list[Record]:
    return [Record.read(path) for path in sorted(folder.glob("multirun/s/*/record.json"))]


def in_mlflow(folder: Path, kind: str = "trial") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bench"]
    return client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", max_results=1000)


@pytest.mark.slow
def test_a_real_search_finds_the_best_of_24_in_fewer_than_15_jobs(tmp_path) -> None:
    model = timed_model.make_model(tmp_path / "model")
    times_s = {"eager": 0.5, "sdpa": 0.0, "1": 0.7, "2": 0.0, "4": 0.4, "8": 0.5, "16": 0.8, "24": 0.0, "32": 0.4}
    timed_model.plant(model, times_s)
    done = run_bench(
        "-m", "hydra/sweeper=optuna", *timed_model.arguments(model), "attention=eager,sdpa", "workload.batch_size=1,2,4",
        "workload.sequence_length=8,16,24,32", "search.trials=14", "measurement.iterations=3",
        "sweep.name=s", "tracking=off", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records(tmp_path)) == 14
    assert len({record.trial_id for record in records(tmp_path)}) == 14
    (best,) = found(tmp_path)["front"]
    assert best["name"] == "sdpa batch_size=2 sequence_length=24"
    assert "Best of 14 trials, e2e_ms minimized" in done.stdout


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Run a search, kill its process during its third job, then resume it."""
    folder = tmp_path_factory.mktemp("killed")
    model = timed_model.make_model(folder / "model")
    command = ["-m", "hydra/sweeper=optuna", *timed_model.arguments(model), "workload.batch_size=1,2,4",
               "workload.sequence_length=8,16", "search.trials=5", "sweep.name=s"]  # fmt: skip
    timed_model.plant(model, hangs=3)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "MLFLOW_"))}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *command],
            cwd=folder, env=kept, stdout=out, stderr=out, start_new_session=True, preexec_fn=default_signals,
        )  # fmt: skip
    while not (model / "reached").exists():
        assert process.poll() is None, (folder / "out").read_text(encoding="utf-8")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = records(folder)
    timed_model.plant(model)
    second = run_bench(*command, "sweep.resume=true", folder=folder)
    return folder, command, before, second


def states(folder: Path) -> list[str]:
    """Return the state of each trial in the study's database."""
    import sqlite3

    with sqlite3.connect(folder / "multirun/s/search.db") as database:
        return sorted(state for (state,) in database.execute("SELECT state FROM trials"))


@pytest.mark.slow
def test_a_killed_search_resumes_without_loss_or_repeat(killed) -> None:
    folder, _, before, second = killed
    assert second.returncode == 0, second.stdout + second.stderr
    assert len([each for each in before if each.status == "ok"]) == 2
    assert "Resuming " in second.stdout
    assert "2 of 5 jobs are done" in second.stdout
    after = records(folder)
    assert [each.status for each in after] == ["ok"] * 5
    assert len({each.trial_id for each in after}) == 5
    assert {each.started_at_s for each in before if each.status == "ok"} <= {each.started_at_s for each in after}
    assert states(folder) == ["COMPLETE"] * 5 + ["FAIL"]


@pytest.mark.slow
def test_mlflow_agrees_with_the_folder_of_a_killed_search(killed) -> None:
    folder = killed[0]
    trials, (parent,) = in_mlflow(folder), in_mlflow(folder, "sweep")
    assert {run.data.tags["trial_id"] for run in trials} == {each.trial_id for each in records(folder)}
    assert [run.info.status for run in [*trials, parent]] == ["FINISHED"] * 6
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}


@pytest.mark.slow
def test_a_search_that_lost_its_database_resumes_with_one_more_trial(killed) -> None:
    folder, command, *_ = killed
    (folder / "multirun/s/search.db").unlink()
    third = run_bench(*command, "sweep.resume=true", "search.trials=6", folder=folder)
    assert third.returncode == 0, third.stdout + third.stderr
    assert len({each.trial_id for each in records(folder)}) == len(records(folder)) == 6
    assert states(folder) == ["COMPLETE"] * 6


@pytest.mark.slow
def test_an_unreachable_database_starts_nothing_and_hides_its_password(tmp_path) -> None:
    done = run_bench(
        "-m", "hydra/sweeper=optuna", "attention=eager,sdpa", "search.storage=${oc.env:WHERE}", "tracking=off",
        folder=tmp_path, WHERE="postgresql://me:hunter22@localhost:1/x",
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stdout + done.stderr
    assert done.stderr.startswith("bench: search.storage=postgresql://localhost:1/x: ")
    assert "cannot be opened" in done.stderr
    assert "hunter22" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_skipped_settings_are_pruned_and_the_front_equals_brute_force(tmp_path) -> None:
    model = timed_model.make_model(tmp_path / "model")
    timed_model.plant(model, {"2": 0.3, "4": 0.5, "16": 0.2}, fails=[["2", "16"]])
    done = run_bench(
        "-m", "hydra/sweeper=optuna", *timed_model.arguments(model), "attention=eager,flash2",
        "workload.batch_size=1,2,4", "workload.sequence_length=8,16,5000", "search.objectives=[e2e_ms,tok_per_s]",
        "search.trials=30", "search.parallel=2", "sweep.name=s", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr  # one has failed
    told = found(tmp_path)
    assert told["pruned"] == {"refused": 6, "skipped": 6, "failed": 1}
    assert all("5000" in reason for reason in told["refused"])
    assert "the search ends: all 18 settings of the space are measured or refused" in done.stdout
    values = {}
    for record in records(tmp_path):
        if record.status == "ok":
            (call,) = record.calls("measurement")
            size = record.requested["workload"]["batch_size"]
            values[record.name] = (call.e2e_s, size * len(call.token_times_s) / call.e2e_s)
    assert len(values) == 5
    front = {name for name, (a, b) in values.items()
             if not any((c <= a and d > b) or (c < a and d >= b) for c, d in values.values())}  # fmt: skip
    assert {row["name"] for row in told["front"]} == front
    assert f"Pareto front: {len(front)} of 5 trials, e2e_ms minimized, tok_per_s maximized" in done.stdout
    (parent,) = in_mlflow(tmp_path, "sweep")
    assert len(in_mlflow(tmp_path)) == 12
    assert parent.data.tags["status"] == "failed"


@pytest.mark.slow
def test_ctrl_c_keeps_finished_jobs_and_the_setting_is_measured_later(tmp_path) -> None:
    model = timed_model.make_model(tmp_path / "model")
    timed_model.plant(model, hangs=2)
    command = ["-m", "hydra/sweeper=optuna", *timed_model.arguments(model), "workload.batch_size=1,2,4",
               "search.trials=3", "sweep.name=s", "tracking=off"]  # fmt: skip
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *command],
            cwd=tmp_path, stdout=out, stderr=out, start_new_session=True, preexec_fn=default_signals,
        )  # fmt: skip
    while not (model / "reached").exists():
        assert process.poll() is None, (tmp_path / "out").read_text(encoding="utf-8")
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert "Resume: python -m bench -m hydra/sweeper=optuna" in text
    assert "Best of 1 trial, " in text
    assert states(tmp_path) == ["COMPLETE", "FAIL", "WAITING"]
    timed_model.plant(model)
    done = run_bench(*command, "sweep.resume=true", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.status for each in records(tmp_path)] == ["ok"] * 3
    assert states(tmp_path) == ["COMPLETE"] * 3 + ["FAIL"]
