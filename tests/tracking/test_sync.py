"""`python -m bench.tracking.sync` on real folders and databases."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from bench.cli.sync import main
from bench.results.record import Record
from bench.tracking.publish_mark import Mark, read_mark, record_key, write_mark
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.opening import open_store
from bench.tracking.store.store import Store
from factories import MEDIAN_E2E_S, STARTED_AT_S, make_config, make_record

DEAD = "http://me:s3cret@127.0.0.1:9"  # the discard port: nothing answers


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and the experiment, to copy: making one takes seconds."""
    folder = tmp_path_factory.mktemp("empty")
    open_store(None, "bench", folder)
    return folder / "mlflow.db"


@pytest.fixture
def start(tmp_path: Path, empty: Path) -> Path:
    """A start folder with a database."""
    (tmp_path / "mlflow.db").write_bytes(empty.read_bytes())
    return tmp_path


@pytest.fixture
def store(start: Path) -> Store:
    return open_store(None, "other", start)  # the copied one keeps artifacts elsewhere


@pytest.fixture
def sync(capsys, start, store):
    """Run the command line in this process; returns status, the closing line, and the problems."""

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        status = main(["--experiment", "other", *(str(each) for each in arguments)])
        said = capsys.readouterr()
        return status, said.out.strip(), said.err.splitlines()

    return run


def runs(store: Store, kind: str = "trial") -> list:
    return store.find_runs(kind=kind)


def test_what_was_not_published_is_published_once_however_often(start, store, sync, sweep_on_disk):
    jobs = sweep_on_disk(start)
    assert sync(start / "multirun" / "night-1") == (0, "published 3, already there 0, failed 0", [])
    assert sync(start / "multirun" / "night-1") == (0, "published 0, already there 3, failed 0", [])
    assert sync("--all", start) == (0, "published 0, already there 3, failed 0", [])
    keys = {record_key(record) for record, _ in jobs}
    assert {each.data.tags["record_key"] for each in runs(store)} == keys
    assert len(runs(store)) == 3
    run = runs(store)[0]
    assert run.data.metrics["e2e_ms"] == pytest.approx(MEDIAN_E2E_S * 1000)
    assert run.data.params["compile.mode"] == "default"
    assert run.data.tags["team"] == "x"
    found = {each.path for each in store.client.list_artifacts(run.info.run_id)}
    assert found == {"record.json", "worker.log", "calls.json", "summary.md"}
    for record, folder in jobs:
        mark = read_mark(folder)
        assert mark is not None
        assert mark.says(key=record_key(record), uri=store.uri, experiment="other")


def test_the_sweeps_own_run_is_made_and_ended(start, store, sync, sweep_on_disk):
    folder = sweep_on_disk(start)[0][1].parent
    (folder / "comparison.md").write_text("nothing established")
    sync(folder)
    (parent,) = runs(store, "sweep")
    assert (parent.info.run_name, parent.info.status) == ("night", "FINISHED")
    assert parent.info.start_time == (STARTED_AT_S - 1) * 1000
    assert parent.info.end_time == (STARTED_AT_S + 290) * 1000
    assert parent.data.params == {"compile.mode": "default"}
    assert {"status": "ok", "n_jobs": "3", "n_ok": "3", "team": "x"}.items() <= parent.data.tags.items()
    assert {each.data.tags["mlflow.parentRunId"] for each in runs(store)} == {parent.info.run_id}
    assert [each.path for each in store.client.list_artifacts(parent.info.run_id)] == ["comparison.md"]


def test_a_sweep_that_is_incomplete_ends_as_interrupted(start, store, sync, sweep_on_disk):
    jobs = sweep_on_disk(start)
    (jobs[2][1] / "record.json").unlink()
    assert sync(start)[:2] == (0, "published 2, already there 0, failed 0")
    (parent,) = runs(store, "sweep")
    assert (parent.info.status, parent.data.tags["n_jobs"]) == ("KILLED", "2")
    jobs[2][0].write(jobs[2][1])
    assert sync(start)[:2] == (0, "published 1, already there 2, failed 0")
    (parent,) = runs(store, "sweep")
    assert (parent.info.status, parent.data.tags["n_jobs"]) == ("FINISHED", "3")


def test_the_run_of_a_sweep_that_is_running_is_not_ended(start, store, sync, sweep_on_disk):
    folder = sweep_on_disk(start)[0][1].parent
    with FileLock(folder / ".lock"):
        assert sync(folder)[:2] == (0, "published 3, already there 0, failed 0")
        assert runs(store, "sweep")[0].info.status == "RUNNING"
    assert sync(folder)[:2] == (0, "published 0, already there 3, failed 0")
    assert runs(store, "sweep")[0].info.status == "FINISHED"


def test_one_job_of_a_sweep_may_be_named(start, store, sync, sweep_on_disk):
    jobs = sweep_on_disk(start)
    assert sync(jobs[1][1])[:2] == (0, "published 1, already there 0, failed 0")
    assert [each.data.tags["repeat"] for each in runs(store)] == ["2"]
    assert sync(jobs[1][1], start)[:2] == (0, "published 2, already there 1, failed 0")
    assert runs(store, "sweep")[0].info.status == "FINISHED"


def test_the_start_folder_holds_single_runs_and_sweeps(start, store, sync, sweep_on_disk, job_on_disk):
    sweep_on_disk(start, "night-1", jobs=1)
    sweep_on_disk(start, "night-2", jobs=1)
    job_on_disk(start / "outputs" / "2026-01-01_10-00-00")
    job_on_disk(start / "mlartifacts" / "1" / "ab12" / "artifacts", started_at_s=1.0)
    assert sync(start) == (0, "published 3, already there 0, failed 0", [])
    assert sorted(each.data.tags.get("sweep_id", "single") for each in runs(store)) == ["night-1", "night-2", "single"]


def test_references_and_superseded_attempts_are_not_published(start, store, sync, sweep_on_disk, job_on_disk):
    folder = sweep_on_disk(start, jobs=1)[0][1].parent
    job_on_disk(folder / "references" / "ab12", kind="reference", sweep_id="night-1")
    job_on_disk(folder / "earlier" / "0_default_1", sweep_id="night-1", status="failed", started_at_s=1.0)
    job_on_disk(folder / "a-reference-elsewhere", kind="reference", sweep_id="night-1")
    assert sync(folder) == (0, "published 1, already there 0, failed 0", [])
    assert len(store.find_runs(sweep_id="night-1")) == 2  # with the sweep's own


def test_a_record_measured_again_takes_the_place_of_the_one_that_was_published(start, store, sync, sweep_on_disk):
    jobs = sweep_on_disk(start, jobs=1)
    sync(start)
    dataclasses.replace(jobs[0][0], started_at_s=STARTED_AT_S + 500).write(jobs[0][1])
    assert sync(start)[:2] == (0, "published 1, already there 0, failed 0")
    assert [each.info.start_time for each in runs(store)] == [(STARTED_AT_S + 500) * 1000]
    assert [each.info.start_time for each in runs(store, "superseded")] == [STARTED_AT_S * 1000]
    assert runs(store, "sweep")[0].data.tags["n_jobs"] == "1"


def test_a_run_that_was_begun_and_not_finished_is_finished(start, store, sync, sweep_on_disk):
    record, folder = sweep_on_disk(start, jobs=1)[0]
    store.create_run("half", STARTED_AT_S, {"kind": "trial", "record_key": record_key(record)})
    assert sync(folder)[:2] == (0, "published 1, already there 0, failed 0")
    (run,) = runs(store)
    assert (run.info.status, run.data.metrics["e2e_ms"]) == ("FINISHED", pytest.approx(MEDIAN_E2E_S * 1000))


def test_a_record_that_is_there_without_a_mark_is_found_and_marked(start, store, sync, sweep_on_disk):
    record, folder = sweep_on_disk(start, jobs=1)[0]
    publish(store, record, folder, parent_run_id=None, tags={})
    assert sync(folder)[:2] == (0, "published 0, already there 1, failed 0")
    mark = read_mark(folder)
    assert mark is not None
    assert mark.published


def test_another_store_gets_the_records_too(start, store, sync, sweep_on_disk, empty):
    sweep_on_disk(start, jobs=2)
    sync(start / "multirun")
    (start / "other.db").write_bytes(empty.read_bytes())
    other = f"sqlite:///{start}/other.db"
    assert sync("--tracking-uri", other, start)[:2] == (0, "published 2, already there 0, failed 0")
    assert sync("--tracking-uri", other, start)[:2] == (0, "published 0, already there 2, failed 0")
    assert len(runs(open_store(other, "other", start))) == 2
    assert len(runs(store)) == 2


# ---- where to ----------------------------------------------------------------------------------------------------


def test_without_mark_and_plan_a_record_goes_where_it_was_asked_to(start, job_on_disk, capsys, monkeypatch):
    """The database beside the outputs folder, wherever one stands."""
    monkeypatch.chdir("/")
    job_on_disk(start / "outputs" / "now")
    assert main([str(start / "outputs" / "now")]) == 0
    assert capsys.readouterr().out == "published 1, already there 0, failed 0\n"
    assert len(runs(open_store(None, "bench", start))) == 1


def test_a_record_that_was_not_to_be_published_needs_an_address(start, sync, job_on_disk):
    requested = make_config().to_dict()
    requested["tracking"]["enabled"] = False
    job_on_disk(start / "outputs" / "now", requested=requested)
    status, closing, (problem,) = sync(start)
    assert (status, closing) == (1, "published 0, already there 0, failed 1")
    assert "tracking.enabled=false" in problem
    assert "--tracking-uri" in problem
    address = f"sqlite:///{start}/mlflow.db"
    assert sync("--tracking-uri", address, start) == (0, "published 1, already there 0, failed 0", [])


def test_a_record_in_a_folder_that_tells_nothing_needs_an_address(start, sync, job_on_disk):
    job_on_disk(start / "here")
    status, _, (problem,) = sync(start)
    assert status == 1
    assert "lies below no multirun or outputs folder: say where to with --tracking-uri" in problem


def test_a_sweep_whose_plan_is_broken_is_published_by_its_records(start, store, sync, sweep_on_disk):
    folder = sweep_on_disk(start, jobs=2)[0][1].parent
    (folder / "sweep.json").write_text("")
    status, closing, (problem,) = sync(folder)
    assert (status, closing) == (0, "published 2, already there 0, failed 0")
    assert "sweep.json" in problem
    (parent,) = runs(store, "sweep")
    assert parent.data.tags["sweep_id"] == "night-1"


# ---- problems ----------------------------------------------------------------------------------------------------


def test_records_that_cannot_be_read_are_one_line_each_and_the_others_are_published(start, store, sync, sweep_on_disk):
    jobs = sweep_on_disk(start)
    (jobs[0][1] / "record.json").write_text("{")
    data = json.loads((jobs[1][1] / "record.json").read_text())
    (jobs[1][1] / "record.json").write_text(json.dumps(data | {"schema_version": 1}))
    status, closing, problems = sync(start)
    assert (status, closing) == (1, "published 1, already there 0, failed 2")
    assert len(problems) == 2
    assert "not JSON" in problems[0]
    assert "schema version 1" in problems[1]
    assert len(runs(store)) == 1


def test_a_dead_server_is_one_line_and_its_password_is_nowhere(start, sync, sweep_on_disk):
    jobs = sweep_on_disk(start)
    status, closing, (problem,) = sync("--tracking-uri", DEAD, start)
    assert (status, closing) == (1, "published 0, already there 0, failed 3")
    assert "MLflow at http://127.0.0.1:9 cannot be reached" in problem
    for _, folder in jobs:
        mark = read_mark(folder)
        assert mark is not None
        assert (mark.published, mark.uri) == (False, "http://127.0.0.1:9")
        assert "refused" in str(mark.error)
    for path in start.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes()


def test_a_store_that_cannot_be_used_does_not_unsay_what_is_published_elsewhere(start, sync, sweep_on_disk):
    folder = sweep_on_disk(start, jobs=1)[0][1]
    sync(start)
    assert sync("--tracking-uri", DEAD, start)[0] == 1
    mark = read_mark(folder)
    assert mark is not None
    assert mark.published


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], "no record.json in or below ."),
        (["--tracking-uri", "localhost:5000", "."], "--tracking-uri=localhost:5000 is no address"),
        ([], "the following arguments are required: DIR"),
        (["--al", "."], "unrecognized arguments: --al"),
    ],
)
def test_wrong_arguments_end_with_status_2_and_a_line(arguments, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--tracking-uri" in arguments:
        make_record().write(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_the_command_prints_nothing_of_mlflows(tmp_path, sweep_on_disk):
    """As a user runs it: in a process of its own, which makes the database."""
    sweep_on_disk(tmp_path, jobs=1)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "bench.tracking.sync", "multirun"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "published 1, already there 0, failed 0\n", "")


# ---- at once -----------------------------------------------------------------------------------------------------

FORK = multiprocessing.get_context("fork")


def sync_at_once(folder: str, ready, said) -> None:
    ready.wait(60)
    with Path(said).open("w") as sys.stdout:
        main(["--experiment", "other", folder])


def test_two_at_once_make_no_doubles(start, store, sync, sweep_on_disk, rows):
    sweep_on_disk(start, jobs=6)
    ready = FORK.Barrier(2)
    said = [start / f"said-{number}" for number in range(2)]
    processes = [FORK.Process(target=sync_at_once, args=(str(start), ready, each)) for each in said]
    for each in processes:
        each.start()
    for each in processes:
        each.join(120)
    counts = [[int(word) for word in each.read_text().replace(",", "").split() if word.isdigit()] for each in said]
    assert [sum(each) for each in counts] == [6, 6]
    assert sum(each[0] for each in counts) == 6  # each was published by one of them
    assert len(runs(store)) == 6
    assert len(runs(store, "sweep")) == 1
    assert rows(start / "mlflow.db", "SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted'") == [(0,)]
    assert sync(start)[1] == "published 0, already there 6, failed 0"


@pytest.fixture
def read_only(tmp_path_factory):
    """Let a folder be seen where nothing can be written; needs root."""
    if os.getuid() != 0:
        pytest.skip("only root may mount, and only a mount is read-only for root")
    mounted: list[Path] = []

    def see(folder: Path) -> Path:
        place = tmp_path_factory.mktemp("read-only")
        for options in (["--bind"], ["-o", "remount,bind,ro"]):
            done = subprocess.run(["mount", *options, str(folder), str(place)], capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
            if place not in mounted:
                mounted.append(place)
        return place

    yield see
    for each in mounted:
        subprocess.run(["umount", "--lazy", str(each)], check=False)


def test_folders_that_cannot_be_written_are_published_all_the_same(start, store, sync, sweep_on_disk, read_only):
    sweep_on_disk(start, jobs=2)
    place = read_only(start / "multirun")
    assert sync(place) == (0, "published 2, already there 0, failed 0", [])
    assert sync(place) == (0, "published 0, already there 2, failed 0", [])
    assert len(runs(store)) == 2
    assert not list(start.rglob("tracking.json"))


def test_a_mark_of_a_former_attempt_says_nothing(start, store, sync, sweep_on_disk):
    record, folder = sweep_on_disk(start, jobs=1)[0]
    former = dataclasses.replace(record, started_at_s=1.0)
    uri = f"sqlite:///{start}/mlflow.db"
    write_mark(folder, Mark(published=True, uri=uri, experiment="other", run_id="x", record_key=record_key(former)))
    assert sync(folder)[1] == "published 1, already there 0, failed 0"


def test_the_record_that_is_published_is_the_one_on_disk(start, store, sync, sweep_on_disk, tmp_path_factory):
    record, folder = sweep_on_disk(start, jobs=1)[0]
    sync(folder)
    (run,) = runs(store)
    copy = store.client.download_artifacts(run.info.run_id, "record.json", str(tmp_path_factory.mktemp("copy")))
    assert Record.read(Path(copy)) == record == make_record(**vars(record))


# ---- what a sweep came to ----------------------------------------------------------------------------------------


def artifacts(store: Store, *folders: str) -> dict[str, str]:
    """Path → text, of the files of the only sweep's run, at the top and in these folders."""
    (run,) = runs(store, "sweep")
    listed = [each for folder in (None, *folders) for each in store.client.list_artifacts(run.info.run_id, folder)]
    paths = [each.path for each in listed if not each.is_dir]
    return {path: Path(store.client.download_artifacts(run.info.run_id, path)).read_text() for path in paths}


def test_what_the_end_of_a_sweep_leaves_is_published_with_its_folders(start, store, sync, sweep_on_disk):
    sweep_on_disk(start)
    folder = start / "multirun" / "night-1"
    (folder / "figures").mkdir()
    left = ["comparison.json", "comparison.md", "report.html", "report.md", "figures/curve.svg"]
    for name in [*left, "figures/notes.txt", "multirun.yaml"]:
        (folder / name).write_text(name)
    assert sync(folder)[0] == 0
    assert artifacts(store, "figures") == {name: name for name in left}


def test_what_is_concluded_later_is_published_by_the_next_call_and_then_left_alone(
    start, store, sync, sweep_on_disk, monkeypatch
):
    sweep_on_disk(start)
    folder = start / "multirun" / "night-1"
    assert sync(folder)[0] == 0
    (folder / "report.md").write_text("late")
    assert sync(folder) == (0, "published 0, already there 3, failed 0", [])
    assert artifacts(store) == {"report.md": "late"}
    monkeypatch.setattr(Store, "upload", None)
    assert sync(folder) == (0, "published 0, already there 3, failed 0", [])


# ---- names that MLflow refuses -----------------------------------------------------------------------------------


def test_a_sweep_with_tags_that_mlflow_refuses_is_published_under_other_names(tmp_path, sweep_on_disk, capsys):
    ((_, folder),) = sweep_on_disk(tmp_path, jobs=1)
    plan = json.loads((folder.parent / "sweep.json").read_text())
    plan["tracking"]["tags"] = {"who?": "me", "a//b": "c", "kind": "mine", "complete": "yes", "mlflow.runName": "n"}
    (folder.parent / "sweep.json").write_text(json.dumps(plan))
    assert main([str(folder.parent)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5
    assert any(line.startswith("bench.tracking.sync: the tag 'who?' is stored as 'who_': ") for line in said)
    store = open_store(None, "bench", tmp_path)
    for kind in ("trial", "sweep"):
        (run,) = store.find_runs(kind=kind)
        names = {"who_": "me", "a/_/b": "c", "user.kind": "mine", "user.complete": "yes", "user.mlflow.runName": "n"}
        assert names.items() <= run.data.tags.items()
        assert run.data.tags["mlflow.runName"] != "n"
    assert main([str(folder.parent)]) == 0
    assert capsys.readouterr().err == ""


def test_a_swept_key_that_mlflow_refuses_is_a_param_of_another_name(tmp_path, sweep_on_disk):
    ((_, folder),) = sweep_on_disk(tmp_path, jobs=1)
    plan = json.loads((folder.parent / "sweep.json").read_text())
    plan["swept"] = {"+compile.options.a b%c": ["1", "2"], "+x//y": ["3"], "k" * 300: ["4"], "../z": ["5"]}
    (folder.parent / "sweep.json").write_text(json.dumps(plan))
    assert main([str(folder.parent)]) == 0
    (run,) = open_store(None, "bench", tmp_path).find_runs(kind="sweep")
    assert sorted(run.data.params.values()) == ["1,2", "3", "4", "5"]
    assert run.data.params["_compile.options.a b_c"] == "1,2"


def test_an_experiment_that_cannot_be_is_one_line_with_the_option_to_give(tmp_path, sweep_on_disk, capsys):
    ((_, folder),) = sweep_on_disk(tmp_path, jobs=1)
    assert main([str(folder.parent), "--experiment", "x" * 300]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--experiment='x" in line
    assert "256 characters" in line
