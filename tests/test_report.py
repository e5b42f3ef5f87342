"""Test what `python -m bench.report`, `bench.load_records` and the end of a sweep write, print and refuse."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console

import bench
from bench.cli.report import main
from bench.config.schema import BenchmarkConfig, SweepConfig
from bench.host import atomic_files
from bench.jobs.planning.plan import Plan
from bench.jobs.planning.resume import Found, Resumption
from bench.orchestration.sweep_end import Concluded, finish
from bench.orchestration.sweep_state import SweepState
from bench.report.rows import COLUMNS
from bench.report.text.section import Section
from bench.results.record import Failure, Record
from bench.results.sweep_file import Job
from bench.tracking.runs.trial_run import publish
from bench.tracking.store.destination import Destination
from bench.tracking.store.opening import open_store
from conftest import run_bench
from factories import make_evidence
from snapshots import contents, snapshot
from sweeps import EAGER, SDPA, job, jobs, sweep


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Write a sweep over eager and sdpa, two repeats each."""
    records = jobs({"eager": EAGER[:2], "sdpa": SDPA[:2]}, sweep_id="night-1")
    return sweep(
        tmp_path / "multirun" / "night", records, settings=["eager", "sdpa"], swept={"attention": ["eager", "sdpa"]}
    )


@pytest.fixture
def reported(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command, expect a status, and return what it printed."""

    def run(*arguments: object, status: int = 0) -> str:
        assert main(list(map(str, arguments))) == status
        out, run.said = capsys.readouterr()
        return out

    return run


@pytest.fixture
def refused(reported) -> Any:
    """Run the command, expect status 2 and one line, and return that."""

    def run(*arguments: object) -> str:
        assert reported(*arguments, status=2) == ""
        assert reported.said.count("\n") == 1
        assert reported.said.startswith("bench.report: ")
        return reported.said.removeprefix("bench.report: ").rstrip("\n")

    return run


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_report_is_written_to_the_sweeps_folder(night, reported) -> None:
    assert reported(night) == f"{night}/report.html\n"
    assert "Lowest median, no verdict: sdpa" in (night / "report.html").read_text(encoding="utf-8")
    assert (night / "report.md").read_text(encoding="utf-8").startswith("# night-1\n")
    assert (night / "figures" / "warmup_curves.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_report_may_be_written_again_and_elsewhere(night, reported, tmp_path) -> None:
    for _ in range(2):
        assert reported(night, "--output", tmp_path / "a" / "b") == f"{tmp_path}/a/b/report.html\n"
    assert not (night / "report.html").exists()


def test_html_without_other_formats_is_one_file(night, reported, tmp_path) -> None:
    assert reported(night, "--format", "html", "--output", tmp_path / "page.html") == f"{tmp_path}/page.html\n"
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not (tmp_path / "figures").exists()


def test_a_single_job_has_a_report_too(night, reported) -> None:
    reported(night / "0_eager")
    assert "One setting, and nothing to compare it with." in (night / "0_eager/report.html").read_text(encoding="utf-8")


def test_markdown_is_printed_and_links_only_existing_files(night, reported) -> None:
    text = reported(night, "--format", "markdown")
    assert text.startswith("# night-1\n")
    assert "](figures/" not in text
    assert list(night.glob("report*")) == []


def test_the_command_that_repeats_the_sweep_is_on_the_page(night, reported) -> None:
    path = night / "0_eager" / ".hydra"
    path.mkdir()
    (path / "overrides.yaml").write_text("- attention=eager\n- model.id=tiny\n- tracking.uri=sqlite:///x\n")
    assert "python -m bench -m attention=eager,sdpa model.id=tiny\n" in reported(night, "--format", "markdown")


def test_a_missing_baseline_is_noted(tmp_path, reported) -> None:
    folder = sweep(tmp_path / "night", jobs({"eager": EAGER[:1]}), settings=["eager"], baseline="flex")
    assert "not compared: the baseline flex: no such setting" in reported(folder, "--format", "markdown")


def test_a_sweep_in_mlflow_is_written_to_its_own_folder(tmp_path, reported, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(None, "bench", tmp_path)
    for number, record in enumerate(jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}, sweep_id="night-1")):
        (tmp_path / str(number)).mkdir()
        record.write(tmp_path / str(number))
        publish(store, record, tmp_path / str(number), parent_run_id=None, tags={})
    assert reported("mlflow:night-1") == "report-night-1/report.html\n"
    assert (tmp_path / "report-night-1/figures").is_dir()
    assert "python -m bench.report mlflow:night-1" in (tmp_path / "report-night-1/report.md").read_text(
        encoding="utf-8"
    )


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_csv_has_a_row_for_each_trial_and_repeat(night, reported) -> None:
    rows = list(csv.DictReader(io.StringIO(reported(night, "--format", "csv"))))
    assert [(row["name"], row["repeat"], row["attention"]) for row in rows] == [
        ("eager", "1", "eager"), ("sdpa", "1", "sdpa"), ("eager", "2", "eager"), ("sdpa", "2", "sdpa"),
    ]  # fmt: skip
    assert float(rows[0]["e2e_ms"]) == pytest.approx(1000)


def test_json_is_a_list_of_the_same_rows(night, reported, tmp_path) -> None:
    assert reported(night, "--format", "json", "--output", tmp_path / "a" / "rows.json") == f"{tmp_path}/a/rows.json\n"
    rows = json.loads((tmp_path / "a" / "rows.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == ["eager", "sdpa"] * 2


def test_rows_of_several_sweeps_are_combined(night, reported) -> None:
    sweep(night.parent / "later", [job("flex", 1.0, sweep_id="later-1")], settings=["flex"])
    rows = json.loads(reported(night.parent, "--format", "json"))
    assert [row["sweep_id"] for row in rows] == ["later-1", *["night-1"] * 4]


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: SOURCE; see python -m bench.report --help"),
        (["nowhere/x"], "nowhere/x: no such file or folder"),
        (["multirun"], "multirun: holds no records itself; name a sweep in it, such as multirun/night"),
        (["multirun/night", "--format", "pdf"], "invalid choice"),
        (["multirun/night", "--formats", "csv"], "unrecognized arguments"),
        (["multirun/night", "--output", "multirun/night/sweep.json"], "is a file"),
        (["multirun/night", "--format", "csv", "--output", "multirun"], "is a folder"),
        (["multirun/night", "--format", "html", "--output", "multirun"], "is a folder"),
        (["multirun/night", "--output", "multirun/night/sweep.json/x"], "cannot be written"),
    ],
)
def test_a_user_error_is_one_line(night, refused, monkeypatch, arguments, said) -> None:
    monkeypatch.chdir(night.parents[1])
    assert said in refused(*arguments)


def test_existing_files_are_not_overwritten(night, refused) -> None:
    (night / "report.html").mkdir()
    (night / "report.html" / "mine").touch()
    assert "report.html: is in the way; move it, or name another folder with --output" in refused(night)


@pytest.mark.parametrize("name", ["report.html", "report.md", "figures/e2e_distributions.svg"])
def test_a_users_file_in_a_folder_not_named_by_the_user_is_not_overwritten(night, refused, name) -> None:
    (night / name).parent.mkdir(exist_ok=True)
    (night / name).write_text("mine")
    before = snapshot(night)
    assert f"{night / name}: is no report of bench and would be overwritten" in refused(night)
    assert snapshot(night) == before


def test_an_earlier_report_of_bench_is_overwritten(night, reported) -> None:
    reported(night)
    before = contents(night)
    for path in (night / "report.html", night / "report.md", *(night / "figures").glob("*.svg")):
        path.write_text(path.read_text() + "<!-- of an earlier version -->")
    reported(night)
    reported(night, "--format", "html")
    assert contents(night) == before


def test_a_file_named_by_the_user_is_overwritten_through_a_link_keeping_its_mode(night, reported, tmp_path) -> None:
    for options in (["--format", "html"], ["--format", "markdown"], ["--format", "csv"]):
        (tmp_path / "there").write_text("mine")
        (tmp_path / "there").chmod(0o600)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("there")
        reported(night, *options, "--output", tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert "eager" in (tmp_path / "there").read_text()
        assert (tmp_path / "there").stat().st_mode & 0o777 == 0o600


def test_a_failed_write_keeps_the_previous_report(night, reported, refused, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reported(night)
    before = contents(night)
    monkeypatch.setattr(atomic_files.os, "fsync", full)
    assert "cannot be written: No space left on device" in refused(night, "--format", "html")
    assert "cannot be written: No space left on device" in refused(night)
    assert contents(night) == before


def test_an_open_file_is_written_to_directly(night, tmp_path) -> None:
    command = [sys.executable, "-m", "bench.report", str(night), "--format", "csv", "--output", "/dev/stdout"]
    with (tmp_path / "rows.csv").open("w") as file:
        subprocess.run(command, stdout=file, check=True)
    assert (tmp_path / "rows.csv").read_text().count("eager") >= 2


def test_missing_records_are_reported_beside_the_output(night, reported) -> None:
    (night / "0_eager" / "record.json").unlink()
    assert "1 of 4 jobs left no record" in reported(night, "--format", "markdown")
    assert reported.said == f"bench.report: {night}: 1 of 4 jobs left no record\n"


# ---- the program ---------------------------------------------------------------------------------------------------


def test_the_module_runs_as_a_program_and_its_pipe_may_close(night) -> None:
    command = f"{sys.executable} -m bench.report {night} --format json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[", "")


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, bench.cli.report\ntry: bench.cli.report.main(['--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--format csv" in done.stdout
    heavy = {"numpy", "scipy", "rich", "mlflow", "torch", "hydra", "pandas", "matplotlib", "jinja2"}
    assert heavy & set(done.stderr.split()) == set()


# ---- a data frame --------------------------------------------------------------------------------------------------


def test_a_frame_has_a_row_for_each_trial_and_repeat(night) -> None:
    frame = bench.load_records(night)
    assert list(frame["name"]) == ["eager", "sdpa", "eager", "sdpa"]
    assert frame.groupby("attention")["e2e_ms"].median().to_dict() == pytest.approx({"eager": 1005, "sdpa": 904.5})


def test_a_frame_has_the_documented_columns_and_the_swept_keys(night) -> None:
    assert sorted(bench.load_records(str(night))) == sorted([*COLUMNS, "attention"])


def test_the_types_of_a_frame_do_not_depend_on_missing_values(night, tmp_path) -> None:
    known = sweep(tmp_path / "known", jobs({"a": EAGER[:1]}, **make_evidence()), settings=["a"])
    first, second = bench.load_records(night).dtypes, bench.load_records(known).dtypes
    assert {name: str(kind) for name, kind in first.items()} == {name: str(kind) for name, kind in second.items()}
    assert [str(first[name]) for name in ("j_per_tok", "steady", "graphs", "error", "attention")] == [
        "float64", "boolean", "Int64", "string", "string",
    ]  # fmt: skip


def test_unknown_values_are_missing_in_a_frame(night) -> None:
    frame = bench.load_records(night)
    assert frame["j_per_tok"].isna().all()
    assert frame["steady"].isna().all()
    assert frame["error"].isna().all()


def test_a_folder_of_sweeps_or_a_record_gives_a_frame_too(night) -> None:
    sweep(night.parent / "later", [job("flex", 1.0, swept={"compile": "off"})], settings=["flex"])
    both = bench.load_records(night.parent)
    assert list(both["name"]) == ["flex", "eager", "sdpa", "eager", "sdpa"]
    assert pd.isna(both["attention"][0])
    assert len(bench.load_records(night / "0_eager" / "record.json")) == 1


def test_nothing_to_load_is_a_value_error_in_one_line(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*holds no record.json[^\n]*$"):
        bench.load_records(tmp_path)


def test_pandas_is_imported_only_when_records_are_loaded() -> None:
    code = "import bench, sys; bench.load_records; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---- the end of a sweep --------------------------------------------------------------------------------------------


class Kept:
    """A fake publisher that stores its arguments."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Any]] = []

    def publish_missing(self, folders: Sequence[Path], run_id: str | None) -> int:
        return 0

    def end_sweep(self, run_id: str | None, records: Sequence[Record], *, interrupted: bool) -> None:
        self.given.append(("end", interrupted))

    def conclude(self, run_id: str | None, **results: Any) -> None:
        self.given.append(("conclude", results))

    def ways_on(self, sweep_id: str | None) -> list[str]:
        return []


def ended(folder: Path, records: Sequence[Record], *, publisher: Any = None, **options: Any) -> list[str]:
    """Return the lines that the end of a sweep prints for these records."""
    folder.mkdir(parents=True, exist_ok=True)
    planned = [
        Job(
            number=number,
            repeat=each.repeat,
            trial_id=each.trial_id,
            name=each.name,
            swept=each.swept,
            folder=str(number),
        )
        for number, each in enumerate(records)
    ]
    names = list(dict.fromkeys(each.name for each in records))
    plan = Plan(sweep_id="night-1", jobs=planned, points=[], duplicates=0, settings=names, baseline=None)
    out = io.StringIO()
    state = SweepState(
        console=Console(file=out, width=300),
        config=BenchmarkConfig(sweep=SweepConfig(name="night")),
        folder=folder,
        found=Found(),
        left=Resumption(plan=plan, again={}, kept=[], changed=[], put_aside=[]),
        publisher=publisher,
        is_local=True,
        destination=Destination(),
    )
    finish(state, "run-1", list(records), **{"interrupted": False} | options)
    return out.getvalue().splitlines()


@pytest.mark.contract
def test_the_end_of_a_sweep_writes_its_report_and_says_where(tmp_path) -> None:
    lines = ended(tmp_path / "night", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert f" Report: {tmp_path}/night/report.html" in lines
    assert {"report.html", "report.md", "figures"} <= {each.name for each in (tmp_path / "night").iterdir()}


def test_ctrl_c_during_the_report_loses_only_the_report(tmp_path, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.report.page.write.build", interrupt)
    kept = Kept()
    lines = ended(tmp_path / "night", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}), publisher=kept)
    assert f"the report is not written: interrupted; later: python -m bench.report {tmp_path}/night" in lines
    assert f"Records: {tmp_path}/night" in lines
    # Slow parts are omitted after an interruption, with a message.
    assert "conclude" not in dict(kept.given)
    later = f"python -m bench.tracking.sync {tmp_path}/night"
    assert f"the sweep's own run in MLflow is not complete; later: {later}" in lines
    assert "Lowest median, no verdict: sdpa." in lines[-2] + lines[-3] + lines[-4]


def test_an_error_in_the_comparison_prints_one_line(tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OverflowError("math range error")

    monkeypatch.setattr("bench.report.comparison.build_report_of_records", fail)
    lines = ended(tmp_path / "night", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}))
    assert "not compared: OverflowError: math range error" in lines
    assert f" Report: {tmp_path}/night/report.html" in lines


def test_an_answer_reaches_mlflow_though_the_disk_is_full(tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.report.page.write.write_whole", fail)
    kept = Kept()
    ended(tmp_path / "night", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}), publisher=kept)
    given = dict(kept.given)["conclude"]
    assert given["answer"].startswith("**Lowest median, no verdict: sdpa**\n")
    assert given["tables"]["trials.json"]["name"] == ["eager", "sdpa"]


def test_an_interrupted_sweep_has_its_report_too(tmp_path) -> None:
    ended(tmp_path / "night", jobs({"eager": EAGER[:1]}), interrupted=True)
    assert (tmp_path / "night" / "report.html").exists()


def test_a_sweep_without_a_record_has_no_report(tmp_path) -> None:
    lines = ended(tmp_path / "night", [])
    assert lines == ["", "Nothing was measured: no job left a record.", f"Records: {tmp_path}/night"]
    assert list((tmp_path / "night").iterdir()) == []


@pytest.mark.contract
def test_the_report_is_published_with_table_and_answer(tmp_path) -> None:
    kept = Kept()
    ended(tmp_path / "night", jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]}), publisher=kept)
    given = dict(kept.given)["conclude"]
    names = {str(each.relative_to(given["base"])) for each in given["files"]}
    assert {"comparison.json", "report.html", "report.md", "figures/warmup_curves.svg"} <= names
    assert given["tables"]["trials.json"]["name"] == ["eager", "sdpa"]
    assert given["answer"].startswith("**Lowest median, no verdict: sdpa**\n")


@pytest.mark.contract
def test_a_search_has_the_report_beside_its_conclusion(tmp_path) -> None:
    best = Section(title="Best of 2 trials", columns={"setting": ["sdpa"]})
    records = jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})
    lines = ended(tmp_path / "night", records, conclude=lambda _: Concluded(sections=[best], answer="The best: sdpa."))
    assert lines[-4:] == ["", "The best: sdpa.", f" Report: {tmp_path}/night/report.html", f"Records: {tmp_path}/night"]
    assert "**Best of 2 trials**" in (tmp_path / "night/report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "night" / "comparison.json").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ZeroDivisionError("of a page")])
def test_an_unwritable_report_prints_one_line(tmp_path, monkeypatch, error) -> None:
    def fail(*_: object) -> None:
        raise error

    records = jobs({"eager": EAGER[:1], "sdpa": SDPA[:1]})
    whole = ended(tmp_path / "whole", records)
    monkeypatch.setattr("bench.report.page.write.write_whole", fail)
    lines = ended(tmp_path / "night", records)
    (said,) = [line for line in lines if line.startswith("the report is not written: ")]
    reason = f"{type(error).__name__}: {error}"
    assert said == f"the report is not written: {reason}; later: python -m bench.report {tmp_path}/night"
    assert len(lines) == len(whole)


def test_a_sweep_of_failures_has_a_report_that_says_why(tmp_path) -> None:
    record = job(
        "flex", 1.0, status="failed", stage="load", error=Failure(type="RuntimeError", message="no such layer")
    )
    record.iterations = []
    ended(tmp_path / "night", [record])
    assert "no such layer" in (tmp_path / "night" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_real_sweep_ends_with_its_report_on_disk_and_in_mlflow(tmp_path) -> None:
    done = run_bench(
        "-m", "attention=eager,sdpa", "warmup.iterations=1", "measurement.iterations=6", "fidelity.reference=none",
        "sweep.name=night", "workload.num_tokens_to_generate=4", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n Report: {tmp_path}/multirun/night/report.html\n" in done.stdout
    page = (tmp_path / "multirun/night/report.md").read_text(encoding="utf-8")
    assert "python -m bench -m attention=eager,sdpa warmup.iterations=1" in page
    assert "python -m bench.compare multirun/night" in page
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("bench").experiment_id], "tags.kind = 'sweep'")
    assert {"report.html", "report.md", "figures", "trials.json"} <= {
        each.path for each in client.list_artifacts(run.info.run_id)
    }
