from __future__ import annotations

from bench.tracking.publisher import Publisher
from conftest import run_bench
from factories import make_record

DEAD = "http://127.0.0.1:9"  # the discard port: nothing answers


def make(uri: str | None, folder, warnings: list[str]) -> Publisher:
    return Publisher(uri=uri, experiment="bench", tags={"team": "x"}, folder=folder, warn=warnings.append)


def test_a_dead_server_costs_one_line_and_nothing_else(tmp_path) -> None:
    warnings: list[str] = []
    publisher = make(DEAD, tmp_path, warnings)
    run_id = publisher.begin_sweep(sweep_id="s", name="s", swept={})
    publisher.publish(make_record(), tmp_path, run_id)
    publisher.end_sweep(run_id, [make_record()], interrupted=False)
    assert run_id is None
    assert publisher.ways_on("s") == []
    (warning,) = warnings
    assert warning.startswith(f"not published: MLflow at {DEAD} cannot open the store")
    assert "\n" not in warning


def test_a_server_that_dies_later_costs_a_line_a_record(tmp_path) -> None:
    warnings: list[str] = []
    publisher = make(None, tmp_path, warnings)
    (tmp_path / "mlflow.db").unlink()
    (tmp_path / "mlflow.db").mkdir()
    publisher.publish(make_record(name="sdpa"), tmp_path)
    (warning,) = warnings
    assert warning.startswith("sdpa is not published (its record is in ")


def test_a_store_says_how_to_look_at_it(tmp_path) -> None:
    publisher = make(None, tmp_path, [])
    start, page = publisher.ways_on("sweep-1")
    assert start.startswith("Compare: ")
    assert start.endswith(f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db --host 127.0.0.1")
    assert "#/experiments/1/runs" in page
    assert "sweep-1" in page


def test_the_measurement_stands_when_the_server_is_dead(tmp_path) -> None:
    few = ["warmup.iterations=0", "measurement.iterations=1"]
    done = run_bench(f"tracking.uri={DEAD}", *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not published" in done.stdout
    assert len(list(tmp_path.glob("outputs/*/record.json"))) == 1
