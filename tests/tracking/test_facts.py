"""The tags that say with what, where and from which commit a trial was measured."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from bench.config.mlflow_names import OWN_TAGS
from bench.results.record import Placement, Record
from bench.tracking.publisher import Publisher
from bench.tracking.runs.tags import common_tags, fact_tags
from bench.tracking.runs.trial_run import publish
from bench.trial.hardware.environment import describe_environment
from factories import make_record

COMMIT = "12ab" * 10
ENVIRONMENT: dict[str, Any] = {
    "versions": {"torch": "2.13.0", "transformers": "5.23.0", "bench": "0.9", "python": "3.11.7"},
    "hostname": "node7",
    "start_folder": {"commit": COMMIT, "dirty": True},
}
FACTS = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "bench": "0.9",
    "device": "cpu",
    "device_name": "Test CPU",
    "dtype": "float32",
    "host": "node7",
    "git_commit": COMMIT,
    "git_dirty": "true",
    "mlflow.source.git.commit": COMMIT,
}


def record(**changes: Any) -> Record:
    return make_record(environment=ENVIRONMENT | changes.pop("environment", {}), **changes)


def test_a_trials_run_says_with_what_where_and_from_which_commit(store, tmp_path) -> None:
    run_id = publish(store, record(), tmp_path, parent_run_id=None, tags={})
    tags = store.client.get_run(run_id).data.tags
    assert FACTS.items() <= tags.items()
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("bench", "LOCAL")
    assert tags["mlflow.user"]


def test_runs_can_be_found_by_them(store, tmp_path) -> None:
    other = ENVIRONMENT["versions"] | {"torch": "2.14.1"}
    run_id = publish(store, record(repeat=2, environment={"versions": other}), tmp_path, parent_run_id=None, tags={})
    publish(store, record(repeat=3), tmp_path, parent_run_id=None, tags={})
    query = f"tags.torch = '2.14.1' and tags.host = 'node7' and tags.git_commit = '{COMMIT}'"
    (run,) = store.client.search_runs([store.experiment_id], query)
    assert run.info.run_id == run_id


@pytest.mark.parametrize("environment", [{}, {"versions": None, "sources": None, "start_folder": None}])
def test_a_record_that_lacks_the_facts_gets_no_tags(environment) -> None:
    assert fact_tags(make_record(environment=environment, observed=None)) == {}


@pytest.mark.parametrize("state", [{"commit": None, "dirty": True}, {}, "x"])
def test_without_a_commit_there_is_none_that_could_be_dirty(state) -> None:
    assert not [name for name in fact_tags(record(environment={"start_folder": state})) if "git" in name]


def test_the_version_is_that_of_the_copy_that_was_imported() -> None:
    def torch_of(stated: str) -> str:
        source = {
            "version": stated,
            "installed_version": "2.13.0",
            "folder": "/home/me/torch",
            "came_from": "PYTHONPATH",
        }
        return fact_tags(record(environment={"sources": {"torch": source}}))["torch"]

    assert torch_of("9.9") == "9.9"
    assert torch_of("2.13.0+cpu") == "2.13.0"  # a build, and no other version


def test_the_host_of_a_job_that_an_engine_placed_is_known_without_its_environment() -> None:
    assert fact_tags(make_record(environment={}, placement=Placement(host="node9")))["host"] == "node9"


def test_no_secret_comes_with_them(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "hunter2-and-more")
    run_id = publish(
        store, record(repeat=9, environment={"hostname": "hunter2-and-more"}), tmp_path, parent_run_id=None, tags={}
    )
    assert "hunter2" not in str(store.client.get_run(run_id).data.tags)


def test_the_names_are_reserved_so_that_no_tag_of_the_users_hides_them() -> None:
    assert {name for name in FACTS if not name.startswith("mlflow.")} <= OWN_TAGS


def test_a_sweeps_run_has_the_values_of_all_its_trials(start, store, patient) -> None:
    other = {"hostname": "node8", "start_folder": {"commit": "34cd" * 10, "dirty": False}}
    records = [record(sweep_id="s"), record(sweep_id="s", repeat=2, environment=other)]
    tags = common_tags(records)
    assert (tags["torch"], tags["host"], tags["git_dirty"]) == ("2.13.0", "node7, node8", "true, false")
    assert "mlflow.source.git.commit" not in tags
    publisher = Publisher(uri=None, experiment="bench", tags={}, folder=start, warn=pytest.fail)
    run_id = publisher.begin_sweep(sweep_id="s", name="s", swept={}, settings=[], baseline=None)
    assert publisher.end_sweep(run_id, records, interrupted=False)
    own = store.client.get_run(run_id).data.tags
    assert tags.items() <= own.items()
    assert own["mlflow.source.name"] == "bench"


def test_a_run_published_again_by_somebody_else_stays_its_owners(store, tmp_path, monkeypatch) -> None:
    runs = []
    for name in ("ann", "bob"):
        monkeypatch.setenv("LOGNAME", name)
        run_id = publish(store, record(repeat=20), tmp_path, parent_run_id=None, tags={})
        runs.append(store.client.get_run(run_id))
    assert [each.data.tags["mlflow.user"] for each in runs] == ["ann", "ann"]
    assert runs[0].info.run_id == runs[1].info.run_id


def test_the_environment_of_a_job_has_the_commit_of_the_folder_it_was_started_in(tmp_path, monkeypatch) -> None:
    settings = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for command in (["init"], ["commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *settings, *command], cwd=tmp_path, env=clean, check=True, capture_output=True)
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, env=clean, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    own = make_record(environment=describe_environment("cpu"))
    tags = fact_tags(own)
    assert (tags["git_commit"], tags["git_dirty"]) == (asked.stdout.decode().strip(), "false")
    assert {"torch", "transformers", "bench", "host"} <= set(tags)
