"""Test a study without Optuna's one key that is not public."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from bench.jobs.planning.search_space import Choice, Space
from bench.orchestration.search import optuna_internals
from bench.orchestration.search.study import Study

SPACE = Space(parameters=(Choice(key="a", values=["x", "y", "z"]), Choice(key="b", values=["1", "2"])), fixed={})


def study(folder: Path) -> Study:
    return Study(space=SPACE, goals={"e2e_ms": "minimize"}, storage=f"sqlite:///{folder}/s.db", name="s", seed=0)


@pytest.fixture(params=["here", "gone"])
def fixed_params(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return the key as Optuna has it, and one that Optuna does not have."""
    if request.param == "gone":
        monkeypatch.setattr(optuna_internals, "_FIXED_PARAMS", "no_such_key")


@pytest.mark.usefixtures("fixed_params")
def test_a_returned_trial_keeps_its_values_and_comes_first(tmp_path) -> None:
    asking = study(tmp_path)
    first = asking.ask()
    assert first is not None
    asking.give_back(first.number, "killed")
    assert asking.waiting() == [first.values]
    again = study(tmp_path).ask()
    assert again is not None
    assert again.values == first.values


def test_a_trial_returned_twice_is_queued_once(tmp_path) -> None:
    asking = study(tmp_path)
    for _ in range(2):
        trial = asking.ask()
        assert trial is not None
        asking.give_back(trial.number, "killed")
    assert asking.waiting() == [trial.values]


def test_a_queued_trial_in_an_older_database_keeps_its_values(tmp_path) -> None:
    study(tmp_path)
    optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db").enqueue_trial({"a": "z", "b": "2"})
    asking = study(tmp_path)
    assert asking.waiting() == [{"a": "z", "b": "2"}]
    assert asking.ask().values == {"a": "z", "b": "2"}


def test_notes_can_be_written_by_trial_number(tmp_path) -> None:
    first = study(tmp_path).ask()
    assert first is not None
    study(tmp_path).note(first.number, folder="0_x", measured_s=1.5)
    (trial,) = study(tmp_path).trials()
    assert trial.notes == {"folder": "0_x", "measured_s": 1.5}


def test_notes_exclude_attributes_that_bench_stores_itself(tmp_path) -> None:
    asking = study(tmp_path)
    first = asking.ask()
    assert first is not None
    asking.give_back(first.number, "killed")
    again = asking.ask()
    assert again is not None
    assert again.notes == {}
