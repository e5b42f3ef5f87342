"""The description of an experiment in MLflow: written where there is none, and never over one of the user's own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.results.sweep_file import SweepInfo
from bench.tracking.publisher import Publisher
from bench.tracking.runs.experiment_note import NOTE, describe_experiment, is_own, signed
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store

_experiments = itertools.count(1)
SWEEP = SweepInfo(sweep_id="s", name="night", started_at_s=1.0)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The start folder of all experiments here, for a new database takes seconds."""
    return tmp_path_factory.mktemp("start")


@pytest.fixture
def store(start: Path) -> Store:
    """An experiment of the test's own."""
    return open_store(None, f"bench-{next(_experiments)}", start)


def note_of(store: Store) -> str | None:
    tags = store.client.get_experiment(store.experiment_id).tags
    return tags.get(NOTE)


def test_a_sweep_gives_its_experiment_a_description_with_its_pages(start, store, patient) -> None:
    publisher = Publisher(uri=None, experiment=store.experiment, tags={}, folder=start, warn=pytest.fail)
    publisher.begin_sweep(sweep_id="s", name="night", swept={}, settings=[], baseline=None)
    note = note_of(store) or ""
    table = next(line for line in publisher.ways_on("s") if "table:" in line).partition("/#")[2]
    assert f"night: [table](#{table})" in note.splitlines()[0]  # all that the UI shows at first
    for word in ("rank", "unranked_ms", "e2e_ms", "cold_s", "≠", "~", "!", "?", "scripts/ui"):
        assert f"`{word}`" in note
    assert len(note) < 3000  # of 5000 that every release keeps


def test_the_latest_sweep_takes_the_place_of_the_one_before(store) -> None:
    describe_experiment(store, SWEEP, "first")
    describe_experiment(store, SWEEP, "second")
    assert "=second" in (note_of(store) or "")
    assert "=first" not in (note_of(store) or "")


@pytest.mark.parametrize("change", ["mine", "{note} and mine", "mine {note}", "{unsigned}"])
def test_a_description_of_the_users_stays(store, change) -> None:
    describe_experiment(store, SWEEP, "key")
    note = note_of(store) or ""
    mine = change.format(note=note, unsigned=note.rpartition("<!--")[0])
    store.client.set_experiment_tag(store.experiment_id, NOTE, mine)
    describe_experiment(store, SWEEP, "other")
    assert note_of(store) == mine


def test_an_empty_description_is_none(store) -> None:
    store.client.set_experiment_tag(store.experiment_id, NOTE, " \n")
    describe_experiment(store, None, None)
    assert is_own(note_of(store) or "")


def test_what_is_signed_is_known_again() -> None:
    assert is_own(signed("a\n\nb\n"))
    assert not is_own(signed("a").replace("a", "b", 1))
