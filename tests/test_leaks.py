"""Test that a secret in a config key appears in no output: no file, no MLflow run and no terminal."""

from __future__ import annotations

import sqlite3
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bench.cli.composition.redacted_yaml import hide_secrets, to_yaml
from bench.results.record import Record
from bench.results.sweep_file import SweepFile
from conftest import run_bench

# What stands for a secret in the outputs: a part of it that every way of writing it down has.
PLANTED = ("PLANTEDtoken", "PLANTEDkey", "PLANTEDhost", "PLANTEDquery", "PLANTEDurl")
VARIABLES = {
    "HF_TOKEN": "hf_PLANTEDtoken0123",
    "SOME_API_KEY": "it's \"a\\PLANTEDkey: of #1 and one that is long enough to be folded by whoever writes lines",
    "STUDY": "postgresql://me:PLANTEDhost@db.example/s",
    "ELSEWHERE": "postgresql://db.example/s?user=me&password=PLANTEDquery",
    "TRACKING": "http://me:PLANTEDurl@127.0.0.1:9",  # no server answers there
}
TOKEN = VARIABLES["HF_TOKEN"]
QUICK = (
    "model=tiny", "workload.num_tokens_to_generate=2", "workload.sequence_length=8", "warmup.iterations=0",
    "measurement.iterations=1", "monitor.enabled=false", "isolation.share_device=true",
)  # fmt: skip
# Each key whose value is a free text or a mapping: typed, by the shell, and by reference.
HOLDING = (
    f"tracking.tags.typed={TOKEN}",
    "tracking.tags.of_the_environment=${oc.env:SOME_API_KEY}",
    "tracking.tags.address=${oc.env:STUDY}",
    "tracking.tags.further={deep: ${oc.env:HF_TOKEN}}",
    "search.storage=${oc.env:ELSEWHERE}",
    "+model.architecture.referred=${oc.env:SOME_API_KEY}",
    f"+model.architecture.typed={TOKEN}",
)


def holders(folder: Path) -> dict[str, list[str]]:
    """List the files below a folder that hold a secret, a database's tables among them."""
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        # A database keeps deleted rows in its file, too: all of it counts.
        text = path.read_bytes().decode("utf-8", "replace")
        if held := [each for each in PLANTED if each in text]:
            found[str(path.relative_to(folder))] = held
    return found


def outputs_of(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose experiment carries a secret as an option of a compiler, which is not used here."""
    experiment = folder.with_name(f"{folder.name} conf") / "experiment/options.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(f"# @package _global_\ncompile: {{options: {{typed: {TOKEN}}}}}\n", encoding="utf-8")
    own = ("--config-dir", str(experiment.parents[1]))
    return run_bench(*own, *arguments, *QUICK, "experiment=options", folder=folder, **VARIABLES)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run a sweep with repeats, which includes a comparison."""
    folder = tmp_path_factory.mktemp("a sweep")
    return folder, outputs_of(folder, "-m", "attention=eager,sdpa", "sweep.repeats=2", "sweep.name=s", *HOLDING)


def test_no_output_of_a_sweep_holds_a_secret(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, ended = sweep
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [each for each in PLANTED if each in ended.stdout + ended.stderr] == []
    assert holders(folder) == {}
    # What repeats the config was looked at.
    written = {path.name for path in folder.rglob("*") if path.is_file()}
    assert written > {
        "record.json", "sweep.json", "multirun.yaml", "config.yaml", "overrides.yaml", "hydra.yaml", "report.html",
        "report.md", "comparison.json", "tracking.json", "mlflow.db", "worker.log",
    }  # fmt: skip


def test_everything_except_the_secret_is_kept(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = sweep
    job = folder / "multirun/s" / SweepFile.read(folder / "multirun/s").jobs[0].folder
    tags = Record.read(job).requested["tracking"]["tags"]
    assert tags["address"] == "postgresql://me:***@db.example/s"
    assert tags["typed"] == "***"
    config = OmegaConf.load(job / ".hydra/config.yaml")
    assert config.tracking.tags.typed == config.compile.options.typed == "***"
    assert OmegaConf.to_container(config)["search"]["storage"] == "${oc.env:ELSEWHERE}"
    assert "tracking.tags.typed=***" in OmegaConf.load(job / ".hydra/overrides.yaml")
    with sqlite3.connect(folder / "mlflow.db") as database:
        found = dict(database.execute("select key, value from tags where key in ('typed', 'address')").fetchall())
        stored = database.execute("select distinct value from params where key = 'search.storage'").fetchall()
    assert found == {"typed": "***", "address": "postgresql://me:***@db.example/s"}
    assert stored == [("postgresql://db.example/s",)]


@pytest.mark.parametrize(
    "elsewhere",
    [("isolation.mode=none",), ("isolation.mode=forkserver", "tracking.uri=${oc.env:TRACKING}")],
    ids=["published", "no-server"],
)
def test_no_output_of_a_failed_run_holds_a_secret(tmp_path: Path, elsewhere: tuple[str, ...]) -> None:
    ended = outputs_of(tmp_path, *HOLDING, f"attention.implementation={TOKEN}", "hydra.run.dir=o", *elsewhere)
    assert Record.read(tmp_path / "o").status in ("failed", "skipped")
    assert (tmp_path / "mlflow.db").is_file() is ("isolation.mode=none" in elsewhere)
    assert [each for each in PLANTED if each in ended.stdout + ended.stderr] == []
    assert holders(tmp_path) == {}


@pytest.mark.parametrize("key", ["sweep.name", "sweep.label", "tracking.experiment"])
def test_a_secret_may_not_name_a_folder_or_run(tmp_path: Path, key: str) -> None:
    ended = outputs_of(tmp_path, "-m", "attention=eager,sdpa", f"{key}={TOKEN}")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"bench: {key}=***: is a secret of the environment")
    assert TOKEN not in ended.stderr
    assert list(tmp_path.rglob("*")) == []


# ---- YAML --------------------------------------------------------------------------------------------------------


def texts() -> Iterator[str]:
    for value in VARIABLES.values():
        yield from (value, f"tracking.tags.a='{value}'", f"a {value}, b", urllib.parse.quote(value))


@pytest.mark.parametrize("text", list(texts()))
def test_yaml_without_its_secret_is_still_valid_yaml(tmp_path: Path, monkeypatch, text: str) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    config = OmegaConf.create({"a": [{"b": 1e-05, "c": None}, "1e5"], "reference": "${a}", "mode": "???", "n": True})
    held = OmegaConf.merge(config, {"held": {"deep": [text]}})
    (tmp_path / "multirun.yaml").write_text(to_yaml(held))
    OmegaConf.save(held, tmp_path / "config.yaml")
    OmegaConf.save(OmegaConf.create([text, "a=b"]), tmp_path / "overrides.yaml")
    hide_secrets(tmp_path, held, [])
    for name in ("multirun.yaml", "config.yaml"):
        assert "PLANTED" not in (tmp_path / name).read_text()
        read = OmegaConf.load(tmp_path / name)
        assert "***" in read.held.deep[0]
        del read.held
        assert OmegaConf.to_container(read) == OmegaConf.to_container(config)
    assert "***" in OmegaConf.load(tmp_path / "overrides.yaml")[0]


def test_yaml_without_a_secret_is_unchanged(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    config = OmegaConf.create({"a": "b", "storage": "${oc.env:HF_TOKEN}"})
    (tmp_path / "config.yaml").write_text("a:   b # as typed\n")
    hide_secrets(tmp_path, config, ["a=b"])
    assert (tmp_path / "config.yaml").read_text() == "a:   b # as typed\n"


def test_a_file_that_hydra_did_not_write_is_unchanged(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "notes.yaml").write_text(f"mine: {TOKEN}\n")
    hide_secrets(tmp_path, OmegaConf.create({"a": TOKEN}), [])
    assert (tmp_path / "notes.yaml").read_text() == f"mine: {TOKEN}\n"
    assert [each.name for each in tmp_path.iterdir()] == ["notes.yaml"]
