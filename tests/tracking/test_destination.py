"""Which store and which experiment: a key, else MLflow's variable, else the default, and who said so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config.rules import ConfigError
from bench.config.schema import BenchmarkConfig, TrackingConfig
from bench.jobs.assignment import Assignment
from bench.orchestration import publish_target as conducted
from bench.results.sweep_file import Job, SweepFile
from bench.tracking.store.destination import AddressError, Destination, absolute_address, decide, location_uri
from bench.tracking.store.errors import TrackingError
from bench.tracking.store.opening import open_store

SERVER = "http://mlflow.example:5000"


def config(**tracking: object) -> BenchmarkConfig:
    return BenchmarkConfig(tracking=TrackingConfig(**tracking))


@pytest.mark.parametrize(
    ("keys", "variables", "uri", "experiment", "origin"),
    [
        ((None, None), {}, None, "bench", "default"),
        ((None, None), {"MLFLOW_TRACKING_URI": SERVER}, SERVER, "bench", "from MLFLOW_TRACKING_URI"),
        (("sqlite:///a.db", None), {"MLFLOW_TRACKING_URI": SERVER}, "sqlite:///a.db", "bench", "from tracking.uri"),
        ((None, None), {"MLFLOW_TRACKING_URI": " ", "MLFLOW_EXPERIMENT_NAME": ""}, None, "bench", "default"),
        ((None, None), {"MLFLOW_EXPERIMENT_NAME": "nights"}, None, "nights",
         "default, experiment nights from MLFLOW_EXPERIMENT_NAME"),
        # A value that is the default is one that was typed all the same.
        ((None, "bench"), {"MLFLOW_EXPERIMENT_NAME": "nights"}, None, "bench",
         "default, experiment bench from tracking.experiment"),
        ((None, "mine"), {"MLFLOW_EXPERIMENT_ID": "7", "MLFLOW_TRACKING_URI": SERVER}, SERVER, "mine",
         "from MLFLOW_TRACKING_URI, experiment mine from tracking.experiment"),
    ],
)  # fmt: skip
def test_a_key_comes_before_a_variable_before_the_default(keys, variables, uri, experiment, origin) -> None:
    found = decide(uri=keys[0], experiment=keys[1], environment=variables)
    assert (found.uri, found.experiment, found.experiment_id, found.origin) == (uri, experiment, None, origin)


def test_an_experiment_may_be_named_by_its_id() -> None:
    found = decide(uri=None, experiment=None, environment={"MLFLOW_EXPERIMENT_ID": "7"})
    assert (found.experiment, found.experiment_id) == (None, "7")
    assert found.origin == "default, experiment from MLFLOW_EXPERIMENT_ID"


@pytest.mark.parametrize("value", ["./mlruns", "mlruns", "/data/mlruns", "file:///data/mlruns", "localhost:5000"])
def test_a_variable_that_is_no_address_is_refused_by_its_own_name(value: str, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
    with pytest.raises(ConfigError) as caught:
        conducted.decided(config())
    assert str(caught.value).startswith(f"MLFLOW_TRACKING_URI={value}: is no address that MLflow can record to: write ")
    assert "or unset MLFLOW_TRACKING_URI" in str(caught.value)
    assert conducted.decided(config(uri=SERVER)).uri == SERVER  # it does not count
    assert conducted.decided(config(enabled=False)) == Destination()


@pytest.mark.parametrize("value", ["sqlite:///", "sqlite:///:memory:", "sqlite://"])
def test_a_variable_that_names_no_file_is_refused(value: str) -> None:
    with pytest.raises(AddressError, match=r"MLFLOW_TRACKING_URI=sqlite:.* names no file"):
        decide(uri=None, experiment=None, environment={"MLFLOW_TRACKING_URI": value})


def test_a_refusal_hides_the_password_of_an_address() -> None:
    with pytest.raises(AddressError) as caught:
        absolute_address("file://me:hunter2@host/x", Path("/"), "MLFLOW_TRACKING_URI")
    assert "hunter2" not in str(caught.value)


def test_the_variable_for_artifacts_is_for_databases_alone() -> None:
    variables = {"MLFLOW_DEFAULT_ARTIFACT_ROOT": "store"}

    def location(uri: str | None, key: str | None = None) -> str | None:
        return decide(uri=uri, experiment=None, artifact_location=key, environment=variables).artifact_location

    assert location(None) == "store"
    assert location(None, "mine") == "mine"
    assert location(SERVER) is None  # its own variable of that name counts, on its own machine
    assert location(SERVER, "s3://bucket/mine") == "s3://bucket/mine"


def test_a_location_counts_from_the_start_folder(tmp_path: Path) -> None:
    assert location_uri("a #b", tmp_path) == f"{tmp_path.as_uri()}/a%20%23b"
    assert location_uri("/x", tmp_path) == "file:///x"
    assert location_uri("~/x", tmp_path) == (Path.home() / "x").as_uri()
    assert location_uri("s3://bucket/x", tmp_path) == "s3://bucket/x"


def test_a_new_experiment_keeps_its_artifacts_where_it_is_told(tmp_path: Path) -> None:
    store = open_store(None, "bench", tmp_path, artifact_location="my store")
    run_id = store.create_run("x", 1.0, {})
    store.upload_texts(run_id, {"a.txt": "a"})
    assert (tmp_path / "my store" / run_id / "artifacts/a.txt").read_text() == "a"
    assert not (tmp_path / "mlartifacts").exists()


def test_an_experiment_is_found_by_its_id_and_a_wrong_id_names_its_variable(tmp_path: Path) -> None:
    known = open_store(None, "nights", tmp_path)
    found = open_store(None, None, tmp_path, experiment_id=known.experiment_id)
    assert (found.experiment, found.experiment_id) == ("nights", known.experiment_id)
    for wrong in ("77", "x"):
        with pytest.raises(TrackingError, match=f"^MLFLOW_EXPERIMENT_ID={wrong} is no experiment of MLflow at sqlite:"):
            open_store(None, None, tmp_path, experiment_id=wrong)
    with pytest.raises(TrackingError, match="or not the one that MLFLOW_EXPERIMENT_NAME=other names"):
        open_store(None, "other", tmp_path, experiment_id=known.experiment_id)
    assert {each.name for each in known.client.search_experiments()} == {"Default", "nights"}


# ---- on other machines, and when a sweep goes on ---------------------------------------------------------------------


def given(**fields: object) -> Assignment:
    job = Job(number=0, name="x", repeat=1, trial_id="a", swept={}, folder="0_x", done=False)
    plain = {"sweep_id": "s", "parent_run_id": None, "job": job, "jobs": 1, "to_run": 1, "behind": 0}
    return Assignment(**plain, launched_at_s=1.0, is_compared=False, is_local=False, **fields)


def test_a_job_elsewhere_goes_by_what_it_was_given_and_not_by_its_machines_variables(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://another:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "/another")
    told = Assignment.from_text(given(tracking_uri=SERVER, experiment="nights", artifact_location="s3://b/x").to_text())
    found = conducted.handed_on(config(), told)
    assert (found.uri, found.experiment, found.artifact_location) == (SERVER, "nights", "s3://b/x")


def test_its_variables_may_add_the_credentials_that_no_assignment_holds(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@mlflow.example:5000")
    assert conducted.handed_on(config(), given(tracking_uri=SERVER)).uri == "http://me:hunter2@mlflow.example:5000"
    assert conducted.handed_on(config(), given(tracking_uri="http://other:5000")).uri == "http://other:5000"


def sweep_file(tmp_path: Path, **tracking: object) -> SweepFile:
    told = {"uri": f"sqlite:///{tmp_path}/a.db", "experiment": "bench", "database": "../../a.db", "tags": {}}
    (tmp_path / "a.db").touch()
    return SweepFile(
        sweep_id="s", name="s", started_at_s=1.0, launched_at_s=1.0, settings=[], jobs=[], tracking=told | tracking
    )


def go_on(tmp_path: Path, file: SweepFile, **keys: object) -> tuple[Destination, list[str]]:
    lines: list[str] = []
    return conducted.resumed(config(**keys), file, tmp_path / "multirun/s", lines.append), lines


@pytest.fixture
def there(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_sweep_goes_on_where_it_was_published_whatever_the_variable_says_now(there: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "days")
    found, (line,) = go_on(there, sweep_file(there))
    assert (found.uri, found.experiment) == (f"sqlite:///{there}/a.db", "bench")
    assert "it goes on in" in line
    assert f"not in {SERVER} (experiment days) (from MLFLOW_TRACKING_URI, experiment days from" in line
    assert found.origin == "from sweep.json"


def test_a_key_that_is_typed_now_wins_over_the_sweeps_own_place(there: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "days")
    found, (line,) = go_on(there, sweep_file(there), uri=SERVER)
    assert (found.uri, found.experiment) == (SERVER, "bench")
    assert f"published to sqlite:///{there}/a.db (experiment bench); it goes on in {SERVER} (experiment bench)" in line


def test_nothing_is_said_where_nothing_differs(there: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    found, lines = go_on(there, sweep_file(there))
    assert lines == []
    assert found.uri_from == "MLFLOW_TRACKING_URI"


def test_a_place_that_is_gone_is_not_made_again(there: Path) -> None:
    file = sweep_file(there, uri="sqlite:////nowhere/x.db", database=None)
    found, (line,) = go_on(there, file)
    assert found == Destination()
    assert (
        line
        == f"this sweep was published to sqlite:////nowhere/x.db, which is gone: it goes on in sqlite:///{there}/mlflow.db"
    )


def test_credentials_of_the_variable_serve_a_sweep_that_goes_on(there: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@mlflow.example:5000")
    found, lines = go_on(there, sweep_file(there, uri=SERVER, database=None))
    assert lines == []
    assert found.uri == "http://me:hunter2@mlflow.example:5000"
